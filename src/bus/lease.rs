//! The publish lock: the right to publish what was read from a partition, as long as the partition is ours.
//!
//! Each assignment of a partition has a [`Lease`] of its own, and each message carries that of its partition. The
//! producer takes no record without one, and commits nothing when one of them has ended. A lease ends in the
//! callback that tells of the loss, before anybody has heard of it, and it never comes back: a partition that is
//! assigned again has another one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The right to publish what comes from one partition. Clones are the same right.
#[derive(Debug, Clone)]
pub struct Lease {
    partition: i32,
    ended: Arc<AtomicBool>,
}

impl Lease {
    fn new(partition: i32) -> Self {
        Self { partition, ended: Arc::default() }
    }

    /// The partition that it is for.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Whether the partition is ours no longer.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// Those of the partitions that are assigned now.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<BTreeMap<i32, Lease>>);

impl Leases {
    /// These partitions are ours from now on.
    pub fn grant(&self, partitions: &[i32]) {
        let mut leases = self.lock();
        for &partition in partitions {
            if let Some(earlier) = leases.insert(partition, Lease::new(partition)) {
                earlier.end();
            }
        }
    }

    /// These partitions are ours no longer.
    pub fn end(&self, partitions: &[i32]) {
        let mut leases = self.lock();
        for lease in partitions.iter().filter_map(|partition| leases.remove(partition)).collect::<Vec<_>>() {
            lease.end();
        }
    }

    /// No partition is ours any longer.
    pub fn end_all(&self) {
        for lease in std::mem::take(&mut *self.lock()).values() {
            lease.end();
        }
    }

    /// That of a partition, where it is ours.
    pub fn of(&self, partition: i32) -> Option<Lease> {
        self.lock().get(&partition).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_has_ended_never_comes_back() {
        let leases = Leases::default();
        assert!(leases.of(0).is_none());
        leases.grant(&[0, 1]);
        let (first, other) = (leases.of(0).unwrap(), leases.of(1).unwrap());
        leases.end(&[0]);
        assert!(first.has_ended() && leases.of(0).is_none() && !other.has_ended());
        leases.grant(&[0]);
        assert!(first.has_ended() && !leases.of(0).unwrap().has_ended());
        // Assigned anew without a word of its loss.
        leases.grant(&[1]);
        assert!(other.has_ended());
        let last = leases.of(1).unwrap();
        leases.end_all();
        assert!(last.has_ended());
    }
}
