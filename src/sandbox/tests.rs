use super::*;
use crate::spec::{Capabilities, IdRange, Network};
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
            read_only_root: false,
            ids,
            network: Network::None,
            hostname: "hold".to_owned(),
            mounts: Vec::new(),
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
            },
            capabilities: Capabilities::DEFAULT,
            ambient: 0,
            no_new_privileges: true,
            seccomp: false,
            init: false,
            oom_score_adj: 0,
            cgroup: CgroupJoin::default(),
            cgroup_view: CgroupView::Nothing,
            stdout: String::new(),
            stderr: String::new(),
        };
        Self { dir, blueprint }
    }

    fn run(&self) -> Ended {
        run(&script(&self.blueprint).unwrap())
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

fn run(script: &Script) -> Ended {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let null = null();
    let stdio = Stdio { stdin: null.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd() };
    let launched = launch(script, stdio, None).unwrap();
    drop(writer);
    let report = read_report(launched.report.as_fd()).unwrap();
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    Ended { report, output, code: wait(&launched) }
}

fn wait(launched: &Launched) -> Option<i32> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = waitid(WaitId::PidFd(launched.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status()
}

mod root {
    use super::*;

    #[test]
    fn a_command_runs() {
        let ground = Ground::new("echo up; exit 7");

        let ended = ground.run();

        eprintln!("{}", script(&ground.blueprint).unwrap());
        if let Report::Failed(failure) = ended.report {
            eprintln!("{}", script(&ground.blueprint).unwrap().explain(&failure));
        }
        assert_eq!((ended.report, ended.output.as_str(), ended.code), (Report::Executed, "up\n", Some(7)));
        drop(ground.dir);
    }
}
