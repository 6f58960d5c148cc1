//! What the kernel says of a process. Of the calling one what stays true as long as it lives: each file is
//! read once.
//!
//! All of this allocates.

use super::Errno;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use std::sync::OnceLock;

/// A numeric field of `/proc/self/stat` from the third on, by its number in proc_pid_stat(5); 0 for one
/// that is not known.
pub fn stat_field(number: usize) -> u64 {
    static FIELDS: OnceLock<Vec<u64>> = OnceLock::new();
    let fields = FIELDS.get_or_init(|| {
        let text = read("/proc/self/stat").unwrap_or_default();
        // The name before the bracket may hold anything; behind it the first field is the third.
        let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
        fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
    });
    number.checked_sub(3).and_then(|index| fields.get(index)).copied().unwrap_or(0)
}

/// The `/proc/PID/stat` of a process (proc_pid_stat(5)): `SRCH` or `NOENT` for one that is gone.
pub fn stat_of(pid: Pid) -> Result<String, Errno> {
    read(&format!("/proc/{}/stat", pid.as_raw_nonzero()))
}

/// Masks of the calling process, as they were when the first was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masks {
    /// Capabilities that can be had at all.
    pub bounding: u64,
    /// Signals that are ignored, where bit 0 is signal 1.
    pub ignored: u64,
}

impl Masks {
    // One call for each bit is a quarter of what it takes to read `/proc/self/status`.
    pub fn own() -> Self {
        static MASKS: OnceLock<Masks> = OnceLock::new();
        let gather =
            |is_set: fn(u32) -> bool| (0..u64::BITS).filter(|bit| is_set(*bit)).fold(0, |all, bit| all | 1 << bit);
        *MASKS.get_or_init(|| Self {
            bounding: gather(super::process::is_in_bounding_set),
            ignored: gather(|bit| super::process::is_ignored(bit + 1)),
        })
    }
}

/// As files of `/proc` are given: the first short answer is the last.
fn read(path: &str) -> Result<String, Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut part))?;
        text.extend_from_slice(part.get(..length).unwrap_or_default());
        if length < part.len() {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}
