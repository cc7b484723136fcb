//! Documents that lie beside the topic, on a real Apache Kafka: articles of any size pass; what is not what was
//! claimed becomes a dead letter, and its neighbours go on; a store that is away is waited for.

#![allow(clippy::unwrap_used)] // helpers of a test

#[path = "support/moto.rs"]
mod moto;
mod support;

use litflow::article::{ArticleEvent, Claim, Passage, RawDocument, Section};
use litflow::bus::reader::Value;
use litflow::bus::topics;
use litflow::claims::{Claims, Deposit, Options};
use litflow::worker::{self, Stop, Summary};
use moto::Moto;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use support::{Cluster, article, wait_until};
use tokio::sync::watch;

const TEXT: &str = "We studied p53 at length.";

fn digest(document: &[u8]) -> String {
    hex::encode(Sha256::digest(document))
}

/// An event whose text lies elsewhere.
fn claimed(number: usize, uri: String, document: &[u8]) -> ArticleEvent {
    let claim = Claim { uri, sha256: digest(document), size: None };
    let raw = RawDocument { claim: Some(claim), ..RawDocument::new("text/plain", []) };
    ArticleEvent { title: None, passages: Vec::new(), raw: Some(raw), ..article(number) }
}

/// A worker that goes on until it is told to stop.
fn work(cluster: &Cluster, options: &Options) -> (watch::Sender<Stop>, JoinHandle<Result<Summary, worker::Error>>) {
    let worker = cluster.worker("a", &worker::Options::default()).with_claims(Claims::new(options).unwrap());
    let (stop, stopped) = watch::channel(Stop::Never);
    (stop, std::thread::spawn(move || worker.run(stopped)))
}

fn end((stop, worker): (watch::Sender<Stop>, JoinHandle<Result<Summary, worker::Error>>)) -> Summary {
    stop.send(Stop::AtEnd).unwrap();
    worker.join().unwrap().unwrap()
}

/// The texts of the mentions of each annotated article.
fn annotated(cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
    let entries = cluster.read(topics::ANNOTATIONS).into_iter();
    let annotations = entries.map(|entry| match entry.value {
        Value::Annotations(annotations) => annotations,
        _ => panic!("{entry:?}"),
    });
    annotations
        .map(|found| (found.article_id, found.mentions.into_iter().map(|mention| mention.text).collect()))
        .collect()
}

#[test]
fn documents_in_a_folder() {
    let Some(cluster) = Cluster::start() else { return };
    what_is_claimed_is_brought_or_refused_with_its_reason(&cluster);
    ingest_leaves_what_is_too_large_in_the_store_and_nothing_twice(&cluster);
}

fn what_is_claimed_is_brought_or_refused_with_its_reason(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let store = root.join("allowed");
    std::fs::create_dir(&store).unwrap();
    for file in ["allowed/good", "allowed/tampered", "secret"] {
        std::fs::write(root.join(file), TEXT).unwrap();
    }
    let uri = |path: &str| format!("file://{}/{path}", root.display());
    let options = Options { allow: vec![uri("allowed")], ..Options::default() };

    // 50 MB in one article, as `litflow ingest --claim-check` leaves it.
    let passage = Passage::new(Section::Body, format!("{} {TEXT}", "filler ".repeat(50_000_000 / 7)));
    let huge = ArticleEvent { passages: vec![passage], ..article(1) };
    let deposit = Deposit::open(store.to_str().unwrap(), &options).unwrap();
    let huge = cluster.runtime.block_on(deposit.store(huge)).unwrap();
    assert!(huge.raw.as_ref().unwrap().claim.as_ref().unwrap().size.unwrap() > 50_000_000);

    cluster.publish([
        article(0),
        huge,
        claimed(2, uri("allowed/good"), TEXT.as_bytes()),
        claimed(100, uri("allowed/tampered"), b"We studied p53."),
        claimed(101, uri("allowed/missing"), TEXT.as_bytes()),
        claimed(102, uri("secret"), TEXT.as_bytes()),
        claimed(103, uri("allowed/../secret"), TEXT.as_bytes()),
        claimed(104, uri("allowed/..%2Fsecret"), TEXT.as_bytes()),
        claimed(105, "s3://bucket/document".into(), TEXT.as_bytes()),
        article(3),
    ]);
    let summary = end(work(cluster, &options));
    assert_eq!((summary.tagged, summary.dead_letters), (4, 6));
    let letters = cluster.read(topics::DEAD_LETTERS);
    let mut reasons: Vec<(&str, &str, &str)> = letters
        .iter()
        .map(|letter| (letter.key.as_deref().unwrap(), &*letter.headers["dlq.stage"], &*letter.headers["dlq.reason"]))
        .collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            ("pmid:100", "fetch", "claim_mismatch"),
            ("pmid:101", "fetch", "claim_not_found"),
            ("pmid:102", "fetch", "claim_refused"),
            ("pmid:103", "fetch", "claim_refused"),
            ("pmid:104", "fetch", "claim_refused"),
            ("pmid:105", "fetch", "claim_refused"),
        ]
    );
    let found = annotated(cluster);
    assert_eq!(found.len(), 4);
    assert_eq!(found["pmid:1"], ["BRCA1", "breast cancer", "p53"]);
    assert_eq!(found["pmid:2"], ["p53"]);

    // A worker that allows nothing.
    cluster.publish([claimed(106, uri("allowed/good"), TEXT.as_bytes())]);
    assert_eq!(cluster.work("b").dead_letters, 1);

    // A share that is not mounted: its article waits, those of other partitions do not, and nothing is refused.
    std::fs::rename(&store, root.join("away")).unwrap();
    cluster.publish((200..240).map(article));
    cluster.publish([claimed(300, uri("allowed/good"), TEXT.as_bytes())]);
    cluster.publish((240..280).map(article));
    let worker = work(cluster, &options);
    wait_until("the others are done", || annotated(cluster).len() > 4 + 40);
    assert!(!annotated(cluster).contains_key("pmid:300"));
    std::fs::rename(root.join("away"), &store).unwrap();
    let summary = end(worker);
    assert_eq!((summary.tagged, summary.dead_letters), (81, 0));
    assert_eq!(annotated(cluster)["pmid:300"], ["p53"]);
}

