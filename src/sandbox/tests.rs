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
            seccomp: true,
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
    if !blueprint.seccomp {
        return None;
    }
    let bpf = seccomp::compile(&seccomp::default_profile(), blueprint.capabilities).unwrap();
    let memory = rustix::fs::memfd_create(c"seccomp", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut memory = fs::File::from(memory);
    memory.write_all(&bpf).unwrap();
    Some(memory)
}

fn run(script: &Script, blueprint: &Blueprint) -> Ended {
    let filter = filter(blueprint);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let null = null();
    let stdio = Stdio { stdin: null.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd() };
    let launched = launch(script, stdio, filter.as_ref().map(AsFd::as_fd)).unwrap();
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

#[cfg(test)]
mod look {
    use super::*;
    #[test]
    fn seccomp_size() {
        let t = std::time::Instant::now();
        let bpf = seccomp::compile(&seccomp::default_profile(), Capabilities::DEFAULT).unwrap();
        eprintln!("{} instructions in {:?}", bpf.len() / 8, t.elapsed());
        let t = std::time::Instant::now();
        let mut p = seccomp::default_profile();
        p.architectures.truncate(1);
        let bpf = seccomp::compile(&p, Capabilities::DEFAULT).unwrap();
        eprintln!("one arch: {} instructions in {:?}", bpf.len() / 8, t.elapsed());
    }
    #[test]
    fn look() {
        let ground = Ground::new(
            "unshare -U true; python3 -c 'import socket;socket.socket(40,1,0)'; id; cat /proc/self/uid_map; grep -E 'Cap|Secc|NoNew|Sig' /proc/self/status; cat /proc/self/mountinfo; ls -la /dev /proc/self/fd; cat /proc/self/cgroup; hostname; cat /sys/class/net/lo/flags; readlink /proc/self/ns/*; ps ax; echo x > /dev/null; cat /proc/kcore | wc -c; ls /sys/firmware; echo 1 > /proc/sys/kernel/hostname; touch /a /usr/b && ls -ln /a /usr/b; cat /proc/self/limits; cat /proc/self/oom_score_adj; ls -la /dev/pts; echo hi > /dev/shm/x; ls /sys; stat -c '%u %a %n' / /usr /usr/bin/su /etc",
        );
        let ended = ground.run();
        eprintln!("{}", script(&ground.blueprint).unwrap());
        eprintln!("{}", ended.output);
        eprintln!("{:?}", ended.report);
    }
}
