use super::*;
use crate::article::{Document, Passage, Section};
use crate::tagger::{self, Dictionary};
use crate::worker::reload::Error;
use futures::future::BoxFuture;

/// The digest of a version.
pub fn digest(version: &str) -> String {
    format!("sha256:{version}")
}

/// What a version finds in an article: BRCA1 is a gene to each of them; the second calls p53 a disease.
pub fn tagged(version: &str, article_id: &str, text: &str) -> TaggedDocument {
    block_on(dictionary(version).tag(document(article_id, text))).unwrap()
}

fn document(article_id: &str, text: &str) -> Document {
    let passage = Passage { section: Section::Body, heading: None, language: None, text: text.into() };
    Document { article_id: article_id.into(), article_version: 1, passages: vec![passage] }
}

struct Version(Dictionary, ModelRef);

fn dictionary(version: &str) -> Box<dyn Tag> {
    let p53 = if version == "2" { "Disease" } else { "Gene" };
    let terms = Dictionary::new([("BRCA1", "Gene"), ("p53", p53)]).unwrap();
    Box::new(Version(terms, ModelRef { name: "fake".into(), version: version.into(), digest: digest(version) }))
}

impl Tag for Version {
    fn model(&self) -> Arc<ModelRef> {
        Arc::new(self.1.clone())
    }

    fn entity_types(&self) -> Arc<[String]> {
        self.0.entity_types()
    }

    /// The third version fails at every article that names p53.
    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, tagger::Error>> {
        Box::pin(async move {
            if self.1.version == "3" && document.passages[0].text.contains("p53") {
                return Err(tagger::Error::Document("too hot".into()));
            }
            Ok(TaggedDocument { model: self.1.clone(), ..self.0.tag(document).await? })
        })
    }
}

/// A champion that serves, and the candidate that is announced.
struct World {
    serving: Arc<Serving>,
    waiting: Arc<Waiting>,
    candidate: Arc<Mutex<Option<&'static str>>>,
    reports: Arc<Mutex<Vec<ShadowTally>>>,
}

impl World {
    fn new() -> Self {
        let waiting = Waiting::new(&Options { sample: 1.0, ..Options::default() });
        let serving = Serving::new(dictionary("1")).unwrap().observed_by([waiting.observer()]);
        Self { serving: Arc::new(serving), waiting, candidate: Arc::default(), reports: Arc::default() }
    }

    /// Versions from 9 on cannot be loaded.
    fn chooser(&self) -> Chooser {
        let candidate = self.candidate.clone();
        let look = Box::new(move |_| {
            let place = |version: &str| Place::Registry { name: "fake".into(), version: version.into() };
            let wanted =
                |version: &str| Wanted { place: place(version), digest: digest(version), occasion: 0, announced: None };
            Ok(candidate.lock().unwrap().iter().map(|version| wanted(version)).collect())
        });
        let load = Box::new(|wanted: &Wanted| match model_ref(wanted).version.as_str() {
            "9" => Err(Error::SelfTest("it is broken".into())),
            "8" => Err(Error::Memory { needed: 2, available: 1 }),
            version => Ok(dictionary(version)),
        });
        Chooser::new(look, load)
    }

    fn report(&self) -> Report {
        let reports = self.reports.clone();
        Box::new(move |tally| reports.lock().unwrap().push(tally.clone()))
    }

    fn comparer(&self) -> Comparer {
        Comparer {
            serving: self.serving.clone(),
            chooser: self.chooser(),
            waiting: self.waiting.clone(),
            report: self.report(),
            worker: "a".into(),
            interval: Duration::from_secs(10),
            snapshot: Handle(Arc::default()),
            candidate: None,
            tally: None,
            due: None,
        }
    }

    fn announce(&self, candidate: Option<&'static str>) {
        *self.candidate.lock().unwrap() = candidate;
    }

    fn articles(&self, count: usize) {
        for number in 0..count {
            let document = document(&format!("pmid:{number}"), "BRCA1 here. And p53 there.");
            block_on(self.serving.tag(document)).unwrap();
        }
    }

    fn reports(&self) -> Vec<ShadowTally> {
        std::mem::take(&mut self.reports.lock().unwrap())
    }
}

