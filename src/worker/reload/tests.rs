use super::choose::{Choice, Chooser};
use super::*;
use crate::ErrorClass;
use crate::article::{Document, Passage, Section};
use crate::bus::records::{AliasAction, AliasChange, AliasTarget, ModelVersion};
use crate::model::directory::{self, Manifest};
use crate::tagger::{self, Dictionary, Tag, TaggedDocument};
use crate::worker::Outputs;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert/ner");

/// A dictionary that names itself by a digest.
struct Version(Dictionary, String);

impl Tag for Version {
    fn model(&self) -> Arc<ModelRef> {
        Arc::new(ModelRef { name: "fake".into(), version: self.1.clone(), digest: self.1.clone() })
    }

    fn entity_types(&self) -> Arc<[String]> {
        self.0.entity_types()
    }

    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, tagger::Error>> {
        Box::pin(async move { Ok(TaggedDocument { model: (*self.model()).clone(), ..self.0.tag(document).await? }) })
    }
}

fn version(digest: &str) -> Box<dyn Tag> {
    Box::new(Version(Dictionary::new([("BRCA1", "Gene")]).unwrap(), digest.to_owned()))
}

fn wanted(digest: &str, occasion: i64) -> Wanted {
    let place = Place::Registry { name: "fake".into(), version: digest.into() };
    Wanted { place, digest: digest.into(), occasion, announced: None }
}

/// What is announced and what is wrong with it, and what was loaded.
#[derive(Default)]
struct World {
    announced: Mutex<Vec<Wanted>>,
    wrong: Mutex<BTreeMap<String, ErrorClass>>,
    loaded: Mutex<Vec<String>>,
}

impl World {
    fn announce<const N: usize>(&self, versions: [Wanted; N]) {
        *self.announced.lock().unwrap() = versions.into();
    }

    fn set_wrong(&self, digest: &str, class: Option<ErrorClass>) {
        let mut wrong = self.wrong.lock().unwrap();
        match class {
            Some(class) => drop(wrong.insert(digest.into(), class)),
            None => drop(wrong.remove(digest)),
        }
    }

    fn chooser(self: &Arc<Self>) -> Chooser {
        let (looking, loading) = (self.clone(), self.clone());
        let look = Box::new(move |_| Ok(looking.announced.lock().unwrap().clone()));
        let load = Box::new(move |wanted: &Wanted| {
            loading.loaded.lock().unwrap().push(wanted.digest.clone());
            let wrong = loading.wrong.lock().unwrap().get(&wanted.digest).copied();
            match wrong {
                None => Ok(version(&wanted.digest)),
                Some(ErrorClass::Poison) => Err(Error::SelfTest("it is broken".into())),
                Some(ErrorClass::Fatal) => panic!("a bug"),
                Some(_) => Err(Error::Memory { needed: 2, available: 1 }),
            }
        });
        Chooser::new(look, load)
    }

    fn keeper(self: &Arc<Self>, serving: &str) -> Keeper {
        Keeper::new(Arc::new(Serving::new(version(serving)).unwrap()), self.chooser())
    }

    fn loaded(&self) -> Vec<String> {
        std::mem::take(&mut self.loaded.lock().unwrap())
    }
}

#[test]
fn announcements_in_quick_succession_end_at_the_newest() {
    let world = Arc::new(World::default());
    let mut keeper = world.keeper("1");
    let now = Instant::now();
    assert_eq!(keeper.round(false, now).serving.digest, "1", "nothing is announced");
    world.announce([wanted("2", 1), wanted("1", 0)]);
    world.announce([wanted("3", 2), wanted("2", 1), wanted("1", 0)]);
    let snapshot = keeper.round(false, now);
    assert_eq!((snapshot.serving.digest.as_str(), snapshot.swaps, snapshot.refused), ("3", 1, None));
    assert_eq!(world.loaded(), ["3"]);
    world.announce([wanted("1", 3)]);
    assert_eq!(keeper.round(false, now).serving.digest, "1", "rolled back");
    assert_eq!(keeper.round(true, now).swaps, 2);
    assert_eq!(world.loaded(), ["1"], "what is in force is not loaded again");
}

#[test]
fn a_broken_version_is_tried_again_only_on_another_occasion() {
    let world = Arc::new(World::default());
    let mut keeper = world.keeper("1");
    world.announce([wanted("2", 1), wanted("1", 0)]);
    for (class, reason) in [(ErrorClass::Poison, "it is broken"), (ErrorClass::Fatal, "panicked: a bug")] {
        world.set_wrong("2", Some(class));
        let refused = keeper.round(true, Instant::now()).refused.unwrap();
        assert!(refused.reason.contains(reason) && !refused.will_retry, "{refused:?}");
        assert_eq!(refused.version.as_deref(), Some("fake 2"));
        assert_eq!(world.loaded(), ["2"]);
        let later = keeper.round(false, Instant::now() + Duration::from_secs(1_000_000));
        assert_eq!((later.serving.digest.as_str(), later.refused, world.loaded()), ("1", Some(refused), vec![]));
    }
    world.set_wrong("2", None);
    world.announce([wanted("2", 7), wanted("1", 0)]);
    let snapshot = keeper.round(false, Instant::now());
    assert_eq!((snapshot.serving.digest.as_str(), snapshot.refused), ("2", None));
}

