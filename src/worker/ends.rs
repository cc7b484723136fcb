//! Where partitions end, for [`Stop::AtEnd`](super::Stop::AtEnd).

use crate::bus::Error;
use crate::bus::consumer::Consumer;
use std::collections::{BTreeMap, BTreeSet};

/// How far each partition has been read, and how far it is to be read.
#[derive(Default)]
pub(super) struct Ends {
    /// The offset after the last message seen.
    position: BTreeMap<i32, i64>,
    /// Partitions at their end, as the consumer last reported.
    at_end: BTreeSet<i32>,
    /// Where each partition ended when the end was asked for.
    target: BTreeMap<i32, i64>,
}

impl Ends {
    /// The next message of the partition is the one at this offset.
    pub fn read_to(&mut self, partition: i32, next: i64) {
        self.position.insert(partition, next);
        self.at_end.remove(&partition);
    }

    /// The consumer says that there are no more messages now.
    pub fn found(&mut self, partition: i32) {
        self.at_end.insert(partition);
    }

    /// The partition is somebody else's.
    pub fn forget(&mut self, partition: i32) {
        self.position.remove(&partition);
        self.at_end.remove(&partition);
        self.target.remove(&partition);
    }

    /// Whether the partition has been read to where it ended when this was asked for the first time.
    pub fn is_reached(&mut self, partition: i32, consumer: &mut Consumer) -> Result<bool, Error> {
        let target = match self.target.get(&partition) {
            Some(&target) => target,
            None => self.find_target(partition, consumer)?,
        };
        let position = self.position.get(&partition).copied().unwrap_or(0);
        Ok(position >= target || self.at_end.contains(&partition))
    }

    /// Notes where a partition ends now, and from where it will be read on to there.
    fn find_target(&mut self, partition: i32, consumer: &mut Consumer) -> Result<i64, Error> {
        let (low, high) = consumer.watermarks(partition)?;
        let position = match self.position.get(&partition) {
            Some(&position) => position,
            None => consumer.committed(partition)?.unwrap_or(low).max(low),
        };
        self.position.insert(partition, position);
        self.target.insert(partition, high);
        if self.at_end.remove(&partition) && position < high {
            // What it has reported may be an earlier end. Reading on from the same place makes it report
            // again: what lies between may be nothing but the marks of transactions.
            consumer.seek(&BTreeMap::from([(partition, position)]))?;
        }
        Ok(high)
    }
}
