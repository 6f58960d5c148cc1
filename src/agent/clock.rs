//! Notices that the wall clock was set forward, also while no agent ran.
//!
//! How far the wall clock is ahead of the time since the host was booted, suspension included, is the same
//! as long as nobody sets it. It is kept in a file of the run directory, with the boot that it is of: after
//! another one there is nothing to compare with, and the wall clock is believed.

use super::durable;
use crate::spec::{Span, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A clock that is set right by less than this was not set: it is slewed (adjtimex(2)).
const SET: Span = Span::from_secs(1);
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// One look at both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    wall: Timestamp,
    /// Milliseconds since the boot.
    uptime: u64,
}

#[derive(Debug)]
pub(super) struct Clock {
    path: PathBuf,
    boot: String,
    /// When the boot was, as the wall clock had it when the waits were reckoned that there are now.
    booted: Timestamp,
    /// The file says something else.
    unkept: bool,
}

impl Clock {
    /// Goes on from what an agent of the same boot has left in `run`.
    pub fn open(run: &Path, reading: Reading) -> Self {
        // Without it every start is the first of a boot.
        let boot = fs::read_to_string(BOOT).unwrap_or_default().trim().to_owned();
        let path = run.join("clock");
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let kept = kept.trim_end().split_once(' ').filter(|(of, _)| *of == boot && !boot.is_empty());
        let kept = kept.and_then(|(_, booted)| booted.parse().ok()).map(Timestamp);
        Self { path, boot, booted: kept.unwrap_or_else(|| reading.booted()), unkept: kept.is_none() }
    }

    /// How much further the wall clock went than the time since it was last asked; nothing when it was not
    /// set forward.
    pub fn set_forward(&mut self, reading: Reading) -> Option<Span> {
        let booted = reading.booted();
        let (ahead, behind) = (booted.since(self.booted), self.booted.since(booted));
        if ahead < SET && behind < SET {
            return None;
        }
        self.booted = booted;
        self.unkept = true;
        (ahead >= SET).then_some(ahead)
    }

    /// Writes down what the waits are reckoned by, once they are on the disk.
    pub fn keep(&mut self) -> io::Result<()> {
        if !self.unkept {
            return Ok(());
        }
        durable::write(&self.path, format!("{} {}\n", self.boot, self.booted.0).as_bytes())?;
        self.unkept = false;
        Ok(())
    }
}

impl Reading {
    pub fn now() -> Self {
        let uptime = clock_gettime(ClockId::Boottime);
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        Self {
            wall: Timestamp::from_system(SystemTime::now()),
            uptime: part(uptime.tv_sec) * 1000 + part(uptime.tv_nsec) / 1_000_000,
        }
    }

    fn booted(self) -> Timestamp {
        Timestamp(self.wall.0.saturating_sub(self.uptime))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: u64, uptime: u64) -> Reading {
        Reading { wall: Timestamp(1_700_000_000_000 + wall), uptime }
    }

    #[test]
    fn only_what_is_more_than_the_time_that_has_passed_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut clock = Clock::open(dir.path(), at(0, 5_000));

        let told = [at(60_000, 65_000), at(3_700_000, 105_000), at(3_701_000, 106_000), at(1_000, 107_000)]
            .map(|reading| clock.set_forward(reading));

        assert_eq!(told, [None, Some(Span(3_600_000)), None, None]);
        assert_eq!(clock.set_forward(at(5_001_000, 107_000)), Some(Span(5_000_000)), "from where it was set back to");
    }

    #[test]
    fn what_is_slewed_is_made_up_for_before_it_is_much() {
        let dir = tempfile::tempdir().unwrap();
        let mut clock = Clock::open(dir.path(), at(0, 0));

        let told: Vec<_> = (1..=10).filter_map(|n| clock.set_forward(at(n * 1_300, n * 1_000))).collect();

        assert_eq!(told, [Span(1_200), Span(1_200)]);
    }

    #[test]
    fn the_next_agent_of_the_same_boot_notices_and_that_of_another_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Clock::open(dir.path(), at(0, 5_000));
        first.keep().unwrap();

        let mut next = Clock::open(dir.path(), at(100_000, 7_000));
        assert_eq!(next.set_forward(at(100_000, 7_000)), Some(Span(98_000)));
        // It dies before what waits is written: the one after it notices the same.
        let mut again = Clock::open(dir.path(), at(101_000, 8_000));
        assert_eq!(again.set_forward(at(101_000, 8_000)), Some(Span(98_000)));
        again.keep().unwrap();
        assert_eq!(Clock::open(dir.path(), at(101_000, 8_000)).set_forward(at(101_000, 8_000)), None);

        for left in ["another-boot 12\n", "", "nonsense", "\0"] {
            fs::write(dir.path().join("clock"), left).unwrap();
            assert_eq!(Clock::open(dir.path(), at(900_000, 1_000)).set_forward(at(900_000, 1_000)), None, "{left:?}");
        }
    }
}
