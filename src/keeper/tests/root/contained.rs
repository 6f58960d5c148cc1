//! A container with all of its namespaces, started by the real program, and commands in it.

use super::super::process::{Place, instance, wait_until};
use super::daemon::options;
use crate::keeper::{Client, Event, ExecRequest, ExecStreams, StartRequest, spawn};
use crate::sandbox::{
    self, Blueprint, CgroupJoin, CgroupView, ChangeRoot, ExecPlan, Namespace, Overlay, Process, Root, Stdio, SysView,
    exec_script, script, seccomp, usual_mounts,
};
use crate::spec::{Capabilities, IdRange};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

const NAMESPACES: [Namespace; 7] = {
    use Namespace::{Cgroup, Ipc, Mount, Net, Pid, User, Uts};
    [Pid, Mount, Net, Uts, Ipc, Cgroup, User]
};
const IDS: IdRange = IdRange { base: 1_100_000_000, size: IdRange::SIZE };

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn process(argv: &[&str]) -> Process {
    Process {
        argv: strings(argv),
        env: strings(&["PATH=/usr/bin:/bin"]),
        cwd: "/".to_owned(),
        uid: 0,
        gid: 0,
        umask: 0o022,
        capabilities: sandbox::Capabilities::of(Capabilities::DEFAULT, 0),
        no_new_privileges: true,
        seccomp: true,
        ..Process::default()
    }
}

/// The host's programs under an overlay, with ids of its own.
fn blueprint(directory: &Path, command: &str) -> Blueprint {
    let overlay = |name: &str, lower: PathBuf| {
        let make = |part: &str| {
            let path = directory.join(format!("{name}-{part}"));
            std::fs::create_dir(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(IDS.base), Some(IDS.base)).unwrap();
            text(path)
        };
        Overlay { lower: vec![text(lower)], upper: make("upper"), work: make("work") }
    };
    let base = directory.join("base");
    for name in ["", "usr", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir(base.join(name)).unwrap();
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), base.join(name)).unwrap();
    }
    let usr = ("usr".to_owned(), overlay("usr", "/usr".into()));
    Blueprint {
        root: Root::Overlay { base: overlay("root", base), grafts: vec![usr] },
        mapped_root: true,
        root_with_mounts: false,
        read_only_root: false,
        root_propagation: None,
        change_root: ChangeRoot::Pivot,
        clocks: String::new(),
        own: NAMESPACES.to_vec(),
        join: Vec::new(),
        ids: Some(IDS.into()),
        hostname: Some("kept".to_owned()),
        domainname: None,
        mounts: usual_mounts(SysView::Own, &CgroupView::Nothing),
        listed_in_order: false,
        nodes: Vec::new(),
        masked_paths: strings(&["/proc/kcore"]),
        readonly_paths: strings(&["/proc/sys"]),
        sysctl: Vec::new(),
        process: process(&["/bin/sh", "-c", command]),
        init: false,
        hooks: sandbox::Hooks::default(),
        wait: false,
        cgroup: CgroupJoin::default(),
    }
}

fn filter() -> File {
    let bpf = seccomp::compile(&seccomp::default_profile(), Capabilities::DEFAULT).unwrap();
    let mut memory = File::from(rustix::fs::memfd_create("filter", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    memory.write_all(&bpf).unwrap();
    memory
}

/// The terminal's master, from the command that made it.
fn master(socket: &OwnedFd) -> File {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    File::from(rights.unwrap())
}

#[test]
#[ignore = "needs root"]
fn a_whole_container_and_commands_in_it() {
    let place = Place::new();
    let options = options(&place);
    let id = instance(1);
    spawn(&options).unwrap();
    let (send, events) = channel();
    let client = Client::connect(&options.socket(), move |event| send.send(event).unwrap_or_default()).unwrap();
    let filter = filter();
    let mut output = place.output(&id);
    (output.uid, output.gid) = (IDS.base, IDS.base);

    let blueprint = blueprint(place.path(), "echo $$ $(hostname) > /dev/stdout; exec sleep 1000");
    let container = script(&blueprint).unwrap();
    let request = StartRequest { instance: &id, script: &container, output, seccomp: Some(filter.as_fd()) };
    let started = client.start(&request).unwrap();
    wait_until(|| place.logged(&id) == ["stdout F 1 kept"]);

    let plan = |argv: &[&str], terminal| ExecPlan {
        enter: NAMESPACES.to_vec(),
        root: None,
        cgroup: CgroupJoin::default(),
        process: Process { terminal, ..process(argv) },
    };
    let null = File::open("/dev/null").unwrap();
    let (mut ours, theirs) = std::io::pipe().unwrap();
    let stdio = Stdio { stdin: null.as_fd(), stdout: theirs.as_fd(), stderr: theirs.as_fd() };
    let command = exec_script(&plan(&["/bin/sh", "-c", "hostname; cat /proc/1/comm; tty"], None)).unwrap();
    let io = ExecStreams::Stdio(stdio);
    client.exec(&ExecRequest { instance: &id, script: &command, io, seccomp: Some(filter.as_fd()) }).unwrap();
    drop(theirs);
    let mut said = String::new();
    ours.read_to_string(&mut said).unwrap();

    let (console, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let command = exec_script(&plan(&["/bin/sh", "-c", "stty size; tty; exit 6"], Some((33, 77)))).unwrap();
    let io = ExecStreams::Terminal(theirs.as_fd());
    let exec =
        client.exec(&ExecRequest { instance: &id, script: &command, io, seccomp: Some(filter.as_fd()) }).unwrap();
    let mut shown = Vec::new();
    // A terminal whose last user has gone reads as an error (EIO).
    let _ = master(&console).read_to_end(&mut shown);
    let code = loop {
        match events.recv_timeout(Duration::from_secs(20)).unwrap() {
            Event::ExecExited { exec: ended, exit, .. } if ended == exec.exec => break exit.code,
            _ => {}
        }
    };
    client.signal(&id, libc::SIGKILL).unwrap();
    wait_until(|| client.release(&id).is_ok());
    client.shutdown(false).unwrap();

    assert!(started.pid > 1);
    assert_eq!(said, "kept\nsleep\nnot a tty\n");
    assert_eq!(String::from_utf8_lossy(&shown), "33 77\r\n/dev/pts/0\r\n");
    assert_eq!(code, Some(6));
}
