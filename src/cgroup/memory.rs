//! Memory limits, in the order and with the care that keeps a running process unharmed.
//!
//! v2: `memory.max` below what is in use kills, and `memory.high` below it slows the process to a
//! crawl, so neither is ever written there. What can be reclaimed cheaply is reclaimed first; then
//! `high` at the target guards while we look again, and only then `max` is written. v1 refuses by
//! itself (EBUSY); its one rule is that memory never exceeds memory and swap together.

use super::resize::Mode;
use super::table::{self, Setting, Value, Version};
use super::{CgroupError, files};
use crate::spec::Bytes;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The limits that cannot be written without looking at what is in use.
#[derive(Debug, Default)]
pub(super) struct MemoryFiles {
    max: Option<Option<u64>>,
    high: Option<Option<u64>>,
    /// Memory and swap together (v1).
    memsw: Option<Option<u64>>,
}

/// A limit that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deferral {
    pub version: Version,
    what: &'static str,
    from: Option<u64>,
    to: u64,
    in_use: u64,
}

/// An instance's directory with its name for messages.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub dir: BorrowedFd<'a>,
    pub path: &'a Path,
}

const V1_MAX: &str = "memory.limit_in_bytes";
const V1_MEMSW: &str = "memory.memsw.limit_in_bytes";

