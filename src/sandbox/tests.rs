use super::overlay::Way;
use super::*;
use crate::spec::IdRange;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const BASE: u32 = 1_000_000_000;

/// A small root: links as a merged Debian has them, the host's /usr under an overlay.
struct Ground {
    dir: TempDir,
    blueprint: Blueprint,
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

fn own(path: &Path, id: u32) {
    std::os::unix::fs::chown(path, Some(id), Some(id)).unwrap();
}

fn namespaces(ids: Option<IdRange>) -> Vec<Namespace> {
    use Namespace::{Cgroup, Ipc, Mount, Net, Pid, User, Uts};
    [Pid, Mount, Net, Uts, Ipc, Cgroup].into_iter().chain(ids.map(|_| User)).collect()
}

impl Ground {
    fn new(script: &str) -> Self {
        Self::with(script, Some(IdRange { base: BASE, size: IdRange::SIZE }))
    }

    fn with(script: &str, ids: Option<IdRange>) -> Self {
        let dir = TempDir::with_prefix("plimsoll-sandbox-").unwrap();
        let owner = ids.map_or(0, |ids| ids.base);
        let overlay = |name: &str, lower: String| {
            let path = |part: &str| {
                let path = dir.path().join(format!("{name}-{part}"));
                fs::create_dir(&path).unwrap();
                own(&path, owner);
                text(path)
            };
            Overlay { lower: vec![lower], upper: path("upper"), work: path("work") }
        };
        let base = dir.path().join("base");
        for name in ["", "usr", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir(base.join(name)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), base.join(name)).unwrap();
        }
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let blueprint = Blueprint {
            root: Root::Overlay {
                base: overlay("root", text(base)),
                grafts: vec![("usr".to_owned(), overlay("usr", "/usr".to_owned()))],
            },
            mapped_root: ids.is_some(),
            root_with_mounts: false,
            read_only_root: false,
            root_propagation: None,
            change_root: ChangeRoot::Pivot,
            clocks: String::new(),
            own: namespaces(ids),
            join: Vec::new(),
            ids: ids.map(Into::into),
            hostname: Some("hold".to_owned()),
            domainname: None,
            mounts: usual_mounts(SysView::Own, &CgroupView::Nothing),
            listed_in_order: false,
            nodes: Vec::new(),
            masked_paths: strings(&["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys/firmware"]),
            readonly_paths: strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
            process: Process {
                argv: strings(&["/bin/sh", "-c", script]),
                env: strings(&["PATH=/usr/bin:/bin"]),
                cwd: "/".to_owned(),
                uid: 0,
                gid: 0,
                groups: Vec::new(),
                umask: 0o022,
                capabilities: Capabilities::of(crate::spec::Capabilities::DEFAULT, 0),
                no_new_privileges: true,
                seccomp: true,
                seccomp_flags: 0,
                oom_score_adj: Some(0),
                nice: Some(0),
                ..Process::default()
            },
            sysctl: Vec::new(),
            cgroup: CgroupJoin::default(),
            init: false,
            hooks: Hooks::default(),
            wait: false,
        };
        Self { dir, blueprint }
    }

    /// On the host's network, with the mounts of one that is.
    fn on_the_hosts_network(&mut self, cgroups: &CgroupView) {
        self.blueprint.own.retain(|namespace| *namespace != Namespace::Net);
        let sys = if self.blueprint.ids.is_some() { SysView::Hosts } else { SysView::Own };
        self.blueprint.mounts = usual_mounts(sys, cgroups);
    }

    fn run(&self) -> Ended {
        run(&script(&self.blueprint).unwrap(), &self.blueprint)
    }
}

#[derive(Debug)]
struct Ended {
    report: Report,
    output: String,
    code: Option<i32>,
}

fn null() -> OwnedFd {
    fs::File::open("/dev/null").unwrap().into()
}

