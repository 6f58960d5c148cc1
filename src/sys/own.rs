//! What the kernel says of the calling process and stays true as long as it lives. Each file is read once.
//!
//! All of this allocates.

use std::io::{self, Read};
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

/// Masks of `/proc/self/status` (proc_pid_status(5)), as they were when the first was asked for; all bits
/// where they can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masks {
    /// Capabilities that can be had at all.
    pub bounding: u64,
    /// Signals that are ignored, where bit 0 is signal 1.
    pub ignored: u64,
}

impl Masks {
    pub fn own() -> Self {
        static MASKS: OnceLock<Masks> = OnceLock::new();
        *MASKS.get_or_init(|| {
            let text = read("/proc/self/status").unwrap_or_default();
            let mask = |name: &str| {
                let mask = text.lines().find_map(|line| line.strip_prefix(name));
                mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
            };
            Self { bounding: mask("CapBnd:"), ignored: mask("SigIgn:") }
        })
    }
}

/// In one piece, as files of `/proc` are.
fn read(path: &str) -> io::Result<String> {
    let mut text = Vec::with_capacity(4096);
    std::fs::File::open(path)?.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