#[test]
fn what_both_have_tagged_is_compared_and_published_now_and_then() {
    let world = World::new();
    let mut comparer = world.comparer();
    let start = Instant::now();
    world.articles(3);
    comparer.round(Duration::ZERO, start);
    assert_eq!((world.reports(), comparer.snapshot.snapshot().articles), (vec![], 0), "there is no candidate");

    world.announce(Some("2"));
    comparer.round(Duration::ZERO, start);
    let first = world.reports();
    assert_eq!((first.len(), first[0].agreement.articles, first[0].worker.as_str()), (1, 0, "a"));
    world.articles(40); // more than are taken at a time
    comparer.round(Duration::ZERO, start);
    comparer.round(Duration::ZERO, start + Duration::from_secs(9));
    assert_eq!(world.reports(), [], "it is not yet time");
    comparer.round(Duration::ZERO, start + Duration::from_secs(10));
    let [report] = &world.reports()[..] else { panic!("one report") };
    let agreement = &report.agreement;
    assert_eq!((agreement.articles, agreement.sentences, agreement.failed, agreement.dropped), (40, 80, 0, 0));
    let counts = |entity_type: &str| {
        let of = agreement.types[entity_type];
        (of.agreed, of.added, of.missing)
    };
    assert_eq!((counts("Gene"), counts("Disease")), ((40, 0, 40), (0, 40, 0)));
    assert!(agreement.champion_seconds > 0.0 && agreement.candidate_seconds > 0.0);
    assert_eq!((report.since, &report.champion.version), (first[0].since, &"1".to_owned()));
    let snapshot = comparer.snapshot.snapshot();
    assert_eq!((snapshot.articles, snapshot.f1, snapshot.refused), (40, Some(0.5), None));
    comparer.round(Duration::ZERO, start + Duration::from_secs(99));
    assert_eq!(world.reports(), [], "nothing has come to it");
}

#[test]
fn another_champion_or_candidate_begins_another_tally() {
    let world = World::new();
    let mut comparer = world.comparer();
    let mut round = || comparer.round(Duration::ZERO, Instant::now());
    world.announce(Some("2"));
    round();
    world.articles(5);
    round();
    world.serving.swap(dictionary("4"));
    world.articles(7); // until the next look they are the next champion's, which is not known yet
    round();
    world.articles(2);
    round();
    world.announce(Some("5"));
    round();
    world.articles(1);
    round();
    world.announce(None);
    round();
    world.articles(1);
    round();
    let told: Vec<_> = world
        .reports()
        .into_iter()
        .map(|report| (report.champion.version, report.candidate.version, report.agreement.articles))
        .collect();
    let expected = [("1", "2", 0), ("1", "2", 5), ("4", "2", 0), ("4", "2", 2), ("4", "5", 0), ("4", "5", 1)];
    assert_eq!(told, expected.map(|(champion, candidate, articles)| (champion.into(), candidate.into(), articles)));
    assert_eq!(world.waiting.bytes(), 0);

    // What has become champion is no longer compared with itself.
    world.announce(Some("4"));
    round();
    assert_eq!(world.reports(), []);
}

#[test]
fn a_candidate_that_fails_harms_nobody_and_is_counted() {
    let world = World::new();
    let mut comparer = world.comparer();
    world.announce(Some("3"));
    comparer.round(Duration::ZERO, Instant::now());
    world.articles(4);
    comparer.round(Duration::ZERO, Instant::now());
    let snapshot = comparer.snapshot.snapshot();
    assert_eq!((snapshot.articles, snapshot.failed, snapshot.f1), (0, 4, None));
}

#[test]
fn a_candidate_that_is_refused_is_told_of_and_one_that_may_come_is_waited_for() {
    let world = World::new();
    let mut comparer = world.comparer();
    let mut round = || {
        comparer.round(Duration::ZERO, Instant::now());
        comparer.snapshot.snapshot()
    };
    world.announce(Some("9"));
    let refused = round().refused.unwrap();
    assert!(refused.reason.contains("it is broken") && !refused.will_retry);
    let reports = world.reports();
    assert!(reports[0].refused.as_ref().is_some_and(|reason| reason.contains("it is broken")), "{reports:?}");
    world.announce(Some("8"));
    assert!(round().refused.unwrap().will_retry);
    assert_eq!(world.reports()[0].refused, None);
    world.articles(3);
    assert_eq!((round().articles, world.waiting.bytes()), (0, 0), "nothing is kept for it");
}

#[test]
fn the_thread_compares_and_publishes_when_it_ends() {
    let world = World::new();
    world.announce(Some("4"));
    let options = Options { publish_interval_ms: 3_600_000, ..Options::default() };
    let (waiting, serving) = (world.waiting.clone(), world.serving.clone());
    let shadow = Shadow::start(&options, waiting, serving, world.chooser(), world.report(), "a".into()).unwrap();
    let handle = shadow.handle();
    let deadline = Instant::now() + Duration::from_secs(60);
    while handle.snapshot().articles < 10 {
        assert!(Instant::now() < deadline, "nothing is compared");
        world.articles(1);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(shadow.end(Duration::from_secs(60)), End::Done);
    let last = world.reports().pop().unwrap().agreement;
    assert!(last.articles >= 10 && last.micro().f1() == Some(1.0), "{last:?}");
}
