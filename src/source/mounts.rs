//! Says when another mount is found in a place: what inotify tells of an unmount only when the last
//! user has left the file system, and of a mount never.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Watches as long as it lives.
#[derive(Debug)]
pub(super) struct Mounts {
    stop: Arc<OwnedFd>,
}

impl Mounts {
    /// Calls `wake` whenever a path leads to another mount than before. The table of mounts becomes
    /// ready with `POLLPRI` and `POLLERR` whenever it changes (proc_pid_mountinfo(5)); on a host that
    /// mounts a lot, what is of no concern here costs a `statx` per path.
    pub fn watch(paths: Vec<PathBuf>, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let table = File::open("/proc/thread-self/mountinfo")?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopped = Arc::clone(&stop);
        let mut before = found(&paths);
        std::thread::Builder::new().name("mounts".to_owned()).spawn(move || {
            loop {
                let mut ready = [PollFd::new(&table, PollFlags::PRI), PollFd::new(&*stopped, PollFlags::IN)];
                match poll(&mut ready, None) {
                    Ok(_) if ready[1].revents().is_empty() => {}
                    Err(Errno::INTR) => {}
                    // Without it the periodic listing finds the same, later.
                    Ok(_) | Err(_) => return,
                }
                let now = found(&paths);
                if now != before {
                    before = now;
                    wake();
                }
            }
        })?;
        Ok(Self { stop })
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        // A counter that is full, which it is not, would be as good.
        let _ready = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
    }
}

/// The mount that each path leads to.
fn found(paths: &[PathBuf]) -> Vec<Option<u64>> {
    let mount = |path: &Path| rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok();
    paths.iter().map(|path| mount(path).map(|found| found.stx_mnt_id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MsFlags, mount, umount};
    use nix::sched::{CloneFlags, unshare};
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    #[test]
    #[ignore = "needs root"]
    fn a_mount_and_an_unmount_wake_at_once_and_others_do_not() {
        // A thread may have mounts of its own, and they go with it.
        let checked = std::thread::spawn(|| {
            let dir = tempfile::tempdir().unwrap();
            let place = |name: &str| dir.path().join(name);
            for name in ["watched", "other"] {
                std::fs::create_dir(place(name)).unwrap();
            }
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            let tmpfs = |at: &Path| mount(Some("t"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            let (wake, woken) = channel();
            let mounts = Mounts::watch(vec![place("watched")], move || wake.send(()).unwrap_or_default()).unwrap();
            let is_woken = || woken.recv_timeout(Duration::from_secs(10));

            tmpfs(&place("other"));
            tmpfs(&place("watched"));
            assert_eq!(is_woken(), Ok(()));
            umount(&place("other")).unwrap();
            umount(&place("watched")).unwrap();
            assert_eq!(is_woken(), Ok(()));

            // Once for each of the two that concern it; and the thread ends with what it watches for.
            drop(mounts);
            assert_eq!(is_woken(), Err(RecvTimeoutError::Disconnected));
        });

        checked.join().unwrap();
    }
}