/// A filter in memory, as the agent hands it over.
fn filter(blueprint: &Blueprint) -> Option<fs::File> {
    use std::io::Write;
    if !blueprint.process.seccomp {
        return None;
    }
    let bpf = seccomp::compile(&seccomp::default_profile(), blueprint.process.capabilities.bounding).unwrap();
    let memory = rustix::fs::memfd_create(c"seccomp", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut memory = fs::File::from(memory);
    memory.write_all(&bpf).unwrap();
    Some(memory)
}

fn run(script: &Script, blueprint: &Blueprint) -> Ended {
    run_on(script, blueprint, Way::Any)
}

/// With layers in this way.
fn run_on(script: &Script, blueprint: &Blueprint, way: Way) -> Ended {
    let filter = filter(blueprint);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let null = null();
    let stdio = Stdio { stdin: null.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd() };
    let io = stdio.into();
    let seccomp = filter.as_ref().map(AsFd::as_fd);
    let means = launch::Means { io, target: None, listener: None, seccomp, way };
    let launched = launch::run(script, means).unwrap();
    drop(writer);
    let report = read_report(launched.report.as_fd(), launched.pid).unwrap();
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    Ended { report, output, code: wait(&launched) }
}

fn wait(launched: &Launched) -> Option<i32> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = waitid(WaitId::PidFd(launched.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status()
}

/// The mounts, descriptors and children that a failed launch might leave behind.
fn explain(ground: &Ground) -> String {
    let script = script(&ground.blueprint).unwrap();
    let null = null();
    let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    let filter = filter(&ground.blueprint);
    // A child may fail before its parent has done its part, or after.
    let launched = match launch(&script, stdio, None, filter.as_ref().map(AsFd::as_fd)) {
        Ok(launched) => launched,
        Err(error) => return error.to_string(),
    };
    let report = read_report(launched.report.as_fd(), launched.pid).unwrap();
    wait(&launched);
    match report {
        Report::Failed(failure) => script.explain(&failure),
        report => panic!("{report:?}"),
    }
}

#[test]
fn a_script_reads_as_what_will_happen() {
    let overlay = |name: &str| Overlay {
        lower: vec![format!("/lower/{name}")],
        upper: format!("/upper/{name}"),
        work: format!("/work/{name}"),
    };
    let ids = IdRange { base: 200_000, size: IdRange::SIZE };
    let blueprint = Blueprint {
        root: Root::Overlay { base: overlay("root"), grafts: vec![("usr".to_owned(), overlay("usr"))] },
        mapped_root: true,
        root_with_mounts: false,
        read_only_root: true,
        root_propagation: None,
        change_root: ChangeRoot::Pivot,
        clocks: String::new(),
        own: namespaces(Some(ids)),
        join: Vec::new(),
        ids: Some(ids.into()),
        hostname: Some("web".to_owned()),
        domainname: None,
        mounts: usual_mounts(SysView::Own, &CgroupView::Unified)
            .into_iter()
            .chain([bound("/srv", "/data", true, true), scratch("/tmp", 4096, 0o1777, false)])
            .collect(),
        listed_in_order: false,
        nodes: Vec::new(),
        masked_paths: vec!["/proc/kcore".to_owned(), "/etc/secret".to_owned()],
        readonly_paths: vec!["/proc/sys".to_owned()],
        sysctl: Vec::new(),
        process: Process {
            argv: vec!["httpd".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            uid: 33,
            gid: 33,
            groups: vec![4],
            umask: 0o022,
            capabilities: Capabilities::of(0x400, 0x400),
            no_new_privileges: true,
            seccomp: true,
            seccomp_flags: 0,
            oom_score_adj: Some(0),
            nice: Some(0),
            ..Process::default()
        },
        init: true,
        hooks: Hooks::default(),
        wait: false,
        cgroup: CgroupJoin { unified: Some("/cg/v2".to_owned()), v1: vec!["/cg/memory".to_owned()] },
    };

    let script = script(&blueprint).unwrap();

    assert_eq!(script.to_string(), include_str!("tests/script.txt"));
    let json = serde_json::to_string(&script).unwrap();
    let read: Script = serde_json::from_str(&json).unwrap();
    assert_eq!((read.parent, read.child), (script.parent, script.child));
}

#[test]
fn a_zero_byte_is_refused() {
    assert!(matches!(Text::try_from("a\0b"), Err(text::ZeroByte(_))));
}

mod root {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn a_command_runs_as_pid_1_in_its_own_world() {
        let ground = Ground::new(
            "echo pid $$; id -u; cat /proc/self/uid_map; hostname; cat /sys/class/net/lo/flags; \
             grep -E '^(Cap|Seccomp:|NoNewPrivs|SigIgn|SigBlk)' /proc/self/status; umask; \
             [ \"$(readlink /proc/1/ns/cgroup)\" ] && echo cgroupns; exit 7",
        );

        let ended = ground.run();

        let lines: Vec<String> =
            ended.output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "pid 1",
            "0",
            "0 1000000000 65536",
            "hold",
            "0x9",
            "SigBlk: 0000000000000000",
            "SigIgn: 0000000000000000",
            "CapInh: 0000000000000000",
            "CapPrm: 00000000800405fb",
            "CapEff: 00000000800405fb",
            "CapBnd: 00000000800405fb",
            "CapAmb: 0000000000000000",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "0022",
            "cgroupns",
        ];
        assert_eq!(lines, expected);
        assert_eq!((ended.report, ended.code), (Report::Executed, Some(7)));
    }

    #[test]
    #[ignore = "needs root"]
    fn nothing_but_standard_descriptors_is_inherited() {
        let ended = Ground::new("for fd in /proc/self/fd/*; do echo ${fd##*/}; done").run();

        // 3 is the directory that the shell itself reads.
        assert_eq!(ended.output, "0\n1\n2\n3\n");
    }

    #[test]
    #[ignore = "needs root"]
    fn masked_and_read_only_paths_are() {
        let ground = Ground::new(
            "wc -c < /proc/keys; ls /sys/firmware | wc -l; \
             for f in /proc/sys/kernel/hostname /sys/class/net/lo/ifalias; do (echo x > $f) 2>/dev/null || echo no; done",
        );

        assert_eq!(ground.run().output, "0\n0\nno\nno\n");
    }

    #[test]
    #[ignore = "needs root"]
    fn a_read_only_root_is_and_its_mounts_are_not() {
        let mut ground = Ground::new(
            "touch /etc/x 2>/dev/null || echo no; touch /usr/x 2>/dev/null || echo graft; \
             touch /run/deep/x && echo tmpfs; touch /data/x 2>/dev/null || echo bind; cat /data/canary; stat -c %u /data/canary",
        );
        let shared = ground.dir.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("canary"), "song\n").unwrap();
        ground.blueprint.read_only_root = true;
        ground.blueprint.mounts.push(scratch("/run/deep", 1 << 20, 0o755, false));
        ground.blueprint.mounts.push(bound(&text(shared), "/data", true, true));

        assert_eq!(ground.run().output, "no\ngraft\ntmpfs\nbind\nsong\n0\n");
    }

    #[test]
    #[ignore = "needs root"]
    fn a_link_of_the_image_leads_nowhere_outside() {
        let mut ground = Ground::new("stat -f -c %T /trap/x");
        let outside = ground.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, ground.dir.path().join("base/trap")).unwrap();
        ground.blueprint.mounts.push(scratch("/trap/x", 1 << 20, 0o755, false));

        let ended = ground.run();

        assert_eq!((ended.code, ended.output.as_str()), (Some(0), "tmpfs\n"));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_missing_program_is_said_by_name() {
        let mut ground = Ground::new("");
        ground.blueprint.process.argv = vec!["/bin/nope".to_owned()];
        assert_eq!(explain(&ground), "executing /bin/nope: No such file or directory");

        let mut ground = Ground::new("");
        ground.blueprint.process.argv = vec!["nope".to_owned()];
        assert_eq!(explain(&ground), "executing nope: there is no such program in /usr/bin:/bin");

        let mut ground = Ground::new("");
        ground.blueprint.process.argv = vec!["/etc".to_owned()];
        assert_eq!(explain(&ground), "executing /etc: Permission denied");
    }

    #[test]
    #[ignore = "needs root"]
    fn a_program_is_looked_up_in_its_path() {
        let mut ground = Ground::new("");
        ground.blueprint.process.argv = vec!["echo".to_owned(), "hi".to_owned()];

        assert_eq!(ground.run().output, "hi\n");
    }

    #[test]
    #[ignore = "needs root"]
    fn a_working_directory_outside_is_refused_and_a_missing_one_made() {
        let mut ground = Ground::new("pwd");
        ground.blueprint.process.cwd = "/srv/new".to_owned();
        assert_eq!(ground.run().output, "/srv/new\n");
        ground.blueprint.process.cwd = "/srv/newer".to_owned();
        ground.blueprint.read_only_root = true;
        assert_eq!(ground.run().output, "/srv/newer\n");

        // A descriptor of the host, as in CVE-2024-21626.
        let ground_dir = fs::File::open("/").unwrap();
        let fd = rustix::io::fcntl_dupfd_cloexec(&ground_dir, 500).unwrap();
        let mut ground = Ground::new("pwd");
        ground.blueprint.process.cwd = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let words = explain(&ground);
        assert!(words.starts_with("changing to the working directory /proc/self/fd/"), "{words}");
    }

    #[test]
    #[ignore = "needs root"]
    fn a_child_that_fails_before_its_successor_is_there_says_why() {
        let mut ground = Ground::with("true", None);
        ground.blueprint.join.push((Namespace::User, "/dev/null".to_owned()));

        let words = explain(&ground);

        assert!(words.starts_with("entering the user namespace /dev/null: "), "{words}");
    }

    #[test]
    #[ignore = "needs root"]
    fn another_user_keeps_only_ambient_capabilities() {
        let mut ground = Ground::new("id -u; id -G; grep -E 'Cap(Eff|Amb|Bnd)' /proc/self/status");
        ground.blueprint.process.uid = 1000;
        ground.blueprint.process.gid = 100;
        ground.blueprint.process.groups = vec![7];
        ground.blueprint.process.capabilities = Capabilities::of(crate::spec::Capabilities::DEFAULT, 1 << 10);

        let output = ground.run().output;

        let expected = "1000\n100 7\nCapEff:\t0000000000000400\nCapBnd:\t00000000800405fb\nCapAmb:\t0000000000000400\n";
        assert_eq!(output, expected);
    }

    #[test]
    #[ignore = "needs root"]
    fn init_reaps_orphans_and_passes_the_code_on() {
        let mut ground = Ground::new(
            "echo $$; (true & exec true); \
             n=0; while grep -q ') Z 1 ' /proc/[0-9]*/stat 2>/dev/null && [ $n -lt 2000 ]; do n=$((n + 1)); done; \
             [ $n -lt 2000 ] && echo reaped; kill -TERM $$",
        );
        ground.blueprint.init = true;

        let ended = ground.run();

        assert_eq!((ended.output.as_str(), ended.code), ("2\nreaped\n", Some(128 + libc::SIGTERM)));
    }

    /// The arguments of a keeper are paths of the host.
    #[test]
    #[ignore = "needs root"]
    fn init_shows_nothing_of_who_started_it() {
        let mut ground = Ground::new(
            "cat /proc/1/comm; tr -d '\\0' < /proc/1/cmdline; echo; cat /proc/1/environ 2>&1 | head -c 1; \
             readlink /proc/1/exe /proc/1/cwd /proc/1/root; ls /proc/1/fd 2>/dev/null; cat /proc/1/maps 2>/dev/null",
        );
        ground.blueprint.init = true;

        assert_eq!(ground.run().output, "plim-init\nplim-init\nc");
        let own = fs::read("/proc/self/cmdline").unwrap();
        let first = std::env::args_os().next().unwrap();
        assert!(own.starts_with(first.as_encoded_bytes()), "the parent keeps its own");
    }

    #[test]
    #[ignore = "needs root"]
    fn init_forwards_signals() {
        let mut ground = Ground::new("trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.01; done");
        ground.blueprint.init = true;
        let (mut reader, writer) = std::io::pipe().unwrap();
        let null = null();
        let stdio = Stdio { stdin: null.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd() };
        let filter = filter(&ground.blueprint);
        let launched =
            launch(&script(&ground.blueprint).unwrap(), stdio, None, filter.as_ref().map(AsFd::as_fd)).unwrap();
        drop(writer);
        let mut ready = [0; 6];
        reader.read_exact(&mut ready).unwrap();

        rustix::process::pidfd_send_signal(&launched.pidfd, rustix::process::Signal::USR1).unwrap();

        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), wait(&launched)), ("got\n", Some(3)));
    }

    #[test]
    #[ignore = "needs root"]
    fn the_host_network_shows_the_hosts_devices_read_only() {
        let mut ground = Ground::new(
            "ls /sys/class/net | head -c 1 | wc -c; ls /sys/fs/cgroup | wc -l; \
             touch /sys/x 2>/dev/null || echo no",
        );
        ground.on_the_hosts_network(&CgroupView::Nothing);

        assert_eq!(ground.run().output, "1\n0\nno\n");
    }

    /// systemd makes all mounts of a host shared.
    #[test]
    #[ignore = "needs root"]
    fn what_a_container_mounts_does_not_show_on_a_host_with_shared_mounts() {
        let dir = TempDir::with_prefix("plimsoll-shared-").unwrap();
        let here = text(dir.path().to_owned());
        let host = move || {
            use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            // A mount of its own, of a kind that can be id-mapped since Linux 5.12.
            mount(&here, &here, "", MountFlags::BIND, None).unwrap();
            mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
            fs::create_dir(Path::new(&here).join("inner")).unwrap();
            let mounts = || {
                let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                let mut places: Vec<String> =
                    text.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect();
                places.sort();
                places
            };
            let before = mounts();

            for ids in [Some(IdRange { base: BASE, size: IdRange::SIZE }), None] {
                let mut ground = Ground::with("echo fine", ids);
                ground.on_the_hosts_network(&CgroupView::Nothing);
                ground.blueprint.mounts.push(bound(&here, "/data", false, ids.is_some()));
                ground.blueprint.mounts.push(scratch("/data/inner", 4096, 0o755, false));
                assert_eq!(ground.run().output, "fine\n");
            }

            assert_eq!(mounts(), before);
        };
        // A thread has a mount namespace of its own, and takes it along.
        std::thread::spawn(host).join().unwrap();
    }

    #[test]
    #[ignore = "needs root"]
    fn on_the_host_network_it_sees_its_own_cgroups_and_no_other_mount_of_the_hosts_sysfs() {
        let mut ground = Ground::new(
            "while read -r id up dev root at options rest; do case $at in /sys/fs/*|/sys/kernel/*) \
             echo $root $at ${options%%,*};; esac; done < /proc/self/mountinfo; [ -e /sys/fs/cgroup/cgroup.procs ] && echo own",
        );
        ground.on_the_hosts_network(&CgroupView::Unified);

        assert_eq!(ground.run().output, "/ /sys/fs/cgroup ro\nown\n");
    }

    #[test]
    #[ignore = "needs root"]
    fn it_also_runs_without_a_user_namespace() {
        let ended =
            Ground::with("cat /proc/self/uid_map; cat /proc/sys/kernel/hostname; touch /x && echo w", None).run();

        assert_eq!(ended.output.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295", "hold", "w"]);
    }

    #[test]
    #[ignore = "needs root"]
    fn cgroups_of_all_hierarchies_are_joined_before_the_program() {
        let mut ground = Ground::new("cat /proc/self/cgroup; ls /sys/fs/cgroup; wc -l < /sys/fs/cgroup/memory/tasks");
        let name = format!("plimsoll-test-{}", std::process::id());
        let hierarchies =
            ["memory", "pids"].map(|controller| PathBuf::from(format!("/sys/fs/cgroup/{controller}/{name}")));
        if hierarchies.iter().any(|path| !path.parent().unwrap().join("tasks").exists()) {
            // A host with v2 alone has nothing to join in this way.
            return;
        }
        hierarchies.iter().for_each(|path| fs::create_dir(path).unwrap());
        ground.blueprint.cgroup.v1 = hierarchies.iter().map(|path| text(path.clone())).collect();
        let view = CgroupView::V1(vec!["memory".to_owned(), "pids".to_owned()]);
        ground.blueprint.mounts = usual_mounts(SysView::Own, &view);

        let ended = ground.run();

        hierarchies.iter().for_each(|path| fs::remove_dir(path).unwrap());
        assert!(
            ended.output.contains(":memory:/\n") && ended.output.ends_with("memory\npids\n2\n"),
            "{}",
            ended.output
        );
    }

    #[test]
    #[ignore = "needs root"]
    fn a_failed_launch_leaves_nothing() {
        let mut ground = Ground::new("true");
        if let Root::Overlay { grafts, .. } = &mut ground.blueprint.root {
            grafts[0].1.lower = vec!["/nonexistent".to_owned()];
        }
        let null = null();
        let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
        let filter = filter(&ground.blueprint);

        let error =
            launch(&script(&ground.blueprint).unwrap(), stdio, None, filter.as_ref().map(AsFd::as_fd)).unwrap_err();

        let words = error.to_string();
        assert_eq!(words, "taking /nonexistent, private, id-mapped as #2: No such file or directory");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&text(ground.dir.path().to_owned())));
    }

    /// As Linux 6.1 takes layers.
    #[test]
    #[ignore = "needs root"]
    fn layers_by_name_make_the_same_container() {
        let mut ground = Ground::new(
            "cat /etc/motto; stat -c '%u %g' /etc/motto; echo x > /etc/motto; cat /etc/motto; \
             grep ' - overlay ' /proc/self/mountinfo | cut -d' ' -f4-6",
        );
        // A path with all that has a meaning in a list of options.
        let odd = ground.dir.path().join("a,b:c\\d");
        let second = ground.dir.path().join("second");
        for path in [&odd, &second, &second.join("etc")] {
            fs::create_dir(path).unwrap();
        }
        fs::write(second.join("etc/motto"), "higher\n").unwrap();
        if let Root::Overlay { base, .. } = &mut ground.blueprint.root {
            base.lower.insert(0, text(second));
        }
        let outputs = [(Way::Any, "any"), (Way::ByName, "name")].map(|(way, name)| {
            if let Root::Overlay { base, .. } = &mut ground.blueprint.root {
                let path = |part: &str| {
                    let path = odd.join(format!("{name}-{part}"));
                    fs::create_dir(&path).unwrap();
                    own(&path, BASE);
                    text(path)
                };
                (base.upper, base.work) = (path("upper"), path("work"));
            }
            run_on(&script(&ground.blueprint).unwrap(), &ground.blueprint, way).output
        });

        let overlays = "/ / rw,nodev,relatime\n/ /usr rw,nodev,relatime\n";
        assert_eq!(outputs, [(); 2].map(|()| format!("higher\n0 0\nx\n{overlays}")));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&text(ground.dir.path().to_owned())), "{mounts}");
    }

    #[test]
    #[ignore = "needs root"]
    fn layers_by_name_that_do_not_fit_leave_nothing() {
        let mut ground = Ground::new("true");
        if let Root::Overlay { base, .. } = &mut ground.blueprint.root {
            base.work = text(ground.dir.path().join("nowhere"));
        }
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let null = null();
        let io = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() }.into();
        let filter = filter(&ground.blueprint);
        let script = script(&ground.blueprint).unwrap();

        let seccomp = filter.as_ref().map(AsFd::as_fd);
        let means = launch::Means { io, target: None, listener: None, seccomp, way: Way::ByName };
        let error = launch::run(&script, means).unwrap_err();

        assert!(error.to_string().ends_with("No such file or directory"), "{error}");
        assert!(error.to_string().starts_with("making an overlay of #0"), "{error}");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), before);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_file_system_that_cannot_be_mapped_is_said() {
        let mut ground = Ground::new("true");
        ground.blueprint.mounts.push(bound("/proc/sys", "/data", true, true));

        let words = explain(&ground);

        let expected = "taking /proc/sys, recursive, read-only, private, id-mapped as #5: this kernel has no id-mapped mounts of its file system";
        assert_eq!(words, expected);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_child_ends_when_nobody_waits_for_its_report() {
        let ground = Ground::new("true");
        let mut script = script(&ground.blueprint).unwrap();
        // It waits for ever for what the parent would hand over.
        script.parent.pop();
        let null = null();
        let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
        let filter = filter(&ground.blueprint);
        let mut launched = launch(&script, stdio, None, filter.as_ref().map(AsFd::as_fd)).unwrap();

        launched.report = null.try_clone().unwrap();

        assert_eq!(wait(&launched), Some(254));
    }

    /// Between its birth and its program, with nothing unread: at its end nothing shows but that.
    #[test]
    #[ignore = "needs root"]
    fn a_child_that_is_killed_on_its_way_was_not_executed() {
        let kill = |pid: i32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        for (init, code) in [(false, None), (true, Some(128 + libc::SIGKILL))] {
            let mut ground = Ground::new("true");
            ground.blueprint.init = init;
            let mut script = script(&ground.blueprint).unwrap();
            // The command itself waits for what never comes, and behind an init.
            let last = script.child.len() - 1;
            script.child.insert(last, ops::ChildOp::Receive { slots: Vec::new() });
            let null = null();
            let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
            let filter = filter(&ground.blueprint);
            let launched = launch(&script, stdio, None, filter.as_ref().map(AsFd::as_fd)).unwrap();
            let pid = launched.pid.as_raw_nonzero().get();
            let victim = loop {
                let number = |text: String| text.trim().parse::<i32>().ok();
                let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok();
                let ready = if init { children().and_then(number) } else { Some(pid) };
                // Once it may load no other filter it has come to the end of its list.
                let filtered = ready.filter(|pid| {
                    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
                    status.contains("Seccomp:\t2")
                });
                match filtered {
                    Some(victim) => break victim,
                    None => std::thread::yield_now(),
                }
            };

            kill(victim).unwrap();
            let report = read_report(launched.report.as_fd(), launched.pid).unwrap();

            assert_eq!((report, wait(&launched)), (Report::Ended, code), "init: {init}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_program_that_has_ended_at_once_was_executed() {
        for init in [false, true] {
            let mut ground = Ground::new("");
            ground.blueprint.init = init;
            ground.blueprint.process.argv = vec!["/bin/true".to_owned()];
            let script = script(&ground.blueprint).unwrap();
            let null = null();
            let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
            let filter = filter(&ground.blueprint);
            let launched = launch(&script, stdio, None, filter.as_ref().map(AsFd::as_fd)).unwrap();
            let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
            rustix::process::waitid(rustix::process::WaitId::PidFd(launched.pidfd.as_fd()), ended).unwrap();

            let report = read_report(launched.report.as_fd(), launched.pid).unwrap();

            assert_eq!((report, wait(&launched)), (Report::Executed, Some(0)), "init: {init}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_failure_before_the_pivot_is_said_and_ends_the_child() {
        let mut ground = Ground::new("true");
        ground.blueprint.hostname = Some("h".repeat(65));

        let words = explain(&ground);

        assert_eq!(words, format!("setting the hostname {}: Invalid argument", "h".repeat(65)));
    }

    #[test]
    #[ignore = "needs root"]
    fn another_command_enters_a_running_container() {
        let ground = Ground::new("echo ready; exec sleep 1000");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let null = null();
        let stdio = Stdio { stdin: null.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd() };
        let filter = filter(&ground.blueprint);
        let container =
            launch(&script(&ground.blueprint).unwrap(), stdio, None, filter.as_ref().map(AsFd::as_fd)).unwrap();
        let mut ready = [0; 6];
        reader.read_exact(&mut ready).unwrap();
        let mut plan = ExecPlan {
            root: None,
            process: Process {
                argv: [
                    "sh",
                    "-c",
                    "echo in $$ of $(cat /proc/1/comm); hostname; grep -E 'Seccomp:|CapEff' /proc/self/status; \
                    readlink /proc/self/ns/user | cmp - /dev/stdin && echo same",
                ]
                .map(str::to_owned)
                .to_vec(),
                ..ground.blueprint.process.clone()
            },
            enter: ground.blueprint.own.clone(),
            cgroup: CgroupJoin::default(),
        };
        plan.process.argv[2] =
            "echo $(cat /proc/1/comm); hostname; [ $(readlink /proc/self/ns/user) = $(readlink /proc/1/ns/user) ] \
            && echo same; grep -E 'Seccomp:|CapEff' /proc/self/status; exit 9"
                .to_owned();

        let (mut output, writer) = std::io::pipe().unwrap();
        let io = Io::Stdio(Stdio { stdin: null.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd() });
        let launched =
            launch_exec(&exec_script(&plan).unwrap(), container.pidfd.as_fd(), io, filter.as_ref().map(AsFd::as_fd))
                .unwrap();
        drop(writer);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        let report = read_report(launched.report.as_fd(), launched.pid).unwrap();
        if let Report::Failed(failure) = report {
            panic!("{}", exec_script(&plan).unwrap().explain(&failure));
        }
        assert_eq!(text, "sleep\nhold\nsame\nCapEff:\t00000000800405fb\nSeccomp:\t2\n");
        assert_eq!(wait(&launched), Some(9));

        plan.process.terminal = Some((24, 80));
        plan.process.argv[2] = "tty; stty size; echo $(tty) > /dev/tty; exit 4".to_owned();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let io = Io::Terminal { console: theirs.as_fd() };
        let script = exec_script(&plan).unwrap();
        let launched = launch_exec(&script, container.pidfd.as_fd(), io, filter.as_ref().map(AsFd::as_fd)).unwrap();
        drop(theirs);
        let report = read_report(launched.report.as_fd(), launched.pid).unwrap();
        if let Report::Failed(failure) = report {
            panic!("{}", script.explain(&failure));
        }
        let mut master = receive(&ours);
        let mut text = Vec::new();
        // A terminal that nobody has open any more answers EIO.
        let _ = master.read_to_end(&mut text);
        assert_eq!(String::from_utf8_lossy(&text), "/dev/pts/0\r\n24 80\r\n/dev/pts/0\r\n");
        assert_eq!(wait(&launched), Some(4));

        rustix::process::pidfd_send_signal(&container.pidfd, rustix::process::Signal::KILL).unwrap();
        wait(&container);
    }

    #[test]
    #[ignore = "needs root"]
    fn every_probe_gives_an_answer() {
        let dir = TempDir::with_prefix("plimsoll-probe-").unwrap();

        for probe in probe(dir.path()) {
            assert_eq!(probe.found == Found::Yes, probe.remedy.is_empty(), "{probe:?}");
            assert!(probe.found != Found::No, "{probe:?}");
        }
    }

    fn receive(socket: &std::os::unix::net::UnixStream) -> fs::File {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut buffer = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut into = [rustix::io::IoSliceMut::new(&mut byte)];
        recvmsg(socket, &mut into, &mut buffer, RecvFlags::CMSG_CLOEXEC).unwrap();
        let fd = buffer.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        fd.unwrap().into()
    }
}

#[test]
fn labels_are_opened_while_proc_is_the_hosts_and_written_at_the_end() {
    let attributes =
        Attributes { apparmor: Some("strict".to_owned()), selinux: Some("a:b:c".to_owned()), ..Attributes::default() };
    let argv = vec!["/bin/true".to_owned()];
    let process = Process { argv, cwd: "/".to_owned(), attributes, no_new_privileges: true, ..Process::default() };
    let plan = ExecPlan { enter: namespaces(None), root: None, cgroup: CgroupJoin::default(), process };

    let text = exec_script(&plan).unwrap().to_string();

    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words}:\n{text}"));
    let order = [
        at("opening /proc/thread-self/attr/apparmor/exec as #0"),
        at("opening /proc/thread-self/attr/exec as #1"),
        at("entering namespaces"),
        at("writing \"exec strict\" to #0"),
        at("writing \"a:b:c\" to #1"),
        at("dropping"),
        at("executing /bin/true"),
    ];
    assert!(order.is_sorted(), "{text}");
}
