//! The commands, one file each, and what they share.

pub mod export;
pub mod golden;
pub mod hold_out;
pub mod import;
pub mod run;
pub mod snapshot;

use anyhow::Context;
use litflow::config::{Config, Flag};
use litflow_training::Error;
use litflow_training::labels::{Entry, LeftOut};
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Done, but some input was left out.
const LEFT_OUT: u8 = 3;

/// The cluster.
#[derive(clap::Args)]
#[command(next_help_heading = "Kafka")]
pub struct Kafka {
    /// Configuration file of litflow, TOML
    #[arg(long, value_name = "FILE", env = "LITFLOW_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Brokers, host:port, several with commas [config: kafka.bootstrap_servers]
    #[arg(long, value_name = "SERVERS")]
    bootstrap_servers: Option<String>,
}

impl Kafka {
    /// The configuration in force: file, environment, flags.
    fn load(&self) -> Result<Config, Error> {
        let servers = self.bootstrap_servers.clone().map(|value| Flag {
            name: "--bootstrap-servers",
            key: "kafka.bootstrap_servers",
            value,
        });
        let flags: Vec<Flag> = servers.into_iter().collect();
        Ok(Config::load(self.config.as_deref(), std::env::vars_os(), &flags)?.config)
    }
}

/// Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends the process. Either way with 130 or 143.
pub struct Signals {
    /// Becomes true at the first one.
    pub asked: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on they are heard.
    pub fn listen() -> anyhow::Result<Self> {
        let signals = Self { asked: Arc::default(), number: Arc::default() };
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // In this order, which is kept: a signal does not see its own mark, and who sees the mark finds the number.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.asked))
                .and_then(|_| signal_hook::flag::register_usize(signal, Arc::clone(&signals.number), signal as usize))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&signals.asked)))
                .context("signals cannot be handled")?;
        }
        Ok(signals)
    }

    /// The exit code of what was ended by the first one.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(128 + self.number.load(Ordering::SeqCst) as u8)
    }
}

/// Tells what is left out: the first of it on stderr, all of it in a file where one is named.
struct Teller {
    file: Option<(PathBuf, BufWriter<File>)>,
    told: usize,
    failed: Option<Error>,
}

impl Teller {
    /// More than anybody reads on a terminal.
    const TOLD: usize = 20;

    fn new(file: Option<&Path>) -> Result<Self, Error> {
        let create = |path: &Path| match File::create(path) {
            Ok(file) => Ok((path.to_owned(), BufWriter::new(file))),
            Err(error) => Err(Error::io(path, error)),
        };
        Ok(Self { file: file.map(create).transpose()?, told: 0, failed: None })
    }

    fn tell(&mut self, entry: &Entry) {
        self.told += 1;
        if self.told <= Self::TOLD {
            eprintln!("left out: {entry}");
        }
        if let Some((path, file)) = &mut self.file {
            let line = serde_json::to_string(entry).expect("an entry is plain data");
            if let Err(error) = writeln!(file, "{line}") {
                self.failed.get_or_insert(Error::io(path, error));
            }
        }
    }

    /// Tells the counts; the exit code says whether there were any.
    fn finish(self, left_out: &LeftOut) -> anyhow::Result<ExitCode> {
        if let Some((path, mut file)) = self.file {
            file.flush().with_context(|| path.display().to_string())?;
        }
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        if self.told > Self::TOLD {
            eprintln!("… and {} more", self.told - Self::TOLD);
        }
        Ok(told_left_out(left_out))
    }
}

/// Writes a line, or several, to stdout: what a command has made. Where nobody reads on, as with `| head`, that
/// is no error, and the command goes on to its own exit code.
pub fn print(result: impl Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{result}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("stdout"),
        _ => Ok(()),
    }
}

/// 0, or 3 where something was left out, which is said on stderr.
pub fn told_left_out(left_out: &LeftOut) -> ExitCode {
    if left_out.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("left out: {left_out}");
    ExitCode::from(LEFT_OUT)
}

/// `1 document`, `2 documents`.
fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
