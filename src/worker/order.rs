//! Work that is prepared on all threads and begins in the order in which it was given out.
//!
//! A runtime's threads take tasks from their queue by the dozen, so tasks run in no order. The tagger serves first
//! what comes first; were articles handed to it in any order, one that a commit waits for might stand behind hundreds
//! of younger ones, and a drain would end before its turn.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use tokio::sync::oneshot::{Receiver, Sender, channel};

/// Gives out turns.
#[derive(Default)]
pub(super) struct Order {
    /// Closed when the last turn has begun, or was given up.
    last: Option<Receiver<Infallible>>,
}

/// A place in the order. Dropped, it is given up: the next one waits for it no longer, nor for what stands before it.
pub(super) struct Turn {
    before: Option<Receiver<Infallible>>,
    begun: Sender<Infallible>,
}

impl Order {
    /// The next turn.
    pub fn next(&mut self) -> Turn {
        let (begun, last) = channel();
        Turn { before: self.last.replace(last), begun }
    }
}

impl Turn {
    /// Waits until the turn before this one has begun; then begins `work`, which is to poll it once, and sees it done.
    pub async fn begin<T>(self, work: impl Future<Output = T>) -> T {
        let Self { before, begun } = self;
        if let Some(before) = before {
            let _ = before.await; // nothing is ever sent: it is closed
        }
        let mut work = pin!(work);
        let first = futures::poll!(&mut work);
        drop(begun);
        match first {
            Poll::Ready(result) => result,
            Poll::Pending => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn work_begins_in_order_whatever_was_ready_first() {
        let (mut order, begun) = (Order::default(), Arc::new(Mutex::new(Vec::new())));
        let tasks: Vec<_> = (0..2_000)
            .map(|number| {
                let (turn, begun) = (order.next(), begun.clone());
                tokio::spawn(async move {
                    if number % 7 == 0 {
                        tokio::task::yield_now().await; // some take longer to prepare
                    }
                    let work = async {
                        begun.lock().unwrap().push(number);
                        tokio::task::yield_now().await; // and to be done
                        number
                    };
                    assert_eq!(turn.begin(work).await, number);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let begun = begun.lock().unwrap();
        let late = begun.iter().enumerate().find(|&(place, &number)| place != number);
        assert_eq!((begun.len(), late), (2_000, None));
    }

    #[test]
    fn nobody_waits_for_a_turn_that_was_given_up() {
        let mut order = Order::default();
        let (first, second) = (order.next(), order.next());
        drop(first);
        assert_eq!(futures::executor::block_on(second.begin(async { 2 })), 2);
    }
}
