//! Exit codes, and how an error is told.

use super::models;
use super::{demo, dlq as dlq_command, input, model};
use litflow::bus::publisher::PublishError;
use litflow::tagger::StartError;
use litflow::worker::reload;
use litflow::{ErrorClass, backfill, bus, config, dlq, registry, worker};
use std::io::ErrorKind;
use std::process::ExitCode;

/// How a command ended, where it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// Done, but some input was left out; the command has said what and how much.
    LeftOut,
    /// Done, and what was compared differs; the command has named every difference.
    Differs,
    /// Ended by this signal; the command has said how far it came.
    Signal(i32),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => ExitCode::SUCCESS,
            Exit::Differs => ExitCode::from(1),
            Exit::LeftOut => ExitCode::from(3),
            Exit::Signal(number) => ExitCode::from(128 + number as u8),
        }
    }
}

/// Tells `error` on stderr, with its causes, and returns its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS; // whoever read the output has enough, as with `| head`
    }
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    anstream::eprintln!("{style}error:{style:#} {}", with_causes(error));
    ExitCode::from(code(error))
}

/// The error and those of its causes that it does not quote already.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text {
        text if text.is_empty() => cause,
        text if text.contains(&cause) => text,
        text => format!("{text}: {cause}"),
    })
}

fn code(error: &anyhow::Error) -> u8 {
    const FAILED: u8 = 1;
    const CONFIGURATION: u8 = 2;
    const FATAL_BROKER: u8 = 4;
    const MODEL_REFUSED: u8 = 5;
    for cause in error.chain() {
        if cause.is::<config::Error>() || cause.is::<input::NoInput>() || cause.is::<demo::InUse>() {
            return CONFIGURATION;
        }
        if cause.is::<dlq_command::NotConfirmed>() {
            return CONFIGURATION;
        }
        if cause.is::<model::NoModel>() || cause.is::<model::NoChampion>() || cause.is::<models::Refused>() {
            return MODEL_REFUSED;
        }
        if let Some(reload::Error::SelfTest(_) | reload::Error::Changed { .. }) = cause.downcast_ref() {
            return MODEL_REFUSED;
        }
        if let Some(error) = cause.downcast_ref::<litflow::model::Error>() {
            return if matches!(error, litflow::model::Error::Device(_)) { CONFIGURATION } else { MODEL_REFUSED };
        }
        if let Some(error) = bus_error(cause) {
            return match error {
                bus::Error::Options(_) | bus::Error::Property { .. } => CONFIGURATION,
                bus::Error::Fenced { .. }
                | bus::Error::FencedInstance { .. }
                | bus::Error::Kafka { class: ErrorClass::Fatal, .. } => FATAL_BROKER,
                _ => FAILED,
            };
        }
        match cause.downcast_ref() {
            Some(registry::Error::Options(_) | registry::Error::Name { .. }) => return CONFIGURATION,
            Some(
                registry::Error::Model(_)
                | registry::Error::Damaged { .. }
                | registry::Error::Taken { .. }
                | registry::Error::Claimed { .. },
            ) => return MODEL_REFUSED,
            _ => {}
        }
        if let Some(StartError::MaxLength { .. }) = cause.downcast_ref() {
            return CONFIGURATION;
        }
        match cause.downcast_ref() {
            Some(backfill::Error::Options(_)) => return CONFIGURATION,
            Some(backfill::Error::Replaced { .. }) => return FATAL_BROKER,
            _ => {}
        }
        match cause.downcast_ref() {
            Some(dlq::Error::Replaced) => return FATAL_BROKER,
            Some(dlq::Error::NoPartition { .. }) => return CONFIGURATION,
            _ => {}
        }
        match cause.downcast_ref() {
            Some(worker::Error::Options(_)) => return CONFIGURATION,
            Some(worker::Error::DeadLetter { .. }) => return FATAL_BROKER,
            _ => {}
        }
    }
    FAILED
}

/// The error of the cluster in `cause`; what only passes it on does not show it as its source.
fn bus_error<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e bus::Error> {
    if let Some(PublishError::Bus(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(worker::Error::Bus(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(backfill::Error::Bus(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(registry::Error::Bus(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(dlq::Error::Bus(error)) = cause.downcast_ref() {
        return Some(error);
    }
    cause.downcast_ref()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe))
}
