//! A log file that is turned over by size, and that never holds anything up.
//!
//! What cannot be written is dropped and counted: a container must not stand still because a disk is
//! full. Each call writes whole records, and a write that fails half-way is taken back, so a reader
//! never meets a torn record.

use super::protocol::{LogCounters, LogTarget};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Log {
    target: LogTarget,
    file: Option<File>,
    size: u64,
    counters: LogCounters,
}

impl Log {
    /// Opens the file for appending. On a full disk it begins without one and tries again later.
    pub fn open(target: LogTarget) -> io::Result<Self> {
        let mut log = Self { target, file: None, size: 0, counters: LogCounters::default() };
        match log.file() {
            Ok(_) => Ok(log),
            Err(error) if is_full(&error) => Ok(log),
            Err(error) => Err(error),
        }
    }

    /// Goes on where another program has left off.
    pub fn resume(target: LogTarget, counters: LogCounters, file: Option<File>) -> Self {
        let size = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        Self { target, file, size, counters }
    }

    pub fn target(&self) -> &LogTarget {
        &self.target
    }

    pub fn open_file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Goes on in another file, or with other limits.
    pub fn set_target(&mut self, target: LogTarget) -> io::Result<()> {
        if target.path == self.target.path {
            self.target = target;
            return Ok(());
        }
        let counters = self.counters;
        *self = Self { counters, ..Self::open(target)? };
        Ok(())
    }

    pub fn counters(&self) -> LogCounters {
        self.counters
    }

    /// Writes `count` whole records, or drops and counts them.
    pub fn append(&mut self, records: &[u8], count: u64) {
        let length = u64::try_from(records.len()).unwrap_or(u64::MAX);
        match self.try_append(records, length) {
            Ok(()) => {
                self.counters.lines += count;
                self.counters.bytes += length;
            }
            Err(_) => self.counters.dropped += count,
        }
    }

    fn try_append(&mut self, records: &[u8], length: u64) -> io::Result<()> {
        if self.size > 0 && self.size.saturating_add(length) > self.target.max_size {
            self.turn_over()?;
        }
        let size = self.size;
        let file = self.file()?;
        match file.write_all(records) {
            Ok(()) => {
                self.size += length;
                Ok(())
            }
            Err(error) => {
                file.set_len(size)?;
                Err(error)
            }
        }
    }

    fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let file = open(&self.target.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(self.file.as_mut().expect("opened above"))
    }

    /// `path` → `path.1` → `path.2`…; the oldest goes.
    fn turn_over(&mut self) -> io::Result<()> {
        let last = self.target.files.saturating_sub(1);
        let name = |number: u32| match number {
            0 => self.target.path.clone(),
            number => numbered(&self.target.path, number),
        };
        if last == 0 {
            absent_is_fine(std::fs::remove_file(name(0)))?;
        }
        for number in (0..last).rev() {
            absent_is_fine(std::fs::rename(name(number), name(number + 1)))?;
        }
        self.file = None;
        self.size = 0;
        self.file().map(|_| ())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn open(path: &Path) -> io::Result<File> {
    // Non-blocking, or a FIFO in its place would hold the keeper up for ever.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open(2) takes an int");
    let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(directory: &Path, max_size: u64, files: u32) -> LogTarget {
        LogTarget { path: directory.join("log"), max_size, files }
    }

    fn content(path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    #[test]
    fn the_file_is_turned_over_before_it_would_grow_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(target(directory.path(), 10, 3)).unwrap();

        for record in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n", "a longer one than that\n", "e\n", "f\n"] {
            log.append(record.as_bytes(), 1);
        }

        assert_eq!(content(&directory.path().join("log")).as_deref(), Some("e\nf\n"));
        assert_eq!(content(&directory.path().join("log.1")).as_deref(), Some("a longer one than that\n"));
        assert_eq!(content(&directory.path().join("log.2")).as_deref(), Some("cccc\ndddd\n"));
        assert_eq!(content(&directory.path().join("log.3")), None);
        assert_eq!(log.counters().lines, 7);
    }

    #[test]
    fn one_file_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(target(directory.path(), 4, 1)).unwrap();

        log.append(b"aaa\n", 1);
        log.append(b"bbb\n", 1);

        assert_eq!(content(&directory.path().join("log")).as_deref(), Some("bbb\n"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_log_goes_on_and_its_size_counts() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("log"), "old old\n").unwrap();
        let mut log = Log::open(target(directory.path(), 10, 2)).unwrap();

        log.append(b"new\n", 1);

        assert_eq!(content(&directory.path().join("log.1")).as_deref(), Some("old old\n"));
        assert_eq!(content(&directory.path().join("log")).as_deref(), Some("new\n"));
    }

    #[test]
    fn another_target_takes_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(target(directory.path(), 100, 2)).unwrap();
        log.append(b"a\n", 1);

        let other = directory.path().join("other");
        log.set_target(LogTarget { path: other.clone(), max_size: 100, files: 1 }).unwrap();
        log.append(b"b\n", 1);

        assert_eq!(content(&other).as_deref(), Some("b\n"));
        assert_eq!(log.counters().lines, 2);
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("log")).unwrap();

        assert!(Log::open(target(directory.path(), 10, 3)).is_err());
    }

    mod root {
        use super::*;
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};

        #[test]
        #[ignore = "needs root"]
        fn a_full_disk_drops_and_counts_and_recovers() {
            // A thread may have mounts of its own, and they go with it.
            let checked = std::thread::spawn(|| {
                let directory = tempfile::tempdir().unwrap();
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
                mount(Some("log"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
                let record = vec![b'x'; 40 << 10];
                let mut log = Log::open(target(directory.path(), 1 << 20, 2)).unwrap();

                log.append(&record, 1);
                log.append(&record, 1);
                let full = std::fs::metadata(directory.path().join("log")).unwrap().len();
                std::fs::remove_file(directory.path().join("log")).unwrap();
                log.set_target(LogTarget { path: directory.path().join("next"), max_size: 1 << 20, files: 2 }).unwrap();
                log.append(&record, 1);

                assert_eq!(full, 40 << 10, "the torn record is taken back");
                assert_eq!((log.counters().lines, log.counters().dropped), (2, 1));
                drop(log);
                nix::mount::umount(directory.path()).unwrap();
            });

            checked.join().unwrap();
        }
    }
}
