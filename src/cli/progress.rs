//! Progress on stderr, and logs that do not tear it.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal as _, Write};
use std::sync::LazyLock;
use std::time::Duration;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar over bytes of input, hidden where stderr is no terminal or the results go to the same one.
/// `total` is `None` for stdin.
pub fn bytes(total: Option<u64>) -> ProgressBar {
    if io::stdout().is_terminal() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match total {
        Some(_) => "{bar:30.cyan/dim} {bytes:>10}/{total_bytes} {msg}  {eta} left",
        None => "{spinner:.cyan} {bytes:>10} {msg}  {elapsed}",
    };
    let style = ProgressStyle::with_template(template).expect("the templates are valid, a test reads them");
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style.progress_chars("━╸─"));
    let bar = BARS.add(bar);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A spinner while something is waited for, hidden where stderr is no terminal.
pub fn spinner(message: &'static str) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new_spinner().with_message(message));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Makes a bar of a spinner, when it is known how much there is to do.
pub fn set_total(bar: &ProgressBar, total: u64) {
    let template = "{bar:30.cyan/dim} {percent:>3} %  {msg}  {eta} left";
    let style = ProgressStyle::with_template(template).expect("the templates are valid, a test reads them");
    bar.set_style(style.progress_chars("━╸─"));
    bar.set_length(total);
    bar.reset_eta();
}

/// Runs `write` with the bars out of the way.
pub fn suspended<T>(write: impl FnOnce() -> T) -> T {
    BARS.suspend(write)
}

/// Takes the bars off the terminal.
pub fn clear() {
    let _ = BARS.clear(); // a terminal that is gone needs no clearing
}

/// stderr for the logs: each line is written with the bars out of the way.
#[derive(Clone, Copy)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        suspended(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
