//! Places at which a test has the process end, as `kill -9` and a power cut would.
//!
//! Only with the feature `attackable`, which no program that is shipped is built with: without it the
//! compiler leaves nothing of this module.

/// A place between two effects on the host.
#[cfg(not(feature = "attackable"))]
pub const fn may_die(_: &'static str) {}

/// What a program of ours that is started is to know of this.
#[cfg(not(feature = "attackable"))]
pub fn mortality() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    std::iter::empty()
}

#[cfg(feature = "attackable")]
pub use armed::{may_die, mortality};

#[cfg(feature = "attackable")]
mod armed {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::sync::{Mutex, PoisonError};

    /// `<place>:<n>`: the process dies when it comes to this place for the n-th time.
    const AT: &str = "PLIM_DIE_AT";
    /// A file that is made at the death. While it is there nobody dies: once is enough.
    const ONCE: &str = "PLIM_DIE_ONCE";
    /// A file to which each place is written that is come to.
    const NOTES: &str = "PLIM_DIE_NOTES";

    static PASSED: Mutex<BTreeMap<&str, u32>> = Mutex::new(BTreeMap::new());

    pub fn mortality() -> impl Iterator<Item = (&'static str, OsString)> {
        [AT, ONCE, NOTES].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
    }

    pub fn may_die(place: &'static str) {
        if let Some(notes) = std::env::var_os(NOTES) {
            let notes = OpenOptions::new().append(true).create(true).open(notes);
            // In one piece, as others write to it too. Without it the test finds that nothing was noted.
            let _ = notes.and_then(|mut notes| notes.write_all(format!("{place}\n").as_bytes()));
        }
        let Ok(at) = std::env::var(AT) else { return };
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(place).or_default();
        *count += 1;
        if at != format!("{place}:{count}") {
            return;
        }
        let once = std::env::var_os(ONCE).map(|path| OpenOptions::new().write(true).create_new(true).open(path));
        if once.is_none_or(|made| made.is_ok()) {
            // Nothing stands against killing oneself.
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }
}
