//! Containers as an agent would show them, for the tests of what is printed.

use crate::agent::{
    Condition, ContainerStatus, Event, EventType, Generations, Item, Metadata, ResourcesView, StatusSource, Summary,
    Usage, View,
};
use crate::spec::{Bytes, Container, MilliCpu, Timestamp};
use std::collections::BTreeMap;

/// 2026-01-10T00:00:00Z.
pub const NOW: Timestamp = Timestamp(1_768_003_200_000);
const DAY: u64 = 86_400_000;

/// One that is well, one whose file is broken, one that goes, one that never ran.
pub fn items() -> Vec<Item> {
    let mut web = running("web", 3);
    web.status.resources.actuated.cpu.limit = Some(MilliCpu(1500));
    web.status.resources.actuated.memory.limit = Some(Bytes(512 << 20));
    web.status.resources.desired = web.status.resources.actuated.clone();
    web.status.resources.actual = BTreeMap::from([("memory.max".to_owned(), "536870912".to_owned())]);
    web.status.usage = usage(310, 212 << 20);
    web.metadata.labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);

    let mut legacy = running("legacy", 40);
    legacy.status.usage = usage(0, 31 << 20);
    legacy.status.sync = "invalid".to_owned();
    legacy.status.message =
        "/etc/plimsoll/manifests/legacy.yaml:14:7: unknown field \"memroy\"\nerror: more of it".to_owned();
    legacy.status.generations.running = Some(6);

    let mut old = running("old", 0);
    old.status = ContainerStatus {
        phase: "BackingOff".to_owned(),
        sync: "deleting".to_owned(),
        restarts: 7,
        next_at: Some(Timestamp(NOW.0 + 7_500)),
        ..status()
    };
    old.status.resources.actuated.cpu.limit = Some(MilliCpu(500));

    let mut broken = running("broken", 0);
    broken.metadata.namespace = "ops".to_owned();
    broken.spec = None;
    broken.status = ContainerStatus {
        sync: "failed".to_owned(),
        message: "no such program: /bin/nope".to_owned(),
        next_at: Some(Timestamp(NOW.0 + 25_000)),
        ..status()
    };
    vec![web, legacy, old, broken]
}

fn usage(milli: u64, memory: u64) -> Option<Usage> {
    Some(Usage { cpu_usec: 1_500_000, cpu_milli: Some(milli), memory: Some(Bytes(memory)), pids: Some(3) })
}

fn running(name: &str, days: u64) -> Item {
    let spec: Container =
        serde_json::from_value(serde_json::json!({"image": "host:/", "command": ["/bin/sleep", "1"]})).unwrap();
    Item {
        api_version: "plimsoll/v1".to_owned(),
        kind: "Container".to_owned(),
        metadata: Metadata {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        },
        spec: Some(spec),
        status: ContainerStatus {
            phase: "Running".to_owned(),
            sync: "synced".to_owned(),
            pid: Some(4711),
            started_at: Some(Timestamp(NOW.0 - days * DAY)),
            image: BTreeMap::from([("ref".to_owned(), Some("host:/".to_owned())), ("digest".to_owned(), None)]),
            cgroup: Some("/plimsoll/c/default_web/3/payload".to_owned()),
            conditions: vec![Condition {
                kind: "Ready".to_owned(),
                status: "True".to_owned(),
                reason: "Running".to_owned(),
                message: String::new(),
            }],
            generations: Generations { running: Some(2), last_good: Some(2), ..Generations::default() },
            source: Some(StatusSource {
                name: "manifests".to_owned(),
                file: format!("{name}.yaml"),
                document: 1,
                line: 1,
                revision: "sha256:00".to_owned(),
                drop_ins: vec![format!("{name}.yaml.d/10-host.yaml")],
            }),
            instance: Some(format!("default_{name}.3")),
            ..status()
        },
    }
}

fn status() -> ContainerStatus {
    ContainerStatus {
        phase: "Pending".to_owned(),
        sync: "pending".to_owned(),
        message: String::new(),
        pid: None,
        started_at: None,
        restarts: 0,
        exit_code: None,
        last_exit: None,
        image: BTreeMap::new(),
        addresses: Vec::new(),
        cgroup: None,
        resources: ResourcesView::default(),
        conditions: Vec::new(),
        generations: Generations::default(),
        source: None,
        instance: None,
        host: BTreeMap::new(),
        override_: None,
        next_at: None,
        usage: None,
    }
}

pub fn summary() -> Summary {
    Summary {
        version: "0.1.0".to_owned(),
        agent_pid: 10,
        keeper_pid: Some(11),
        root: Some("/srv/plim".to_owned()),
        started_at: Timestamp(NOW.0 - DAY),
        last_round: Some(Timestamp(NOW.0 - 5000)),
        rounds: 12,
        cgroups: "hybrid: v1 controllers".to_owned(),
        objects: BTreeMap::from([("synced".to_owned(), 1), ("invalid".to_owned(), 1)]),
        sources: vec![crate::agent::SourceView {
            name: "manifests".to_owned(),
            path: "/etc/plimsoll/manifests".to_owned(),
            complete: true,
            objects: 2,
            last_read: Some(Timestamp(NOW.0 - 5000)),
            ignored: BTreeMap::from([("a.bak".to_owned(), "its name ends in .bak".to_owned())]),
            ..crate::agent::SourceView::default()
        }],
        warnings: vec!["CAP_SYS_RESOURCE is missing".to_owned()],
    }
}

pub fn view() -> View {
    View { items: items(), summary: summary(), version: 1, counts: crate::agent::Counts::default() }
}

pub fn event(id: u64, kind: EventType, reason: &str, message: &str) -> Event {
    Event {
        id,
        at: Timestamp(NOW.0 - 60_000 + id * 1000),
        kind,
        object: "Container/default/web".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}
