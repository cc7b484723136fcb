//! Ids and schemas, each asked for once and then known.
//!
//! A question that gets no answer is asked again with growing pauses as long as anybody waits for it; all who wait for
//! the same one share its answer. The requests run on a thread of the registry's own, so that anybody may wait: tasks
//! of any runtime, and threads of none.

use super::client::{Client, Found};
use super::{Error, Options, subject};
use crate::ErrorClass;
use crate::bus::codec::{self, Writer};
use crate::bus::{self, topics};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The pause before a question is asked again grows from this …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often its absence is told in the log.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
/// How long an id that nothing has is not asked for again: a copy of a registry may lag behind the original.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// The most ids that are remembered; then all are asked for again.
const MAX_KNOWN: usize = 1_000;
/// Ids are positive in the wire format, where they are signed.
const MAX_ID: u32 = i32::MAX as u32;

/// What a registry has said about an id.
#[derive(Debug, Clone)]
pub enum Known {
    /// Values can be read by its schema.
    Writer(Arc<Writer>),
    /// It stands for what no value is read by; why.
    Unusable(Arc<str>),
    /// It stands for nothing.
    Nothing,
}

/// A connection to a registry. Clones share it, and what it knows.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    runtime: Arc<Background>,
}

struct Shared {
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By id, with the time after which it is asked again.
    writers: HashMap<u32, (Known, Option<Instant>)>,
    /// By topic.
    ids: HashMap<String, u32>,
    asked: HashMap<Question, Arc<watch::Sender<Answer>>>,
    /// Questions among them that are asked again.
    waiting: usize,
    trouble: String,
    told: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Question {
    /// The schema with an id.
    Writer(u32),
    /// The id of the schema of a topic's values.
    Id(String),
}

/// None as long as there is none. What was found stands in the state.
type Answer = Option<Result<(), Error>>;

impl Registry {
    /// None where no registry is set. Nothing is asked yet.
    pub fn new(options: &Options) -> Result<Option<Self>, bus::Error> {
        let Some(client) = Client::new(options)? else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("schema-registry")
            .enable_all()
            .build()
            .map_err(|e| bus::Error::Options(format!("no thread can be started for the schema registry: {e}")))?;
        let shared = Arc::new(Shared { client, state: Mutex::default() });
        Ok(Some(Self { shared, runtime: Arc::new(Background(Some(runtime))) }))
    }

    /// What the registry says about an id. Waits until it says anything.
    pub async fn writer(&self, id: u32) -> Result<Known, Error> {
        loop {
            if let Some(known) = self.shared.lock().writer(id) {
                return Ok(known);
            }
            self.answer(Question::Writer(id)).await?;
        }
    }

    /// The id that values on `topic` are written with. Waits until the registry says it.
    pub async fn id(&self, topic: &str) -> Result<u32, Error> {
        loop {
            if let Some(&id) = self.shared.lock().ids.get(topic) {
                return Ok(id);
            }
            self.answer(Question::Id(topic.to_owned())).await?;
        }
    }

    /// [`Registry::writer`], on the caller's thread, waiting at most for `patience`.
    pub fn writer_within(&self, id: u32, patience: Duration) -> Result<Known, Error> {
        if let Some(known) = self.shared.lock().writer(id) {
            return Ok(known);
        }
        let registry = self.clone();
        self.within(patience, async move { registry.writer(id).await })
    }

    /// [`Registry::id`], on the caller's thread, waiting at most for `patience`.
    pub fn id_within(&self, topic: &str, patience: Duration) -> Result<u32, Error> {
        if let Some(&id) = self.shared.lock().ids.get(topic) {
            return Ok(id);
        }
        let (registry, topic) = (self.clone(), topic.to_owned());
        self.within(patience, async move { registry.id(&topic).await })
    }

    /// Asks, once, for the id that values on `topic` are written with, where it is not known.
    pub async fn admit(&self, topic: &str) -> Result<(), Error> {
        if self.shared.lock().ids.contains_key(topic) {
            return Ok(());
        }
        let (shared, question) = (self.shared.clone(), Question::Id(topic.to_owned()));
        let asked = self.runtime.get().spawn(async move { shared.ask(&question).await });
        asked.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Why somebody waits for the registry at the moment, if that is so.
    pub fn trouble(&self) -> Option<String> {
        let state = self.shared.lock();
        (state.waiting > 0).then(|| state.trouble.clone())
    }

    async fn answer(&self, question: Question) -> Result<(), Error> {
        let mut answer = self.answers(question);
        match answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or(Ok(())),
            Err(_) => Err(ended()),
        }
    }