#[test]
fn a_version_withdrawn_is_not_held_against_the_one_in_force() {
    let world = Arc::new(World::default());
    let mut keeper = world.keeper("1");
    world.set_wrong("2", Some(ErrorClass::Poison));
    world.announce([wanted("2", 1), wanted("1", 0)]);
    assert!(keeper.round(false, Instant::now()).refused.is_some());
    world.announce([wanted("1", 2)]);
    assert_eq!(keeper.round(false, Instant::now()).refused, None);
}

#[test]
fn what_may_pass_is_tried_again_after_growing_pauses() {
    let world = Arc::new(World::default());
    let mut keeper = world.keeper("1");
    world.set_wrong("2", Some(ErrorClass::Retriable));
    world.announce([wanted("2", 1), wanted("1", 0)]);
    let start = Instant::now();
    let mut tried_at = Vec::new();
    for second in 0..250 {
        let snapshot = keeper.round(false, start + Duration::from_secs(second));
        assert!(snapshot.serving.digest == "1" && snapshot.refused.unwrap().will_retry);
        tried_at.extend(world.loaded().iter().map(|_| second));
    }
    assert_eq!(tried_at, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    world.set_wrong("2", None);
    assert_eq!(keeper.round(true, start).serving.digest, "2", "whoever asks does not wait");
}

#[test]
fn a_start_takes_the_newest_version_that_is_good() {
    let world = Arc::new(World::default());
    assert!(matches!(world.chooser().first(), Ok(None)));
    world.announce([wanted("4", 3), wanted("3", 2), wanted("2", 1), wanted("1", 0)]);
    world.set_wrong("4", Some(ErrorClass::Retriable));
    world.set_wrong("3", Some(ErrorClass::Poison));
    let mut chooser = world.chooser();
    let first = chooser.first().unwrap().unwrap();
    assert_eq!((first.model().digest.as_str(), world.loaded()), ("2", vec!["4".into(), "3".into(), "2".into()]));
    assert!(chooser.refusal("2").is_some_and(|refusal| refusal.digest.as_deref() == Some("4")));
    // It goes on with what may pass.
    world.set_wrong("4", None);
    let later = Instant::now() + Duration::from_secs(2);
    assert!(matches!(chooser.next("2", false, later), Choice::Take(tagger) if tagger.model().digest == "4"));

    for digest in ["1", "2", "4"] {
        world.set_wrong(digest, Some(ErrorClass::Poison));
    }
    let error = world.chooser().first().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::SelfTest(_)));
}

#[test]
fn what_a_rollback_left_behind_is_no_stand_in() {
    let change = |at, version: &str, action| AliasChange {
        at,
        alias: "champion".into(),
        action,
        version: version.into(),
        digest: format!("sha256:{version}"),
        previous: None,
        by: "test".into(),
        reason: "test".into(),
    };
    let assigned = |at, version: &str| change(at, version, AliasAction::Assigned);
    let history = vec![assigned(1, "1"), assigned(2, "2"), assigned(3, "3"), change(4, "2", AliasAction::RolledBack)];
    let state = ModelVersion { name: "tiny".into(), history, ..ModelVersion::default() };
    let champions = source::champions(&state);
    let told: Vec<_> = champions.iter().map(|wanted| (wanted.digest.as_str(), wanted.occasion)).collect();
    assert_eq!(told, [("sha256:2", 4), ("sha256:1", 1)]);
    assert_eq!(champions[0].place.to_string(), "tiny 2");
}

#[test]
fn the_candidate_is_the_one_that_was_named_last() {
    let target =
        |version: &str| AliasTarget { version: version.into(), digest: version.into(), location: String::new() };
    let given = |at, version: &str| AliasChange {
        at,
        alias: "candidate".into(),
        action: AliasAction::Assigned,
        version: version.into(),
        digest: version.into(),
        previous: None,
        by: "test".into(),
        reason: "test".into(),
    };
    let mut state = ModelVersion { name: "tiny".into(), ..ModelVersion::default() };
    state.aliases.insert("champion".into(), target("1"));
    assert_eq!(source::candidate_of(&state), None);
    state.aliases.insert("candidate".into(), target("2"));
    state.history = vec![given(5, "2"), given(6, "3"), given(7, "2")];
    let candidate = source::candidate_of(&state).unwrap();
    assert_eq!((candidate.place.to_string(), candidate.digest, candidate.occasion), ("tiny 2".into(), "2".into(), 7));
}

/// A copy of the tiny model as `tiny` of this version, with a manifest.
fn model(folder: &Path, version: &str) -> PathBuf {
    let path = folder.join(version);
    fs::create_dir(&path).unwrap();
    for entry in fs::read_dir(FIXTURE).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
    }
    edit_config(&path, |config| {
        config["litflow"] =
            serde_json::json!({"name": "tiny", "version": version, "head": "softmax", "max_length": 32});
    });
    Manifest::default().write(&path).unwrap();
    path
}

