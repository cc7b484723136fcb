//! What a person sees of a run, on stderr: a bar with loss and time left on a terminal, lines elsewhere.

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Without a terminal a line is written this often.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// The progress of a run of known length.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    started: Instant,
    first: u64,
    last_line: Instant,
    /// Words of the epoch under way at the last step.
    epoch_words: u64,
    /// Words since the last line.
    words: u64,
}

impl Progress {
    /// A run of `steps` steps that begins at step `first`.
    pub fn new(steps: u64, first: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target).with_style(
            ProgressStyle::with_template("{msg}  {wide_bar}  {pos}/{len} steps  {eta} left")
                .expect("the template is constant and valid"),
        );
        bar.set_position(first);
        bar.reset_eta();
        let now = Instant::now();
        Self { bar, terminal, started: now, first, last_line: now, epoch_words: 0, words: 0 }
    }

    /// After a step: the epoch under way, its mean loss and the words seen in it.
    pub fn step(&mut self, epoch: &str, loss: f64, words: u64) {
        self.bar.inc(1);
        // Where it is less than before a new epoch has begun.
        self.words += words.checked_sub(self.epoch_words).unwrap_or(words);
        self.epoch_words = words;
        let message = format!("{epoch}  loss {loss:.4}");
        if self.terminal {
            self.bar.set_message(message);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let per_step = self.started.elapsed().as_secs_f64() / (done - self.first).max(1) as f64;
            let left = Duration::from_secs_f64(per_step * all.saturating_sub(done) as f64);
            let rate = self.words as f64 / self.last_line.elapsed().as_secs_f64();
            eprintln!("{message}  {done}/{all} steps  {rate:.0} words/s  {} left", HumanDuration(left));
            self.last_line = Instant::now();
            self.words = 0;
        }
    }

    /// A line that stays.
    pub fn line(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
