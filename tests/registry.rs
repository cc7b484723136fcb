//! Model versions announced on a real Apache Kafka. Skips, with a note, where there is none.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

mod support;

use assert_cmd::Command;
use litflow::bus::codec::Record as _;
use litflow::bus::producer::Outgoing;
use litflow::bus::records::{AliasAction, ModelVersion};
use litflow::bus::topics;
use litflow::registry::aliases::{CANDIDATE, CHAMPION, REJECTED};
use litflow::registry::{Announcements, Error, Occasion, Options, Registry, TRANSACTIONAL_ID};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::path::Path;
use std::time::Duration;
use support::versions::{flip_a_bit, model};
use support::{Cluster, DEADLINE};
use tempfile::TempDir;

struct Place {
    cluster: Cluster,
    folder: TempDir,
}

impl Place {
    fn start() -> Option<Self> {
        Some(Self { cluster: Cluster::start()?, folder: tempfile::tempdir().unwrap() })
    }

    fn options(&self) -> Options {
        Options { store: self.folder.path().join("store").display().to_string(), ..Options::default() }
    }

    fn registry(&self) -> Registry {
        Registry::create(&self.options(), &self.cluster.options("registry")).unwrap()
    }

    /// `litflow models …` on the cluster and the store; its JSON.
    fn run(&self, arguments: &[&str]) -> serde_json::Value {
        let assert = self.command(arguments).assert().success();
        serde_json::from_slice(&assert.get_output().stdout).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("litflow").unwrap();
        command.arg("models").args(arguments).arg("--json").args(["--store", &self.options().store]);
        command.args(["--bootstrap-servers", self.cluster.broker.bootstrap_servers()]);
        command
    }

    fn model(&self, version: &str) -> String {
        model(self.folder.path(), version, &format!("Version {version}.")).display().to_string()
    }
}

fn because(reason: &str) -> Occasion {
    Occasion::now("test", reason)
}

#[test]
fn versions_are_announced_promoted_and_rolled_back() {
    let Some(place) = Place::start() else { return };
    let registry = place.registry();
    assert_eq!(registry.announcements().unwrap().get("tiny").unwrap(), None);
    assert!(matches!(registry.rollback("tiny", &because("")), Err(Error::NotAnnounced { .. })));

    for (version, alias) in [("1.0.0", CHAMPION), ("1.1.0", CANDIDATE), ("1.2.0", REJECTED)] {
        let folder = model(place.folder.path(), version, version);
        let (published, moved) = registry.publish(&folder, Some(alias), &because(version)).unwrap();
        assert!(published.new && moved.changed);
        let (published, moved) = registry.publish(&folder, Some(alias), &because("again")).unwrap();
        assert!(!published.new && !moved.changed, "doing it again changes nothing");
    }
    let state = registry.assign("tiny", "1.1.0", CHAMPION, &because("better")).unwrap().state;
    assert_eq!(state.aliases.keys().collect::<Vec<_>>(), [CHAMPION, REJECTED]);
    let (published, champion) = (state.digest.clone(), state.alias(CHAMPION).unwrap().clone());
    assert_eq!((champion.version.as_str(), champion.digest.as_str()), ("1.1.0", published.as_str()));

    let state = registry.rollback("tiny", &because("worse after all")).unwrap().state;
    assert_eq!((state.version.as_str(), state.alias(CHAMPION).unwrap().version.as_str()), ("1.0.0", "1.0.0"));
    let last = state.history.last().unwrap();
    assert_eq!((last.action, last.previous.as_deref()), (AliasAction::RolledBack, Some("1.1.0")));
    assert_eq!((last.by.as_str(), last.reason.as_str()), ("test", "worse after all"));
    let read = registry.announcements().unwrap();
    assert_eq!(read.get("tiny").unwrap(), Some(&state), "what is read is what was written");
    assert!(matches!(registry.rollback("tiny", &because("")), Err(Error::NoEarlier { .. })));

    // What is not in the store, or not as it was announced, does not become champion.
    let missing = registry.assign("tiny", "9.0.0", CHAMPION, &because(""));
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    registry.store().remove("tiny", "1.1.0").unwrap();
    registry.store().publish(&model(place.folder.path(), "1.1.0", "Another 1.1.0.")).unwrap();
    let changed = registry.assign("tiny", "1.1.0", CHAMPION, &because("")).unwrap_err().to_string();
    assert!(changed.contains("a version never changes"), "{changed}");
}

