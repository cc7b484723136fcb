//! The articles that are being worked on: tagged in any order, taken out in the order of their partitions.

use super::process::{Failure, Output};
use crate::bus::lease::Lease;
use futures::future::{AbortHandle, AbortRegistration};
use rdkafka::message::{Message as _, OwnedMessage};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How a task tells the window of its result.
pub(super) struct Completion {
    pub partition: i32,
    /// As given out by [`Window::enter`].
    pub ticket: u64,
    pub result: Result<Output, Failure>,
}

/// An article whose work is done.
pub(super) struct Finished {
    pub message: Arc<OwnedMessage>,
    pub lease: Lease,
    pub result: Result<Output, Failure>,
}

struct Entry {
    message: Arc<OwnedMessage>,
    lease: Lease,
    result: Option<Result<Output, Failure>>,
    ticket: u64,
    bytes: usize,
    task: AbortHandle,
}

impl Drop for Entry {
    /// Work that nobody waits for is given up.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Entries by partition, in offset order.
#[derive(Default)]
pub(super) struct Window {
    partitions: BTreeMap<i32, VecDeque<Entry>>,
    next_ticket: u64,
    articles: usize,
    bytes: usize,
}

impl Window {
    /// Takes an article in. Its ticket is never given out again; its task is to be aborted by the registration.
    pub fn enter(&mut self, message: Arc<OwnedMessage>, lease: Lease) -> (u64, AbortRegistration) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let bytes = message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len);
        self.articles += 1;
        self.bytes += bytes;
        let partition = self.partitions.entry(message.partition()).or_default();
        debug_assert!(partition.back().is_none_or(|last| last.message.offset() < message.offset()));
        let (task, registration) = AbortHandle::new_pair();
        partition.push_back(Entry { message, lease, result: None, ticket, bytes, task });
        (ticket, registration)
    }

    /// Notes a result; that of an article that was dropped meanwhile is dropped too.
    pub fn complete(&mut self, completion: Completion) {
        let Some(partition) = self.partitions.get_mut(&completion.partition) else { return };
        if let Ok(index) = partition.binary_search_by_key(&completion.ticket, |entry| entry.ticket) {
            partition[index].result = Some(completion.result);
        }
    }

    /// The next article of any partition whose turn has come and whose work is done.
    pub fn take_finished(&mut self) -> Option<Finished> {
        for queue in self.partitions.values_mut() {
            let Some(result) = queue.front_mut().and_then(|entry| entry.result.take()) else { continue };
            let entry = queue.pop_front()?;
            self.articles -= 1;
            self.bytes -= entry.bytes;
            return Some(Finished { message: entry.message.clone(), lease: entry.lease.clone(), result });
        }
        None
    }

    /// Drops all articles of a partition.
    pub fn drop_partition(&mut self, partition: i32) {
        for entry in self.partitions.remove(&partition).into_iter().flatten() {
            self.articles -= 1;
            self.bytes -= entry.bytes;
        }
    }

    /// Drops everything; the first offset of each partition is where to begin again.
    pub fn clear(&mut self) -> BTreeMap<i32, (i64, Lease)> {
        self.articles = 0;
        self.bytes = 0;
        let partitions = std::mem::take(&mut self.partitions);
        let first = |queue: VecDeque<Entry>| queue.front().map(|entry| (entry.message.offset(), entry.lease.clone()));
        partitions.into_iter().filter_map(|(partition, queue)| Some((partition, first(queue)?))).collect()
    }

    /// Whether a partition has articles on their way.
    pub fn has(&self, partition: i32) -> bool {
        self.partitions.get(&partition).is_some_and(|queue| !queue.is_empty())
    }

    /// How many articles are on their way.
    pub fn articles(&self) -> usize {
        self.articles
    }

    /// Their bytes, as consumed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::lease::Leases;
    use rdkafka::Timestamp;

    fn message(partition: i32, offset: i64) -> Arc<OwnedMessage> {
        let payload = Some(vec![0; 10]);
        Arc::new(OwnedMessage::new(payload, None, "articles".into(), Timestamp::NotAvailable, partition, offset, None))
    }

    fn lease(partition: i32) -> Lease {
        let leases = Leases::default();
        leases.grant(&[partition]);
        leases.of(partition).unwrap()
    }

    fn enter(window: &mut Window, partition: i32, offset: i64) -> u64 {
        window.enter(message(partition, offset), lease(partition)).0
    }

    fn done(partition: i32, ticket: u64) -> Completion {
        Completion { partition, ticket, result: Ok(Output::default()) }
    }

    #[test]
    fn leaves_in_the_order_of_the_partition_whatever_finishes_first() {
        let mut window = Window::default();
        let tickets: Vec<u64> = (0..3).map(|offset| enter(&mut window, 0, offset)).collect();
        let other = enter(&mut window, 1, 7);
        window.complete(done(0, tickets[2]));
        window.complete(done(0, tickets[1]));
        assert!(window.take_finished().is_none());
        window.complete(done(1, other));
        assert_eq!(window.take_finished().unwrap().message.offset(), 7);
        window.complete(done(0, tickets[0]));
        let order = std::iter::from_fn(|| window.take_finished()).map(|finished| finished.message.offset());
        assert_eq!(order.collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((window.articles(), window.bytes()), (0, 0));
    }

    #[test]
    fn results_of_dropped_articles_do_not_count_for_their_repetition() {
        let mut window = Window::default();
        let old = enter(&mut window, 0, 5);
        enter(&mut window, 1, 9);
        let first = window.clear().into_iter().map(|(partition, (offset, _))| (partition, offset));
        assert_eq!(first.collect::<Vec<_>>(), [(0, 5), (1, 9)]);
        let new = enter(&mut window, 0, 5);
        window.complete(done(0, old));
        assert!(window.take_finished().is_none());
        window.complete(done(0, new));
        assert!(window.take_finished().is_some());
        enter(&mut window, 2, 0);
        window.drop_partition(2);
        assert_eq!((window.articles(), window.bytes(), window.has(2)), (0, 0, false));
    }
}
