use super::*;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

struct Watched {
    _dir: tempfile::TempDir,
    base: PathBuf,
    watcher: Watcher,
    events: Receiver<WatchEvent>,
}

impl Watched {
    fn new(path: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        prepare(&base);
        let (send, events) = channel();
        let watcher = watch(&[base.join(path)], move |event| send.send(event).unwrap_or_default()).unwrap();
        Self { _dir: dir, base, watcher, events }
    }

    fn plain() -> Self {
        Self::new("manifests", |base| fs::create_dir(base.join("manifests")).unwrap())
    }

    fn woken(&self) -> bool {
        matches!(self.events.recv_timeout(Duration::from_secs(10)), Ok(WatchEvent::Changed))
    }

    /// Does something that is seen for certain, and counts what came before it.
    fn events_before_marker(&self) -> usize {
        let marker = self.base.join("manifests/marker");
        let mut seen = 0;
        while self.events.try_recv().is_ok() {
            seen += 1;
        }
        fs::create_dir(&marker).unwrap();
        fs::remove_dir(&marker).unwrap();
        // One for the creation, one for the removal, perhaps one for each from the directory itself.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut after = 0;
        loop {
            match self.events.recv_timeout(Duration::from_millis(if after < 2 { 10_000 } else { 100 })) {
                Ok(_) => after += 1,
                Err(RecvTimeoutError::Timeout) if after >= 2 || Instant::now() > deadline => break,
                Err(_) => break,
            }
        }
        seen + after.max(2) - 2
    }
}

#[test]
fn saving_wakes_and_reading_does_not() {
    let watched = Watched::plain();
    let file = watched.base.join("manifests/web.yaml");

    fs::write(&file, "x").unwrap();
    assert!(watched.woken());
    watched.events_before_marker();

    for _ in 0..100 {
        fs::read(&file).unwrap();
        fs::read_dir(file.parent().unwrap()).unwrap().count();
    }
    let after_reading = watched.events_before_marker();
    assert!(after_reading <= 2, "{after_reading}");
}

#[test]
fn writing_without_closing_does_not_wake() {
    let watched = Watched::plain();
    let path = watched.base.join("manifests/web.yaml");
    let mut file = fs::File::create(&path).unwrap();
    watched.events_before_marker();

    for _ in 0..100 {
        file.write_all(b"x").unwrap();
    }
    assert!(watched.events_before_marker() <= 2);

    drop(file);
    assert!(watched.woken());
}

#[test]
fn what_others_do_in_the_parent_does_not_wake() {
    let watched = Watched::plain();
    watched.events_before_marker();

    for number in 0..50 {
        fs::write(watched.base.join(format!("other-{number}")), "x").unwrap();
    }

    assert!(watched.events_before_marker() <= 2);
}

#[test]
fn renames_removals_and_new_directories_wake() {
    let watched = Watched::plain();
    let root = watched.base.join("manifests");
    fs::write(watched.base.join("elsewhere"), "x").unwrap();

    fs::rename(watched.base.join("elsewhere"), root.join("web.yaml")).unwrap();
    assert!(watched.woken());
    watched.events_before_marker();
    fs::remove_file(root.join("web.yaml")).unwrap();
    assert!(watched.woken());
    watched.events_before_marker();
    fs::create_dir(root.join("team")).unwrap();
    assert!(watched.woken());
    watched.events_before_marker();
    fs::write(root.join("team/api.yaml"), "x").unwrap();
    assert!(watched.woken());
}

#[test]
fn a_replaced_directory_is_watched_again() {
    let mut watched = Watched::plain();
    let root = watched.base.join("manifests");

    for _ in 0..5 {
        fs::remove_dir(&root).unwrap();
        assert!(watched.woken());
        watched.watcher.refresh().unwrap();
        fs::create_dir(&root).unwrap();
        assert!(watched.woken());
        // As the agent does after each event.
        while watched.events.recv_timeout(Duration::from_millis(50)).is_ok() {}
        watched.watcher.refresh().unwrap();
        assert!(!watched.watcher.refresh().unwrap());

        fs::write(root.join("web.yaml"), "x").unwrap();
        assert!(watched.woken());
        fs::remove_file(root.join("web.yaml")).unwrap();
        while watched.events.recv_timeout(Duration::from_millis(50)).is_ok() {}
    }
}

#[test]
fn a_swapped_link_wakes_and_is_followed() {
    let mut watched = Watched::new("current", |base| {
        fs::create_dir_all(base.join("rev-1")).unwrap();
        fs::create_dir_all(base.join("rev-2")).unwrap();
        symlink("rev-1", base.join("current")).unwrap();
    });

    symlink("rev-2", watched.base.join("new")).unwrap();
    fs::rename(watched.base.join("new"), watched.base.join("current")).unwrap();

    assert!(watched.woken());
    while watched.events.recv_timeout(Duration::from_millis(50)).is_ok() {}
    assert!(watched.watcher.refresh().unwrap());
    fs::write(watched.base.join("rev-2/web.yaml"), "x").unwrap();
    assert!(watched.woken());
}

#[test]
fn a_directory_that_is_yet_to_come_wakes() {
    let watched = Watched::new("manifests", |_| {});

    fs::create_dir(watched.base.join("manifests")).unwrap();

    assert!(watched.woken());
}

#[test]
fn an_overflow_has_no_path_and_is_told() {
    let scope = Scope::default();
    let event = Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan));

    assert_eq!(judge(&event, &scope), Some(WatchEvent::Overflow));
    let lost = judge(&Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch)), &scope);
    assert!(matches!(lost, Some(WatchEvent::Lost(_))));
}

#[test]
fn a_full_queue_is_told_and_the_watch_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (send, events) = channel();
    // While the watcher's thread waits here, the kernel's queue fills.
    let gate = Arc::new(std::sync::Mutex::new(()));
    let closed = gate.lock().unwrap();
    let wait = Arc::clone(&gate);
    let mut watcher = watch(std::slice::from_ref(&root), move |event| {
        drop(wait.lock().unwrap_or_else(PoisonError::into_inner));
        send.send(event).unwrap_or_default();
    })
    .unwrap();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();

    for _ in 0..limit.trim().parse::<usize>().unwrap() {
        fs::write(root.join("web.yaml"), "").unwrap();
        fs::remove_file(root.join("web.yaml")).unwrap();
    }
    drop(closed);

    let next = || events.recv_timeout(Duration::from_secs(10)).unwrap();
    while next() != WatchEvent::Overflow {}
    assert!(watcher.refresh().unwrap(), "watched anew");
    while events.recv_timeout(Duration::from_millis(50)).is_ok() {}
    fs::write(root.join("web.yaml"), "").unwrap();
    assert_eq!(next(), WatchEvent::Changed);
}
