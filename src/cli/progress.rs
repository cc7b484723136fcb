//! Progress on stderr, and logs that do not tear it.

use indicatif::MultiProgress;
use std::io::{self, Write};
use std::sync::LazyLock;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Runs `write` with the bars out of the way.
pub fn suspended<T>(write: impl FnOnce() -> T) -> T {
    BARS.suspend(write)
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
