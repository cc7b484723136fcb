//! Who goes first: the group that the live workers are in.

use super::YieldTo;
use crate::ErrorClass;
use crate::bus::lag::Group;
use crate::bus::{self, topics};
use std::time::{Duration, Instant};

/// How often the group's lag is asked for.
const INTERVAL: Duration = Duration::from_secs(2);

/// The right of way of a group.
pub(super) struct Way {
    group: Group,
    above: u64,
    asked: Option<Instant>,
    /// The lag, while it is waited for.
    waiting: Option<u64>,
}

impl Way {
    pub fn new(kafka: &bus::Options, yield_to: &YieldTo) -> Result<Self, bus::Error> {
        let group = Group::new(kafka, &yield_to.group, topics::ARTICLES)?;
        if group.lag()?.is_none() {
            tracing::warn!(group = yield_to.group, "the group to yield to has never committed anything on articles");
        }
        Ok(Self { group, above: yield_to.above, asked: None, waiting: None })
    }

    /// The group's lag, where it is to be waited for. The cluster is asked now and then.
    pub fn lag(&mut self) -> Result<Option<u64>, bus::Error> {
        if self.asked.is_some_and(|asked| asked.elapsed() < INTERVAL) {
            return Ok(self.waiting);
        }
        self.asked = Some(Instant::now());
        match self.group.lag() {
            Ok(lag) => self.waiting = must_wait(lag.unwrap_or(0), self.above, self.waiting.is_some()),
            // Nothing is known for the moment, so things stay as they are.
            Err(error) if error.class() == ErrorClass::Retriable => tracing::warn!("{error}"),
            Err(error) => return Err(error),
        }
        Ok(self.waiting)
    }
}

/// The lag, where it is too large: more than `above`, or, once that was so, more than half of it.
fn must_wait(lag: u64, above: u64, waiting: bool) -> Option<u64> {
    let most = if waiting { above / 2 } else { above };
    (lag > most).then_some(lag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_free_again_at_half_the_lag() {
        assert_eq!(must_wait(100, 100, false), None);
        assert_eq!(must_wait(101, 100, false), Some(101));
        assert_eq!(must_wait(51, 100, true), Some(51));
        assert_eq!(must_wait(50, 100, true), None);
        assert_eq!((must_wait(1, 0, false), must_wait(0, 0, true)), (Some(1), None));
    }
}
