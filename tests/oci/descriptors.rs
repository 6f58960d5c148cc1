//! What a container's process has open, and what a service manager passes.

use crate::fixture::{Answer, Bundle};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Through a shell, which passes descriptors as callers do; `$0` is the runtime's own command line up to
/// its command.
fn by_shell(bundle: &Bundle, script: &str) -> Answer {
    bundle.write();
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(crate::fixture::runtime()).arg(bundle.path("")).arg(bundle.id());
    command.env("ROOT", bundle.path("state")).output().unwrap().into()
}

#[test]
#[ignore = "needs root"]
fn a_process_that_waits_for_its_start_has_only_what_it_needs() {
    for (preserve, words) in [(0, ""), (2, "--preserve-fds 2"), (2, "--preserve-fds 5")] {
        let bundle = Bundle::new("ls /proc/self/fd | wc -l; readlink /proc/self/fd/3; true");
        let create = format!(
            "exec 3</etc/passwd 4</etc/group 8</etc 9</etc; \"$0\" --root \"$ROOT\" create {words} --bundle \"$1\" \"$2\" >$1/out 2>$1/err"
        );
        let answer = by_shell(&bundle, &create);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
        let mut files = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", state["pid"])).unwrap() {
            let entry = entry.unwrap();
            let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let to = fs::read_link(entry.path()).unwrap().to_str().unwrap().to_owned();
            if number > 2 {
                files.push((number, to));
            }
        }
        files.sort();
        let kept: Vec<_> = files.iter().filter(|(_, to)| !to.starts_with("socket:")).collect();
        let given = [(3, "/etc/passwd".to_owned()), (4, "/etc/group".to_owned())];
        assert_eq!(kept, given.iter().take(preserve).collect::<Vec<_>>(), "{files:?}");
        // What it is started by, and what it reports to.
        assert_eq!(files.len() - kept.len(), 2, "{files:?}");

        assert_eq!(bundle.on(&["start"]).code, Some(0));
        // The three, and the directory that is read.
        let expected = if preserve == 0 { "4\n" } else { "6\n/etc/passwd\n" };
        bundle.wait("its output", || fs::read_to_string(bundle.path("out")).unwrap() == expected);
    }
}

#[test]
#[ignore = "needs root"]
fn what_the_caller_has_closed_of_the_standard_streams_is_nothing_of_ours_inside() {
    let script = "for fd in 0 1 2; do all=\"$all $(stat -L -c %t:%T /proc/$$/fd/$fd)\"; done; echo $all > /tmp/seen";
    let mut bundle = Bundle::new(script);
    bundle.config["root"]["readonly"] = json!(false);

    let run = "\"$0\" --root \"$ROOT\" run --bundle \"$1\" \"$2\" <&- >&- 2>&-";
    let answer = by_shell(&bundle, run);

    assert_eq!(answer.code, Some(0), "{answer:?}");
    let seen = fs::read_to_string(bundle.path("rootfs/tmp/seen")).unwrap();
    // The numbers of `/dev/null`.
    assert_eq!(seen, "1:3 1:3 1:3\n");
}

#[test]
fn an_answer_that_nobody_reads_is_an_error_and_not_the_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let output = Command::new(crate::fixture::runtime()).arg("features").stdout(writer).output().unwrap();

    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
#[ignore = "needs root"]
fn what_a_process_shows_as_its_program_is_an_empty_file_and_nothing_names_ours() {
    let bundle = Bundle::new("true");
    assert_eq!(bundle.create().code, Some(0));
    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    let process = format!("/proc/{}", state["pid"]);

    assert_eq!(fs::read_link(format!("{process}/exe")).unwrap(), Path::new("/memfd:plim-oci (deleted)"));
    assert_eq!(fs::read(format!("{process}/exe")).unwrap(), b"");
    let append = |path: &Path| fs::OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(b"x"));
    assert!(append(Path::new(&format!("{process}/exe"))).is_err());
    let own = crate::fixture::runtime();
    let maps = fs::read_to_string(format!("{process}/maps")).unwrap();
    assert!(!maps.contains(own.to_str().unwrap()), "{maps}");
    // Where its code is mapped nobody can write to it, not even from outside.
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let mapped = fs::read_dir(format!("{process}/map_files")).unwrap().map(|entry| entry.unwrap().path());
    let mapped: Vec<_> = mapped.filter(|path| inode(path) == inode(&own)).collect();
    assert!(!mapped.is_empty() && !mapped.iter().any(|path| append(path).is_ok()), "{maps}");
}

