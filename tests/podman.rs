//! podman with us as its runtime. It comes with `deploy/deps test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// podman with a storage of its own.
struct Podman {
    // A short name: podman puts sockets below it.
    dir: TempDir,
}

impl Podman {
    fn new() -> Self {
        let dir = TempDir::with_prefix("pl-").unwrap();
        let root = dir.path().join("rootfs");
        for name in ["data", "dev", "etc", "proc", "run", "sys", "tmp", "usr"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        // For who is root in a user namespace only.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // podman's own limits are above what a test machine may set.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\npids_limit = 100\n\
                        log_driver = \"k8s-file\"\n[engine]\nevents_logger = \"file\"\n";
        fs::write(dir.path().join("containers.conf"), settings).unwrap();
        Self { dir }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.path("containers.conf")).stdin(Stdio::null());
        let option = |name: &str, below: &str| format!("--{name}={}", self.path(below).display());
        command.args([option("root", "s"), option("runroot", "r"), option("tmpdir", "t")]);
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--log-level=error"]);
        command.arg(format!("--runtime={}", env!("CARGO_BIN_EXE_plim-oci")));
        command.arg("--runtime-flag=log-format=json");
        command
    }

    fn call(&self, words: &[&str]) -> Answer {
        let Output { status, stdout, stderr } = self.command().args(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        Answer { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    fn ok(&self, words: &[&str]) -> String {
        let answer = self.call(words);
        assert_eq!(answer.code, Some(0), "{words:?} {answer:?}");
        answer.out
    }

    /// A container over the small root, with the host's programs.
    fn run(&self, options: &[&str], words: &[&str]) -> Answer {
        let root = self.path("rootfs");
        let fixed = ["run", "--network=none", "--volume=/usr:/usr:ro"];
        self.call(&[&fixed, options, &["--rootfs", root.to_str().unwrap()], words].concat())
    }

    fn detached(&self, options: &[&str], words: &[&str]) -> String {
        let answer = self.run(&[&["--detach"], options].concat(), words);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        answer.out
    }

    fn inspect(&self, id: &str, format: &str) -> String {
        self.ok(&["inspect", "--format", format, id])
    }

    /// Whether we still know of it.
    fn is_known(id: &str) -> bool {
        Command::new(env!("CARGO_BIN_EXE_plim-oci")).args(["state", id]).output().unwrap().status.success()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["rm", "--force", "--all", "--time=0"]);
        // What podman starts at a container's end writes into its storage.
        while processes_below(self.dir.path()) {
            std::thread::yield_now();
        }
    }
}

#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn processes_below(dir: &Path) -> bool {
    let dir = dir.to_str().unwrap();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        entry.file_name() != *std::process::id().to_string() && String::from_utf8_lossy(&words).contains(dir)
    })
}

#[test]
#[ignore = "needs root"]
fn podman_gets_output_and_exit_codes() {
    let podman = Podman::new();
    let run = |words: &[&str]| podman.run(&["--rm"], words);

    let answer = run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (Some(7), "out", "err"));
    // podman tells them apart by the runtime's words.
    assert_eq!(run(&["no-such-program"]).code, Some(127));
    assert_eq!(run(&["/usr/share"]).code, Some(126));
    assert_eq!(podman.run(&["--rm", "--tty"], &["tty"]).out, "/dev/pts/0");
    assert_eq!(podman.ok(&["ps", "--all", "--quiet"]), "");
}

#[test]
#[ignore = "needs root"]
fn podman_manages_a_container_through_its_life() {
    let podman = Podman::new();
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let id = podman.detached(&["--memory=64m", "--pids-limit=42", "--cpus=0.5"], &["sh", "-c", script]);
    let id = id.as_str();

    assert_eq!(podman.ok(&["exec", id, "echo", "in"]), "in");
    assert_eq!(podman.call(&["exec", id, "sh", "-c", "exit 17"]).code, Some(17));
    assert_eq!(podman.call(&["exec", id, "no-such-program"]).code, Some(127));
    assert!(podman.ok(&["exec", "--tty", id, "tty"]).starts_with("/dev/pts/"));
    assert!(podman.ok(&["top", id]).contains("sleep"));
    assert!(podman.ok(&["stats", "--no-stream", "--format={{.MemUsage}}", id]).ends_with("67.11MB"));

    podman.ok(&["pause", id]);
    assert_eq!(podman.inspect(id, "{{.State.Status}}"), "paused");
    assert_ne!(podman.call(&["exec", id, "true"]).code, Some(0));
    podman.ok(&["unpause", id]);
    assert_eq!(podman.inspect(id, "{{.State.Status}}"), "running");

    let runtime = |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_plim-oci")).args(words).output().unwrap();
    assert!(runtime(&["update", "--memory", "32M", id]).status.success());
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(podman.ok(&["exec", id, "sh", "-c", limit]), "33554432");
    let state: Value = serde_json::from_slice(&runtime(&["state", id]).stdout).unwrap();
    assert_eq!((&state["status"], state["pid"].to_string()), (&"running".into(), podman.inspect(id, "{{.State.Pid}}")));

    podman.ok(&["stop", "--time=10", id]);
    assert_eq!(podman.inspect(id, "{{.State.ExitCode}}"), "3");
    assert_eq!(podman.ok(&["logs", id]), "up\nbye");
    podman.ok(&["start", id]);
    podman.ok(&["kill", id]);
    assert_eq!(podman.ok(&["wait", id]), "137");
    podman.ok(&["rm", id]);
    assert!(!Podman::is_known(id));
}

#[test]
#[ignore = "needs root"]
fn podman_configures_what_a_container_has() {
    let podman = Podman::new();
    fs::create_dir(podman.path("data")).unwrap();
    fs::write(podman.path("data/file"), "host\n").unwrap();
    // The container's root makes the places of mounts.
    let root = podman.path("rootfs");
    assert!(Command::new("chown").args(["-R", "200000:200000"]).arg(root).status().unwrap().success());
    let volume = format!("--volume={}:/data:ro", podman.path("data").display());
    let options = [
        "--rm",
        "--hostname=here",
        "--cap-drop=all",
        "--cap-add=kill",
        "--security-opt=no-new-privileges",
        "--sysctl=net.ipv4.ip_forward=1",
        "--ulimit=nofile=99:100",
        "--ulimit=nproc=100:100",
        "--device=/dev/null:/dev/own",
        "--user=12:34",
        "--group-add=56",
        "--env=A=b",
        "--workdir=/etc",
        "--uidmap=0:200000:1000",
        volume.as_str(),
    ];
    let script = "hostname; id -u; id -G; echo $A $PWD; ulimit -n; cat /proc/sys/net/ipv4/ip_forward /data/file; \
                  grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; tr -s ' ' </proc/self/uid_map; \
                  test -c /dev/own && echo own; touch /data/x 2>&1";

    let answer = podman.run(&options, &["sh", "-c", script]);

    let expected = "here\n12\n34 56\nb /etc\n99\n1\nhost\nCapBnd:\t0000000000000020\nNoNewPrivs:\t1\nSeccomp:\t2\n \
                    0 200000 1000\nown\n";
    assert!(answer.out.starts_with(expected) && answer.out.contains("Read-only file system"), "{answer:?}");
}
