//! Another program in the place of one that runs.

use super::super::process::{Agent, Place, instance, is_alive, open_files, script_that_waits, shell, wait_until};
use super::daemon::options;
use crate::keeper::{Client, Event, ExecRequest, ExecStreams, Fault, HandleState, LogTarget, Options};
use crate::keeper::{StartRequest, is_outdated, spawn};
use crate::sandbox::Stdio;
use crate::spec::InstanceId;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

/// A keeper of the real program, from a file of its own.
struct Real {
    place: Place,
    options: Options,
    agent: Agent,
    pid: u32,
}

impl Real {
    fn begin() -> Self {
        let place = Place::new();
        let mut options = options(&place);
        let own = place.path().join("plim-keeper");
        fs::copy(options.binary.take().unwrap(), &own).unwrap();
        options.binary = Some(own);
        spawn(&options).unwrap();
        let (send, events) = channel();
        let client = Client::connect(&options.socket(), move |event| {
            // Nobody listens any more at the end of a test.
            let _ = send.send(event);
        })
        .unwrap();
        let pid = client.stats().unwrap().pid;
        Self { place, options, agent: Agent { client, events }, pid }
    }

    fn binary(&self) -> &Path {
        self.options.binary.as_deref().unwrap()
    }

    /// The same program as another build of it.
    fn next(&self) -> PathBuf {
        let next = self.place.path().join("next-keeper");
        fs::copy(self.binary(), &next).unwrap();
        fs::File::options().append(true).open(&next).unwrap().write_all(b"another build").unwrap();
        next
    }

    /// What the keeper runs now.
    fn running(&self) -> Vec<u8> {
        fs::read(format!("/proc/{}/exe", self.pid)).unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.options.log.as_deref().unwrap()).unwrap()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for handle in self.agent.client.list().unwrap_or_default() {
            let _ = self.agent.client.signal(&handle.instance, libc::SIGKILL);
        }
        wait_until(|| {
            let running = |handle: &crate::keeper::Handle| !matches!(handle.state, HandleState::Exited(_));
            !self.agent.client.list().unwrap_or_default().iter().any(running)
        });
        let _ = self.agent.client.shutdown(true);
        wait_until(|| !is_alive(self.pid));
    }
}

/// Numbers in lines until a file appears, then the last of them and this exit code.
fn counter(go: &Path, pause: &str, code: usize) -> String {
    format!("i=0; while [ ! -e {} ]; do i=$((i+1)); echo $i; {pause}; done; echo end $i >&2; exit {code}", go.display())
}

/// The numbers in a log, which have to be all up to the last.
fn lines(place: &Place, id: &InstanceId) -> (usize, Option<String>) {
    let mut numbers = 0;
    let mut end = None;
    let logged = place.logged(id);
    for line in &logged {
        match line.strip_prefix("stderr F ") {
            Some(text) => end = Some(text.to_owned()),
            None => {
                numbers += 1;
                assert_eq!(*line, format!("stdout F {numbers}"), "{id}");
            }
        }
    }
    (numbers, end)
}

