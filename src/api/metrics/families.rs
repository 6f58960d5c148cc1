//! Which families there are, and what is in each.

use crate::agent::{Change, Item, Metrics, SourceView};
use crate::cgroup::{IoEntry, Pressure, Statistics};
use crate::host::Figures;
use crate::spec::Timestamp;
use prometheus_client::registry::Unit;

/// One family: its name without the prefix, the unit and `_total`, which the encoder adds.
#[derive(Debug)]
pub(super) struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub unit: Option<Unit>,
    pub kind: Kind,
    pub samples: Vec<(Labels, Value)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Whole(u64),
    Seconds(f64),
}

pub(super) type Labels = Vec<(&'static str, String)>;

pub(super) fn of(metrics: &Metrics) -> Vec<Family> {
    let mut all = of_agent(metrics);
    all.extend(of_sources(metrics));
    all.extend(of_objects(&metrics.view.items));
    all.extend(of_containers(metrics));
    // Not every reader takes a family without anything in it.
    all.retain(|family| !family.samples.is_empty());
    all
}

fn counter(name: &'static str, help: &'static str, samples: Vec<(Labels, Value)>) -> Family {
    Family { name, help, unit: None, kind: Kind::Counter, samples }
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<(Labels, Value)>) -> Family {
    Family { name, help, unit: None, kind: Kind::Gauge, samples }
}

impl Family {
    fn seconds(self) -> Self {
        Self { unit: Some(Unit::Seconds), ..self }
    }

    fn bytes(self) -> Self {
        Self { unit: Some(Unit::Bytes), ..self }
    }
}

fn one(value: Value) -> Vec<(Labels, Value)> {
    vec![(Vec::new(), value)]
}

fn whole(count: usize) -> Value {
    Value::Whole(u64::try_from(count).unwrap_or(u64::MAX))
}

/// A float holds the nanoseconds of a hundred days exactly.
#[allow(clippy::cast_precision_loss, reason = "seconds are a float in OpenMetrics")]
fn seconds(count: u64, per_second: f64) -> Value {
    Value::Seconds(count as f64 / per_second)
}

fn instant(at: Timestamp) -> Value {
    seconds(at.0, 1e3)
}

fn of_agent(metrics: &Metrics) -> Vec<Family> {
    let (summary, counts) = (&metrics.view.summary, &metrics.view.counts);
    let change = |(change, count): (&Change, &u64)| {
        let Change { class, action, went_well } = change;
        let result = if *went_well { "done" } else { "failed" };
        let labels =
            vec![("class", class.to_string()), ("action", (*action).to_owned()), ("result", result.to_owned())];
        (labels, Value::Whole(*count))
    };
    let queue = [("waiting", counts.waiting), ("working", counts.working)];
    vec![
        gauge("agent", "The agent that answers, by its version", {
            vec![(vec![("version", summary.version.clone())], Value::Whole(1))]
        }),
        gauge("agent_start_timestamp", "When the agent started", one(instant(summary.started_at))).seconds(),
        counter("rounds", "Rounds since the agent's start", one(Value::Whole(summary.rounds))),
        gauge("last_round_timestamp", "When the last round ended", {
            summary.last_round.map(|at| (Vec::new(), instant(at))).into_iter().collect()
        })
        .seconds(),
        gauge("warnings", "What plim status warns of", one(whole(summary.warnings.len()))),
        gauge("objects", "Objects by their sync word", {
            summary.objects.iter().map(|(sync, count)| (vec![("sync", sync.clone())], whole(*count))).collect()
        }),
        counter("changes", "Changes that ended, by class, action and result", {
            counts.changes.iter().map(change).collect()
        }),
        gauge("queue_actions", "Actions that were decided and have not ended", {
            queue.into_iter().map(|(state, count)| (vec![("state", state.to_owned())], whole(count))).collect()
        }),
        counter("watch_losses", "Times that file events were lost and everything was read again", {
            one(Value::Whole(counts.watch_losses))
        }),
    ]
}

fn of_sources(metrics: &Metrics) -> Vec<Family> {
    let sources = &metrics.view.summary.sources;
    let each = |value: &dyn Fn(&SourceView) -> Option<Value>| -> Vec<(Labels, Value)> {
        let sample = |source: &SourceView| Some((vec![("source", source.name.clone())], value(source)?));
        sources.iter().filter_map(sample).collect()
    };
    let failures = &metrics.view.counts.source_failures;
    vec![
        gauge("source_complete", "1 when the last listing of the source was complete, else 0", {
            each(&|source| Some(Value::Whole(source.complete.into())))
        }),
        gauge("source_objects", "Objects whose text stands in the source", {
            each(&|source| Some(whole(source.objects)))
        }),
        gauge("source_problems", "Files without an object of their own that have problems", {
            each(&|source| Some(whole(source.problems.len())))
        }),
        gauge("source_last_success_timestamp", "When the source last answered, or was read, completely", {
            let read = |source: &SourceView| source.last_read.filter(|_| source.complete);
            each(&|source| source.last_success.or_else(|| read(source)).map(instant))
        })
        .seconds(),
        counter("source_failures", "Times that the source could not be read or its server gave no answer", {
            each(&|source| Some(Value::Whole(failures.get(&source.name).copied().unwrap_or(0))))
        }),
    ]
}

fn named(namespace: &str, name: &str) -> Labels {
    vec![("namespace", namespace.to_owned()), ("name", name.to_owned())]
}

fn of_objects(items: &[Item]) -> Vec<Family> {
    let labels = |item: &Item| named(&item.metadata.namespace, &item.metadata.name);
    let ready = |item: &Item| item.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True");
    let state = |item: &Item| {
        let mut labels = labels(item);
        labels.extend([("phase", item.status.phase.clone()), ("sync", item.status.sync.clone())]);
        (labels, Value::Whole(1))
    };
    vec![
        gauge("container_state", "1 for the phase and the sync word that a container has", {
            items.iter().map(state).collect()
        }),
        gauge("container_ready", "1 when the container is ready, else 0", {
            items.iter().map(|item| (labels(item), Value::Whole(ready(item).into()))).collect()
        }),
        gauge("container_restarts", "Restarts in a row, as plim get shows them", {
            items.iter().map(|item| (labels(item), Value::Whole(item.status.restarts))).collect()
        }),
    ]
}

/// What the kernel shows where there is no limit is about this large.
const NO_LIMIT: u64 = 1 << 62;

fn of_containers(metrics: &Metrics) -> Vec<Family> {
    let each = |value: &dyn Fn(&Figures) -> Option<Value>| -> Vec<(Labels, Value)> {
        let sample = |((namespace, name), figures): (&(String, String), &Figures)| {
            Some((named(namespace, name), value(figures)?))
        };
        metrics.figures.iter().filter_map(sample).collect()
    };
    let count = |value: fn(&Statistics) -> u64| each(&|figures| Some(Value::Whole(value(&figures.statistics))));
    let nanoseconds = |value: fn(&Statistics) -> u64| each(&|figures| Some(seconds(value(&figures.statistics), 1e9)));
    let limit = |value: fn(&Statistics) -> Option<u64>| {
        each(&|figures| value(&figures.statistics).filter(|limit| *limit < NO_LIMIT).map(Value::Whole))
    };
    vec![
        counter("container_cpu", "CPU time used", nanoseconds(|all| all.cpu.total)).seconds(),
        counter("container_cpu_periods", "Periods of the CPU limit", count(|all| all.cpu.periods)),
        counter("container_cpu_throttled_periods", "Periods in which the CPU limit was in the way", {
            count(|all| all.cpu.throttled_periods)
        }),
        counter("container_cpu_throttled", "Time in which the CPU limit was in the way", {
            nanoseconds(|all| all.cpu.throttled_time)
        })
        .seconds(),
        gauge("container_memory_usage", "Memory in use, caches included", count(|all| all.memory.usage.usage)).bytes(),
        gauge("container_memory_limit", "The memory limit, where there is one", {
            limit(|all| Some(all.memory.usage.limit))
        })
        .bytes(),
        counter("container_oom_kills", "Processes that the kernel killed for want of memory", {
            each(&|figures| Some(Value::Whole(figures.oom_kills)))
        }),
        gauge("container_pids", "Processes and threads", count(|all| all.pids)),
        gauge("container_pids_limit", "The limit of processes and threads, where there is one", {
            limit(|all| all.pids_limit)
        }),
        counter("container_io", "Bytes read, written and discarded, by device", io(metrics, |all| &all.io.bytes))
            .bytes(),
        counter("container_io_operations", "Operations on devices", io(metrics, |all| &all.io.operations)),
        counter("container_pressure_waiting", "Time in which some or all processes waited for a resource", {
            pressure(metrics)
        })
        .seconds(),
    ]
}

/// v1 tells sums beside the parts, which are left out: whoever adds them up would count twice.
const OPERATIONS: [&str; 3] = ["Read", "Write", "Discard"];

fn io(metrics: &Metrics, entries: fn(&Statistics) -> &[IoEntry]) -> Vec<(Labels, Value)> {
    let mut samples = Vec::new();
    for ((namespace, name), figures) in &metrics.figures {
        for entry in entries(&figures.statistics) {
            if OPERATIONS.contains(&entry.operation.as_str()) {
                let mut labels = named(namespace, name);
                labels.push(("device", format!("{}:{}", entry.major, entry.minor)));
                labels.push(("operation", entry.operation.to_lowercase()));
                samples.push((labels, Value::Whole(entry.value)));
            }
        }
    }
    samples
}

fn pressure(metrics: &Metrics) -> Vec<(Labels, Value)> {
    let mut samples = Vec::new();
    for ((namespace, name), Figures { statistics, oom_kills: _ }) in &metrics.figures {
        let resources =
            [("cpu", statistics.cpu.pressure), ("memory", statistics.memory.pressure), ("io", statistics.io.pressure)];
        for (resource, pressure) in resources {
            let Some(Pressure { some, full }) = pressure else { continue };
            for (extent, waiting) in [("some", some), ("full", full)] {
                let mut labels = named(namespace, name);
                labels.extend([("resource", resource.to_owned()), ("extent", extent.to_owned())]);
                samples.push((labels, seconds(waiting.total_usec, 1e9)));
            }
        }
    }
    samples
}