#[test]
fn writers_at_once_lose_nothing() {
    let Some(place) = Place::start() else { return };
    const WRITERS: usize = 4;
    const CHANGES: usize = 2;
    let registry = place.registry();
    registry.publish(&model(place.folder.path(), "1.0.0", "One."), Some(CHAMPION), &because("first")).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let place = &place;
            scope.spawn(move || {
                let registry = place.registry();
                for change in 0..CHANGES {
                    let alias = format!("alias-{writer}-{change}");
                    assert!(registry.assign("tiny", "1.0.0", &alias, &because(&alias)).unwrap().changed);
                }
            });
        }
    });
    let announcements = registry.announcements().unwrap();
    let state = announcements.get("tiny").unwrap().unwrap();
    assert_eq!(state.aliases.len(), 1 + WRITERS * CHANGES);
    let mut aliases: Vec<&str> = state.history.iter().map(|change| change.alias.as_str()).collect();
    aliases.sort_unstable();
    aliases.dedup();
    assert_eq!((state.history.len(), aliases.len()), (1 + WRITERS * CHANGES, 1 + WRITERS * CHANGES));
    // Each change that was reported stands on the topic exactly once.
    assert_eq!(place.cluster.read(topics::MODELS).len(), 1 + WRITERS * CHANGES);
}

#[test]
fn a_writer_that_hangs_is_overtaken() {
    let Some(place) = Place::start() else { return };
    let registry = place.registry();
    let folder = model(place.folder.path(), "1.0.0", "One.");
    let published = registry.publish(&folder, None, &because("first")).unwrap().1.state;
    // It has sent another state and does not come to commit it.
    let hanging: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", place.cluster.broker.bootstrap_servers())
        .set("transactional.id", TRANSACTIONAL_ID)
        .create()
        .unwrap();
    hanging.init_transactions(DEADLINE).unwrap();
    hanging.begin_transaction().unwrap();
    let stale = ModelVersion { version: "0.0.1".into(), ..published }.encode().unwrap();
    hanging.send(BaseRecord::to(topics::MODELS).key("tiny").payload(&stale)).unwrap();
    while hanging.in_flight_count() > 0 {
        hanging.poll(Duration::from_millis(10));
    }
    let moved = registry.assign("tiny", "1.0.0", CHAMPION, &because("overtaken")).unwrap();
    assert!(moved.changed);
    hanging.commit_transaction(DEADLINE).unwrap_err();
    assert_eq!(registry.announcements().unwrap().get("tiny").unwrap(), Some(&moved.state));
}

#[test]
fn a_follower_sees_the_newest_state() {
    let Some(place) = Place::start() else { return };
    let registry = place.registry();
    let mut followed = registry.announcements().unwrap();
    assert_eq!(followed.wait(Duration::from_millis(10)).unwrap().len(), 0);
    for version in ["1.0.0", "1.1.0"] {
        let folder = model(place.folder.path(), version, version);
        registry.publish(&folder, Some(CHAMPION), &because(version)).unwrap();
    }
    let champion = |followed: &mut Announcements| {
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            followed.wait(Duration::from_secs(1)).unwrap();
            let state = followed.get("tiny").unwrap();
            if let Some(champion) = state.and_then(|state| state.alias(CHAMPION)).filter(|c| c.version == "1.1.0") {
                return champion.clone();
            }
            assert!(std::time::Instant::now() < deadline, "the announcement never came");
        }
    };
    let champion = champion(&mut followed);
    let cache = place.folder.path().join("cache");
    let fetched = registry.store().fetch("tiny", &champion.version, &champion.digest, &cache).unwrap();
    assert!(fetched.join("model.safetensors").is_file());

    // A record that cannot be read is an error for its model only, and no change goes over it.
    let mut publisher = place.cluster.publisher();
    let garbage = |key: &str| Outgoing {
        topic: topics::MODELS.into(),
        key: Some(key.into()),
        value: Some(b"no Avro".to_vec()),
        ..Outgoing::default()
    };
    publisher.send(&garbage("other")).unwrap();
    publisher.finish().unwrap();
    let read = registry.announcements().unwrap();
    assert!(matches!(read.get("other"), Err(Error::Unreadable { .. })));
    assert_eq!(read.get("tiny").unwrap().unwrap().alias(CHAMPION).unwrap().version, "1.1.0");
    let mut publisher = place.cluster.publisher();
    publisher.send(&garbage("tiny")).unwrap();
    publisher.finish().unwrap();
    assert!(matches!(registry.rollback("tiny", &because("")), Err(Error::Unreadable { .. })));
}

