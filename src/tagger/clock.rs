//! What a step costs, whoever else is at work: processor time of the thread that does it.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// Runs from its start on the thread that it was started on.
#[derive(Clone, Copy)]
pub(super) enum Clock {
    /// Processor time of this thread: waiting, and being put aside for others, do not count.
    Processor(Duration),
    /// Time, where the work is done elsewhere: on a GPU.
    Wall(Instant),
}

impl Clock {
    /// Of the processor time of this thread.
    pub fn of_thread() -> Self {
        Self::Processor(thread_time())
    }

    /// For work on a GPU that this thread waits for; else as [`Clock::of_thread`].
    pub fn of_device(on_gpu: bool) -> Self {
        if on_gpu { Self::Wall(Instant::now()) } else { Self::of_thread() }
    }

    /// Seconds since the start; to be asked on the same thread.
    pub fn seconds(self) -> f64 {
        match self {
            Self::Processor(started) => thread_time().saturating_sub(started),
            Self::Wall(started) => started.elapsed(),
        }
        .as_secs_f64()
    }
}

fn thread_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is to room for the one value that the call writes.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    if result != 0 {
        return Duration::ZERO; // a kernel without this clock
    }
    // SAFETY: the call has succeeded, so the value is written.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_and_waiting_does_not() {
        let (clock, wall) = (Clock::of_thread(), Clock::of_device(true));
        std::thread::sleep(Duration::from_millis(50));
        assert!(clock.seconds() < 0.04 && wall.seconds() >= 0.05);
        let mut state = 1u64;
        while clock.seconds() < 0.01 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}