#[test]
#[ignore = "needs root"]
fn a_hundred_containers_notice_nothing_of_another_program_in_the_keepers_place() {
    const MANY: u64 = 100;
    let keeper = Real::begin();
    let (place, agent) = (&keeper.place, &keeper.agent);
    let go = place.path().join("go");
    let mut pids = Vec::new();
    for number in 1..=MANY {
        let id = instance(number);
        // A few talk without a pause, so that something is always half-way.
        let pause = if number % 25 == 0 { ":" } else { "sleep 0.3" };
        let mut output = place.output(&id);
        output.log = LogTarget { max_size: 1 << 30, ..output.log };
        let script = shell(&counter(&go, pause, usize::try_from(number).unwrap()));
        let request = StartRequest { instance: &id, script: &script, output, seccomp: None };
        pids.push(agent.client.start(&request).unwrap().pid);
    }
    // One waits for a word to end while the program changes, and one has ended before.
    let (ending, ended) = (instance(200), instance(201));
    let fifo = place.path().join("word");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    place.start(agent, &ending, &format!("printf half; read word < {}; echo line; exit 42", fifo.display())).unwrap();
    place.start(agent, &ended, "exit 43").unwrap();
    agent.exit_of(&ended);
    let exec = exec(agent, &instance(1));
    let handles = agent.client.list().unwrap();

    let mut upgrades = 0;
    for program in [keeper.next(), keeper.binary().to_owned(), keeper.next()] {
        if upgrades == 1 {
            let mut word = fs::File::options().write(true).open(&fifo).unwrap();
            word.write_all(b"end\n").unwrap();
        }
        agent.client.upgrade(&program).unwrap();
        upgrades += 1;
        assert!(keeper.running() == fs::read(&program).unwrap());
    }

    let stats = agent.client.stats().unwrap();
    assert_eq!((stats.pid, stats.upgrades), (keeper.pid, upgrades));
    assert_eq!(agent.exit_of(&ending).code, Some(42));
    let after = agent.client.list().unwrap();
    for (before, after) in handles.iter().zip(&after).filter(|(before, _)| before.instance != ending) {
        assert_eq!((before.pid, before.state, before.since), (after.pid, after.state, after.since));
        assert!(!after.adopted);
    }
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // A command that was begun before goes on, and its end is told to who began it.
    exec.ends_with("word\n", agent, 44);

    fs::write(&go, "").unwrap();
    let mut codes = std::collections::BTreeMap::new();
    while codes.len() < pids.len() {
        let (id, exit) = agent.event(|event| match event {
            Event::Exited { instance, exit } => Some((instance.clone(), *exit)),
            _ => None,
        });
        codes.insert(id, exit.code);
    }
    for number in 1..=MANY {
        let id = instance(number);
        assert_eq!(codes[&id], Some(i32::try_from(number).unwrap()));
        let (numbers, end) = lines(place, &id);
        assert_eq!(end, Some(format!("end {numbers}")), "{id}");
    }
    assert_eq!(place.logged(&ending), ["stdout F halfline"]);
    for id in (1..=MANY).chain([200, 201]) {
        agent.client.release(&instance(id)).unwrap();
    }
    let idle = open_files(keeper.pid);
    agent.client.upgrade(keeper.binary()).unwrap();
    // It answers before it has put everything away that it came with.
    wait_until(|| open_files(keeper.pid) == idle);
    assert!(keeper.said().contains("goes on as another program"));
}

/// A command in a container, with its standard input and output.
struct Session {
    exec: u64,
    stdin: rustix::fd::OwnedFd,
    stdout: rustix::fd::OwnedFd,
}

fn exec(agent: &Agent, id: &InstanceId) -> Session {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).unwrap();
    let ((stdin, ours), (out, stdout)) = (pipe(), pipe());
    let streams = Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
    let script = shell("read word; echo $word; exit 44");
    let request = ExecRequest { instance: id, script: &script, io: ExecStreams::Stdio(streams), seccomp: None };
    let started = agent.client.exec(&request).unwrap();
    Session { exec: started.exec, stdin: ours, stdout: out }
}

impl Session {
    fn ends_with(self, word: &str, agent: &Agent, code: i32) {
        fs::File::from(self.stdin).write_all(word.as_bytes()).unwrap();
        let exit = agent.event(|event| match event {
            Event::ExecExited { exec, exit, .. } if *exec == self.exec => Some(*exit),
            _ => None,
        });
        assert_eq!(exit.code, Some(code));
        let mut said = String::new();
        fs::File::from(self.stdout).read_to_string(&mut said).unwrap();
        assert_eq!(said, word);
    }
}

