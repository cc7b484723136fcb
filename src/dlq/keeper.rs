//! The one who may mark letters: replay and purge.

use super::letter::{Letter, Mark};
use super::letters::{DeadLetters, Progress, Range};
use super::{Error, Filter};
use crate::ErrorClass;
use crate::bus::admin::Admin;
use crate::bus::exclusive::Exclusive;
use crate::bus::producer::Outgoing;
use crate::bus::{Options, topics};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

/// The transactional id of every keeper: taking it fences whoever had it, and ends the transaction that he left open.
pub const TRANSACTIONAL_ID: &str = "litflow-dlq";

/// Bytes of keys and values in a transaction, but for a single larger letter.
const BATCH_BYTES: usize = 8 << 20;
/// How often a batch is tried whose transaction was aborted, by a broker that went away, say.
const ATTEMPTS: u32 = 5;

/// Letters with the right to mark them. What others have marked before is known; who takes the right afterwards ends
/// this one's: then [`Error::Replaced`] is returned, and nothing of the batch was done.
pub struct Keeper {
    letters: DeadLetters,
    writer: Writer,
}

/// What a keeper tells while it works.
#[derive(Debug)]
pub enum Event<'e> {
    /// This letter stays as it is, and why.
    LeftOut(&'e Letter, &'e str),
    /// So many letters were dealt with since the keeper began; they stay so.
    Committed(u64),
}

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Letters sent again.
    pub replayed: u64,
    /// Letters that cannot be.
    pub left_out: u64,
}

impl Keeper {
    /// Takes the right, and reads what there is. `by` stands in the marks; `batch` is the most letters in a transaction.
    pub fn take(
        kafka: &Options,
        filter: Filter,
        range: Range,
        by: &str,
        batch: usize,
        progress: Progress<'_>,
    ) -> Result<Self, Error> {
        let exclusive = Exclusive::take(kafka, TRANSACTIONAL_ID)?;
        let letters = DeadLetters::read_with_open(kafka, filter, range, progress)?;
        let batch = Batch { most: batch.max(1), ..Batch::default() };
        Ok(Self { letters, writer: Writer { exclusive, by: by.to_owned(), batch, committed: 0 } })
    }

    /// What was read.
    pub fn letters(&self) -> &DeadLetters {
        &self.letters
    }

    /// Sends the letters that match to the topic that they came from, and marks them. Those that were dealt with are
    /// passed over, unless `again`; so are those that die again meanwhile. Letters of more than `largest` bytes are
    /// left out.
    pub fn replay(
        &mut self,
        again: bool,
        largest: usize,
        progress: Progress<'_>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Replayed, Error> {
        let Self { letters, writer } = self;
        let mut left_out = 0;
        letters.for_each(again, progress, |letter, _| {
            let replay = letter.replay().and_then(|replay| match replay.bytes() {
                bytes if bytes > largest => Err(format!("{} takes {largest} bytes, it has {bytes}", replay.topic)),
                _ => Ok(replay),
            });
            match replay {
                Ok(replay) => writer.add(letter, Mark::Replayed, Some(replay), tell)?,
                Err(why) => {
                    left_out += 1;
                    tell(Event::LeftOut(letter, &why));
                }
            }
            Ok::<_, Error>(ControlFlow::Continue(()))
        })?;
        writer.flush(tell)?;
        Ok(Replayed { replayed: writer.committed, left_out })
    }

    /// Marks the letters that match, and that nobody has dealt with, as purged; how many there were.
    pub fn purge(&mut self, progress: Progress<'_>, tell: &mut dyn FnMut(Event<'_>)) -> Result<u64, Error> {
        let Self { letters, writer } = self;
        letters.for_each(false, progress, |letter, _| {
            writer.add(letter, Mark::Purged, None, tell)?;
            Ok::<_, Error>(ControlFlow::Continue(()))
        })?;
        writer.flush(tell)?;
        Ok(writer.committed)
    }

    /// Deletes the beginning of each partition as far as all letters there were dealt with, for good; how many letters
    /// that are. It takes [`Range::Whole`].
    pub async fn delete(&mut self, admin: &Admin) -> Result<u64, Error> {
        self.letters.refresh()?;
        let dealt_with = self.letters.dealt_with();
        if dealt_with.is_empty() {
            return Ok(0);
        }
        let offsets: BTreeMap<i32, i64> = dealt_with.iter().map(|(&partition, &(end, _))| (partition, end)).collect();
        admin.delete_before(topics::DEAD_LETTERS, &offsets).await?;
        Ok(dealt_with.values().map(|(_, letters)| letters).sum())
    }
}

/// Writes marks, and what belongs to them, batch by batch.
struct Writer {
    exclusive: Exclusive,
    by: String,
    batch: Batch,
    committed: u64,
}

#[derive(Default)]
struct Batch {
    records: Vec<Outgoing>,
    letters: usize,
    bytes: usize,
    most: usize,
}

impl Writer {
    fn add(
        &mut self,
        letter: &Letter,
        mark: Mark,
        replay: Option<Outgoing>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let mark = letter.marked(mark, &self.by);
        let bytes = mark.bytes() + replay.as_ref().map_or(0, Outgoing::bytes);
        if self.batch.letters == self.batch.most || self.batch.bytes + bytes > BATCH_BYTES {
            self.flush(tell)?;
        }
        self.batch.records.extend(replay);
        self.batch.records.push(mark);
        self.batch.letters += 1;
        self.batch.bytes += bytes;
        Ok(())
    }

    fn flush(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        if self.batch.letters == 0 {
            return Ok(());
        }
        let mut attempt = 1;
        while let Err(error) = self.exclusive.commit(&self.batch.records) {
            if error.class() != ErrorClass::Abort || attempt == ATTEMPTS {
                return Err(error.into());
            }
            tracing::warn!("the transaction failed and is done again: {error}");
            std::thread::sleep(Duration::from_millis(100 << attempt));
            attempt += 1;
        }
        self.committed += self.batch.letters as u64;
        self.batch = Batch { most: self.batch.most, ..Batch::default() };
        tell(Event::Committed(self.committed));
        Ok(())
    }
}
