//! The loop: consume, hand out, collect in order, publish, commit; give partitions up when asked.
//!
//! Everything here happens on one thread. Articles are tagged elsewhere; their results wait in the window
//! until it is their partition's turn. While a commit is waited for, tagging goes on.

mod recovery;

use super::dead_letter::{Refusal, Stage};
use super::ends::Ends;
use super::halts::{Halt, Halts};
use super::order::Order;
use super::process::{Failure, Limits, process_in_turn};
use super::shutdown::Shutdown;
use super::status::{State, Status};
use super::transaction::Transaction;
use super::window::{Completion, Finished, Window};
use super::{Error, Options, Stop, Summary};
use crate::bus::consumer::{Consumer, Event};
use crate::bus::lease::Lease;
use crate::bus::producer::Producer;
use crate::bus::{self, topics};
use crate::tagger::Tag;
use crate::{ErrorClass, failpoint};
use crossbeam_channel::{Receiver, Sender, unbounded};
use futures::FutureExt as _;
use futures::future::Abortable;
use rdkafka::message::{Message as _, OwnedMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long a poll waits when there is nothing on its way …
const IDLE_POLL: Duration = Duration::from_millis(50);
/// … and when results may come in.
const BUSY_POLL: Duration = Duration::from_millis(2);
/// Messages taken in one round, so that results and the clock get their turn.
const MESSAGES_A_ROUND: usize = 500;

pub(super) struct Stream {
    options: Options,
    consumer: Consumer,
    producer: Producer,
    tagger: Arc<dyn Tag>,
    limits: Arc<Limits>,
    runtime: Handle,
    status: Arc<Status>,

    phase: Phase,
    assigned: BTreeSet<i32>,
    revoking: Option<Revoking>,
    paused: bool,
    /// Of the articles in the window.
    order: Order,
    window: Window,
    completed: Receiver<Completion>,
    completions: Sender<Completion>,
    transaction: Transaction,
    /// Where partitions are to be read again since a transaction has failed.
    rewind: BTreeMap<i32, (i64, Lease)>,
    halts: Halts,
    /// Transactions that failed in a row.
    setbacks: u32,
    ends: Ends,
    first_article: Option<Instant>,
    summary: Summary,
}

#[derive(Clone, Copy)]
enum Phase {
    Consuming,
    Draining { deadline: Instant },
}

/// Partitions that are to be given up when their work is committed.
struct Revoking {
    partitions: Vec<i32>,
    deadline: Instant,
}

impl Stream {
    pub fn new(
        options: Options,
        consumer: Consumer,
        producer: Producer,
        tagger: Arc<dyn Tag>,
        limits: Limits,
        runtime: Handle,
        status: Arc<Status>,
    ) -> Self {
        // Bounded by the window: each article in it sends one completion.
        let (completions, completed) = unbounded();
        Self {
            options,
            consumer,
            producer,
            tagger,
            limits: Arc::new(limits),
            runtime,
            status,
            phase: Phase::Consuming,
            assigned: BTreeSet::new(),
            revoking: None,
            paused: false,
            order: Order::default(),
            window: Window::default(),
            completed,
            completions,
            transaction: Transaction::default(),
            rewind: BTreeMap::new(),
            halts: Halts::default(),
            setbacks: 0,
            ends: Ends::default(),
            first_article: None,
            summary: Summary::default(),
        }
    }

    /// Works until it is to stop; then everything done is committed and the group is left.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<Summary, Error> {
        self.status.round(|snapshot| snapshot.state = State::Consuming);
        let result = self.work(shutdown);
        if result.is_err() {
            shutdown.begin();
            // The brokers would do it after the transaction's time-out; readers need not wait so long.
            if let Err(error) = self.producer.abort(&mut self.consumer) {
                tracing::debug!("{error}");
            }
        }
        self.consumer.close();
        result.map(|()| self.summary)
    }

    fn work(&mut self, shutdown: &Shutdown) -> Result<(), Error> {
        loop {
            let mut result = self.round(shutdown);
            while let Err(error) = result {
                if !matches!(error.class(), ErrorClass::Abort | ErrorClass::Retriable) {
                    return Err(error);
                }
                result = self.start_over(error).map(|()| false);
            }
            if let Ok(true) = result {
                return Ok(());
            }
        }
    }

    /// One turn of the loop; true when the work is complete.
    fn round(&mut self, shutdown: &Shutdown) -> Result<bool, Error> {
        if let (Some(deadline), Phase::Consuming) = (shutdown.drained_by(), self.phase) {
            tracing::info!(articles = self.window.articles(), "draining");
            self.phase = Phase::Draining { deadline };
            self.consumer.pause()?;
        }
        self.retry_halted()?;
        self.consume()?;
        self.collect()?;
        if self.transaction.is_due(&self.options) {
            self.commit()?;
        }
        self.finish_revocation()?;
        self.regulate()?;
        self.report();
        match (self.phase, shutdown.asked()) {
            (Phase::Draining { deadline }, _) => {
                if self.window.articles() > 0 && Instant::now() < deadline {
                    return Ok(false);
                }
                self.summary.left = self.window.articles() as u64;
                self.window.clear();
                self.commit()?;
                Ok(true)
            }
            (Phase::Consuming, Stop::AtEnd) if self.is_at_end()? => {
                self.commit()?;
                Ok(true)
            }
            (Phase::Consuming, _) => Ok(false),
        }
    }

    fn consume(&mut self) -> Result<(), Error> {
        let busy = self.window.articles() > 0 || self.transaction.since.is_some();
        let mut wait = match (self.is_full(), busy) {
            (true, _) => Duration::ZERO,
            (false, true) => BUSY_POLL,
            (false, false) => IDLE_POLL,
        };
        for _ in 0..MESSAGES_A_ROUND {
            let Some(event) = self.consumer.poll(wait)? else { return Ok(()) };
            wait = Duration::ZERO;
            match event {
                Event::Message(message, lease) => self.hand_out(*message, lease),
                Event::EndOfPartition(partition) => {
                    self.ends.found(partition);
                }
                Event::Assigned(partitions) => {
                    tracing::info!(?partitions, "assigned");
                    for &partition in partitions.iter().filter(|partition| self.halts.holds(**partition)) {
                        self.consumer.hold(partition)?;
                    }
                    self.assigned.extend(partitions);
                    self.status.assign(self.assigned.iter().copied());
                    self.status.round(|snapshot| snapshot.joined = true);
                }
                Event::Revoked { partitions, lost } => self.revoke(partitions, lost)?,
            }
            if self.is_full() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Has a message worked on, unless its partition is to be given up: then the next owner reads it.
    fn hand_out(&mut self, message: OwnedMessage, lease: Lease) {
        failpoint::reach("after_poll");
        let partition = message.partition();
        let is_leaving = self.revoking.as_ref().is_some_and(|revoking| revoking.partitions.contains(&partition));
        if is_leaving || matches!(self.phase, Phase::Draining { .. }) {
            return;
        }
        self.first_article.get_or_insert_with(Instant::now);
        self.ends.read_to(partition, message.offset() + 1);
        let message = Arc::new(message);
        let (ticket, registration) = self.window.enter(message.clone(), lease);
        let (tagger, limits, completions) = (self.tagger.clone(), self.limits.clone(), self.completions.clone());
        let turn = self.order.next();
        let work = async move {
            let processing = process_in_turn(turn, &message, &*tagger, &limits);
            let processed = AssertUnwindSafe(processing).catch_unwind().await;
            let result = processed.unwrap_or_else(|_| {
                let error = "the worker panicked over this article; its log has the place";
                Err(Failure::Refused(Refusal::new(Stage::Tag, "panic", error)))
            });
            // Nobody listens any more when the worker has ended.
            let _ = completions.send(Completion { partition, ticket, result });
        };
        self.runtime.spawn(Abortable::new(work, registration));
    }

    /// Publishes what is finished, in the order of each partition.
    fn collect(&mut self) -> Result<(), Error> {
        if self.is_full()
            && let Ok(completion) = self.completed.recv_timeout(BUSY_POLL)
        {
            self.window.complete(completion);
        }
        while let Ok(completion) = self.completed.try_recv() {
            self.window.complete(completion);
        }
        while let Some(finished) = self.window.take_finished() {
            self.publish(finished)?;
            if self.transaction.is_full(&self.options) {
                self.commit()?;
            }
        }
        Ok(())
    }

    fn publish(&mut self, Finished { message, lease, result }: Finished) -> Result<(), Error> {
        failpoint::reach("after_inference");
        let (partition, offset) = (message.partition(), message.offset());
        let alone = self.halts.any() && matches!(result, Err(Failure::Refused(_)));
        if alone {
            self.commit()?;
        }
        self.transaction.since.get_or_insert_with(Instant::now);
        // Before anything is sent: if that fails, this article is to be read again.
        self.transaction.first.entry(partition).or_insert((offset, lease.clone()));
        self.producer.begin()?;
        match result {
            Ok(output) => {
                for record in &output.records {
                    self.producer.send(record, &lease, &mut self.consumer)?;
                    self.transaction.bytes += record.bytes();
                }
                self.transaction.counts.add(&output.counts);
            }
            Err(Failure::Refused(refusal)) => self.refuse(&refusal, &message, &lease)?,
            Err(Failure::Stopped(error)) => return Err(Error::Tagger(error)),
            Err(Failure::SchemaRegistry(error)) => return Err(Error::Bus(error.into())),
        }
        failpoint::reach("after_produce");
        self.transaction.articles += 1;
        self.transaction.next.insert(partition, offset + 1);
        if alone { self.commit() } else { Ok(()) }
    }

    /// Sends the dead letter.
    fn refuse(&mut self, refusal: &Refusal, message: &OwnedMessage, lease: &Lease) -> Result<(), Error> {
        let (partition, offset, reason) = (message.partition(), message.offset(), refusal.reason);
        let stage = refusal.stage.name();
        tracing::warn!(topic = message.topic(), partition, offset, stage, reason, "dead letter: {}", refusal.error);
        let letter = refusal.dead_letter(message);
        self.transaction.letters.entry(partition).or_insert((offset, reason));
        self.transaction.bytes += letter.bytes();
        *self.transaction.refused.entry(reason).or_default() += 1;
        self.producer.send(&letter, lease, &mut self.consumer).map_err(|cause| match cause {
            bus::Error::TooLarge { .. } => Error::DeadLetter { partitions: vec![partition], cause },
            cause => Error::Bus(cause),
        })
    }

    fn commit(&mut self) -> Result<(), Error> {
        if self.transaction.since.is_none() {
            return Ok(());
        }
        let began = Instant::now();
        self.producer.commit(&self.transaction.next, &mut self.consumer).map_err(|cause| match &cause {
            bus::Error::Unwritable { topic, .. } | bus::Error::NoTopic { topic, .. }
                if topic == topics::DEAD_LETTERS =>
            {
                Error::DeadLetter { partitions: self.transaction.letters.keys().copied().collect(), cause }
            }
            _ => Error::Bus(cause),
        })?;
        let committed = std::mem::take(&mut self.transaction);
        self.setbacks = 0;
        for (&partition, &next) in &committed.next {
            if self.halts.committed(partition, next) {
                tracing::info!(partition, "the dead letter was written: the partition goes on");
            }
        }
        self.status.advance();
        committed.emit(began.elapsed());
        self.summary.articles += committed.articles as u64;
        self.summary.tagged += committed.counts.tagged;
        self.summary.tombstones += committed.counts.tombstones;
        self.summary.dead_letters += committed.refused.values().sum::<u64>();
        self.summary.sentences += committed.counts.sentences;
        self.summary.tokens += committed.counts.tokens;
        for (entity_type, count) in committed.counts.mentions {
            *self.summary.mentions.entry(entity_type).or_default() += count;
        }
        self.summary.transactions += 1;
        self.summary.seconds = self.first_article.map_or(0.0, |first| first.elapsed().as_secs_f64());
        Ok(())
    }

    /// Has another try at partitions that stand still.
    fn retry_halted(&mut self) -> Result<(), Error> {
        for partition in self.halts.take_due() {
            self.consumer.release(partition)?;
        }
        Ok(())
    }

    fn revoke(&mut self, partitions: Vec<i32>, lost: bool) -> Result<(), Error> {
        tracing::info!(?partitions, lost, "revoked");
        let deadline = Instant::now() + self.options.drain_timeout();
        if !lost {
            let revoking = self.revoking.get_or_insert(Revoking { partitions: Vec::new(), deadline });
            revoking.partitions.extend(partitions);
            return Ok(());
        }
        let in_transaction = partitions.iter().any(|partition| self.transaction.first.contains_key(partition));
        self.forget(&partitions);
        self.revoking = None;
        self.consumer.let_go(&partitions)?;
        if in_transaction { Err(bus::Error::Lost { step: "rebalancing", partitions }.into()) } else { Ok(()) }
    }

    /// Gives revoked partitions up as soon as what was on its way is committed, or the time for it is over.
    fn finish_revocation(&mut self) -> Result<(), Error> {
        let Some(revoking) = &self.revoking else { return Ok(()) };
        let on_their_way = revoking.partitions.iter().any(|partition| self.window.has(*partition));
        if on_their_way && Instant::now() < revoking.deadline {
            return Ok(());
        }
        let partitions = revoking.partitions.clone();
        self.forget(&partitions);
        if partitions.iter().any(|partition| self.transaction.first.contains_key(partition)) {
            self.commit()?;
        }
        self.revoking = None;
        self.consumer.let_go(&partitions)?;
        Ok(())
    }

    fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.window.drop_partition(*partition);
            self.assigned.remove(partition);
            self.ends.forget(*partition);
            self.halts.forget(*partition);
        }
        self.status.assign(self.assigned.iter().copied());
    }

    fn is_full(&self) -> bool {
        self.window.articles() >= self.options.in_flight_articles || self.window.bytes() >= self.options.in_flight_bytes
    }

    /// Back-pressure: a full window pauses the partitions, a half empty one lets them flow again.
    fn regulate(&mut self) -> Result<(), Error> {
        if matches!(self.phase, Phase::Draining { .. }) {
            return Ok(());
        }
        let half_empty = self.window.articles() <= self.options.in_flight_articles / 2
            && self.window.bytes() <= self.options.in_flight_bytes / 2;
        if !self.paused && self.is_full() {
            self.consumer.pause()?;
            self.paused = true;
        } else if self.paused && half_empty {
            self.consumer.resume()?;
            self.paused = false;
        }
        Ok(())
    }

    /// Whether everything that was there when the end was asked for is done.
    fn is_at_end(&mut self) -> Result<bool, Error> {
        if self.window.articles() > 0 || self.assigned.is_empty() || self.revoking.is_some() {
            return Ok(false);
        }
        for &partition in self.assigned.iter().filter(|partition| !self.halts.holds(**partition)) {
            if !self.ends.is_reached(partition, &mut self.consumer)? {
                return Ok(false);
            }
        }
        let halted = self.halts.held().next().cloned();
        match halted {
            None => Ok(true),
            Some(Halt { partition, offset, reason, error, .. }) => {
                self.commit()?;
                Err(Error::Halted { topic: topics::ARTICLES, partition, offset, reason, error })
            }
        }
    }

    fn report(&mut self) {
        let brokers_down = self.consumer.brokers_down();
        let schema_registry = self.limits.outputs.wire().trouble();
        let state = if matches!(self.phase, Phase::Draining { .. }) { State::Draining } else { State::Consuming };
        let in_flight = self.window.articles() + self.transaction.articles;
        metrics::gauge!("litflow_worker_in_flight_articles").set(in_flight as f64);
        metrics::gauge!("litflow_worker_in_flight_bytes").set(self.window.bytes() as f64);
        metrics::gauge!("litflow_worker_assigned_partitions").set(self.assigned.len() as f64);
        let halted: Vec<Halt> = self.halts.held().cloned().collect();
        metrics::gauge!("litflow_worker_halted_partitions").set(halted.len() as f64);
        self.status.round(|snapshot| {
            snapshot.state = state;
            snapshot.halted = halted;
            snapshot.input_missing = self.consumer.missing();
            snapshot.in_flight = in_flight;
            snapshot.articles = self.summary.articles;
            snapshot.dead_letters = self.summary.dead_letters;
            snapshot.brokers_down = brokers_down;
            snapshot.schema_registry = schema_registry;
        });
    }
}
