//! The registry on an S3-compatible server; skips, with a note, where there is none.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

#[path = "support/moto.rs"]
mod moto;
#[path = "support/versions.rs"]
mod versions;

use litflow::model::Directory;
use litflow::registry::{Error, Options, Store};
use moto::Moto;
use std::collections::BTreeMap;
use std::net::TcpListener;
use versions::model;

#[test]
fn versions_travel_through_s3() {
    let Some(moto) = Moto::start() else { return };
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(&moto.options()).unwrap();
    assert_eq!(store.list(None).unwrap(), []);

    // A file of several parts among them.
    let first = model(folder.path(), "1.0.0", "One.");
    let large: Vec<u8> = (0..20_000_000u32).map(|at| (at / 7) as u8).collect();
    std::fs::write(first.join("large.bin"), &large).unwrap();
    litflow::model::directory::Manifest::default().write(&first).unwrap();
    let published = store.publish(&first).unwrap();
    assert!(published.new);
    assert_eq!(published.version.location, "s3://models/litflow/tiny/1.0.0");
    assert!(!store.publish(&first).unwrap().new);
    let other = store.publish(&model(folder.path(), "1.0.0", "Two."));
    assert!(matches!(other, Err(Error::Taken { .. })), "{other:?}");

    let digest = &published.version.digest;
    let fetched = store.fetch("tiny", "1.0.0", digest, cache.path()).unwrap();
    assert_eq!(Directory::read(&fetched).unwrap().digest(), digest);
    assert_eq!(std::fs::read(fetched.join("large.bin")).unwrap(), large);

    let listed = store.list(None).unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].whole && listed[0].bytes > 20_000_000, "{listed:?}");

    // Somebody changes a file past the registry.
    let damaged = moto.request("PUT", "/models/litflow/tiny/1.0.0/README.md", b"Two.");
    assert!(damaged.starts_with("HTTP/1.1 200"), "{damaged}");
    let elsewhere = tempfile::tempdir().unwrap();
    let error = store.fetch("tiny", "1.0.0", digest, elsewhere.path()).unwrap_err().to_string();
    assert!(error.contains("s3://models/litflow/tiny/1.0.0/README.md") && error.contains("SHA-256"), "{error}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);

    store.remove("tiny", "1.0.0").unwrap();
    assert_eq!(store.list(None).unwrap(), []);
    assert!(matches!(store.describe("tiny", "1.0.0"), Err(Error::NotFound { .. })));
}

#[test]
fn one_of_two_publishers_wins_on_s3() {
    let Some(moto) = Moto::start() else { return };
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let publish = |number: usize| {
            let model = model(folders[number].path(), "1.0.0", &format!("Card {number}."));
            Store::open(&moto.options()).unwrap().publish(&model)
        };
        let threads: Vec<_> = (0..folders.len()).map(|number| scope.spawn(move || publish(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    let losers = results.iter().filter_map(|result| result.as_ref().err());
    assert!(
        losers.into_iter().all(|error| matches!(error, Error::Taken { .. } | Error::Claimed { .. })),
        "{results:?}"
    );
    let cache = tempfile::tempdir().unwrap();
    let digest = &winners[0].version.digest;
    Store::open(&moto.options()).unwrap().fetch("tiny", "1.0.0", digest, cache.path()).unwrap();
}

#[test]
fn a_store_that_is_not_there_is_retriable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let moto_options = BTreeMap::from([
        ("aws_endpoint".to_owned(), format!("http://127.0.0.1:{port}")),
        ("aws_allow_http".to_owned(), "true".to_owned()),
        ("aws_access_key_id".to_owned(), "test".to_owned()),
        ("aws_secret_access_key".to_owned(), "hunter2".to_owned()),
    ]);
    let options = Options { store: "s3://models".into(), options: moto_options, ..Options::default() };
    let error = Store::open(&options).unwrap().list(None).unwrap_err();
    assert_eq!(error.class(), litflow::ErrorClass::Retriable, "{error}");
    assert!(error.to_string().contains("s3://models") && !error.to_string().contains("hunter2"), "{error}");
}
