//! The home directory of a user, as the container's own `/etc/passwd` has it.
//!
//! For `HOME` alone, where nobody has set it. The file is the container's: it is looked for inside of
//! its root, read only when it is a plain file of a sensible size, and what it says goes nowhere but
//! into the container.

use super::config::Process;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::Read;
use std::path::Path;

const LARGEST: u64 = 1 << 20;

/// Adds `HOME` to what has none.
pub(super) fn give_home(process: &mut Process, root: &Path) {
    let is_set = |entry: &String| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty());
    if process.env.iter().rev().find(|entry| entry.starts_with("HOME=")).is_some_and(is_set) {
        return;
    }
    if let Some(home) = home(root, process.user.uid) {
        process.env.push(format!("HOME={home}"));
    }
}

/// `None` where there is no such user, file or directory.
fn home(root: &Path, uid: u32) -> Option<String> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty()).ok()?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Neither a device nor a pipe holds us up.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(&root, "etc/passwd", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside).ok()?;
    if FileType::from_raw_mode(rustix::fs::fstat(&found).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let number = std::os::fd::AsRawFd::as_raw_fd(&found);
    let file = rustix::fs::openat(CWD, format!("/proc/self/fd/{number}"), flags, Mode::empty()).ok()?;
    let mut text = Vec::new();
    File::from(file).take(LARGEST).read_to_end(&mut text).ok()?;
    of(&String::from_utf8_lossy(&text), uid)
}

fn of(passwd: &str, uid: u32) -> Option<String> {
    let home = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number: u32 = fields.nth(2)?.parse().ok()?;
        (number == uid).then(|| fields.nth(2).unwrap_or_default())
    })?;
    let fine = home.starts_with('/') && !home.contains(|c: char| c.is_control());
    fine.then(|| home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:7:7::/srv/web:\nbad:x:8:8::srv:\nodd:x:9:9::/a\u{7}b:\n";

    #[test]
    fn a_home_is_an_absolute_path_of_the_users_line() {
        let cases = [(0, Some("/root")), (7, Some("/srv/web")), (8, None), (9, None), (10, None)];
        for (uid, expected) in cases {
            assert_eq!(of(TEXT, uid).as_deref(), expected, "{uid}");
        }
    }

    #[test]
    fn a_link_leads_nowhere_outside_and_a_pipe_is_not_read() {
        let dir = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let file = dir.path().join("etc/passwd");
        std::os::unix::fs::symlink("/etc/other", &file).unwrap();
        assert_eq!(home(dir.path(), 0), None);
        std::fs::write(dir.path().join("etc/other"), TEXT).unwrap();
        assert_eq!(home(dir.path(), 7).as_deref(), Some("/srv/web"));

        std::fs::remove_file(&file).unwrap();
        rustix::fs::mkfifoat(CWD, &file, Mode::RUSR).unwrap();
        assert_eq!(home(dir.path(), 7), None);
    }
}
