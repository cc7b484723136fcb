//! What is followed and what is not, on folders. `tests/claims.rs` has a cluster and stores that go away.

use super::*;
use crate::article::{self, ArticleEvent, Claim, Passage, Section, parse_raw};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const DOCUMENT: &[u8] = b"BRCA1 in cancer.";

/// A folder `allowed` with a document, and something that is nobody's business beside it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("allowed/deep er")).unwrap();
    std::fs::create_dir(folder.path().join("allowed-not")).unwrap();
    for file in ["allowed/document", "allowed/deep er/document", "allowed-not/document", "secret"] {
        std::fs::write(folder.path().join(file), DOCUMENT).unwrap();
    }
    folder
}

fn uri(folder: &TempDir, path: &str) -> String {
    format!("file://{}/{path}", folder.path().canonicalize().unwrap().display())
}

fn options(folder: &TempDir) -> Options {
    Options { allow: vec![uri(folder, "allowed")], ..Options::default() }
}

fn claim(uri: String, document: &[u8]) -> Claim {
    Claim { uri, sha256: hex::encode(Sha256::digest(document)), size: None }
}

async fn fetch(options: &Options, claim: &Claim) -> Result<Vec<u8>, Error> {
    Claims::new(options).unwrap().fetch(claim).await.map(|fetched| fetched.bytes)
}

#[tokio::test]
async fn a_document_below_an_allowed_folder_is_brought() {
    let folder = folder();
    for path in ["allowed/document", "allowed/deep%20er/document", "allowed/deep er/document", "allowed/x/../document"]
    {
        let mut claim = claim(uri(&folder, path), DOCUMENT);
        assert_eq!(fetch(&options(&folder), &claim).await.unwrap(), DOCUMENT, "{path}");
        claim.size = Some(DOCUMENT.len() as i64);
        claim.sha256 = claim.sha256.to_uppercase();
        assert_eq!(fetch(&options(&folder), &claim).await.unwrap(), DOCUMENT, "{path}");
    }
}

#[tokio::test]
async fn nothing_else_is_followed() {
    let folder = folder();
    let root = folder.path().canonicalize().unwrap();
    #[cfg(unix)]
    for (link, target) in [("out", root.join("secret")), ("up", PathBuf::from(".."))] {
        std::os::unix::fs::symlink(target, root.join("allowed").join(link)).unwrap();
    }
    let shown = root.display();
    for (uri, reason) in [
        (format!("file://{shown}/secret"), "claims.allow names only"),
        (format!("file://{shown}/allowed/../secret"), "claims.allow names only"),
        (format!("file://{shown}/allowed/%2e%2E/secret"), "claims.allow names only"),
        (format!("file://{shown}/allowed/..%2Fsecret"), ""),
        (format!("file://{shown}/allowed/..%2f..%2f..%2fetc/passwd"), ""),
        (format!("file://{shown}/allowed/deep//document"), ""),
        (format!("file://{shown}/allowed-not/document"), "claims.allow names only"),
        (format!("file://{shown}/allowed/"), "it names a folder"),
        (format!("file://{shown}/allowed/deep%20er"), "it is no file"),
        (format!("file://{shown}/allowed/out"), "a link leads out of the folder"),
        (format!("file://{shown}/allowed/up/secret"), "a link leads out of the folder"),
        (format!("file://elsewhere{shown}/allowed/document"), "claims.allow names only"),
        (format!("{shown}/allowed/document"), "no URI"),
        ("file:///etc/passwd".to_owned(), "claims.allow names only"),
        ("http://169.254.169.254/latest/meta-data".to_owned(), "whose scheme is none of"),
        ("s3://bucket/document".to_owned(), "claims.allow names only"),
        ("s3://key:secret@bucket/document".to_owned(), "more than scheme, bucket and path"),
        ("s3://bucket/document?versionId=1".to_owned(), "more than scheme, bucket and path"),
        (String::new(), "no URI"),
    ] {
        let error = fetch(&options(&folder), &claim(uri.clone(), DOCUMENT)).await.unwrap_err();
        assert_eq!((error.reason(), error.class()), ("claim_refused", ErrorClass::Poison), "{uri}: {error}");
        assert!(error.to_string().contains(reason), "{uri}: {error}");
    }
    let error = fetch(&Options::default(), &claim(uri(&folder, "allowed/document"), DOCUMENT)).await.unwrap_err();
    assert!(error.to_string().contains("claims.allow names no place"), "{error}");
}