    /// Where the answer will stand; the question is asked where nobody has asked it.
    fn answers(&self, question: Question) -> watch::Receiver<Answer> {
        let mut state = self.shared.lock();
        if let Some(asked) = state.asked.get(&question) {
            return asked.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        state.asked.insert(question.clone(), sender.clone());
        self.runtime.get().spawn(self.shared.clone().ask_until_answered(question, sender));
        receiver
    }

    fn within<T: Send + 'static>(
        &self,
        patience: Duration,
        waits: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let waited = self.runtime.get().spawn(async move { tokio::time::timeout(patience, waits).await });
        match futures::executor::block_on(waited) {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Unavailable {
                reason: self.trouble().unwrap_or_else(|| format!("nothing within {} s", patience.as_secs())),
            }),
            Err(_) => Err(ended()),
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive() // it holds credentials
    }
}

impl Shared {
    /// Asks until there is an answer, or nobody who waits for it.
    async fn ask_until_answered(self: Arc<Self>, question: Question, answer: Arc<watch::Sender<Answer>>) {
        let mut pause = FIRST_PAUSE;
        let mut is_waiting = false;
        loop {
            let asked = self.ask(&question).await;
            let may_pass = asked.as_ref().is_err_and(|error| error.class() == ErrorClass::Retriable);
            {
                let mut state = self.lock();
                if !may_pass || answer.receiver_count() == 0 {
                    state.asked.remove(&question);
                    state.wait(is_waiting, false);
                    // Whoever joins from now on asks anew.
                    answer.send_replace(Some(asked));
                    return;
                }
                state.wait(is_waiting, true);
                is_waiting = true;
                if let Err(error) = asked {
                    state.tell(&error);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = answer.closed() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks once; what is answered stands in the state then.
    async fn ask(&self, question: &Question) -> Result<(), Error> {
        match question {
            Question::Writer(id) => {
                let found = if *id > MAX_ID { Found::Nothing } else { self.client.schema_of(*id).await? };
                let (known, until) = match found {
                    Found::Schema(text) => match Writer::parse(&text) {
                        Ok(writer) => (Known::Writer(Arc::new(writer)), None),
                        Err(reason) => (Known::Unusable(reason.into()), None),
                    },
                    Found::Other(reason) => (Known::Unusable(reason.into()), None),
                    Found::Nothing => (Known::Nothing, Some(Instant::now() + UNKNOWN_FOR)),
                };
                self.lock().learn(*id, known, until);
            }
            Question::Id(topic) => {
                let schema = topics::value_schema(topic).unwrap_or_default();
                let not_registered = || Error::NotRegistered { subject: subject(topic), schema };
                let text = codec::schema_text(schema).ok_or_else(not_registered)?;
                let id = self.client.id_of(topic, &text).await?.ok_or_else(not_registered)?;
                self.lock().ids.insert(topic.clone(), id);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn writer(&self, id: u32) -> Option<Known> {
        let (known, until) = self.writers.get(&id)?;
        until.is_none_or(|until| Instant::now() < until).then(|| known.clone())
    }

    fn learn(&mut self, id: u32, known: Known, until: Option<Instant>) {
        if self.writers.len() >= MAX_KNOWN {
            self.writers.retain(|_, (known, _)| !matches!(known, Known::Nothing));
        }
        if self.writers.len() >= MAX_KNOWN {
            self.writers.clear();
        }
        self.writers.insert(id, (known, until));
    }

    /// Notes that a question waits for its answer, or does so no longer.
    fn wait(&mut self, waited: bool, waits: bool) {
        self.waiting = self.waiting + usize::from(waits) - usize::from(waited);
        let difference = f64::from(waits) - f64::from(waited);
        // Others in this process may wait, too.
        metrics::gauge!("litflow_schema_registry_waiting_ids").increment(difference);
    }

    fn tell(&mut self, error: &Error) {
        if let Error::Unavailable { reason } = error {
            self.trouble.clone_from(reason);
        }
        if self.told.is_none_or(|told| told.elapsed() > TELL_INTERVAL) {
            self.told = Some(Instant::now());
            tracing::warn!("what needs an id that is not known waits: {error}");
        }
    }
}

fn ended() -> Error {
    Error::Unavailable { reason: "its client has ended".to_owned() }
}

/// A runtime that can be dropped anywhere, where others block until their tasks have ended.
struct Background(Option<Runtime>);

impl Background {
    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken by drop only")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