/// As where it may make no mounts: a file in memory is in none.
#[test]
#[ignore = "needs root"]
fn what_can_not_be_mounted_is_copied_and_the_copy_sealed() {
    let bundle = Bundle::new("true");
    bundle.write();
    let program = fs::read(crate::fixture::runtime()).unwrap();
    let memory = rustix::fs::memfd_create("started", rustix::fs::MemfdFlags::empty()).unwrap();
    // Through this descriptor, which does not make the file one that is written to, and can't be executed.
    let mut memory = fs::File::from(memory);
    memory.write_all(&program).unwrap();
    let mut command = Command::new(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    command.arg("--root").arg(bundle.path("state")).args(["create", "--bundle"]).arg(bundle.path("")).arg(bundle.id());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{status}");

    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    let shown = format!("/proc/{}/exe", state["pid"]);
    assert_eq!(fs::read_link(&shown).unwrap(), Path::new("/memfd:plim-oci (deleted)"));
    assert!(fs::read(&shown).unwrap() == program);
    let seals = rustix::fs::fcntl_get_seals(fs::File::open(&shown).unwrap()).unwrap();
    assert!(seals.contains(rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::SEAL), "{seals:?}");
    assert_eq!(bundle.on(&["start"]).code, Some(0));
}

#[test]
#[ignore = "needs root"]
fn sockets_of_a_service_manager_are_passed_on() {
    let bundle = Bundle::new("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES $(readlink /proc/self/fd/3)");
    let run = |settings: &str| {
        let script = format!(
            "exec 3</etc/passwd 4</etc/group; export LISTEN_FDNAMES=web:more; {settings}; exec \"$0\" --root \"$ROOT\" run --bundle \"$1\" \"$2\""
        );
        let answer = by_shell(&bundle, &script);
        assert!(bundle.is_gone());
        answer
    };

    assert_eq!(run("export LISTEN_FDS=2 LISTEN_PID=$$").out, "2 1 web:more /etc/passwd");
    assert_eq!(run("export LISTEN_FDS=2").out, "2 1 web:more /etc/passwd");
    // For somebody else (sd_listen_fds(3)).
    assert_eq!(run("export LISTEN_FDS=2 LISTEN_PID=1").out, "");
    for wrong in ["x", "-1", "99999999999"] {
        let answer = run(&format!("export LISTEN_FDS={wrong}"));
        assert!(answer.code == Some(1) && answer.err.contains("LISTEN_FDS"), "{answer:?}");
    }
}

/// A program that says so, and where.
const READY: &str = "use IO::Socket::UNIX; use Socket; \
    IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET})->send(\"READY=1\\nMAINPID=1\\nSTATUS=up\") \
    or die $!; print $ENV{NOTIFY_SOCKET}";

/// What comes, and the process that it is from.
fn notice(manager: &UnixDatagram) -> (String, u32) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let (mut text, mut space) = ([0; 64], [std::mem::MaybeUninit::<u8>::uninit(); 64]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [rustix::io::IoSliceMut::new(&mut text)];
    let received = rustix::net::recvmsg(manager, &mut data, &mut control, RecvFlags::empty()).unwrap();
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(who) => Some(who.pid.as_raw_nonzero().get()),
        _ => None,
    });
    let text = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
    (text, u32::try_from(sender.unwrap()).unwrap())
}

fn managers(socket: UnixDatagram) -> UnixDatagram {
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    rustix::net::sockopt::set_socket_passcred(&socket, true).unwrap();
    socket
}

