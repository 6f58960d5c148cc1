//! The runtime as a program: one container from nothing to gone, and one command more in it, beside a
//! C program that makes the same system calls and beside crun, where it is installed. Interleaved.
//!
//! In a mount namespace without the v2 hierarchy of a hybrid host, which crun refuses, and with a tmpfs for
//! what the runtimes keep of a container, as `/run` is: their default is a directory there.

use crate::table::{Table, quantile};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 60;

pub fn bench(table: &mut Table) {
    // Namespaces are a thread's: the other benches stay where they are.
    std::thread::scope(|scope| {
        let rows = scope.spawn(|| {
            leave_hybrid();
            measure(table);
        });
        rows.join().expect("a bench that ends");
    });
}

/// The v2 hierarchy beside those of v1 is out of sight.
fn leave_hybrid() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("a private tree");
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.join("cgroup.procs").exists() {
        umount2(unified, MntFlags::MNT_DETACH).expect("a mount less");
    }
}

struct Ground {
    dir: tempfile::TempDir,
    runtimes: Vec<(&'static str, PathBuf)>,
    number: usize,
}

fn measure(table: &mut Table) {
    let mut ground = Ground::new();
    let floor = ground.dir.path().join("floor");
    let rootfs = ground.rootfs();
    let mut floors = Vec::new();
    let mut runs: Vec<Vec<Duration>> = vec![Vec::new(); ground.runtimes.len()];
    for round in 0..=ROUNDS {
        let mut command = Command::new(&floor);
        command.args(["n=1", "clone=vfork", "api=old"]).arg(&rootfs).arg("/bin/true");
        let base = timed(&mut command);
        let all: Vec<Duration> = (0..ground.runtimes.len()).map(|which| ground.run(which)).collect();
        // The first one compiles filters, and has nothing in the caches.
        if round > 0 {
            floors.push(base);
            runs.iter_mut().zip(all).for_each(|(samples, time)| samples.push(time));
        }
    }
    let base = quantile(&mut floors, 0.5);
    let medians: Vec<Duration> = runs.iter_mut().map(|samples| quantile(samples, 0.5)).collect();
    let (ours, others) = medians.split_first().expect("our own");
    table.row("plim-oci run, start to gone", ms(*ours), against("the floor as a program", *ours, base), "<= 1.6 x");
    if let [crun, ..] = others {
        table.row("plim-oci run, start to gone", ms(*ours), against("crun", *ours, *crun), "<= 0.2 x");
    }

    let mut execs: Vec<Vec<Duration>> = vec![Vec::new(); ground.runtimes.len()];
    let ids: Vec<String> = (0..ground.runtimes.len()).map(|which| ground.start(which)).collect();
    for _ in 0..ROUNDS {
        for (which, id) in ids.iter().enumerate() {
            execs[which].push(timed(ground.command(which).args(["exec", id, "/bin/true"])));
        }
    }
    memory(table, &ground, &ids[0]);
    for (which, id) in ids.iter().enumerate() {
        timed(ground.command(which).args(["delete", "--force", id]));
    }
    let medians: Vec<Duration> = execs.iter_mut().map(|samples| quantile(samples, 0.5)).collect();
    match medians.as_slice() {
        [ours, crun, ..] => table.row("plim-oci exec", ms(*ours), against("crun", *ours, *crun), "<= 0.3 x"),
        [ours] => table.row("plim-oci exec", ms(*ours), "crun is not installed", "<= 0.3 x"),
        [] => {}
    }
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_plim-oci")).expect("our own").len();
    table.row("plim-oci, the file", format!("{} KiB", size / 1024), "what enters a container", "<= 2560 KiB");
}

/// What the process of a container that waits for its start has for itself alone.
fn memory(table: &mut Table, ground: &Ground, template: &str) {
    let id = format!("{template}-waits");
    let bundle = ground.dir.path().join("bundle");
    timed(ground.command(0).args(["create", "--bundle"]).arg(&bundle).arg(&id));
    let state = ground.command(0).args(["state", &id]).stdout(Stdio::piped()).output().expect("a state");
    let state: Value = serde_json::from_slice(&state.stdout).expect("JSON");
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", state["pid"])).expect("a process");
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    // Nobody else has these pages. Those of the program's file count as long as nobody else runs it, though
    // all who do have the same.
    let (private, own) = (field("Private_Dirty:") + field("Private_Clean:"), field("Anonymous:"));
    let what = format!("private, of a created container: {own} KiB written, the rest its program's file");
    table.row("memory before execve", format!("{private} KiB"), what, "<= 1024 KiB");
    timed(ground.command(0).args(["delete", "--force", &id]));
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Or the directory could not be removed.
        let _ = nix::mount::umount2(&self.dir.path().join("state"), nix::mount::MntFlags::MNT_DETACH);
    }
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let floor = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor.c");
        crate::start::compile(dir.path(), "floor.c", &floor, &["-O2", "-static"]);
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            std::fs::create_dir_all(rootfs.join(name)).expect("a directory");
        }
        for (name, body) in [("true", "return 0;"), ("pause", "return pause();")] {
            let source = dir.path().join(format!("{name}.c"));
            std::fs::write(&source, format!("#include <unistd.h>\nint main(void) {{ {body} }}\n")).expect("a source");
            crate::start::compile(&rootfs.join("bin"), name, &source, &["-O2", "-static"]);
        }
        for (bundle, program) in [("bundle", "/bin/true"), ("stays", "/bin/pause")] {
            let place = dir.path().join(bundle);
            std::fs::create_dir(&place).expect("a directory");
            std::fs::write(place.join("config.json"), config(&rootfs, program).to_string()).expect("a file");
        }
        let state = dir.path().join("state");
        std::fs::create_dir(&state).expect("a directory");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &state, Some("tmpfs"), flags, None::<&str>).expect("a tmpfs");
        let mut runtimes = vec![("plim-oci", PathBuf::from(env!("CARGO_BIN_EXE_plim-oci")))];
        let crun = PathBuf::from("/usr/bin/crun");
        if crun.exists() {
            runtimes.push(("crun", crun));
        }
        Self { dir, runtimes, number: 0 }
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    fn command(&self, which: usize) -> Command {
        let (name, program) = &self.runtimes[which];
        let mut command = Command::new(program);
        command.arg("--root").arg(self.dir.path().join("state").join(name)).stdin(Stdio::null());
        command
    }

    fn id(&mut self) -> String {
        self.number += 1;
        format!("bench-{}-{}", std::process::id(), self.number)
    }

    fn run(&mut self, which: usize) -> Duration {
        let id = self.id();
        let bundle = self.dir.path().join("bundle");
        timed(self.command(which).args(["run", "--bundle"]).arg(bundle).arg(id))
    }

    fn start(&mut self, which: usize) -> String {
        let id = self.id();
        let bundle = self.dir.path().join("stays");
        timed(self.command(which).args(["run", "--detach", "--bundle"]).arg(bundle).arg(&id));
        id
    }
}

fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("a program");
    let time = began.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    time
}

/// What podman hands down: eleven capabilities, a filter of hundreds of names, paths that are hidden.
fn config(rootfs: &Path, program: &str) -> Value {
    let profile = plimsoll::sandbox::seccomp::default_profile();
    let plain = profile.syscalls.iter().filter(|rule| rule.args.is_empty());
    let names: Vec<&String> = plain.flat_map(|rule| &rule.names).collect();
    let capabilities =
        "CHOWN DAC_OVERRIDE FSETID FOWNER SETGID SETUID SETPCAP NET_BIND_SERVICE KILL SYS_CHROOT SETFCAP";
    let capabilities: Vec<String> = capabilities.split(' ').map(|name| format!("CAP_{name}")).collect();
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2", "hostname": "bench", "root": {"path": rootfs},
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": [program], "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        },
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 256 << 20}, "pids": {"limit": 100},
            },
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
            },
        },
    })
}

fn ms(duration: Duration) -> String {
    crate::table::ms(duration)
}

fn against(what: &str, ours: Duration, theirs: Duration) -> String {
    format!("{:.2} x {what}, {}", ours.as_secs_f64() / theirs.as_secs_f64(), ms(theirs))
}