#[test]
#[ignore = "needs root"]
fn a_program_that_does_not_know_the_state_is_refused_and_nothing_happens() {
    let keeper = Real::begin();
    let (place, agent, id) = (&keeper.place, &keeper.agent, instance(1));
    place.start(agent, &id, "exec sleep 1000").unwrap();
    let before = (keeper.running(), open_files(keeper.pid));
    // A build that says another thing, one that is no keeper, one that is no program, none.
    let other = keeper.next();
    let mut bytes = fs::read(&other).unwrap();
    let word = b"takes over state";
    let at = bytes.windows(word.len()).position(|window| window == word).expect("its words are in it");
    bytes[at..at + word.len()].copy_from_slice(b"knows not about ");
    fs::write(&other, bytes).unwrap();
    let text = place.path().join("text");
    fs::write(&text, "no program").unwrap();

    for program in [other.as_path(), Path::new("/bin/true"), Path::new("/bin/cat"), &text, Path::new("/nowhere")] {
        let error = agent.client.upgrade(program).unwrap_err();
        assert!(error.fault().is_some(), "{}: {error}", program.display());
    }

    agent.client.signal(&id, libc::SIGKILL).unwrap();
    assert_eq!(agent.exit_of(&id).signal, Some(libc::SIGKILL));
    assert!(keeper.running() == before.0);
    assert_eq!(open_files(keeper.pid), before.1);
    assert_eq!(agent.client.stats().unwrap().upgrades, 0);
}

#[test]
#[ignore = "needs root"]
fn while_a_start_is_half_done_the_program_stays() {
    let keeper = Real::begin();
    let (place, agent, id) = (&keeper.place, &keeper.agent, instance(1));

    let (client, output) = (&agent.client, place.output(&id));
    let refused = std::thread::scope(|scope| {
        let script = script_that_waits();
        let instance = &id;
        let start = move || client.start(&StartRequest { instance, script: &script, output, seccomp: None });
        let starting = scope.spawn(start);
        let mut pid = None;
        wait_until(|| {
            pid = agent.client.list().unwrap().first().map(|handle| handle.pid);
            pid.is_some()
        });
        let refused = agent.client.upgrade(keeper.binary()).unwrap_err();
        // A signal is kept until it can be obeyed.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper.pid.try_into().unwrap()), nix::sys::signal::SIGHUP)
            .unwrap();
        agent.client.stats().unwrap();
        agent.client.signal(&id, libc::SIGKILL).unwrap();
        starting.join().unwrap().unwrap_err();
        refused
    });

    assert_eq!(refused.fault(), Some(Fault::Busy), "{refused}");
    wait_until(|| agent.client.stats().unwrap().upgrades == 1);
}

#[test]
#[ignore = "needs root"]
fn a_signal_has_it_run_what_is_installed_now() {
    let keeper = Real::begin();
    let (place, agent, id) = (&keeper.place, &keeper.agent, instance(1));
    let started = place.start(agent, &id, "exec sleep 1000").unwrap();
    assert_eq!(is_outdated(keeper.pid, &keeper.options).unwrap(), None);

    fs::rename(keeper.next(), keeper.binary()).unwrap();
    assert_eq!(is_outdated(keeper.pid, &keeper.options).unwrap().as_deref(), Some(keeper.binary()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper.pid.try_into().unwrap()), nix::sys::signal::SIGHUP)
        .unwrap();
    wait_until(|| agent.client.stats().unwrap().upgrades == 1);

    assert_eq!(is_outdated(keeper.pid, &keeper.options).unwrap(), None);
    assert_eq!(agent.client.list().unwrap()[0].pid, started.pid);
    let name = fs::read_to_string(format!("/proc/{}/comm", keeper.pid)).unwrap();
    assert_eq!(name, "plim-keeper\n");
    let arguments = fs::read(format!("/proc/{}/cmdline", keeper.pid)).unwrap();
    assert!(String::from_utf8_lossy(&arguments).contains(&*place.path().to_string_lossy()), "ps tells whose it is");
    // It is still the only one.
    assert!(spawn(&keeper.options).is_err());
}