#[tokio::test]
async fn only_what_was_claimed_is_taken() {
    let folder = folder();
    let document = || claim(uri(&folder, "allowed/document"), DOCUMENT);
    let small = Options { max_bytes: DOCUMENT.len() - 1, ..options(&folder) };
    let whole = options(&folder);
    for (options, claim, reason) in [
        (&whole, Claim { sha256: hex::encode(Sha256::digest(b"another")), ..document() }, "claim_mismatch"),
        (&whole, Claim { size: Some(15), ..document() }, "claim_mismatch"),
        (&whole, Claim { size: Some(1 << 40), ..document() }, "claim_too_large"),
        (&small, document(), "claim_too_large"),
        (&whole, claim(uri(&folder, "allowed/gone"), DOCUMENT), "claim_not_found"),
        (&whole, claim(uri(&folder, "allowed/document/below"), DOCUMENT), "claim_not_found"),
        (&whole, Claim { sha256: "12".into(), ..document() }, "claim_refused"),
        (&whole, Claim { size: Some(-1), ..document() }, "claim_refused"),
    ] {
        let error = fetch(options, &claim).await.unwrap_err();
        assert_eq!((error.reason(), error.class()), (reason, ErrorClass::Poison), "{error}");
    }
}

#[tokio::test]
async fn a_folder_that_is_not_mounted_is_waited_for() {
    let folder = folder();
    let (options, claim) = (options(&folder), claim(uri(&folder, "allowed/document"), DOCUMENT));
    let (there, away) = (folder.path().join("allowed"), folder.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    let fetching = fetch(&options, &claim);
    tokio::pin!(fetching);
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut fetching).await;
    assert!(early.is_err(), "{early:?}");
    std::fs::rename(&away, &there).unwrap();
    assert_eq!(fetching.await.unwrap(), DOCUMENT);
}

#[tokio::test]
async fn no_more_is_fetched_than_there_is_room_for() {
    let folder = folder();
    // Room for one document; the claims do not say how large theirs are.
    let options = Options { in_flight_bytes: 4 << 10, max_bytes: 4 << 10, ..options(&folder) };
    let (claims, claim) = (Claims::new(&options).unwrap(), claim(uri(&folder, "allowed/document"), DOCUMENT));
    let first = claims.fetch(&claim).await.unwrap();
    let second = claims.fetch(&claim);
    tokio::pin!(second);
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    assert_eq!(second.await.unwrap().bytes, DOCUMENT);

    // What is larger than the room passes alone.
    let options = Options { in_flight_bytes: 1, ..options };
    assert_eq!(fetch(&options, &claim).await.unwrap(), DOCUMENT);
}

#[test]
fn prefixes_that_would_allow_too_much_or_nothing_are_refused() {
    for (uri, reason) in [
        ("file:///", "every file of this machine"),
        ("file:///a/../", "every file of this machine"),
        ("file://host/folder/", "no folder of this machine"),
        ("/srv/articles", "no URI"),
        ("https://example.org/articles/", "whose scheme is none of file, s3, gs, az"),
        ("s3:///articles/", "names no bucket"),
        ("s3://key:hunter2@bucket/", "more than scheme, bucket and path"),
    ] {
        let error = Options { allow: vec![uri.into()], ..Options::default() }.check().unwrap_err();
        assert!(error.starts_with("claims.allow has") && error.contains(reason), "{uri}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn what_is_deposited_comes_back_as_the_same_article() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("new");
    let deposit = Deposit::open(store.to_str().unwrap(), &Options::default()).unwrap();
    let heading =
        Passage { heading: Some("2.1 \"documents\" <b>".into()), ..Passage::new(Section::Methods, " β\u{0}\n") };
    let event = ArticleEvent {
        version: 3,
        title: Some(String::new()),
        passages: vec![heading, Passage::new(Section::CaseReport, "It says \"infons\".")],
        journal: Some("J".into()),
        ..ArticleEvent::new("feed:1", "feed")
    };
    let claimed = deposit.store(event.clone()).await.unwrap();
    assert_eq!((&claimed.title, claimed.passages.len(), &claimed.journal), (&None, 0, &event.journal));
    let raw = claimed.raw.clone().unwrap();
    let claim = raw.claim.clone().unwrap();
    let file = url::Url::parse(&claim.uri).unwrap().to_file_path().unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), claim.size.unwrap() as u64);
    assert!(parse_raw(claimed.clone(), &article::Options::default()).unwrap_err().to_string().contains("not fetched"));

    // Again: nothing is written over what another event may claim.
    let written = |file: &Path| std::fs::metadata(file).unwrap().modified().unwrap();
    let before = written(&file);
    assert_eq!(deposit.store(event.clone()).await.unwrap(), claimed);
    assert_eq!(written(&file), before);

    let options = Options { allow: vec![format!("file://{}", store.display())], ..Options::default() };
    let raw = article::RawDocument { bytes: fetch(&options, &claim).await.unwrap(), claim: None, ..raw };
    let parsed = parse_raw(ArticleEvent { raw: Some(raw), ..claimed }, &article::Options::default()).unwrap();
    assert_eq!(parsed, event);
}
