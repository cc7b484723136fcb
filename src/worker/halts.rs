//! Partitions that stand still because a dead letter of theirs cannot be written: to go on would be to lose it.
//!
//! A halted partition is held, the others go on. Now and then it is tried again; as long as any partition is halted or
//! on trial, each dead letter is committed alone, so that one that fails takes nothing else back with it.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The first pause before another try; each further one is twice as long, …
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Where a partition stands still, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Halt {
    /// The partition of the input topic.
    pub partition: i32,
    /// The refused record that cannot be put with the dead letters.
    pub offset: i64,
    /// Why it was refused.
    pub reason: &'static str,
    /// Why its dead letter cannot be written.
    pub error: String,
    #[serde(skip)]
    tries: u32,
    /// When it is tried again; none while it is on trial.
    #[serde(skip)]
    held_until: Option<Instant>,
}

/// By partition.
#[derive(Default)]
pub(super) struct Halts(BTreeMap<i32, Halt>);

impl Halts {
    /// Halts a partition, for longer each time that it is at the same record.
    pub fn halt(&mut self, partition: i32, offset: i64, reason: &'static str, error: &str) {
        let again = self.0.get(&partition).filter(|halt| halt.offset == offset);
        let tries = again.map_or(0, |halt| halt.tries + 1);
        let pause = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE);
        let held_until = Some(Instant::now() + pause);
        self.0.insert(partition, Halt { partition, offset, reason, error: error.to_owned(), tries, held_until });
    }

    /// Whether dead letters are to be committed alone.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Those that stand still now.
    pub fn held(&self) -> impl Iterator<Item = &Halt> {
        self.0.values().filter(|halt| halt.held_until.is_some())
    }

    /// Whether a partition stands still now.
    pub fn holds(&self, partition: i32) -> bool {
        self.held().any(|halt| halt.partition == partition)
    }

    /// The partitions whose pause is over: they are on trial from now on.
    pub fn take_due(&mut self) -> Vec<i32> {
        let is_due = |halt: &&mut Halt| halt.held_until.is_some_and(|until| until <= Instant::now());
        let due = self.0.values_mut().filter(is_due);
        due.map(|halt| {
            halt.held_until = None;
            halt.partition
        })
        .collect()
    }

    /// The offsets before this one are committed. Whether that ends a halt.
    pub fn committed(&mut self, partition: i32, next: i64) -> bool {
        let ends = self.0.get(&partition).is_some_and(|halt| halt.offset < next);
        if ends {
            self.0.remove(&partition);
        }
        ends
    }

    /// The partition is somebody else's.
    pub fn forget(&mut self, partition: i32) {
        self.0.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_ends_with_the_commit_of_its_record() {
        let mut halts = Halts::default();
        halts.halt(3, 10, "not_avro", "no topic");
        assert!(halts.any() && halts.holds(3) && halts.take_due().is_empty());
        halts.0.get_mut(&3).unwrap().held_until = Some(Instant::now());
        assert_eq!(halts.take_due(), [3]);
        assert!(halts.any() && !halts.holds(3), "on trial");
        assert!(!halts.committed(3, 10), "what stands before it");
        halts.halt(3, 10, "not_avro", "no topic");
        assert_eq!(halts.held().next().unwrap().tries, 1);
        assert!(!halts.committed(4, 99));
        assert!(halts.committed(3, 11) && !halts.any());
    }
}
