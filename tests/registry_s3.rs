//! The registry on an S3-compatible server: moto, from PyPI (`pip install 'moto[server,s3]'`). Found as
//! `moto_server` in the path or by the variable MOTO_SERVER; skips, with a note, where there is none.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

#[path = "support/versions.rs"]
mod versions;

use litflow::model::Directory;
use litflow::registry::{Error, Options, Store};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use versions::model;

struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    fn start() -> Option<Self> {
        let program = std::env::var("MOTO_SERVER").unwrap_or_else(|_| "moto_server".into());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let process = match command.spawn() {
            Ok(process) => process,
            Err(reason) => {
                eprintln!("skipped: {program}: {reason}; pip install 'moto[server,s3]' and set MOTO_SERVER");
                return None;
            }
        };
        let moto = Self { process, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "moto does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let answer = moto.request("PUT", "/models", b"");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Some(moto)
    }

    /// A request past the store, as somebody else would make it; the answer.
    fn request(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn options(&self) -> Options {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let options = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_allow_http", "true"),
            ("aws_access_key_id", "test"),
            ("aws_secret_access_key", "test"),
            ("aws_region", "us-east-1"),
        ];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Options { store: "s3://models/litflow".into(), options: BTreeMap::from(options), ..Options::default() }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

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