/// The answer of `run`, and its own number.
fn run_notified(bundle: &Bundle, socket: &Path) -> (Answer, u32) {
    bundle.write();
    let mut command = bundle.command(&["run", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);
    let child = command.env("NOTIFY_SOCKET", socket).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let number = child.id();
    (child.wait_with_output().unwrap().into(), number)
}

#[test]
#[ignore = "needs root"]
fn a_service_manager_is_told_by_the_process_that_it_has_started() {
    let mut bundle = Bundle::new("");
    bundle.config["process"]["args"] = json!(["/usr/bin/perl", "-e", READY]);
    let path = bundle.path("manager");
    let manager = managers(UnixDatagram::bind(&path).unwrap());
    let abstract_one = SocketAddr::from_abstract_name(bundle.id()).unwrap();
    let by_name = managers(UnixDatagram::bind_addr(&abstract_one).unwrap());
    let told = "READY=1\nSTATUS=up".to_owned();

    let (answer, number) = run_notified(&bundle, &path);

    assert_eq!((answer.out, answer.code), (format!("{}/notify", path.display()), Some(0)), "{}", answer.err);
    assert_eq!(notice(&manager), (told.clone(), number));

    // Whoever its programs run as.
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for made in ["tmp", "run"] {
        fs::create_dir_all(bundle.path("rootfs").join(made)).unwrap();
        fs::set_permissions(bundle.path("rootfs").join(made), fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::remove_dir_all(bundle.path("rootfs/tmp/").join(bundle.id())).unwrap();
    fs::set_permissions(bundle.path(""), fs::Permissions::from_mode(0o755)).unwrap();

    let (answer, number) = run_notified(&bundle, &path);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(notice(&manager), (told.clone(), number));

    let (answer, number) = run_notified(&bundle, Path::new(&format!("@{}", bundle.id())));
    assert_eq!((answer.out.as_str(), answer.code), ("/run/notify/notify.sock", Some(0)), "{answer:?}");
    assert_eq!(notice(&by_name), (told, number));

    // One that has gone.
    let gone = bundle.path("gone");
    let (answer, _) = run_notified(&bundle, &gone);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(answer.err.contains(&format!("NOTIFY_SOCKET: sending to {}: No such", gone.display())), "{answer:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn where_nobody_stays_a_container_tells_the_service_manager_itself() {
    let mut bundle = Bundle::new("");
    bundle.config["process"]["args"] = json!(["/usr/bin/perl", "-e", format!("{READY}; sleep 1000")]);
    let path = bundle.path("manager");
    let manager = managers(UnixDatagram::bind(&path).unwrap());
    bundle.write();
    let detached = |socket: &Path, script: &str| {
        let words = ["run", "--detach", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()].map(str::to_owned);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (out, err) = (bundle.path("out"), bundle.path("err"));
        let mut command = bundle.command(&words);
        command.env("NOTIFY_SOCKET", socket);
        let files = (fs::File::create(&out).unwrap(), fs::File::create(&err).unwrap());
        let status = command.stdout(files.0).stderr(files.1).status().unwrap();
        assert!(status.success(), "{script}");
        fs::read_to_string(err).unwrap()
    };

    detached(&path, "ready");

    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    let (text, sender) = notice(&manager);
    assert_eq!((text.as_str(), json!(sender)), ("READY=1\nMAINPID=1\nSTATUS=up", state["pid"].clone()));
    bundle.on(&["delete", "--force"]);

    // An abstract one has no file that a container could have, and one may have been left behind.
    for socket in ["@plimsoll-nobody".into(), bundle.path("nobody")] {
        let said = detached(&socket, "nobody");
        assert!(said.contains(&format!("NOTIFY_SOCKET: {}", socket.display())), "{said}");
        bundle.on(&["delete", "--force"]);
    }
}

#[test]
#[ignore = "needs root"]
fn nothing_of_ours_shows_in_a_program() {
    let bundle = Bundle::new("ls /proc/self/fd | tr '\\n' ' '; exec 7</etc; echo; ls /proc/self/fd | wc -l");
    let file: OwnedFd = fs::File::open("/etc").unwrap().into();
    // One that is inherited by everybody.
    rustix::io::fcntl_setfd(file.as_fd(), rustix::io::FdFlags::empty()).unwrap();

    assert_eq!(bundle.run().out, "0 1 2 3 \n5");
}
