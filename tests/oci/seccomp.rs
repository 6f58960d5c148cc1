//! Filters of system calls, as programs in a container meet them.

use crate::fixture::{Answer, Bundle};
use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use rustix::io::IoSliceMut;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};

/// Calls one system call and says what came of it.
fn call(number: i64, arguments: &str) -> String {
    format!("$r = syscall({number}, {arguments}); print $r == -1 ? 0 + $! : \"fine\", \"\\n\";")
}

/// A bundle whose program is this Perl, under this profile.
fn under(profile: &Value, perl: &str) -> Bundle {
    let mut bundle = Bundle::new("");
    bundle.config["process"]["args"] = json!(["/usr/bin/perl", "-e", format!("$| = 1; {perl}")]);
    bundle.config["linux"]["seccomp"] = profile.clone();
    bundle
}

fn run(profile: &Value, perl: &str) -> Answer {
    let bundle = under(profile, perl);
    let answer = bundle.run();
    assert!(bundle.is_gone(), "{answer:?}");
    answer
}

/// `alarm(2)`, which nobody else calls here.
fn rule(action: &str) -> Value {
    json!({"names": ["alarm"], "action": action})
}

fn all_but(rule: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]})
}

fn alarm() -> String {
    call(libc::SYS_alarm, "0")
}

#[test]
#[ignore = "needs root"]
fn each_action_does_what_it_says() {
    // 31 is SIGSYS, and 38 ENOSYS: nobody traces.
    let cases = [
        ("ALLOW", "fine", 0),
        ("LOG", "fine", 0),
        ("ERRNO", "1", 0),
        ("TRACE", "38", 0),
        ("KILL", "", 159),
        ("KILL_THREAD", "", 159),
        ("KILL_PROCESS", "", 159),
        ("TRAP", "", 159),
    ];
    for (action, out, code) in cases {
        let answer = run(&all_but(&rule(&format!("SCMP_ACT_{action}"))), &alarm());
        assert_eq!((answer.out.as_str(), answer.code), (out, Some(code)), "{action} {answer:?}");
    }
    // Who handles the signal goes on.
    let handled =
        run(&all_but(&rule("SCMP_ACT_TRAP")), &format!("$SIG{{SYS}} = sub {{ print 'caught ' }}; {}", alarm()));
    assert!(handled.out.starts_with("caught ") && handled.code == Some(0), "{handled:?}");
}

