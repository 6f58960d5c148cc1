//! Many containers at once, with callers and containers killed at any moment: nothing hangs, and
//! `delete --force` leaves nothing.
//!
//! `PLIM_STRESS=10000 cargo test --test stress -- --include-ignored --nocapture` for so many.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]
#![allow(clippy::print_stderr, reason = "how far it is, for who waits")]

#[path = "../oci/fixture.rs"]
#[allow(dead_code, reason = "the tests of the command line use the rest")]
mod fixture;
mod mutated;

use fixture::Bundle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A command that has not come back by then hangs, however busy the machine is.
const HANGS: i64 = 60;

/// Numbers without an order (Marsaglia, "Xorshift RNGs").
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn pidfd(child: &Child) -> OwnedFd {
    pidfd_open(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), PidfdFlags::empty()).unwrap()
}

/// Whether it ended within the time.
fn ended(pidfd: &OwnedFd, time: Timespec) -> bool {
    matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&time)), Ok(1..))
}

fn finish(mut child: Child, what: &str) -> ExitStatus {
    if !ended(&pidfd(&child), Timespec { tv_sec: HANGS, tv_nsec: 0 }) {
        // For who looks into it: it is left as it stands.
        panic!("{what} hangs: process {}", child.id());
    }
    child.wait().unwrap()
}

fn spawn(bundle: &Bundle, words: &[&str]) -> Child {
    let mut command: Command = bundle.command(words);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Sends the signal at some moment of its life.
fn interrupt(child: &Child, signal: Signal, random: &mut Random) {
    let pidfd = pidfd(child);
    let time = Duration::from_micros(random.below(12_000));
    let time = Timespec { tv_sec: 0, tv_nsec: time.as_nanos().try_into().unwrap() };
    if !ended(&pidfd, time) {
        // It may have ended just now.
        let _ = pidfd_send_signal(&pidfd, signal);
    }
}

/// One container, from nothing to nothing.
fn round(bundle: &Bundle, random: &mut Random) {
    let (id, place) = (bundle.id(), bundle.path(""));
    let place = place.to_str().unwrap();
    let (run, create) = (["run", "--bundle", place, &id], ["create", "--bundle", place, &id]);
    match random.below(7) {
        0 => assert!(finish(spawn(bundle, &run), "run").success()),
        way @ (1 | 2) => {
            let child = spawn(bundle, &run);
            interrupt(&child, if way == 1 { Signal::KILL } else { Signal::TERM }, random);
            finish(child, "run");
        }
        way @ (3 | 4) => {
            let child = spawn(bundle, &create);
            interrupt(&child, if way == 3 { Signal::KILL } else { Signal::TERM }, random);
            finish(child, "create");
        }
        5 => {
            assert!(finish(spawn(bundle, &create), "create").success());
            // Both at once: whoever is first, each has an answer.
            let (start, kill) = (spawn(bundle, &["start", &id]), spawn(bundle, &["kill", &id, "KILL"]));
            finish(start, "start");
            finish(kill, "kill");
        }
        _ => {
            assert!(finish(spawn(bundle, &create), "create").success());
            assert!(finish(spawn(bundle, &["start", &id]), "start").success());
            let storm: Vec<Child> = (0..4).map(|_| spawn(bundle, &["exec", &id, "/bin/true"])).collect();
            interrupt(&storm[0], Signal::KILL, random);
            let kill = spawn(bundle, &["kill", &id, "KILL"]);
            for exec in storm {
                finish(exec, "exec");
            }
            finish(kill, "kill");
        }
    }
    // Once more than once: the second has nothing to do.
    assert!(finish(spawn(bundle, &["delete", "--force", &id]), "delete").success());
    bundle.wait("the end", || bundle.is_gone());
    assert!(finish(spawn(bundle, &["delete", "--force", &id]), "delete").success());
}

#[test]
#[ignore = "needs root"]
fn nothing_hangs_and_nothing_is_left() {
    let count: usize = std::env::var("PLIM_STRESS").map_or(200, |count| count.parse().unwrap());
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 1..=4u64 {
            let done = &done;
            scope.spawn(move || {
                let mut random = Random(thread.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let bundle = Bundle::new("true");
                bundle.write();
                loop {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    if number % 500 == 499 {
                        eprintln!("{} of {count}", number + 1);
                    }
                    round(&bundle, &mut random);
                }
                // Killed callers leave no process of theirs behind: all that there is has this root.
                let mark = bundle.path("").to_str().unwrap().to_owned();
                bundle.wait("the last process", || !runs(&mark));
            });
        }
    });
}

/// Whether a process has this in its command line or its mounts' root.
fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    processes.into_iter().any(|path| {
        let mounts = std::fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
        mounts.lines().any(|line| line.contains(mark))
    })
}
