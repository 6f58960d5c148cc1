//! One container from "start" to "gone", through the keeper, beside a C program that makes the same
//! system calls in its own process: interleaved, medians of 5 times 200.

use crate::table::{Table, ms, quantile};
use plimsoll::host::{Host as _, HostEvent, KeeperBy, Machine, Paths, Scope};
use plimsoll::plan::{Action, Outcome, ProcessSeen};
use plimsoll::spec::{Container, IdRange, InstanceId, Kind, Object, ObjectId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const EACH: u64 = 200;

pub fn bench(table: &mut Table) {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let floor =
        compile(dir.path(), "floor.c", &Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor.c"), &["-O2"]);
    let trivial = dir.path().join("trivial.c");
    std::fs::write(&trivial, "int main(void) { return 0; }\n").expect("a source file");
    let rootfs = dir.path().join("rootfs");
    for name in ["bin", "proc", "sys", "dev", "etc"] {
        std::fs::create_dir_all(rootfs.join(name)).expect("a directory");
    }
    compile(&rootfs.join("bin"), "true", &trivial, &["-O2", "-static"]);
    let tarball = dir.path().join("rootfs.tar");
    let packed = Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(&tarball).arg(".").status();
    assert!(packed.expect("tar runs").success());
    let overlay = dir.path().join("overlay");
    std::fs::create_dir(&overlay).expect("a directory");

    let ours = Ours::new(&dir.path().join("root"));
    // One overlay, and two as `host:/` has.
    let cases = [
        ("start to gone, one container", format!("tar:{}", tarball.display()), rootfs, None),
        ("start to gone, of host:/", "host:/".to_owned(), host_root(dir.path()), Some("graft=/usr")),
    ];
    for (number, (name, image, rootfs, graft)) in (0..).zip(cases) {
        let object = ours.object(&image);
        let mut next = (1 + number) * 1_000_000;
        let mut cycle = || {
            next += 1;
            ours.cycle(&object, next)
        };
        cycle();
        let mut ratios = Vec::new();
        let mut all_floor = Vec::new();
        let mut parts: [Vec<Duration>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let base = run_floor(&floor, &overlay, &rootfs, graft);
            let mut samples = Vec::new();
            for _ in 0..EACH {
                let split = cycle();
                samples.push(split[0]);
                parts.iter_mut().zip(split).for_each(|(part, time)| part.push(time));
            }
            ratios.push(quantile(&mut samples, 0.5).as_secs_f64() / base.as_secs_f64());
            all_floor.push(base);
        }
        ratios.sort_by(f64::total_cmp);
        let [own, started, ended, removed] = parts.each_mut().map(|part| quantile(part, 0.5));
        let base = quantile(&mut all_floor, 0.5);
        let against = format!("{:.2} x the floor's {}", ratios[ROUNDS / 2], ms(base));
        table.row(name, ms(own), against, "<= 1.5 x");
        let parts = format!("to its exec {}, to its end {}, taken away {}", ms(started), ms(ended), ms(removed));
        table.row("  of that", "", parts, "-");
    }
    ours.machine.leave_clean();
}

/// What `host:/` has below its grafts, as far as a start meets it.
fn host_root(dir: &Path) -> PathBuf {
    let root = dir.join("host");
    for name in ["usr", "proc", "sys", "dev", "etc"] {
        std::fs::create_dir_all(root.join(name)).expect("a directory");
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).expect("a link");
    }
    root
}

pub fn compile(dir: &Path, name: &str, source: &Path, flags: &[&str]) -> PathBuf {
    let program = dir.join(name.trim_end_matches(".c"));
    let status = Command::new("cc").args(flags).arg("-w").arg("-o").arg(&program).arg(source).status();
    assert!(status.expect("a C compiler").success());
    program
}

fn run_floor(floor: &Path, overlay: &Path, rootfs: &Path, graft: Option<&str>) -> Duration {
    let output = Command::new(floor)
        .args(["ns=pmuincU", "cgroup=tasks", "ctl=all"])
        .arg(format!("n={EACH}"))
        .arg(format!("overlay={}", overlay.display()))
        .args(graft)
        .arg(rootfs)
        .arg("/bin/true")
        .output()
        .expect("the floor runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("figures");
    Duration::from_micros(figures["total"].as_u64().expect("a total"))
}

struct Ours {
    machine: Machine,
    events: Receiver<HostEvent>,
    ids: IdRange,
    _run: tempfile::TempDir,
}

impl Ours {
    fn new(root: &Path) -> Self {
        // The keeper is looked for beside the program that starts it.
        let beside = std::env::current_exe().expect("a path").with_file_name("plim-keeper");
        std::fs::copy(env!("CARGO_BIN_EXE_plim-keeper"), beside).expect("the keeper's program");
        let mut paths = Paths::new(Some(root)).expect("paths");
        // In memory, as /run is of an agent that is installed.
        let run = tempfile::tempdir_in("/dev/shm").expect("a directory");
        paths.run = run.path().to_owned();
        for dir in [&paths.lib, &paths.run, &paths.log] {
            std::fs::create_dir_all(dir).expect("a directory");
        }
        let ids = IdRange { base: paths.id_base(), size: IdRange::SIZE };
        let (sender, events) = channel();
        let machine =
            Machine::new(paths, KeeperBy::Us, move |event| sender.send(event).unwrap_or(())).expect("a machine");
        Self { machine, events, ids, _run: run }
    }

    fn object(&self, image: &str) -> Arc<Object> {
        let spec = serde_json::json!({
            "image": image,
            "command": ["/bin/true"],
            "resources": {"memory": {"limit": "256Mi"}, "pids": {"limit": 100}, "cpu": {"cpuset": "0-1"}},
        });
        let spec: Container = serde_json::from_value(spec).expect("a container");
        let id = ObjectId {
            kind: Kind::Container,
            namespace: "default".parse().expect("a name"),
            name: "bench".parse().expect("a name"),
        };
        Arc::new(Object { id, labels: BTreeMap::new(), annotations: BTreeMap::new(), spec })
    }

    /// Start, wait for the end, take everything away: the whole, and these three.
    fn cycle(&self, object: &Arc<Object>, number: u64) -> [Duration; 4] {
        let instance = InstanceId::new(&object.id, number);
        while self.events.try_recv().is_ok() {}
        let start = Action::Start { instance: instance.clone(), run: 1, object: object.clone(), ids: Some(self.ids) };
        let objects = BTreeSet::from([object.id.clone()]);

        let began = Instant::now();
        let started = self.machine.apply(&start).expect("a start");
        assert!(matches!(started, Outcome::Started { .. }));
        let started = began.elapsed();
        loop {
            let seen = self.machine.observe(Scope::Objects(&objects)).expect("a look");
            if matches!(seen.instances[&instance].process, ProcessSeen::Exited(_)) {
                break;
            }
            self.events.recv().expect("an event");
        }
        let ended = began.elapsed();
        self.machine.apply(&Action::Remove { instance }).expect("a removal");
        let removed = began.elapsed();
        [removed, started, ended - started, removed - ended]
    }
}