#[test]
#[ignore = "needs root"]
fn an_error_is_the_rules_or_eperm_and_the_default_has_its_own() {
    let numbered = json!({"names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100});
    assert_eq!(run(&all_but(&numbered), &alarm()).out, "100");

    let profile = |no_new_privileges: bool| {
        let mut names = everyday();
        if no_new_privileges {
            names.retain(|name| !["prctl", "setgroups", "setresuid", "setresgid", "capset"].contains(&name.as_str()));
        }
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 72, "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"}, rule("SCMP_ACT_ERRNO")]})
    };
    // Nothing of ours has to be allowed for that: not what we speak with our parent by.
    for no_new_privileges in [true, false] {
        let perl = format!("{} {}", alarm(), call(libc::SYS_sync, ""));
        let mut bundle = under(&profile(no_new_privileges), &perl);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let answer = bundle.run();
        assert_eq!((answer.out.as_str(), answer.code), ("1\n72", Some(0)), "{no_new_privileges} {answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn each_comparison_of_an_argument_counts() {
    // Operator, value, second value; an argument that meets it, and one that does not.
    let big = "4294967296 + 7";
    let cases = [
        ("EQ", 5_u64, 0, "5", "6"),
        ("NE", 5, 0, "6", "5"),
        ("LT", 5, 0, "4", "5"),
        ("LE", 5, 0, "5", "6"),
        ("GT", 5, 0, "6", "5"),
        ("GE", 5, 0, "5", "4"),
        ("MASKED_EQ", 6, 2, "3", "4"),
        ("GT", 4_294_967_296, 0, big, "7"),
    ];
    for (operator, value, two, meets, misses) in cases {
        let op = format!("SCMP_CMP_{operator}");
        let rule = json!({"names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
            "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}]});
        let perl = format!("{}{}", call(libc::SYS_alarm, meets), call(libc::SYS_alarm, misses));
        let answer = run(&all_but(&rule), &format!("{perl} syscall({}, 0);", libc::SYS_alarm));
        assert_eq!(answer.out.lines().next(), Some("77"), "{operator} {meets}: {answer:?}");
        assert_ne!(answer.out.lines().nth(1), Some("77"), "{operator} {misses}: {answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn comparisons_of_one_argument_are_alternatives_and_of_several_all_count() {
    let equal = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let rule = |args: Value| json!({"names": ["dup2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": args});
    let perl: String =
        ["0, 50", "1, 50", "2, 50", "1, 51"].iter().map(|arguments| call(libc::SYS_dup2, arguments)).collect();
    let lines = |profile: &Value| run(profile, &perl).out.replace('\n', " ");

    assert_eq!(lines(&all_but(&rule(json!([equal(0, 0), equal(0, 1)])))), "77 77 fine 77");
    assert_eq!(lines(&all_but(&rule(json!([equal(0, 1), equal(1, 50)])))), "fine 77 fine fine");
    assert_eq!(lines(&all_but(&rule(json!([equal(0, 0), equal(0, 1), equal(1, 50)])))), "77 77 77 77");
}

#[test]
#[ignore = "needs root"]
fn other_machines_are_ignored_and_calls_that_are_newer_do_not_exist() {
    let all = ["X86_64", "X86", "X32", "AARCH64", "S390X", "RISCV64", "LOONGARCH64"];
    let architectures: Vec<String> = all.iter().map(|name| format!("SCMP_ARCH_{name}")).collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures,
        "syscalls": [rule("SCMP_ACT_ERRNO"), {"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]});
    assert_eq!(run(&profile, &alarm()).out, "1");

    let usual = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        {"names": everyday(), "action": "SCMP_ACT_ALLOW"}]});
    let answer = run(&usual, &format!("{}{}{}", alarm(), call(libc::SYS_sync, ""), call(9999, "0")));
    assert_eq!(answer.out, "5\n1\n38", "{answer:?}");
}

/// What a program does before it does anything.
fn everyday() -> Vec<String> {
    let text = "access arch_prctl brk capset close dup dup2 execve exit exit_group faccessat fcntl fstat futex getegid \
        geteuid getgid getpid getppid getrandom getrlimit gettid getuid ioctl lseek lstat mmap mprotect munmap \
        newfstatat open openat poll prctl pread64 prlimit64 read readlink rseq rt_sigaction rt_sigprocmask \
        set_robust_list set_tid_address setgroups setresgid setresuid sigaltstack stat statfs sysinfo uname write";
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root"]
fn flags_are_those_that_the_configuration_names() {
    let flag = |name: &str| format!("SECCOMP_FILTER_FLAG_{name}");
    let cases = [
        (json!(null), 4),
        (json!([]), 0),
        (json!([flag("TSYNC")]), 0),
        (json!([flag("LOG")]), 2),
        (json!([flag("SPEC_ALLOW"), flag("LOG"), flag("TSYNC")]), 6),
    ];
    for (flags, bits) in cases {
        let mut profile = all_but(&rule("SCMP_ACT_ERRNO"));
        profile["flags"] = flags.clone();
        let bundle = under(&profile, &alarm());
        bundle.write();
        let answer = bundle.call(&["--debug", "run", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);
        assert_eq!((answer.out.as_str(), answer.code), ("1", Some(0)), "{flags} {answer:?}");
        assert!(answer.err.contains(&format!("\"seccomp filter flags: {bits}\"")), "{flags} {answer:?}");
        let loaded = if bits == 0 { "loading the seccomp filter\"".to_owned() } else { format!("(flags {bits:#x})") };
        assert!(answer.err.contains(&loaded), "{flags} {answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn what_a_profile_can_not_have_is_refused_with_its_place() {
    let notify = |name: &str| json!({"names": [name], "action": "SCMP_ACT_NOTIFY"});
    let with = |field: &str, value: Value| {
        let mut profile = all_but(&rule("SCMP_ACT_ERRNO"));
        profile[field] = value;
        profile
    };
    let cases = [
        (with("flags", json!(["SECCOMP_FILTER_FLAG_NEW_LISTENER"])), "linux.seccomp.flags[0]: unknown variant"),
        (with("flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), "linux.seccomp.flags: "),
        (with("defaultAction", json!("SCMP_ACT_FROB")), "linux.seccomp.defaultAction: unknown variant"),
        (with("defaultAction", json!("SCMP_ACT_NOTIFY")), "SCMP_ACT_NOTIFY cannot be used as default action"),
        (with("defaultErrnoRet", json!(5)), "linux.seccomp.defaultErrnoRet: goes with"),
        (with("listenerMetadata", json!("x")), "linux.seccomp.listenerMetadata: takes a listenerPath"),
        (with("architectures", json!(["SCMP_ARCH_FROB"])), "linux.seccomp.architectures[0]: unknown variant"),
        (all_but(&notify("alarm")), "linux.seccomp.listenerPath: missing"),
        (all_but(&notify("write")), "SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        (all_but(&json!({"names": [], "action": "SCMP_ACT_ERRNO"})), "linux.seccomp.syscalls[0].names: empty"),
        (
            all_but(&json!({"names": ["alarm"], "action": "SCMP_ACT_ALLOW", "errnoRet": 5})),
            "syscalls[0].errnoRet: goes",
        ),
        (
            all_but(&json!({"names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "errnoRet: 4096 is above",
        ),
        (
            all_but(&json!({"names": ["alarm"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]})),
            "linux.seccomp.syscalls[0].args[0].index: ",
        ),
        (
            all_but(&json!({"names": ["alarm"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_FROB"}]})),
            "linux.seccomp.syscalls[0].args[0].op",
        ),
    ];
    for (profile, words) in cases {
        let answer = run(&profile, "");
        assert!(answer.code == Some(1) && answer.err.contains(words), "{words} {answer:?}");
    }
}

/// Receives what is sent to a listener: the text, and the descriptor.
fn receive(stream: &UnixStream) -> (Value, OwnedFd) {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 1 << 16];
    let length = {
        let mut data = [IoSliceMut::new(&mut text)];
        rustix::net::recvmsg(stream, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes
    };
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None })
        .flatten()
        .collect();
    text.truncate(length);
    (&mut &*stream).read_to_end(&mut text).unwrap();
    assert_eq!(fds.len(), 1);
    (serde_json::from_slice(&text).unwrap(), fds.into_iter().next().unwrap())
}

/// Answers calls until the last process with the filter has ended: the first argument of `alarm` and
/// one more, everything else as the kernel does it.
fn answer_all(listener: &OwnedFd) -> usize {
    let mut answered = 0;
    loop {
        // A process that ended meanwhile, or all of them.
        let mut wait = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wait, None).unwrap();
        if !wait[0].revents().contains(rustix::event::PollFlags::IN) {
            return answered;
        }
        let Ok(request) = ScmpNotifReq::receive(listener.as_raw_fd()) else { continue };
        let response = if request.data.syscall.as_raw_syscall() == i32::try_from(libc::SYS_alarm).unwrap() {
            ScmpNotifResp::new_val(
                request.id,
                i64::try_from(request.data.args[0]).unwrap() + 1,
                ScmpNotifRespFlags::empty(),
            )
        } else {
            ScmpNotifResp::new_continue(request.id, ScmpNotifRespFlags::empty())
        };
        if response.respond(listener.as_raw_fd()).is_ok() {
            answered += 1;
        }
    }
}

fn asking(names: &[&str], no_new_privileges: bool, perl: &str) -> (Bundle, UnixListener) {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "some words",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]});
    let mut bundle = under(&profile, perl);
    bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
    let path = bundle.path("agent");
    bundle.config["linux"]["seccomp"]["listenerPath"] = json!(path);
    bundle.config["annotations"] = json!({"of": "mine"});
    let listener = UnixListener::bind(path).unwrap();
    (bundle, listener)
}

#[test]
#[ignore = "needs root"]
fn a_listener_answers_for_run_start_and_exec() {
    for no_new_privileges in [true, false] {
        let (bundle, listener) = asking(&["alarm"], no_new_privileges, "print syscall(37, 41), \"\\n\"; sleep 1000");
        assert_eq!(bundle.create().code, Some(0));
        let id = bundle.id();
        let agent = std::thread::spawn(move || {
            let mut agents = Vec::new();
            let mut states = Vec::new();
            for _ in 0..2 {
                let (state, fd) = receive(&listener.accept().unwrap().0);
                states.push(state);
                agents.push(std::thread::spawn(move || answer_all(&fd)));
            }
            (states, agents.into_iter().map(|agent| agent.join().unwrap()).collect::<Vec<_>>())
        });
        // Nobody is asked before the start.
        assert_eq!(bundle.on(&["start"]).code, Some(0));
        let out = || std::fs::read_to_string(bundle.path("out")).unwrap();
        bundle.wait("the answer", || out() == "42\n");
        let pid: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();

        let more = bundle.call(&["exec", &id, "/usr/bin/perl", "-e", "print syscall(37, 1), \" $$\""]);
        assert_eq!(more.code, Some(0), "{more:?}");
        assert!(more.out.starts_with("2 "), "{more:?}");
        assert_eq!(bundle.call(&["kill", &id, "KILL"]).code, Some(0));

        let (states, answered) = agent.join().unwrap();
        assert_eq!(answered, [1, 1]);
        let [first, second] = states.as_slice() else { panic!("{states:?}") };
        assert_eq!((&first["fds"], &first["metadata"]), (&json!(["seccompFd"]), &json!("some words")));
        assert_eq!((&first["ociVersion"], &first["pid"]), (&pid["ociVersion"], &pid["pid"]));
        assert_eq!(first["state"]["annotations"], json!({"of": "mine"}));
        assert_eq!((&second["state"]["pid"], &second["state"]["id"]), (&pid["pid"], &json!(id)));
        assert_ne!(second["pid"], pid["pid"]);
    }
}

#[test]
#[ignore = "needs root"]
fn a_listener_may_be_asked_for_all_that_comes_before_the_program_but_write() {
    for no_new_privileges in [true, false] {
        let names =
            ["execve", "openat", "open", "read", "close", "fcntl", "sendto", "sendmsg", "recvfrom", "recvmsg", "prctl"];
        let (bundle, listener) = asking(&names, no_new_privileges, "print 'well'");
        let agent = std::thread::spawn(move || answer_all(&receive(&listener.accept().unwrap().0).1));

        let answer = bundle.run();

        assert_eq!((answer.out.as_str(), answer.code), ("well", Some(0)), "{answer:?}");
        assert!(agent.join().unwrap() > 5);
        assert!(bundle.is_gone());
    }
}

#[test]
#[ignore = "needs root"]
fn without_who_listens_nothing_is_left() {
    let (bundle, listener) = asking(&["alarm"], true, "");
    drop(listener);

    let answer = bundle.run();

    assert!(answer.code == Some(1) && answer.err.contains("failed to connect with seccomp agent"), "{answer:?}");
    assert!(bundle.is_gone());

    assert_eq!(bundle.create().code, Some(0));
    let answer = bundle.on(&["start"]);
    assert!(answer.code == Some(1) && answer.err.contains("failed to connect with seccomp agent"), "{answer:?}");
    bundle.wait("its end", || bundle.status() == "stopped");
}

#[test]
#[ignore = "needs root"]
fn a_listener_that_goes_leaves_calls_that_do_not_exist() {
    let (bundle, listener) = asking(&["alarm"], true, &alarm());
    let agent = std::thread::spawn(move || drop(receive(&listener.accept().unwrap().0)));

    let answer = bundle.run();

    agent.join().unwrap();
    assert_eq!(answer.out, "38", "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn nobody_is_asked_where_no_rule_asks() {
    let mut profile = all_but(&rule("SCMP_ACT_ERRNO"));
    profile["listenerPath"] = json!("/nobody/listens/here");
    assert_eq!(run(&profile, &alarm()).out, "1");
}

#[test]
#[ignore = "needs root"]
fn a_kept_filter_that_others_could_have_made_is_made_anew() {
    let profile = all_but(&json!({"names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 61}));
    let bundle = under(&profile, &alarm());
    assert_eq!(bundle.run().out, "61");
    let directory = bundle.path("state/.seccomp");
    let files = || std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let [file] = files().try_into().unwrap();
    let made = std::fs::metadata(&file).unwrap().ino();
    let good = std::fs::read(&file).unwrap();
    assert_eq!(bundle.run().out, "61");
    assert_eq!(std::fs::metadata(&file).unwrap().ino(), made, "it was not used");

    // Allows everything.
    let hostile: Vec<u8> = [6, 0, 0, 0, 0, 0, 0xff, 0x7f].into();
    let elsewhere = bundle.path("elsewhere");
    let spoil: [(&str, &dyn Fn()); 5] = [
        ("half", &|| std::fs::write(&file, &good[..good.len() - 3]).unwrap()),
        ("empty", &|| std::fs::write(&file, "").unwrap()),
        ("foreign", &|| {
            std::fs::write(&file, &hostile).unwrap();
            std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
        }),
        ("open", &|| {
            std::fs::write(&file, &hostile).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o622)).unwrap();
        }),
        ("link", &|| {
            std::fs::write(&elsewhere, &hostile).unwrap();
            std::fs::remove_file(&file).unwrap();
            symlink(&elsewhere, &file).unwrap();
        }),
    ];
    for (how, spoil) in spoil {
        spoil();
        assert_eq!(bundle.run().out, "61", "{how}");
        assert_eq!(std::fs::read(&file).unwrap(), good, "{how}");
        assert_eq!(files(), std::slice::from_ref(&file), "{how}");
        assert!(std::fs::symlink_metadata(&file).unwrap().is_file(), "{how}");
    }
}

#[test]
#[ignore = "needs root"]
fn exec_has_the_filter_also_when_the_kept_ones_are_gone() {
    let bundle = under(&all_but(&rule("SCMP_ACT_ERRNO")), "sleep 1000");
    bundle.create();
    bundle.on(&["start"]);
    std::fs::remove_dir_all(bundle.path("state/.seccomp")).unwrap();

    let answer = bundle.call(&["exec", &bundle.id(), "/usr/bin/perl", "-e", &alarm()]);

    assert_eq!(answer.out, "1", "{answer:?}");
}
