//! How often each kind of step met each point at which something can go wrong.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    /// Nothing goes wrong.
    None,
    /// The store does not take the intent: nothing is done.
    IntentRefused,
    /// The agent ends when the intent is durable and nothing is done yet.
    CrashAfterIntent,
    /// It ends as the effect is about to begin.
    CrashBefore,
    FailedBefore,
    FailedAmid,
    /// The effect is there, and an error is reported.
    FailedAfter,
    CrashAfter,
    /// The agent ends before the result is durable.
    ResultLost,
    /// The store does not take the result.
    ResultRefused,
}

impl Point {
    pub(super) const FAULTS: [Self; 9] = [
        Self::IntentRefused,
        Self::CrashAfterIntent,
        Self::CrashBefore,
        Self::FailedBefore,
        Self::FailedAmid,
        Self::FailedAfter,
        Self::CrashAfter,
        Self::ResultLost,
        Self::ResultRefused,
    ];
}

#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    counts: BTreeMap<(&'static str, Point), u64>,
}

impl Faults {
    pub(super) fn count(&mut self, step: &'static str, point: Point) {
        *self.counts.entry((step, point)).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (pair, count) in &other.counts {
            *self.counts.entry(*pair).or_default() += count;
        }
    }

    pub(super) fn of(&self, step: &'static str, point: Point) -> u64 {
        self.counts.get(&(step, point)).copied().unwrap_or(0)
    }
}

/// The steps, in the order of a life.
pub(super) const STEPS: [&str; 9] =
    ["note", "check", "start", "resize", "signal", "kill", "collect", "remove", "forget"];

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:16}", "")?;
        STEPS.iter().try_for_each(|step| write!(f, "{step:>9}"))?;
        writeln!(f)?;
        for point in [Point::None].into_iter().chain(Point::FAULTS) {
            write!(f, "{:16}", format!("{point:?}"))?;
            STEPS.iter().try_for_each(|step| write!(f, "{:>9}", self.of(step, point)))?;
            writeln!(f)?;
        }
        Ok(())
    }
}
