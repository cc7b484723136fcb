//! The windows of many documents wait here for a model thread.
//!
//! Threads that tokenise push and wait when the queue is full; model threads pull and wait when it is
//! empty. Nobody ever waits for a batch to fill up: an idle model thread takes what is there. Under load
//! the oldest windows, a few batches of them, are sorted by length and cut into batches, so a batch holds
//! windows of about one length; and since only the oldest are taken, no window waits for ever. A slow model sorts
//! fewer at a time: its documents, too, are done in the order in which they came, but for about a second.

use super::document::QueuedWindow;
use super::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most batches' worth of windows that are sorted together, …
const SORTED_BATCHES: usize = 8;
/// … as long as the model threads take no longer for them than this.
const SORTED_TIME: Duration = Duration::from_secs(1);
/// Below this a batch is not cut further to give every idle thread a share: a batch has a fixed cost.
const SMALLEST_SHARE: usize = 256;

/// Windows that go through the encoder together, ascending by length.
pub(super) struct Batch(pub Vec<QueuedWindow>);

pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
    /// Rows that fill a batch.
    batch_rows: usize,
    /// Threads that pull.
    threads: usize,
}

#[derive(Default)]
struct State {
    /// In the order in which they came.
    waiting: VecDeque<QueuedWindow>,
    /// Sorted and cut, to be taken next.
    batches: VecDeque<Batch>,
    /// Rows in `batches` when they were cut, and when that was; none where a thread has waited since.
    sorted: Option<(usize, Instant)>,
    /// Rows of all the windows here.
    rows: usize,
    closed: bool,
}

impl Queue {
    pub fn new(batch_rows: usize, threads: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), drained: Condvar::new(), batch_rows, threads }
    }

    /// The rows that make a pusher wait.
    fn capacity(&self) -> usize {
        SORTED_BATCHES * self.batch_rows * self.threads
    }

    /// How many rows are best pushed at a time: enough for every thread.
    pub fn chunk_rows(&self) -> usize {
        self.batch_rows * self.threads
    }

    /// Adds windows, after waiting while the queue is full. `false`: the queue is closed.
    pub fn push(&self, windows: Vec<QueuedWindow>) -> bool {
        let mut state = lock(&self.state);
        while state.rows >= self.capacity() && !state.closed {
            state = wait(&self.drained, state);
        }
        if state.closed {
            return false;
        }
        state.rows += windows.iter().map(QueuedWindow::rows).sum::<usize>();
        state.waiting.extend(windows);
        drop(state);
        self.filled.notify_all();
        true
    }

    /// The next batch, after waiting while there is none. `None`: the queue is closed.
    pub fn next_batch(&self) -> Option<Batch> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if state.batches.is_empty() {
                self.arrange(&mut state);
            }
            if let Some(batch) = state.batches.pop_front() {
                state.rows -= batch.rows();
                drop(state);
                self.drained.notify_all();
                return Some(batch);
            }
            self.drained.notify_all(); // what was there may have been thrown away
            state.sorted = None;
            state = wait(&self.filled, state);
        }
    }

    /// Drops what waits and lets everybody go.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let left = std::mem::take(&mut *state);
        state.closed = true;
        drop(state);
        drop(left); // not under the lock: the last window of a document frees all of it
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Sorts the oldest windows by length and cuts them into batches. Windows of documents that are over are
    /// thrown away.
    fn arrange(&self, state: &mut State) {
        let most = match state.sorted {
            Some((rows, since)) => rows_to_sort(rows, since.elapsed()),
            None => 0,
        };
        let most = most.clamp(self.batch_rows, SORTED_BATCHES * self.batch_rows);
        let mut taken = Vec::new();
        let mut rows = 0;
        while rows < most
            && let Some(window) = state.waiting.pop_front()
        {
            if window.segment.work.is_over() {
                state.rows -= window.rows();
            } else {
                rows += window.rows();
                taken.push(window);
            }
        }
        taken.sort_by_key(QueuedWindow::rows);
        let share = rows.div_ceil(self.threads).max(SMALLEST_SHARE);
        state.batches = cut(taken, share.min(self.batch_rows));
        state.sorted = Some((rows, Instant::now()));
    }
}

/// What the model threads get through in [`SORTED_TIME`], where `rows` took them `elapsed`.
fn rows_to_sort(rows: usize, elapsed: Duration) -> usize {
    (rows as f64 * SORTED_TIME.as_secs_f64() / elapsed.as_secs_f64().max(1e-6)) as usize
}

/// Cuts windows into batches of at most `most` rows; a longer window is a batch of its own.
fn cut(windows: Vec<QueuedWindow>, most: usize) -> VecDeque<Batch> {
    let mut batches = VecDeque::new();
    let mut batch = Batch(Vec::new());
    let mut rows = 0;
    for window in windows {
        if rows + window.rows() > most && !batch.0.is_empty() {
            batches.push_back(std::mem::replace(&mut batch, Batch(Vec::new())));
            rows = 0;
        }
        rows += window.rows();
        batch.0.push(window);
    }
    if !batch.0.is_empty() {
        batches.push_back(batch);
    }
    batches
}

impl Batch {
    /// Rows of the encoder's input, special tokens included.
    pub fn rows(&self) -> usize {
        self.0.iter().map(QueuedWindow::rows).sum()
    }

    /// The same windows, those of each document in a batch of its own.
    pub fn into_documents(self) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for window in self.0 {
            let same = |batch: &&mut Batch| Arc::ptr_eq(&batch.0[0].segment.work, &window.segment.work);
            match batches.iter_mut().find(same) {
                Some(batch) => batch.0.push(window),
                None => batches.push(Batch(vec![window])),
            }
        }
        batches
    }
}

fn wait<'g, T>(condition: &Condvar, guard: MutexGuard<'g, T>) -> MutexGuard<'g, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_model_sorts_what_it_gets_through_in_a_second() {
        assert_eq!(rows_to_sort(8_192, Duration::from_secs(16)), 512);
        assert_eq!(rows_to_sort(512, Duration::from_millis(100)), 5_120);
        assert!(rows_to_sort(256, Duration::ZERO) > 1 << 20, "no division by zero");
    }
}
