//! Which letters a command is about.

use chrono::{DateTime, Utc};
use litflow::dlq::Filter;

/// The conditions, all of which a letter must meet.
#[derive(clap::Args)]
#[command(next_help_heading = "Which letters")]
pub struct Select {
    /// Reasons, as docs/topics.md lists them
    #[arg(long, value_name = "REASON,…", value_delimiter = ',')]
    reason: Vec<String>,
    /// Stages: decode, parse, tag, encode
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',')]
    stage: Vec<String>,
    /// Died at this time or later: RFC 3339, or an age such as 30m, 2h, 3d, 2w
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Died before this time; --before is the same
    #[arg(long, value_name = "TIME", value_parser = time, alias = "before")]
    until: Option<i64>,
    /// The article's key; may be given several times
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// The partition of articles.dlq
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The offset there
    #[arg(long, value_name = "N", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
}

impl Select {
    /// The arguments of which a change needs at least one, so that nobody changes everything by mistake.
    pub const MEANT: [&str; 7] = ["reason", "stage", "since", "until", "key", "partition", "offset"];

    pub fn filter(&self) -> Filter {
        Filter {
            reasons: self.reason.clone(),
            stages: self.stage.clone(),
            keys: self.key.clone(),
            since: self.since,
            until: self.until,
            partition: self.partition,
            offset: self.offset,
        }
    }
}

/// Milliseconds since the epoch.
fn time(text: &str) -> Result<i64, String> {
    time_at(text, Utc::now().timestamp_millis())
}

fn time_at(text: &str, now: i64) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    let age = || {
        let (unit_at, unit) = text.char_indices().next_back()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return None,
        };
        let count: u32 = text[..unit_at].parse().ok()?;
        Some(now - i64::from(count) * seconds * 1_000)
    };
    age().ok_or_else(|| "a time is RFC 3339 (2026-11-22T08:00:00Z) or an age (90s, 30m, 2h, 3d, 2w)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages() {
        const NOW: i64 = 1_700_000_000_000;
        assert_eq!(time_at("2026-11-22T01:00:00+01:00", NOW), Ok(1_795_305_600_000));
        assert_eq!(time_at("2h", NOW), Ok(NOW - 7_200_000));
        assert_eq!(time_at("3d", NOW), Ok(NOW - 3 * 86_400_000));
        assert_eq!(time_at("4294967295w", NOW), Ok(NOW - 4_294_967_295 * 604_800_000));
        for wrong in ["", "d", "-1d", "3", "3 d", "1.5h", "99999999999d", "2026-11-22", "3é"] {
            assert!(time_at(wrong, NOW).unwrap_err().contains("RFC 3339"), "{wrong}");
        }
    }
}