/// The files that were written, and what waits.
type Outcome = Result<(Vec<&'static str>, Option<Deferral>), CgroupError>;

impl MemoryFiles {
    /// Takes a setting that is ours to write; whether it is one.
    pub fn takes(&mut self, setting: &Setting) -> bool {
        let Value::Bytes(limit) = &setting.value else { return false };
        match setting.file.as_ref() {
            "memory.max" | V1_MAX => self.max = Some(*limit),
            "memory.high" => self.high = Some(*limit),
            V1_MEMSW => self.memsw = Some(*limit),
            _ => return false,
        }
        true
    }

    /// Writes the limits, or defers all of them; the files written.
    pub fn apply(&self, place: &Place<'_>, version: Version, says: &BTreeMap<String, String>, mode: Mode) -> Outcome {
        match version {
            Version::V1 => self.apply_v1(place, says, mode),
            Version::V2 => self.apply_v2(place, says, mode),
        }
    }

    fn apply_v2(&self, place: &Place<'_>, says: &BTreeMap<String, String>, mode: Mode) -> Outcome {
        let now_max = limit(says, "memory.max");
        let now_high = limit(says, "memory.high");
        let max = self.max.unwrap_or(now_max);
        let high = self.high.unwrap_or(now_high);
        let write = |file: &'static str, limit: Option<u64>| place.write(file, &table::bytes_text(limit, Version::V2));
        let mut written = Vec::new();
        // What is raised, or taken away, does no harm at once; what is lowered has a target.
        let lowered_max = max.filter(|max| now_max.is_none_or(|now| *max < now));
        let lowered_high = high.filter(|high| now_high.is_none_or(|now| *high < now));
        let target = lowered_max.into_iter().chain(lowered_high).min();
        if let Some(target) = target.filter(|_| mode == Mode::Live) {
            let what = if lowered_max.is_some() { "memory" } else { "memory.high" };
            let to = lowered_max.or(lowered_high).unwrap_or(target);
            let from = if lowered_max.is_some() { now_max } else { now_high };
            let defer = |in_use: u64| Some(Deferral { version: Version::V2, what, from, to, in_use });
            let below = target.saturating_sub(margin(target));
            let mut in_use = place.number("memory.current")?;
            if in_use > below {
                let excess = in_use - below;
                if place.reclaimable(Version::V2)? < excess {
                    return Ok((written, defer(in_use)));
                }
                // EAGAIN says that less was found than asked for; what counts is the next look.
                match files::write(place.dir, "memory.reclaim", &excess.to_string()) {
                    Ok(()) | Err(Errno::AGAIN | Errno::NOENT | Errno::INTR) => {}
                    Err(error) => return Err(place.write_error("memory.reclaim", &excess.to_string(), error)),
                }
                in_use = place.number("memory.current")?;
                if in_use > below {
                    return Ok((written, defer(in_use)));
                }
            }
            if let Some(lower) = lowered_max {
                if now_high.is_none_or(|now| target < now) {
                    write("memory.high", Some(target))?;
                    written.push("memory.high");
                }
                in_use = place.number("memory.current")?;
                if in_use > lower {
                    write("memory.high", now_high)?;
                    return Ok((written, defer(in_use)));
                }
            }
        }
        if max != now_max {
            write("memory.max", max)?;
            written.push("memory.max");
        }
        if high != now_high || written.contains(&"memory.high") {
            write("memory.high", high)?;
            written.push("memory.high");
        }
        Ok((written, None))
    }

    fn apply_v1(&self, place: &Place<'_>, says: &BTreeMap<String, String>, mode: Mode) -> Outcome {
        let now_max = limit(says, V1_MAX);
        let now_memsw = limit(says, V1_MEMSW);
        let max = self.max.unwrap_or(now_max);
        // Without swap accounting there is no such file, and nothing to keep in step with.
        let memsw = self.memsw.unwrap_or(now_memsw);
        let write = |file: &'static str, limit: Option<u64>| {
            let text = table::bytes_text(limit, Version::V1);
            files::write(place.dir, file, &text).map_err(|error| (file, text, error))
        };
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let defer = |file: &str, in_use: u64| {
            let (what, from, to) = match file {
                V1_MEMSW => ("memory with swap", now_memsw, memsw),
                _ => ("memory", now_max, max),
            };
            Some(Deferral { version: Version::V1, what, from, to: number(to), in_use })
        };
        if mode == Mode::Live && number(max) < number(now_max) {
            // The kernel would evict every cached page before it says EBUSY, again at each try.
            let in_use = place.number("memory.usage_in_bytes")?;
            if in_use > number(max) && in_use - number(max) > place.reclaimable(Version::V1)? {
                return Ok((Vec::new(), defer(V1_MAX, in_use)));
            }
        }
        // Memory may never exceed memory and swap together, also not between two writes.
        let order = if number(max) > number(now_memsw) {
            [(V1_MEMSW, memsw, now_memsw), (V1_MAX, max, now_max)]
        } else {
            [(V1_MAX, max, now_max), (V1_MEMSW, memsw, now_memsw)]
        };
        let mut written: Vec<(&'static str, Option<u64>)> = Vec::new();
        for (file, limit, now) in order {
            if limit == now {
                continue;
            }
            match write(file, limit) {
                Ok(()) => written.push((file, now)),
                Err((file, text, error)) => {
                    for (file, before) in written.iter().rev() {
                        write(file, *before).map_err(|(file, text, error)| place.write_error(file, &text, error))?;
                    }
                    if error != Errno::BUSY {
                        return Err(place.write_error(file, &text, error));
                    }
                    let usage = if file == V1_MEMSW { "memory.memsw.usage_in_bytes" } else { "memory.usage_in_bytes" };
                    let deferred = defer(file, place.number(usage)?);
                    return Ok((written.into_iter().map(|(file, _)| file).collect(), deferred));
                }
            }
        }
        Ok((written.into_iter().map(|(file, _)| file).collect(), None))
    }
}

impl Place<'_> {
    fn read(&self, file: &str) -> Result<String, CgroupError> {
        files::read(self.dir, file)
            .map_err(|error| CgroupError::Read { path: self.path.join(file), source: error.into() })
    }

    fn number(&self, file: &str) -> Result<u64, CgroupError> {
        Ok(self.read(file)?.parse().unwrap_or(u64::MAX))
    }

    fn write(&self, file: &'static str, value: &str) -> Result<(), CgroupError> {
        files::write(self.dir, file, value).map_err(|error| self.write_error(file, value, error))
    }

    fn write_error(&self, file: &str, value: &str, error: Errno) -> CgroupError {
        CgroupError::Write { path: self.path.join(file), value: value.to_owned(), source: error.into() }
    }

    /// What could be given back at little cost: cached pages, and where there is swap, the rest.
    fn reclaimable(&self, version: Version) -> Result<u64, CgroupError> {
        let prefix = match version {
            Version::V1 => "total_",
            Version::V2 => "",
        };
        let stat = self.read("memory.stat")?;
        let sum = |keys: &[&str]| -> u64 {
            keys.iter().filter_map(|key| files::field(&stat, &format!("{prefix}{key}"))).sum()
        };
        // A host without /proc/meminfo's line has no swap.
        let swap = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| {
                text.lines().find_map(|line| line.strip_prefix("SwapFree:")?.split_whitespace().next()?.parse().ok())
            })
            .map_or(0, |kib: u64| kib * 1024);
        let anonymous = sum(&["inactive_anon", "active_anon"]).min(swap);
        Ok(sum(&["inactive_file", "active_file", "slab_reclaimable"]) + anonymous)
    }
}

/// How far below a limit the use has to be before the limit is written: it may grow meanwhile, and
/// each CPU charges some pages ahead.
fn margin(target: u64) -> u64 {
    (target / 32).clamp(1 << 20, 32 << 20).min(target / 4)
}

fn limit(says: &BTreeMap<String, String>, file: &str) -> Option<u64> {
    says.get(file).and_then(|text| table::parse_bytes(text)).flatten()
}

impl fmt::Display for Deferral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.map_or_else(|| "unlimited".to_owned(), |bytes| Bytes(bytes).to_string());
        let in_use = match self.in_use {
            bytes if bytes >= 10 << 20 => format!("{}Mi", bytes >> 20),
            bytes => format!("{}Ki", bytes >> 10),
        };
        write!(f, "{} {from} → {}: {in_use} in use", self.what, Bytes(self.to))
    }
}
