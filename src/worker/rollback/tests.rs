use super::*;
use crate::article::{Document, Passage, Section};
use crate::tagger::{self, Dictionary, Tag, TaggedDocument};
use futures::future::BoxFuture;

/// Finds BRCA1; the version "blind" finds nothing, the version "broken" fails.
struct Version(Dictionary, ModelRef);

fn version(name: &str) -> Box<dyn Tag> {
    let terms = if name == "blind" { vec![] } else { vec![("BRCA1", "Gene")] };
    let model = ModelRef { name: "fake".into(), version: name.into(), digest: name.into() };
    Box::new(Version(Dictionary::new(terms).unwrap(), model))
}

impl Tag for Version {
    fn model(&self) -> Arc<ModelRef> {
        Arc::new(self.1.clone())
    }

    fn entity_types(&self) -> Arc<[String]> {
        self.0.entity_types()
    }

    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, tagger::Error>> {
        Box::pin(async move {
            if self.1.version == "broken" {
                return Err(tagger::Error::Document("too hot".into()));
            }
            self.0.tag(document).await
        })
    }
}

type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A worker that serves "good", its judge, and what that asks for. `act` answers.
struct World {
    serving: Arc<Serving>,
    judge: Judge,
    asked: Asked,
}

impl World {
    fn new(mut act: impl FnMut() -> Result<bool, registry::Error> + Send + 'static) -> Self {
        let serving = Serving::new(version("good")).unwrap();
        let options = Options { articles: 20, min_sentences: 20, ..Options::default() };
        let watch = Watch::new(&options, serving.model());
        let serving = Arc::new(serving.observed_by([watch.observer()]));
        let asked = Asked::default();
        let asking = asked.clone();
        let act: Act = Box::new(move |model, reason| {
            asking.lock().unwrap().push((model.version.clone(), reason.to_owned()));
            act()
        });
        let snapshot = Handle(Arc::default());
        let judge = Judge { watch, serving: serving.clone(), act: Some(act), failed: None, snapshot };
        let mut world = Self { serving, judge, asked };
        world.judge.round(Instant::now());
        world.articles(20);
        world
    }

    fn swap(&mut self, name: &str) {
        self.serving.swap(version(name));
        self.judge.round(Instant::now());
    }

    fn articles(&self, count: usize) {
        for number in 0..count {
            let passage = Passage {
                section: Section::Body,
                heading: None,
                language: None,
                text: "BRCA1 is here. Nothing there.".into(),
            };
            let document = Document { article_id: number.to_string(), article_version: 1, passages: vec![passage] };
            let _ = futures::executor::block_on(self.serving.tag(document)); // the version "broken" fails
        }
    }

    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[test]
fn a_version_that_finds_nothing_is_rolled_back_once() {
    let mut world = World::new(|| Ok(true));
    world.swap("blind");
    world.articles(19);
    assert!(!world.judge.round(Instant::now()));
    let trial = world.judge.snapshot.snapshot().unwrap();
    assert_eq!((trial.version.version.as_str(), trial.articles, trial.passed), ("blind", 19, None));
    world.articles(1);
    assert!(world.judge.round(Instant::now()));
    world.articles(100);
    assert!(!world.judge.round(Instant::now()));
    let asked = world.asked();
    assert_eq!((asked.len(), asked[0].0.as_str()), (1, "blind"));
    assert!(asked[0].1.contains("0.00 % of 40 sentences have a mention, 50.00 % of 40 had before"), "{asked:?}");
    assert_eq!(world.judge.snapshot.snapshot().unwrap().passed, Some(false));
    world.swap("good");
    world.articles(100);
    assert!(!world.judge.round(Instant::now()));
    assert_eq!(world.asked(), [], "what it went back to is not on trial");
}

#[test]
fn a_version_that_fails_at_articles_is_rolled_back_early_and_a_good_one_stays() {
    let mut world = World::new(|| Ok(true));
    world.swap("better");
    world.articles(20);
    assert!(!world.judge.round(Instant::now()));
    assert_eq!(world.judge.snapshot.snapshot().unwrap().passed, Some(true));
    world.swap("broken");
    world.articles(2);
    assert!(world.judge.round(Instant::now()));
    assert!(world.asked()[0].1.contains("2 of 2 articles failed"));
}

#[test]
fn a_rollback_that_may_succeed_later_is_tried_again_while_the_version_is_in_force() {
    let unanswered = || registry::Error::Unanswered { servers: "nowhere".into() };
    let mut world = World::new(move || Err(unanswered()));
    world.swap("blind");
    world.articles(20);
    let start = Instant::now();
    let mut tried_at = Vec::new();
    for second in 0..10 {
        assert!(!world.judge.round(start + Duration::from_secs(second)));
        tried_at.extend(world.asked().iter().map(|_| second));
    }
    assert_eq!(tried_at, [0, 1, 3, 7]);
    world.serving.swap(version("good"));
    world.judge.round(start + Duration::from_secs(99));
    assert_eq!(world.asked(), [], "somebody else has done it");

    let mut world = World::new(|| Err(registry::Error::NotAnnounced { name: "fake".into() }));
    world.swap("blind");
    world.articles(20);
    for second in 0..10 {
        world.judge.round(start + Duration::from_secs(second));
    }
    assert_eq!(world.asked().len(), 1, "that never gets better");
}

#[test]
fn without_a_registry_it_only_tells() {
    let mut world = World::new(|| Ok(true));
    world.judge.act = None;
    world.swap("blind");
    world.articles(20);
    assert!(!world.judge.round(Instant::now()));
    assert_eq!(world.judge.snapshot.snapshot().unwrap().passed, Some(false));
}
