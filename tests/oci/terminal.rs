//! A terminal in the foreground, joined to one that is real.

use crate::fixture::Bundle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};

struct Pty {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Pty {
    fn new(rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags | OpenptFlags::CLOEXEC).unwrap();
        let pty = Self { master, slave };
        pty.resize(rows, columns);
        pty
    }

    fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    /// Until the text is there, for ten seconds.
    fn read(&self, until: &str) -> String {
        let mut text = String::new();
        while !text.contains(until) {
            let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
            let mut wait = [PollFd::new(&self.master, PollFlags::IN)];
            assert_eq!(poll(&mut wait, Some(&limit)).unwrap(), 1, "{until:?} did not come: {text:?}");
            let mut bytes = [0; 1024];
            let length = rustix::io::read(&self.master, &mut bytes).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        text
    }
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_terminal_has_our_size_follows_it_and_gives_ours_back_as_it_was() {
    let script = "trap 'stty size; exit 5' WINCH; stty size; sleep 1000 & wait";
    for exec in [false, true] {
        let mut bundle = Bundle::new(if exec { "exec sleep 1000" } else { script });
        if exec {
            bundle.create();
            bundle.on(&["start"]);
        } else {
            bundle.config["process"]["terminal"] = json!(true);
            bundle.write();
        }
        let (dir, id) = (bundle.path(""), bundle.id());
        let words = match exec {
            false => vec!["run", "--bundle", dir.to_str().unwrap(), &id],
            true => vec!["exec", "-t", &id, "sh", "-c", script],
        };
        let pty = Pty::new(31, 101);
        let before = format!("{:?}", tcgetattr(&pty.slave).unwrap());
        let mut command = bundle.command(&words);
        let mut run = command.stdin(pty.stdio()).stdout(pty.stdio()).stderr(pty.stdio()).spawn().unwrap();

        pty.read("31 101");
        let local = tcgetattr(&pty.slave).unwrap().local_modes;
        assert!(!local.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{local:?}");
        pty.resize(41, 121);
        // What the kernel sends to who has it as the controlling terminal.
        signal(&run, nix::sys::signal::Signal::SIGWINCH);
        pty.read("41 121");

        assert_eq!(run.wait().unwrap().code(), Some(5));
        assert_eq!(format!("{:?}", tcgetattr(&pty.slave).unwrap()), before);
    }
}

#[test]
#[ignore = "needs root"]
fn a_key_that_interrupts_does_so_inside_and_output_comes_to_its_end() {
    let mut bundle = Bundle::new("trap 'seq 1 3000; exit 6' INT; echo up; sleep 1000 & wait");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 7, "width": 9});
    bundle.write();
    let pty = Pty::new(31, 101);
    let mut command = bundle.command(&["run", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);
    let mut run = command.stdin(pty.stdio()).stdout(pty.stdio()).spawn().unwrap();
    pty.read("up");

    rustix::io::write(&pty.master, &[3]).unwrap();

    let all = pty.read("3000");
    assert!(all.contains("\n2999") && all.contains("\n1500"), "{} bytes", all.len());
    assert_eq!(run.wait().unwrap().code(), Some(6));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn the_size_is_the_configurations_where_we_have_none() {
    let mut bundle = Bundle::new("stty size; readlink /proc/self/fd/0; ls -l /dev/console | cut -c1-2");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 7, "width": 9});

    assert_eq!(bundle.run().out.replace('\r', ""), "7 9\n/dev/pts/0\ncr");
}

#[test]
#[ignore = "needs root"]
fn a_terminal_that_nobody_reads_any_more_hangs_up() {
    let mut bundle = Bundle::new("while echo words; do :; done; exit 4");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.write();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::fcntl_setfd(reader.as_fd(), rustix::io::FdFlags::CLOEXEC).unwrap();
    let err = fs::File::create(bundle.path("err")).unwrap();
    let mut command = bundle.command(&["run", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);
    let mut run = command.stdout(writer).stderr(err).spawn().unwrap();
    drop(command);

    drop(reader);

    // By an error or, where it is not a first process, by the signal.
    assert!(matches!(run.wait().unwrap().code(), Some(4 | 129)));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn without_a_mount_namespace_a_terminal_is_one_of_the_hosts() {
    let mut bundle = Bundle::new("[ -t 0 ] && [ -t 1 ] && echo terminal");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|entry| entry["type"] != "mount");
    for field in ["maskedPaths", "readonlyPaths"] {
        bundle.config["linux"].as_object_mut().unwrap().remove(field);
    }
    bundle.config["process"]["terminal"] = json!(true);
    // With nothing mounted a shell needs its libraries in the root.
    let needed = std::process::Command::new("ldd").arg("/bin/sh").output().unwrap().stdout;
    let needed = String::from_utf8(needed).unwrap();
    for path in needed.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/sh"]) {
        let place = bundle.path("rootfs/usr").join(path.strip_prefix("/usr/").unwrap_or(&path[1..]));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(path, place).unwrap();
    }

    let answer = bundle.run();

    assert!(answer.code == Some(0) && answer.out == "terminal", "{answer:?}");
}
