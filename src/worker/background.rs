//! A thread beside the stream, which ends when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a thread that loads models ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The thread is gone.
    Done,
    /// It is still loading a model, fetching one, or at work with one: libtorch may be at work when the process ends.
    Loading,
}

/// The running thread.
pub(super) struct Background {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Background {
    /// Starts a thread of this name. `body` ends soon after the flag that it is given is true.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(name: &str, body: impl FnOnce(&AtomicBool) + Send + 'static) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || body(&stopped))?;
        Ok(Self { stop, thread })
    }

    /// Has the thread end, after what it is at, and waits for that at most `grace`. Blocks.
    pub fn end(self, grace: Duration) -> End {
        const CHECK: Duration = Duration::from_millis(5);
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + grace;
        while !self.thread.is_finished() {
            if Instant::now() > deadline {
                return End::Loading;
            }
            std::thread::sleep(CHECK);
        }
        End::Done
    }
}
