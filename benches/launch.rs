//! From `launch` to the container's end, for comparison with a floor written in C.
//!
//! `cargo bench --bench launch -- [n=200] [root=overlay|directory] [cgroups=all|none] [seccomp=1|0]`

use plimsoll::sandbox::{
    self, Blueprint, CgroupJoin, CgroupView, Overlay, Process, Report, Root, Stdio, launch, read_report, script,
};
use plimsoll::spec::{Capabilities, IdRange, Network};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::error::Error;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BASE: u32 = 1_100_000_000;

const HIERARCHIES: [&str; 9] = ["memory", "pids", "devices", "cpu", "cpuacct", "cpuset", "freezer", "blkio", "systemd"];

fn main() -> Result<(), Box<dyn Error>> {
    let option = |name: &str, default: &str| {
        let prefix = format!("{name}=");
        std::env::args().find_map(|arg| arg.strip_prefix(&prefix).map(str::to_owned)).unwrap_or(default.to_owned())
    };
    let count: usize = option("n", "200").parse()?;
    let (root, cgroups, seccomp) = (option("root", "overlay"), option("cgroups", "all"), option("seccomp", "1"));
    let dir = PathBuf::from(format!("/tmp/plimsoll-bench-{}", std::process::id()));
    let base = dir.join("base");
    for name in ["usr", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(base.join(name))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), base.join(name))?;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let root = match root.as_str() {
        "directory" => Root::Directory { path: option("rootfs", "/") },
        _ => {
            let overlay = |name: &str, lower: String| -> Result<Overlay, std::io::Error> {
                let (upper, work) = (dir.join(format!("{name}-upper")), dir.join(format!("{name}-work")));
                for path in [&upper, &work] {
                    fs::create_dir(path)?;
                    std::os::unix::fs::chown(path, Some(BASE), Some(BASE))?;
                }
                Ok(Overlay { lower: vec![lower], upper: text(&upper), work: text(&work) })
            };
            match option("rootfs", "").as_str() {
                "" => Root::Overlay {
                    base: overlay("root", text(&base))?,
                    grafts: vec![("/usr".to_owned(), overlay("usr", "/usr".to_owned())?)],
                },
                rootfs => Root::Overlay { base: overlay("root", rootfs.to_owned())?, grafts: Vec::new() },
            }
        }
    };
    let words = |list: &str| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut blueprint = Blueprint {
        root,
        read_only_root: false,
        ids: Some(IdRange { base: BASE, size: IdRange::SIZE }),
        network: Network::None,
        hostname: "bench".to_owned(),
        mounts: Vec::new(),
        masked_paths: words(
            "/proc/kcore /proc/keys /proc/timer_list /proc/latency_stats /proc/sched_debug /proc/acpi /proc/scsi \
             /proc/asound /sys/firmware",
        ),
        readonly_paths: words("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"),
        process: Process {
            argv: words(&option("command", "/bin/true")),
            env: words("PATH=/bin"),
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            umask: 0o022,
        },
        capabilities: Capabilities::DEFAULT,
        ambient: 0,
        no_new_privileges: true,
        seccomp: seccomp == "1",
        init: false,
        oom_score_adj: 0,
        cgroup: CgroupJoin::default(),
        cgroup_view: CgroupView::Nothing,
        stdout: String::new(),
        stderr: String::new(),
    };
    let bpf = sandbox::seccomp::compile(&sandbox::seccomp::default_profile(), blueprint.capabilities)?;
    let mut filter = fs::File::from(rustix::fs::memfd_create(c"seccomp", rustix::fs::MemfdFlags::CLOEXEC)?);
    filter.write_all(&bpf)?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };

    let mut times: [Vec<Duration>; 5] = Default::default();
    for turn in 0..count {
        let start = Instant::now();
        let mut groups = Vec::new();
        if cgroups == "all" {
            for hierarchy in HIERARCHIES {
                let path = PathBuf::from(format!("/sys/fs/cgroup/{hierarchy}/bench-{}-{turn}", std::process::id()));
                fs::create_dir(&path)?;
                limits(hierarchy, &path)?;
                groups.push(path);
            }
        }
        let made = Instant::now();
        blueprint.cgroup.v1 = groups.iter().map(|path| text(path)).collect();
        let script = script(&blueprint)?;
        let seccomp = blueprint.seccomp.then_some(filter.as_fd());
        let launched = launch(&script, stdio, seccomp)?;
        let back = Instant::now();
        if let Report::Failed(failure) = read_report(launched.report.as_fd(), launched.pid)? {
            return Err(script.explain(&failure).into());
        }
        let executed = Instant::now();
        waitid(WaitId::PidFd(launched.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        drop(launched);
        let gone = Instant::now();
        for path in &groups {
            while let Err(error) = fs::remove_dir(path) {
                if error.raw_os_error() != Some(libc::EBUSY) {
                    return Err(error.into());
                }
            }
        }
        let end = Instant::now();
        let spans = [end - start, made - start, back - made, executed - back, gone - executed];
        for (list, span) in times.iter_mut().zip(spans) {
            list.push(span);
        }
    }
    fs::remove_dir_all(&dir)?;
    let mut out = std::io::stdout();
    let names = ["total", "cgroups", "launch returns", "then executed", "then gone"];
    for (name, list) in names.iter().zip(&mut times) {
        list.sort_unstable();
        let at = |percent: usize| list.get((list.len() - 1) * percent / 100).map_or(0, Duration::as_micros);
        writeln!(out, "{name:<15} median {:>6} us   p10 {:>6}   p99 {:>6}", at(50), at(10), at(99))?;
    }
    Ok(())
}

/// The limits that the floor writes.
fn limits(hierarchy: &str, path: &Path) -> std::io::Result<()> {
    match hierarchy {
        "memory" => fs::write(path.join("memory.limit_in_bytes"), "268435456"),
        "pids" => fs::write(path.join("pids.max"), "100"),
        "devices" => {
            fs::write(path.join("devices.deny"), "a")?;
            [
                "c *:* m",
                "b *:* m",
                "c 1:3 rwm",
                "c 1:5 rwm",
                "c 1:7 rwm",
                "c 1:8 rwm",
                "c 1:9 rwm",
                "c 5:0 rwm",
                "c 5:2 rwm",
                "c 136:* rwm",
            ]
            .iter()
            .try_for_each(|rule| fs::write(path.join("devices.allow"), rule))
        }
        "cpuset" => {
            fs::write(path.join("cpuset.cpus"), "0-1")?;
            fs::write(path.join("cpuset.mems"), "0")
        }
        _ => Ok(()),
    }
}
