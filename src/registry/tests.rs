//! The store and the cache on local folders.

use super::*;
use crate::ErrorClass;
use crate::model::directory::{Directory, MANIFEST, Manifest, digest_of};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A store, a cache and a model directory to publish from.
struct Place {
    folder: TempDir,
    options: Options,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store").display().to_string();
        Self { options: Options { store, ..Options::default() }, folder }
    }

    fn store(&self) -> Store {
        Store::create(&self.options).unwrap()
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// A model directory: the tiny fixture under this version, with `card` as its README.
    fn model(&self, version: &str, card: &str) -> PathBuf {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert/ner");
        for entry in fs::read_dir(fixture).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        let config = folder.join("config.json");
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        json["litflow"] = serde_json::json!({"name": "tiny", "version": version, "head": "softmax", "max_length": 32});
        fs::write(&config, json.to_string()).unwrap();
        fs::write(folder.join("README.md"), card).unwrap();
        fs::write(folder.join("metrics.json"), r#"{"dev": {"f1": 0.5, "support": 3}}"#).unwrap();
        Manifest { code: Some("test 1".into()), ..Manifest::default() }.write(&folder).unwrap();
        folder
    }

    /// Where a published file lies.
    fn stored(&self, version: &str, file: &str) -> PathBuf {
        self.folder.path().join("store/tiny").join(version).join(file)
    }
}

fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// The error of class poison that says `reason` and names `place`.
fn refused<T>(result: Result<T, Error>, place: &str, reason: &str) {
    let error = result.err().unwrap_or_else(|| panic!("accepted, should have said: {place}: {reason}"));
    let message = error.to_string();
    assert!(message.contains(place) && message.contains(reason), "should have said {place}: {reason}; said {message}");
    assert_eq!(error.class(), ErrorClass::Poison, "{message}");
}

#[test]
fn what_is_published_is_fetched_whole() {
    let place = Place::new();
    let (store, model) = (place.store(), place.model("1.0.0", "A model."));
    let published = store.publish(&model).unwrap();
    assert!(published.new);
    let version = published.version;
    assert_eq!((version.name.as_str(), version.version.as_str()), ("tiny", "1.0.0"));
    assert_eq!(version.digest, Directory::read(&model).unwrap().digest());
    assert_eq!(version.metrics, BTreeMap::from([("dev.f1".to_owned(), 0.5)]));
    assert!(!version.entity_types.is_empty() && version.created_at.is_some());
    assert!(version.location.starts_with("file:///") && version.location.ends_with("/store/tiny/1.0.0"));
    assert!(version.files.iter().any(|file| file.path == MANIFEST));
    assert!(!place.stored("1.0.0", ".publishing").exists());

    let fetched = store.fetch("tiny", "1.0.0", &version.digest, &place.cache()).unwrap();
    assert_eq!(Directory::read(&fetched).unwrap().digest(), version.digest);
    for entry in fs::read_dir(&model).unwrap() {
        let entry = entry.unwrap();
        let copy = fetched.join(entry.file_name());
        assert_eq!(fs::read(entry.path()).unwrap(), fs::read(copy).unwrap(), "{:?}", entry.file_name());
    }
    let names: Vec<_> = fs::read_dir(place.cache()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [fetched], "the cache holds the version and nothing else");
}

#[test]
fn a_cached_version_needs_no_store() {
    let place = Place::new();
    let digest = place.store().publish(&place.model("1.0.0", "")).unwrap().version.digest;
    let store = place.store();
    let fetched = store.fetch("tiny", "1.0.0", &digest, &place.cache()).unwrap();
    fs::remove_dir_all(place.folder.path().join("store")).unwrap();
    assert_eq!(store.fetch("tiny", "1.0.0", &digest, &place.cache()).unwrap(), fetched);
}

#[test]
fn a_damaged_cache_is_repaired() {
    let place = Place::new();
    let store = place.store();
    let digest = store.publish(&place.model("1.0.0", "A model.")).unwrap().version.digest;
    let fetch = || store.fetch("tiny", "1.0.0", &digest, &place.cache()).unwrap();
    let fetched = fetch();
    fs::write(fetched.join("README.md"), "").unwrap();
    assert_eq!(fs::read_to_string(fetch().join("README.md")).unwrap(), "A model.");
    fs::remove_file(fetched.join("config.json")).unwrap();
    assert!(fetch().join("config.json").is_file());
    flip_a_bit(&fetched.join(MANIFEST));
    assert_eq!(Directory::read(&fetch()).unwrap().digest(), digest);
}

#[test]
fn a_version_never_changes() {
    let place = Place::new();
    let (store, first) = (place.store(), place.model("1.0.0", "One."));
    let published = store.publish(&first).unwrap();
    let again = store.publish(&first).unwrap();
    assert_eq!((again.new, again.version), (false, published.version));
    refused(store.publish(&place.model("1.0.0", "Two.")), "tiny/1.0.0", "with other content");
    assert_eq!(fs::read_to_string(place.stored("1.0.0", "README.md")).unwrap(), "One.");
    assert!(!place.stored("1.0.0", ".publishing").exists());
    assert!(store.publish(&place.model("1.1.0", "Two.")).unwrap().new);
}

#[test]
fn publishers_of_one_version_never_mix_their_files() {
    let place = Place::new();
    let cards: Vec<String> = (0..8).map(|number| format!("Card {number}.")).collect();
    let models: Vec<PathBuf> = cards.iter().map(|card| place.model("1.0.0", card)).collect();
    let results: Vec<Result<Published, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = models.iter().map(|model| scope.spawn(|| place.store().publish(model))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert!(
        results.iter().flat_map(Result::as_ref).count() == 1
            && results
                .iter()
                .filter_map(|result| result.as_ref().err())
                .all(|error| matches!(error, Error::Taken { .. } | Error::Claimed { .. })),
        "{results:?}"
    );
    let digest = &winners[0].version.digest;
    let fetched = place.store().fetch("tiny", "1.0.0", digest, &place.cache()).unwrap();
    assert_eq!(Directory::read(&fetched).unwrap().digest(), digest);
}

#[test]
fn a_broken_off_publication_is_not_there_and_can_be_ended() {
    let place = Place::new();
    let (store, model) = (place.store(), place.model("1.0.0", "A model."));
    // As it is left by a publisher that was killed: the claim and some files.
    let manifest = fs::read(model.join(MANIFEST)).unwrap();
    fs::create_dir_all(place.stored("1.0.0", "")).unwrap();
    fs::write(place.stored("1.0.0", ".publishing"), digest_of(&manifest)).unwrap();
    fs::write(place.stored("1.0.0", "config.json"), "half").unwrap();

    let listed = store.list(None).unwrap();
    assert!(listed.len() == 1 && !listed[0].whole, "{listed:?}");
    assert!(matches!(store.describe("tiny", "1.0.0"), Err(Error::NotFound { .. })));
    let fetched = store.fetch("tiny", "1.0.0", &digest_of(&manifest), &place.cache());
    assert!(matches!(fetched, Err(Error::NotFound { .. })), "{fetched:?}");
    refused(store.publish(&place.model("1.0.0", "Another.")), "tiny/1.0.0", "litflow models gc");

    assert!(store.publish(&model).unwrap().new);
    store.fetch("tiny", "1.0.0", &digest_of(&manifest), &place.cache()).unwrap();
}

#[test]
fn damage_in_the_store_is_refused_and_leaves_nothing() {
    for file in ["model.safetensors", "README.md", "config.json", "tokenizer.json"] {
        let place = Place::new();
        let store = place.store();
        let digest = store.publish(&place.model("1.0.0", "A model.")).unwrap().version.digest;
        let fetch = || store.fetch("tiny", "1.0.0", &digest, &place.cache());
        flip_a_bit(&place.stored("1.0.0", file));
        refused(fetch(), file, "SHA-256");
        fs::write(place.stored("1.0.0", file), "cut").unwrap();
        refused(fetch(), file, "3 bytes, the manifest says");
        fs::remove_file(place.stored("1.0.0", file)).unwrap();
        refused(fetch(), file, "is missing");
        assert_eq!(fs::read_dir(place.cache()).unwrap().count(), 0, "{file}");
    }
    let place = Place::new();
    let store = place.store();
    let digest = store.publish(&place.model("1.0.0", "A model.")).unwrap().version.digest;
    flip_a_bit(&place.stored("1.0.0", MANIFEST));
    refused(store.fetch("tiny", "1.0.0", &digest, &place.cache()), MANIFEST, "announced is");
    refused(store.fetch("tiny", "1.0.0", "sha256:../../etc", &place.cache()), "tiny/1.0.0", "no digest");
}

#[test]
fn a_version_must_be_what_it_is_called() {
    let place = Place::new();
    let store = place.store();
    let digest = store.publish(&place.model("1.0.0", "")).unwrap().version.digest;
    fs::rename(place.stored("1.0.0", ""), place.stored("9.0.0", "")).unwrap();
    refused(
        store.fetch("tiny", "9.0.0", &digest, &place.cache()),
        "config.json",
        "is tiny 1.0.0, should be tiny 9.0.0",
    );
    refused(store.describe("tiny", "9.0.0"), "config.json", "is tiny 1.0.0");
    assert!(matches!(store.fetch("tiny", "1.0.0", &digest, &place.cache()), Err(Error::NotFound { .. })));
}

#[test]
fn a_directory_is_published_only_whole_and_with_a_name() {
    let place = Place::new();
    let store = place.store();
    let model = place.model("1.0.0", "A model.");
    flip_a_bit(&model.join("README.md"));
    refused(store.publish(&model), "README.md", "SHA-256");

    // Without a manifest one is made; the directory itself stays as it is.
    fs::remove_file(model.join(MANIFEST)).unwrap();
    let published = store.publish(&model).unwrap();
    assert!(!model.join(MANIFEST).exists());
    let (manifest, digest) = store.manifest("tiny", "1.0.0").unwrap();
    assert_eq!(digest, published.version.digest);
    assert!(manifest.files.contains_key("README.md") && !manifest.files.contains_key(MANIFEST));

    refused(store.publish(&place.model("latest", "")), "latest", "begin with a digit");
    let nameless = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert/ner");
    refused(store.publish(&nameless), "config.json", "no `litflow` section");
    assert_eq!(store.list(None).unwrap().len(), 1);
}

#[test]
fn limits_hold_at_both_ends() {
    let place = Place::new();
    let digest = place.store().publish(&place.model("1.0.0", "")).unwrap().version.digest;
    let small = Options { max_version_bytes: 1_000, ..place.options.clone() };
    let store = Store::open(&small).unwrap();
    refused(store.publish(&place.model("1.1.0", "")), "bytes", "registry.max_version_bytes is 1000");
    refused(store.fetch("tiny", "1.0.0", &digest, &place.cache()), "tiny/1.0.0/manifest.json", "max_version_bytes");

    let model = place.model("1.2.0", "");
    (0..256).for_each(|number| fs::write(model.join(format!("more-{number}")), "").unwrap());
    Manifest::default().write(&model).unwrap();
    refused(place.store().publish(&model), "files", "more than the 256");
}

#[test]
fn versions_are_listed_and_removed() {
    let place = Place::new();
    let store = place.store();
    for version in ["1.0.0", "1.1.0"] {
        store.publish(&place.model(version, "A model.")).unwrap();
    }
    fs::write(place.folder.path().join("store/notes.txt"), "not ours").unwrap();
    let listed = store.list(None).unwrap();
    let versions: Vec<_> = listed.iter().map(|stored| (stored.name.as_str(), stored.version.as_str())).collect();
    assert_eq!(versions, [("tiny", "1.0.0"), ("tiny", "1.1.0")]);
    assert!(listed.iter().all(|stored| stored.whole && stored.bytes > 1_000 && stored.modified_at > 0));
    assert_eq!(store.list(Some("other")).unwrap(), []);

    assert_eq!(store.remove("tiny", "1.0.0").unwrap(), listed[0].bytes);
    assert_eq!(store.list(Some("tiny")).unwrap().len(), 1);
    assert!(!place.stored("1.0.0", "").exists(), "an empty folder is left");
    assert!(store.publish(&place.model("1.0.0", "Again.")).unwrap().new);
}

#[test]
fn a_store_is_opened_by_folder_or_uri() {
    let place = Place::new();
    let open = |store: &str| Store::open(&Options { store: store.to_owned(), ..Options::default() });
    let missing = open(&place.options.store).err().unwrap();
    assert!(matches!(missing, Error::NoStore { .. }) && missing.class() == ErrorClass::Retriable, "{missing}");
    place.store().publish(&place.model("1.0.0", "")).unwrap();
    let uri = format!("file://{}", place.options.store);
    assert_eq!(open(&uri).unwrap().list(None).unwrap().len(), 1);
    for (store, reason) in [
        ("ftp://host/models", "no store's URI"),
        ("http://host/models", "use a folder"),
        ("s3://key:hunter2@bucket/models", "credentials belong into registry.options"),
        ("s3://bucket/models?sig=hunter2", "credentials belong into registry.options"),
        ("", "is empty"),
    ] {
        let error = open(store).err().unwrap();
        let message = error.to_string();
        assert!(message.contains(reason) && !message.contains("hunter2"), "{store}: {message}");
        assert_eq!(error.class(), ErrorClass::Fatal);
    }
    let unknown = BTreeMap::from([("aws_regoin".to_owned(), "x".to_owned())]);
    let options = Options { store: "s3://bucket/models".into(), options: unknown, ..Options::default() };
    let message = Store::open(&options).err().unwrap().to_string();
    assert!(message.contains("registry.options.aws_regoin"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever names stand in a manifest, nothing is written outside the cache, and what is refused leaves nothing.
    #[test]
    fn hostile_manifests_stay_in_their_folder(
        name in prop_oneof![
            "[./\\\\a~%0-9]{1,12}", Just("../../outside".to_owned()), Just("/etc/outside".to_owned()),
            Just("..".to_owned()), Just(".publishing".to_owned()), Just("a\0b".to_owned()), ".{0,8}",
        ],
        bytes in prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()],
    ) {
        let place = Place::new();
        let store = place.store();
        let published = store.publish(&place.model("1.0.0", "A model.")).unwrap();
        let (mut manifest, _) = store.manifest("tiny", "1.0.0").unwrap();
        let known = manifest.files.contains_key(&name);
        let sha256 = published.version.digest["sha256:".len()..].to_owned();
        manifest.files.insert(name.clone(), crate::model::directory::FileDigest { sha256, bytes });
        fs::write(place.stored("1.0.0", MANIFEST), manifest.to_json()).unwrap();
        let before = files_below(place.folder.path());
        let fetched = store.fetch("tiny", "1.0.0", &digest_of(&manifest.to_json()), &place.cache());
        prop_assert!(fetched.is_err(), "{name} {known}");
        prop_assert_eq!(files_below(place.folder.path()), before);
        prop_assert!(!Path::new("/etc/outside").exists());
    }
}

fn files_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}
