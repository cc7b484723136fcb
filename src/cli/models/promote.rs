//! `litflow models promote`: makes a version the champion, at once or when workers have seen it agree.

use super::super::exit::Exit;
use super::super::progress;
use super::shadow::Pair;
use super::{Common, Signed, resolve, state, tell};
use indicatif::ProgressBar;
use litflow::ErrorClass;
use litflow::config::Config;
use litflow::registry::aliases::{CANDIDATE, CHAMPION};
use litflow::registry::{Announcements, Registry};
use litflow::worker::shadow::{Bounds, Comparison};
use std::time::{Duration, Instant};

/// How often is looked what workers have counted.
const POLL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Args {
    /// The model
    name: String,
    /// A version, or an alias
    version: String,
    /// Another alias to give it
    #[arg(long, value_name = "ALIAS", default_value = CHAMPION)]
    alias: String,
    /// Only when workers in shadow mode have seen it agree with the champion; waits until they have compared enough
    #[arg(long, conflicts_with = "alias")]
    after_shadow: bool,
    #[command(flatten)]
    signed: Signed,
    #[command(flatten)]
    pub common: Common,
    // Last, because the options after it would stand under its heading.
    #[command(flatten)]
    shadow: Shadow,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Shadow")]
struct Shadow {
    /// Articles that must have been compared with the champion in force
    #[arg(long, value_name = "N", default_value_t = 200, requires = "after_shadow")]
    shadow_articles: u64,
    /// The least strict F1 against the champion
    #[arg(long, value_name = "F1", default_value_t = 0.8, requires = "after_shadow", value_parser = share)]
    min_agreement: f64,
    /// The most that an article may cost, in times of what it costs the champion
    #[arg(long, value_name = "RATIO", default_value_t = 1.5, requires = "after_shadow", value_parser = positive)]
    max_latency_ratio: f64,
    /// Articles that it may fail at
    #[arg(long, value_name = "N", default_value_t = 0, requires = "after_shadow")]
    max_failed: u64,
    /// How many seconds to wait for the articles; then it is refused [default: without end]
    #[arg(long, value_name = "SECONDS", requires = "after_shadow")]
    timeout: Option<u64>,
}

/// A version that does not become champion, and why.
#[derive(Debug, thiserror::Error)]
#[error("{name} {version} is not promoted: {}", .reasons.join("; "))]
pub struct Refused {
    name: String,
    version: String,
    reasons: Vec<String>,
}

impl Args {
    pub fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let registry = Registry::open(&config.registry, &config.kafka)?;
        if !self.after_shadow {
            let version = resolve(config, &self.name, &self.version)?;
            let moved = registry.assign(&self.name, &version, &self.alias, &self.signed.occasion())?;
            return tell(&moved, &version, Some(&self.alias), self.common.json);
        }
        let (pair, comparison) = self.wait(config)?;
        let refused = |reasons| Refused { name: pair.name.clone(), version: pair.version.clone(), reasons };
        let reasons = comparison.reasons_against(&self.shadow.bounds());
        if !reasons.is_empty() {
            return Err(refused(reasons).into());
        }
        let signed = self.signed.because(&found(&pair, &comparison));
        let moved = registry.promote_over(&pair.name, &pair.version, &pair.champion.digest, &signed.occasion())?;
        if moved.state.alias(CHAMPION).is_none_or(|champion| champion.digest != pair.digest) {
            let reason = format!("the champion is no longer {}, which it was compared with", pair.champion.version);
            return Err(refused(vec![reason]).into());
        }
        tell(&moved, &pair.version, Some(CHAMPION), self.common.json)
    }

    /// Waits until enough was compared, there is no use in waiting, or the time is over.
    fn wait(&self, config: &Config) -> anyhow::Result<(Pair, Comparison)> {
        let mut announcements = Announcements::read(&config.kafka)?;
        let deadline = self.shadow.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let mut progress = Progress::new();
        // A version, not an alias: what is waited for does not change when the alias moves.
        let mut version = self.version.clone();
        loop {
            let announced = state(&announcements, &self.name)?;
            let pair = Pair::of(announced, &version)?;
            version.clone_from(&pair.version);
            let comparison = match pair.compared(config) {
                // It may be waited for over days; a broker that restarts must not end it.
                Err(error) if error.class() == ErrorClass::Retriable && !is_over() => {
                    progress.tell(error.to_string());
                    announcements.wait(POLL)?;
                    continue;
                }
                compared => compared?,
            };
            let (articles, wanted) = (comparison.agreement.articles, self.shadow.shadow_articles);
            if articles >= wanted as i64 || is_over() {
                return Ok((pair, comparison));
            }
            let is_candidate = announced.alias(CANDIDATE).is_some_and(|target| target.digest == pair.digest);
            if !is_candidate || !comparison.refused.is_empty() {
                let mut reasons = comparison.reasons_against(&self.shadow.bounds());
                if !is_candidate {
                    reasons.push("it is not the candidate, so no worker compares it: give it that alias".into());
                }
                return Err(Refused { name: pair.name, version, reasons }.into());
            }
            progress.tell(format!("{articles} of {wanted} articles compared with {}", pair.champion.version));
            announcements.wait(POLL)?;
        }
    }
}

/// A spinner, and where stderr is no terminal a line for each change.
struct Progress {
    spinner: ProgressBar,
    told: String,
}

impl Progress {
    fn new() -> Self {
        Self { spinner: progress::spinner("asking what workers have compared"), told: String::new() }
    }

    fn tell(&mut self, text: String) {
        if self.told == text {
            return;
        }
        self.spinner.set_message(text.clone());
        if self.spinner.is_hidden() {
            anstream::eprintln!("{text}");
        }
        self.told = text;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}

impl Shadow {
    fn bounds(&self) -> Bounds {
        Bounds {
            articles: self.shadow_articles,
            agreement: self.min_agreement,
            latency_ratio: self.max_latency_ratio,
            failed: self.max_failed,
        }
    }
}

/// What shadow mode has found, for the history.
fn found(pair: &Pair, Comparison { agreement, workers, .. }: &Comparison) -> String {
    format!(
        "shadow: F1 {:.4} against {} over {} articles by {workers} workers, cost {:.2} times, failed at {}",
        agreement.micro().f1().unwrap_or_default(),
        pair.champion.version,
        agreement.articles,
        agreement.latency_ratio().unwrap_or_default(),
        agreement.failed,
    )
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "a number from 0 to 1".into())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0".into())
}
