//! A round in which nothing has changed: list the directory, fold, plan. Nothing is written.

use crate::agent::{Agent, manifest};
use crate::table::{Table, ms, quantile};
use plimsoll::plan::{self, Desired, Inputs, Outcome, ProcessSeen, Record, Seen, Settings, Settled, Sighting, Wish};
use plimsoll::source::{Directory, Fold, Trust};
use plimsoll::spec::{ObjectId, Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// So many containers have a process; what is beyond is to be stopped.
const RUNNING: usize = 1000;

pub fn bench(table: &mut Table) {
    for (count, goal) in [(50, "<= 2 ms"), (1000, "<= 10 ms"), (10_000, "<= 30 ms")] {
        let (median, bare) = round(count);
        let ratio = median.as_secs_f64() / bare.as_secs_f64();
        table.row(
            &format!("round over {count} unchanged manifests, {} of them run", count.min(RUNNING)),
            ms(median),
            format!("list, fold, plan: no step; {ratio:.1} x a bare stat of each ({})", ms(bare)),
            goal,
        );
    }
    whole(table);
}

/// The same in an agent that runs, with its store, its look at the host and all that it shows.
fn whole(table: &mut Table) {
    const COUNT: usize = 1000;
    const TIMES: u32 = 20;
    let agent = Agent::up();
    agent.write(&(0..COUNT).map(stopped).collect::<Vec<_>>());
    while agent.items().len() < COUNT {
        std::thread::sleep(Duration::from_millis(50));
    }
    // Once for files that were too fresh to be believed.
    std::thread::sleep(Duration::from_secs(1));
    assert!(agent.plim(&["reconcile"]).1);
    let (written, cpu) = (agent.written(), agent.cpu());
    for _ in 0..TIMES {
        assert!(agent.plim(&["reconcile"]).1);
    }
    let cpu = (agent.cpu() - cpu) / TIMES;
    let written = agent.written() - written;
    assert_eq!(written, 0, "bytes were written at rest");
    table.row(
        &format!("reconcile of {COUNT} unchanged manifests, CPU of the agent"),
        ms(cpu),
        format!("the whole round; {written} bytes written to disk"),
        "<= 10 ms",
    );
}

fn settings() -> Settings {
    Settings {
        id_base: 0x1000_0000,
        id_ranges: 32_768,
        deletion_grace: Span::from_secs(10),
        retention: Span(0),
        max_delete: 3,
        max_delete_percent: 30,
        pruning: BTreeMap::new(),
        stop_all: false,
        halt: false,
    }
}

/// A stopped container.
fn stopped(number: usize) -> (String, String) {
    let (name, text) = manifest(number, 32);
    (name, text.replace("spec:\n", "spec:\n  desiredState: stopped\n"))
}

/// The median of a round, and of a bare look at each file's `stat`.
fn round(count: usize) -> (Duration, Duration) {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    for number in 0..count {
        let (name, text) = if number < RUNNING { manifest(number, 32) } else { stopped(number) };
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    age(dir.path());
    let mut directory = Directory::new("bench", dir.path(), Trust::Anyone);
    let mut world = World { settings: settings(), records: BTreeMap::new(), seen: Seen::default() };
    let snapshot = directory.snapshot();
    let mut fold = Fold::default();
    let mut desired = fold.fold(&[("bench", &snapshot)]).expect("the first one");
    world.converge(&desired);
    let names: Vec<_> = std::fs::read_dir(dir.path()).expect("a directory").flatten().map(|it| it.path()).collect();
    let (mut samples, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let began = Instant::now();
        assert!(names.iter().all(|path| std::fs::symlink_metadata(path).is_ok()));
        bare.push(began.elapsed());
        let began = Instant::now();
        let snapshot = directory.snapshot();
        if let Some(other) = fold.fold(&[("bench", &snapshot)]) {
            desired = other;
        }
        let plan = plan::plan(world.inputs(&desired));
        samples.push(began.elapsed());
        assert!(plan.steps.is_empty(), "not at rest: {:?}", plan.steps.first());
        assert_eq!(snapshot.parsed, 0);
    }
    (quantile(&mut samples, 0.5), quantile(&mut bare, 0.5))
}

/// Fresh files are read again by design; these are to look old.
fn age(dir: &Path) {
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let file = std::fs::File::open(entry.expect("an entry").path()).expect("a file");
        file.set_modified(old).expect("a time");
    }
}

/// A host that does at once what it is told.
struct World {
    settings: Settings,
    records: BTreeMap<ObjectId, Record>,
    seen: Seen,
}

impl World {
    fn inputs<'a>(&'a self, desired: &'a Desired) -> Inputs<'a> {
        static NONE: BTreeSet<ObjectId> = BTreeSet::new();
        Inputs {
            settings: &self.settings,
            desired,
            records: &self.records,
            seen: &self.seen,
            in_flight: &NONE,
            approved: &NONE,
            now: Timestamp(1_000_000),
        }
    }

    fn converge(&mut self, desired: &Desired) {
        let wanted = desired.objects.values().filter(|wish| matches!(wish, Wish::Present(_))).count();
        assert_eq!(wanted, desired.objects.len());
        loop {
            let steps = plan::plan(self.inputs(desired)).steps;
            if steps.is_empty() {
                return;
            }
            for step in steps {
                if let Some(record) = step.record {
                    self.records.insert(step.object.clone(), record);
                }
                let outcome = match &step.action {
                    plan::Action::Start { instance, ids, .. } => {
                        let process = ProcessSeen::Running { pid: 1, since: Timestamp(1_000_000), ignores_stop: false };
                        let sighting = Sighting { process, rootfs: true, ids: *ids, ..Sighting::default() };
                        self.seen.instances.insert(instance.clone(), sighting);
                        Outcome::Started {
                            pid: 1,
                            at: Timestamp(1_000_000),
                            digest: None,
                            readback: BTreeMap::new(),
                            unsupported: Vec::new(),
                        }
                    }
                    plan::Action::Note => continue,
                    other => panic!("{other:?}"),
                };
                let record = &self.records[&step.object];
                if let Settled::Put(record) = plan::settle(record, &step.action, Ok(outcome), Timestamp(1_000_000)) {
                    self.records.insert(step.object, *record);
                }
            }
        }
    }
}