fn ingest_leaves_what_is_too_large_in_the_store_and_nothing_twice(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let file = folder.path().join("articles.jsonl");
    let mut lines = std::fs::File::create(&file).unwrap();
    writeln!(lines, r#"{{"id": 1, "text": "{TEXT}"}}"#).unwrap();
    writeln!(lines, r#"{{"id": 2, "title": "BRCA1", "text": "{} {TEXT}", "journal": "J"}}"#, "filler ".repeat(30_000))
        .unwrap();
    drop(lines);

    let ingest = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_litflow"));
        command.arg("ingest").arg(&file).args(["--json", "--bootstrap-servers", cluster.broker.bootstrap_servers()]);
        let output = command.args(arguments).output().unwrap();
        let counts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), counts["articles"].clone(), counts["claimed"].clone())
    };
    let above = |bytes| ["--claim-check", store.to_str().unwrap(), "--claim-above", bytes];
    assert_eq!(ingest(&above("100000")), (0, 2.into(), 1.into()));
    assert_eq!(ingest(&above("100000")), (0, 2.into(), 1.into()));
    assert_eq!(ingest(&above("10")), (0, 2.into(), 2.into()));
    assert_eq!(files(&store).len(), 2);

    let options = Options { allow: vec![format!("file://{}", store.display())], ..Options::default() };
    let summary = end(work(cluster, &options));
    assert_eq!((summary.tagged, summary.dead_letters), (6, 0));
    let found = annotated(cluster);
    assert_eq!(
        (&found["jsonl:1"][..], &found["jsonl:2"][..]),
        (&["p53".to_owned()][..], &["BRCA1".to_owned(), "p53".to_owned()][..])
    );
}

fn files(folder: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// What stands before a server, and answers everything by 503 until it is opened.
struct Gate {
    port: u16,
    refused: Arc<AtomicUsize>,
    is_open: Arc<AtomicBool>,
}

impl Gate {
    /// It goes with the test's process.
    fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (refused, is_open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, opened) = (refused.clone(), is_open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if opened.load(Ordering::SeqCst) {
                    pass_on(client, TcpStream::connect(("127.0.0.1", server)).unwrap());
                } else {
                    refuse(client);
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { port, refused, is_open }
    }
}

fn refuse(client: TcpStream) {
    let mut client = BufReader::new(client);
    let mut line = String::new();
    while client.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = client.get_mut().write_all(answer.as_bytes()); // the other side may have given up
}

fn pass_on(client: TcpStream, server: TcpStream) {
    for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to); // until one of them has enough
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

#[test]
fn an_object_store_that_fails_is_waited_for() {
    let Some(moto) = Moto::start() else { return };
    let Some(cluster) = Cluster::start() else { return };
    for path in ["/models/articles/good", "/models/articles/tampered", "/models/other/good"] {
        let answer = moto.request("PUT", path, TEXT.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let mut settings = moto.options().options;
    let gate = Gate::before(settings["aws_endpoint"].rsplit(':').next().unwrap().parse().unwrap());
    settings.insert("aws_endpoint".into(), format!("http://127.0.0.1:{}", gate.port));
    let options = Options { allow: vec!["s3://models/articles/".into()], options: settings, ..Options::default() };
    let uri = |path: &str| format!("s3://models/articles/{path}");
    cluster.publish([
        claimed(1, uri("good"), TEXT.as_bytes()),
        claimed(2, uri("tampered"), b"We studied p53."),
        claimed(3, uri("missing"), TEXT.as_bytes()),
        claimed(4, "s3://models/other/good".into(), TEXT.as_bytes()),
    ]);
    let worker = work(&cluster, &options);
    wait_until("the store was asked in vain", || gate.refused.load(Ordering::SeqCst) >= 6);
    assert_eq!(annotated(&cluster).len(), 0);
    gate.is_open.store(true, Ordering::SeqCst);
    let summary = end(worker);
    assert_eq!((summary.tagged, summary.dead_letters), (1, 3));
    let reasons: BTreeMap<String, String> = cluster
        .read(topics::DEAD_LETTERS)
        .into_iter()
        .map(|mut letter| (letter.key.unwrap(), letter.headers.remove("dlq.reason").unwrap()))
        .collect();
    let expected = [("pmid:2", "claim_mismatch"), ("pmid:3", "claim_not_found"), ("pmid:4", "claim_refused")];
    assert_eq!(reasons, expected.map(|(key, reason)| (key.to_owned(), reason.to_owned())).into());
}
