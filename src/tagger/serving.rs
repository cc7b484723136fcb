//! The tagger in force, which can be replaced while documents are tagged.
//!
//! A document takes the tagger that is in force when its work begins, and ends with it. [`Serving::swap`]
//! exchanges a pointer: documents that begin later get the new tagger, those under way go on with the old one,
//! and nothing waits. When its last document is done the old tagger is dropped (threads joined, memory given
//! back), on a thread of its own because that may take a moment.

use super::{Error, ModelRef, Tag, TaggedDocument, lock};
use crate::article::Document;
use futures::future::BoxFuture;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Is told what came of each document and which version was at work, on the task that tagged it: it must be quick.
pub type Observer = Box<dyn Fn(&ModelRef, &Result<TaggedDocument, Error>) + Send + Sync>;

/// Tags by one tagger after the other. Dropping it waits until all of them are dropped.
pub struct Serving {
    // The order matters: the thread ends when the last tenure is over.
    current: Mutex<Arc<Tenure>>,
    observers: Vec<Observer>,
    _retirement: Retirement,
}

/// A tagger for as long as it is in force or has documents to end.
struct Tenure {
    tagger: Option<Box<dyn Tag>>,
    retired: Sender<Box<dyn Tag>>,
}

/// The thread that drops taggers whose tenure is over.
struct Retirement(Option<JoinHandle<()>>);

impl Serving {
    /// Begins with `tagger`.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn new(tagger: Box<dyn Tag>) -> std::io::Result<Self> {
        let (retired, arrivals) = channel::<Box<dyn Tag>>();
        let thread = std::thread::Builder::new().name("retire".into()).spawn(move || {
            for tagger in arrivals {
                let model = tagger.model();
                drop(tagger);
                tracing::info!(name = model.name, version = model.version, "the model is unloaded");
            }
        })?;
        let current = Mutex::new(Arc::new(Tenure { tagger: Some(tagger), retired }));
        Ok(Self { current, observers: Vec::new(), _retirement: Retirement(Some(thread)) })
    }

    /// Tells these, too, from now on.
    pub fn observed_by(mut self, observers: impl IntoIterator<Item = Observer>) -> Self {
        self.observers.extend(observers);
        self
    }

    /// Puts `next` in force. Returns at once, whatever is under way.
    pub fn swap(&self, next: Box<dyn Tag>) {
        let retired = self.current().retired.clone();
        let next = Arc::new(Tenure { tagger: Some(next), retired });
        let previous = std::mem::replace(&mut *lock(&self.current), next);
        drop(previous); // not under the lock
    }

    fn current(&self) -> Arc<Tenure> {
        lock(&self.current).clone()
    }
}

impl Tag for Serving {
    fn model(&self) -> Arc<ModelRef> {
        self.current().tagger().model()
    }

    fn entity_types(&self) -> Arc<[String]> {
        self.current().tagger().entity_types()
    }

    fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, Error>> {
        let tenure = self.current();
        Box::pin(async move {
            let result = tenure.tagger().tag(document).await;
            for observer in &self.observers {
                observer(&tenure.tagger().model(), &result);
            }
            result
        })
    }
}

impl Tenure {
    fn tagger(&self) -> &dyn Tag {
        self.tagger.as_deref().expect("only drop takes it away")
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if let Some(tagger) = self.tagger.take() {
            let _ = self.retired.send(tagger); // where the thread has ended it is dropped here
        }
    }
}

impl Drop for Retirement {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join(); // a tagger that panics in its drop has said so
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{document, engine, spelled_genes};
    use super::super::{Dictionary, Options};
    use super::*;
    use crate::tagger::testing::Labeller;
    use std::sync::mpsc;
    use tokio::sync::Semaphore;

    /// A tagger of a version that waits for a permit a document, and tells when it is dropped.
    struct Gated {
        inner: Dictionary,
        version: &'static str,
        gate: Arc<Semaphore>,
        dropped: mpsc::Sender<&'static str>,
    }

    impl Tag for Gated {
        fn model(&self) -> Arc<ModelRef> {
            Arc::new(ModelRef { name: "gated".into(), version: self.version.into(), digest: String::new() })
        }

        fn entity_types(&self) -> Arc<[String]> {
            self.inner.entity_types()
        }

        fn tag(&self, document: Document) -> BoxFuture<'_, Result<TaggedDocument, Error>> {
            Box::pin(async move {
                self.gate.acquire().await.unwrap().forget();
                let tagged = self.inner.tag(document).await?;
                Ok(TaggedDocument { model: (*self.model()).clone(), ..tagged })
            })
        }
    }

    impl Drop for Gated {
        fn drop(&mut self) {
            let _ = self.dropped.send(self.version);
        }
    }

    #[tokio::test]
    async fn a_document_ends_with_the_tagger_that_it_began_with() {
        let (dropped, drops) = mpsc::channel();
        let gate = Arc::new(Semaphore::new(0));
        let gated = |version, gate: &Arc<Semaphore>| {
            let inner = Dictionary::new([("BRCA1", "Gene")]).unwrap();
            Box::new(Gated { inner, version, gate: gate.clone(), dropped: dropped.clone() })
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let observer: Observer = Box::new(move |model, result| {
            lock(&noted).push((model.version.clone(), result.as_ref().unwrap().document.article_id.clone()));
        });
        let serving = Serving::new(gated("1", &gate)).unwrap().observed_by([observer]);
        let mut under_way = serving.tag(document("a", ["BRCA1"]));
        assert!(futures::poll!(&mut under_way).is_pending());

        let open = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        serving.swap(gated("2", &open));
        assert_eq!(serving.model().version, "2");
        let later = serving.tag(document("b", ["BRCA1"])).await.unwrap();
        assert_eq!(later.model.version, "2");
        assert!(drops.try_recv().is_err(), "the first has a document under way");

        gate.add_permits(1);
        assert_eq!(under_way.await.unwrap().model.version, "1");
        assert_eq!(drops.recv().unwrap(), "1");
        assert_eq!(*lock(&seen), [("2".into(), "b".into()), ("1".into(), "a".into())]);
        drop(serving);
        assert_eq!(drops.try_recv().unwrap(), "2", "dropped before `drop` returned");
    }

    /// Many documents under way while engines come and go: each is answered once, by one version.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_lost_under_load() {
        let versions = 8;
        let start = || Box::new(engine(Labeller(|ids: &[u32]| Ok(spelled_genes(ids))), 16, Options::default()));
        let serving = Arc::new(Serving::new(start()).unwrap());
        let mut tasks = Vec::new();
        for version in 0..versions {
            for number in 0..50 {
                let serving = serving.clone();
                tasks.push(tokio::spawn(async move {
                    serving.tag(document(&format!("{version}-{number}"), ["A xyy here. And xy there."])).await
                }));
            }
            serving.swap(start());
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().mentions.len(), 2);
        }
    }
}