#[test]
fn a_version_that_was_damaged_is_refused() {
    let Some(place) = Place::start() else { return };
    let registry = place.registry();
    let folder = model(place.folder.path(), "1.0.0", "One.");
    let state = registry.publish(&folder, Some(CHAMPION), &because("first")).unwrap().1.state;
    let champion = state.alias(CHAMPION).unwrap();
    flip_a_bit(&place.folder.path().join("store/tiny/1.0.0/model.safetensors"));
    let cache = place.folder.path().join("cache");
    let refused = registry.store().fetch("tiny", &champion.version, &champion.digest, &cache).unwrap_err().to_string();
    assert!(refused.contains("model.safetensors") && refused.contains("SHA-256"), "{refused}");
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
    place.command(&["verify", "tiny", CHAMPION]).assert().code(5);
}

#[test]
fn a_version_that_was_replaced_does_not_verify() {
    let Some(place) = Place::start() else { return };
    let registry = place.registry();
    let folder = model(place.folder.path(), "1.0.0", "One.");
    let announced = registry.publish(&folder, Some(CHAMPION), &because("first")).unwrap().1.state.digest;
    registry.store().remove("tiny", "1.0.0").unwrap();
    let other = registry.store().publish(&model(place.folder.path(), "1.0.0", "Another one.")).unwrap();
    for version in ["1.0.0", CHAMPION] {
        let refused = place.command(&["verify", "tiny", version]).assert().code(5);
        let told = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(told.contains(&announced) && told.contains(&other.version.digest), "{told}");
    }

    // Of what was never announced the store is all that is known.
    registry.store().publish(&model(place.folder.path(), "1.1.0", "Two.")).unwrap();
    place.run(&["verify", "tiny", "1.1.0"]);
}

#[test]
fn the_commands_do_it_all() {
    let Some(place) = Place::start() else { return };
    let imported = place.run(&["import", &place.model("1.0.0"), "--alias", "champion", "--reason", "the first"]);
    assert_eq!((&imported["version"], &imported["changed"]), (&"1.0.0".into(), &true.into()), "{imported}");
    place.run(&["import", &place.model("1.1.0"), "--alias", "candidate"]);
    place.run(&["import", &place.model("1.2.0")]);
    let promoted = place.run(&["promote", "tiny", "candidate", "--reason", "better", "--by", "review"]);
    assert_eq!(promoted["aliases"]["champion"]["version"], "1.1.0", "{promoted}");

    let listed = place.run(&["list"]);
    let rows: Vec<_> =
        listed.as_array().unwrap().iter().map(|row| (row["version"].clone(), row["aliases"].clone())).collect();
    let expected = [("1.0.0", vec![]), ("1.1.0", vec!["champion"]), ("1.2.0", vec![])];
    assert_eq!(rows, expected.map(|(version, aliases)| (version.into(), aliases.into())));
    let shown = place.run(&["show", "tiny"]);
    assert_eq!((&shown["version"], &shown["manifest"]["code"]), (&"1.1.0".into(), &"test 1".into()), "{shown}");
    let verified = place.run(&["verify", "tiny", "champion", "--precision", "fp32"]);
    assert_eq!((&verified["ok"], &verified["version"]), (&true.into(), &"1.1.0".into()));

    let rolled_back = place.run(&["rollback", "tiny", "--reason", "worse"]);
    assert_eq!(rolled_back["aliases"]["champion"]["version"], "1.0.0");
    let history = place.run(&["history", "tiny"]);
    let last = history.as_array().unwrap().last().unwrap();
    assert_eq!((&last["action"], &last["reason"]), (&"ROLLED_BACK".into(), &"worse".into()));
    let by_review = history.as_array().unwrap().iter().filter(|change| change["by"] == "review").count();
    assert_eq!(by_review, 2, "the candidate's end and the champion's begin: {history}");

    // 1.0.0 is the champion; 1.1.0 and 1.2.0 nobody needs, and one of them is the newest.
    let dry = place.run(&["gc", "--keep", "1", "--older-than", "0"]);
    let going = |plan: &serde_json::Value| {
        let rows = plan["versions"].as_array().unwrap().iter().filter(|row| row["remove"] == true);
        rows.map(|row| row["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((going(&dry), &dry["removed"]), (vec!["1.1.0".to_owned()], &false.into()), "{dry}");
    assert!(stored(&place, "1.1.0"));
    place.run(&["gc", "--keep", "1", "--older-than", "0", "--yes"]);
    assert!(!stored(&place, "1.1.0") && stored(&place, "1.0.0") && stored(&place, "1.2.0"));

    place.command(&["promote", "tiny", "1.1.0"]).assert().code(1);
    place.command(&["promote", "tiny", "nobody"]).assert().code(1);
    place.command(&["promote", "../tiny", "1.0.0"]).assert().code(2);
    place.command(&["rollback", "tiny"]).assert().code(1);
}

fn stored(place: &Place, version: &str) -> bool {
    let store: &Path = place.folder.path();
    store.join("store/tiny").join(version).join("manifest.json").is_file()
}