fn edit_config(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let file = path.join(directory::CONFIG);
    let mut config = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    edit(&mut config);
    fs::write(&file, config.to_string()).unwrap();
}

fn edit_weights(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let file = path.join(directory::SAFETENSORS);
    let mut bytes = fs::read(&file).unwrap();
    edit(&mut bytes);
    fs::write(&file, bytes).unwrap();
}

fn loader(runtime: &tokio::runtime::Runtime) -> Loader {
    Loader {
        model: crate::model::Options { device: "cpu".parse().unwrap(), precision: "fp32".parse().unwrap() },
        tagger: tagger::Options { threads: 1, tokenizer_threads: 1, ..tagger::Options::default() },
        registry: crate::registry::Options::default(),
        outputs: Arc::new(Outputs::default()),
        runtime: runtime.handle().clone(),
    }
}

/// Every way in which a directory can be wrong leaves the version in force, by way of the real loader.
#[test]
fn whatever_is_wrong_with_a_directory_leaves_the_model_in_force() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str); 9] = [
        ("missing", |path| fs::remove_file(path.join(directory::SAFETENSORS)).unwrap(), "model.safetensors"),
        ("truncated", |path| edit_weights(path, |bytes| bytes.truncate(bytes.len() / 2)), "copy the model again"),
        ("bit-flipped", |path| edit_weights(path, |bytes| *bytes.last_mut().unwrap() ^= 1), "its SHA-256 is"),
        ("not its manifest", |path| edit_config(path, |config| config["vocab_size"] = 114.into()), "config.json"),
        ("no manifest to be read", |path| fs::write(path.join(directory::MANIFEST), "{").unwrap(), "manifest"),
        (
            "one label too many",
            |path| {
                edit_config(path, |config| config["id2label"]["5"] = "B-Variant".into());
                Manifest::default().write(path).unwrap();
            },
            "classifier",
        ),
        (
            "NaN weights",
            |path| {
                edit_weights(path, |bytes| {
                    let end = bytes.len();
                    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
                });
                Manifest::default().write(path).unwrap();
            },
            "NaN",
        ),
        (
            "not what it computed when it was made",
            |path| {
                let golden =
                    r#"{"text": "Nothing here.", "mentions": [{"type": "Gene", "begin": 0, "end": 99, "score": 1}]}"#;
                fs::write(path.join("golden.jsonl"), golden).unwrap();
                Manifest::default().write(path).unwrap();
            },
            "golden",
        ),
        ("gone", |path| fs::remove_dir_all(path).unwrap(), "No such file"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = loader(&runtime).start(&model(folder.path(), "1.0.0")).unwrap();
    let digest = first.model().digest.clone();
    let serving = Arc::new(Serving::new(Box::new(first)).unwrap());
    for (number, (what, damage, reason)) in damages.into_iter().enumerate() {
        let path = model(folder.path(), &format!("2.{number}.0"));
        damage(&path);
        let wanted =
            Wanted { place: Place::Directory(path.clone()), digest: what.into(), occasion: 1, announced: None };
        let loader = loader(&runtime);
        let load = Box::new(move |_: &Wanted| loader.start(&path).map(|engine| Box::new(engine) as Box<dyn Tag>));
        let chooser = Chooser::new(Box::new(move |_| Ok(vec![wanted.clone()])), load);
        let snapshot = Keeper::new(serving.clone(), chooser).round(false, Instant::now());
        let refused = snapshot.refused.unwrap_or_else(|| panic!("{what} was not refused"));
        assert!(refused.reason.contains(reason), "{what}: {}", refused.reason);
        assert_eq!(snapshot.serving.digest, digest, "{what}");
        let passage = Passage { section: Section::Body, heading: None, language: None, text: "BRCA1 is here.".into() };
        let document = Document { article_id: "a".into(), article_version: 1, passages: vec![passage] };
        assert_eq!(futures::executor::block_on(serving.tag(document)).unwrap().model.version, "1.0.0");
    }
}

#[test]
fn the_thread_follows_answers_and_ends() {
    let world = Arc::new(World::default());
    let serving = Arc::new(Serving::new(version("1")).unwrap());
    let reload = Reload::start(serving.clone(), world.chooser(), true).unwrap();
    let handle = reload.handle();
    world.announce([wanted("2", 1), wanted("1", 0)]);
    let answer = futures::executor::block_on(handle.look_now()).unwrap();
    assert_eq!((answer.serving.digest.as_str(), serving.model().digest.as_str()), ("2", "2"));
    world.announce([wanted("1", 2)]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while handle.snapshot().swaps < 2 {
        assert!(Instant::now() < deadline, "nobody looks without being asked");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(reload.end(Duration::from_secs(60)), End::Done);
    assert!(futures::executor::block_on(handle.look_now()).is_none());
}
