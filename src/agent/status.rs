//! What is shown of each object: made from the records, the sightings and the planner's findings.

use super::view::{
    Condition, ContainerStatus, Generations, Item, Metadata, ResourcesView, StatusSource, Summary, View, Which,
};
use super::{Counts, SourceView};
use crate::host::Machine;
use crate::plan::{Finding, HealthSeen, Inputs, InstanceRecord, Phase, ProcessSeen, Record, Sighting, Sync};
use crate::spec::{API_VERSION, DesiredState, ObjectId, Timestamp};
use std::collections::BTreeMap;

/// What the agent knows about itself.
#[derive(Debug, Clone)]
pub(super) struct AgentFacts {
    pub root: Option<String>,
    pub started_at: Timestamp,
    pub rounds: u64,
    pub last_round: Option<Timestamp>,
    pub host: BTreeMap<String, String>,
    /// What a person should know about this host or this start, as long as the agent runs.
    pub warnings: Vec<String>,
}

pub(super) fn view(
    inputs: &Inputs<'_>,
    findings: &BTreeMap<ObjectId, Finding>,
    facts: &AgentFacts,
    sources: Vec<SourceView>,
    machine: &Machine,
    which: &Which,
) -> View {
    let mut ids: Vec<&ObjectId> = inputs.records.keys().chain(inputs.desired.objects.keys()).collect();
    ids.sort();
    ids.dedup();
    let mut objects: BTreeMap<String, usize> = BTreeMap::new();
    for id in &ids {
        *objects.entry(word(findings.get(id)).to_owned()).or_default() += 1;
    }
    match which {
        Which::All => {}
        Which::One(one) => ids.retain(|id| *id == one),
        Which::None => ids.clear(),
    }
    let items: Vec<Item> = ids.into_iter().map(|id| item(id, inputs, findings.get(id), facts, machine)).collect();
    let summary = Summary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_pid: std::process::id(),
        keeper_pid: machine.keeper_pid(),
        root: facts.root.clone(),
        started_at: facts.started_at,
        last_round: facts.last_round,
        rounds: facts.rounds,
        cgroups: machine.describe_cgroups(),
        objects,
        sources,
        warnings: facts.warnings.clone(),
    };
    // The driver adds what it counted.
    View { items, summary, version: facts.rounds, counts: Counts::default() }
}

fn item(id: &ObjectId, inputs: &Inputs<'_>, finding: Option<&Finding>, facts: &AgentFacts, machine: &Machine) -> Item {
    let record = inputs.records.get(id);
    let instance = record.and_then(|record| record.instance.as_ref());
    let sighting = instance.and_then(|instance| inputs.seen.instances.get(&instance.id));
    let (labels, annotations) =
        record.map(|record| (record.accepted.labels.clone(), record.accepted.annotations.clone())).unwrap_or_default();
    Item {
        api_version: API_VERSION.to_owned(),
        kind: id.kind.to_string(),
        metadata: Metadata { name: id.name.to_string(), namespace: id.namespace.to_string(), labels, annotations },
        spec: record.map(|record| record.accepted.spec.clone()),
        status: ContainerStatus {
            host: facts.host.clone(),
            cgroup: instance.map(|instance| machine.payload_path(&instance.id)),
            ..status(id, inputs, finding, record, instance, sighting)
        },
    }
}

fn status(
    id: &ObjectId,
    inputs: &Inputs<'_>,
    finding: Option<&Finding>,
    record: Option<&Record>,
    instance: Option<&InstanceRecord>,
    sighting: Option<&Sighting>,
) -> ContainerStatus {
    let process = sighting.map_or(&ProcessSeen::None, |sighting| &sighting.process);
    let pid = match process {
        ProcessSeen::Running { pid, .. } => Some(*pid),
        ProcessSeen::None | ProcessSeen::Exited(_) => None,
    };
    let desired = record.map(|record| record.wanted_resources().into_owned()).unwrap_or_default();
    let provenance = match inputs.desired.objects.get(id) {
        Some(wish) => Some(wish.provenance()),
        None => record.map(|record| &record.provenance),
    };
    let last_exit = record.and_then(|record| record.last_exit);
    ContainerStatus {
        phase: phase(record, instance, process, inputs.now).to_owned(),
        sync: word(finding).to_owned(),
        message: finding.map(|finding| finding.message.clone()).unwrap_or_default(),
        pid,
        started_at: instance.filter(|_| pid.is_some()).and_then(|instance| instance.started_at),
        restarts: record.map_or(0, |record| record.restarts),
        exit_code: last_exit.and_then(|exit| exit.code),
        last_exit,
        image: record
            .map(|record| {
                let reference = Some(record.accepted.spec.image.to_string());
                BTreeMap::from([
                    ("ref".to_owned(), reference),
                    ("digest".to_owned(), instance.and_then(|instance| instance.digest.clone())),
                ])
            })
            .unwrap_or_default(),
        addresses: Vec::new(),
        cgroup: None,
        resources: ResourcesView {
            desired,
            actuated: instance.map(|instance| instance.actuated.clone()).unwrap_or_default(),
            actual: sighting.and_then(|s| s.group.as_ref()).map(|group| group.limits.clone()).unwrap_or_default(),
        },
        conditions: conditions(finding, record, instance, ready(record, sighting)),
        generations: Generations {
            running: instance.filter(|_| pid.is_some()).map(|instance| instance.generation),
            last_good: record.map(|record| record.generation),
            failed: record
                .filter(|record| record.attempts.last_error.is_some())
                .map(|record| vec![record.generation])
                .unwrap_or_default(),
            pinned: None,
        },
        source: provenance.map(|provenance| StatusSource {
            name: provenance.source.clone(),
            file: provenance.file.clone(),
            document: provenance.document,
            line: provenance.line,
            revision: provenance.revision.clone(),
            drop_ins: provenance.drop_in_files(),
        }),
        instance: instance.map(|instance| instance.id.to_string()),
        host: BTreeMap::new(),
        override_: record.and_then(|record| record.override_.clone()),
        next_at: next_at(inputs, record, instance),
        usage: None,
    }
}

fn phase(
    record: Option<&Record>,
    instance: Option<&InstanceRecord>,
    process: &ProcessSeen,
    now: Timestamp,
) -> &'static str {
    let Some(record) = record else { return "Pending" };
    let waiting = record.attempts.next_try.is_some_and(|at| at > now);
    let running = matches!(process, ProcessSeen::Running { .. });
    match instance.map(|instance| instance.phase) {
        None if record.attempts.last_error.is_some() => "Failed",
        None if record.accepted.spec.desired_state == DesiredState::Stopped => "Stopped",
        None => "Pending",
        Some(Phase::Starting | Phase::Running) if running => "Running",
        Some(Phase::Starting) if record.attempts.last_error.is_some() => "Failed",
        Some(Phase::Starting | Phase::Exited) if waiting => "BackingOff",
        // One that was started a moment ago is not in the last look yet.
        Some(Phase::Running) if matches!(process, ProcessSeen::None) => "Starting",
        Some(Phase::Starting) => "Starting",
        Some(Phase::Running) => "Exited",
        Some(Phase::Stopping { .. }) => "Stopping",
        Some(Phase::Stopped) => "Stopped",
        Some(Phase::Exited) => "Exited",
        Some(Phase::Removing) => "Removing",
    }
}

pub(super) fn word(finding: Option<&Finding>) -> &'static str {
    match finding.map(|finding| finding.sync) {
        None | Some(Sync::Pending) => "pending",
        Some(Sync::Synced) => "synced",
        Some(Sync::Failed) => "failed",
        Some(Sync::Deferred) => "deferred",
        Some(Sync::Invalid) => "invalid",
        Some(Sync::Unavailable) => "unavailable",
        Some(Sync::Deleting) => "deleting",
        Some(Sync::Held) => "held",
        Some(Sync::Overridden) => "overridden",
        Some(Sync::Suspended) => "suspended",
    }
}

/// Whether it is ready, as a reason and its words.
fn ready(record: Option<&Record>, sighting: Option<&Sighting>) -> (bool, &'static str, String) {
    let unasked = record.is_none_or(|record| record.accepted.spec.health.is_none());
    let running = sighting.filter(|sighting| matches!(sighting.process, ProcessSeen::Running { .. }));
    match running.map(|sighting| &sighting.health) {
        None => (false, "NotRunning", String::new()),
        Some(_) if unasked => (true, "Running", String::new()),
        Some(HealthSeen::Ready) => (true, "Healthy", String::new()),
        Some(HealthSeen::Unknown) => (false, "Starting", "no probe has been answered yet".to_owned()),
        Some(HealthSeen::Starting(why)) => (false, "Starting", why.clone()),
        Some(HealthSeen::NotReady(why)) => (false, "NotReady", why.clone()),
        Some(HealthSeen::Failed(why)) => (false, "Unhealthy", why.clone()),
    }
}

fn conditions(
    finding: Option<&Finding>,
    record: Option<&Record>,
    instance: Option<&InstanceRecord>,
    (ready, why, words): (bool, &str, String),
) -> Vec<Condition> {
    let condition = |kind: &str, status: bool, reason: &str, message: &str| Condition {
        kind: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let mut all = vec![condition("Ready", ready, why, &words)];
    let message = finding.map_or("", |finding| finding.message.as_str());
    match finding.map(|finding| finding.sync) {
        Some(Sync::Invalid) => all.push(condition("Invalid", true, "ManifestInvalid", message)),
        Some(Sync::Held) => all.push(condition("Held", true, "PruneBlocked", message)),
        Some(Sync::Pending) => all.push(condition("Reconciling", true, "Progressing", message)),
        Some(Sync::Failed) => all.push(condition("Stalled", true, "Failed", message)),
        Some(Sync::Overridden) => all.push(condition("Suspended", true, "Overridden", message)),
        Some(Sync::Suspended) => all.push(condition("Suspended", true, "Suspended", message)),
        Some(Sync::Unavailable) => all.push(condition("SourceUnavailable", true, "SourceUnavailable", message)),
        Some(Sync::Synced | Sync::Deferred | Sync::Deleting) | None => {}
    }
    if let Some(deferred) = instance.and_then(|instance| instance.deferred.as_ref()) {
        let text = format!("{}, next try {}", deferred.message, deferred.next_try);
        all.push(condition("ResizePending", true, "Deferred", &text));
    }
    if let Some(error) = record.and_then(|record| record.attempts.last_error.as_ref()) {
        all.push(condition("LastError", true, "Failed", error));
    }
    // What is missing is no absence: what runs goes on.
    if let Some(field) = record.and_then(|record| record.attempts.missing.as_deref()) {
        let reason = if field.starts_with("spec.image") { "ImageMissing" } else { "ReferenceMissing" };
        all.push(condition("DependencyMissing", true, reason, field));
    }
    let unsupported = instance.map(|instance| instance.unsupported.join(", ")).unwrap_or_default();
    if !unsupported.is_empty() {
        all.push(condition("LimitUnsupported", true, "HostLacksKnob", &unsupported));
    }
    all
}

fn next_at(inputs: &Inputs<'_>, record: Option<&Record>, instance: Option<&InstanceRecord>) -> Option<Timestamp> {
    let stopping = instance.and_then(|instance| match instance.phase {
        Phase::Stopping { kill_at, .. } => Some(kill_at),
        Phase::Starting | Phase::Running | Phase::Exited | Phase::Stopped | Phase::Removing => None,
    });
    let removal = record.and_then(|record| record.removal_at(inputs.settings, inputs.approved.contains(&record.id)));
    let deferred = instance.and_then(|instance| instance.deferred.as_ref()).map(|deferred| deferred.next_try);
    let retry = record.and_then(|record| record.attempts.next_try);
    [stopping, removal, deferred, retry].into_iter().flatten().filter(|at| *at > inputs.now).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{Host, id};
    use crate::spec::Span;

    #[test]
    fn what_is_absent_is_shown_with_the_end_of_its_grace_until_somebody_agrees_to_its_removal() {
        let mut host = Host::with_web();
        host.desired.objects.clear();
        host.step();
        let shown = |host: &Host| next_at(&host.inputs(), Some(&host.records[&id("web")]), None);
        assert_eq!(shown(&host), Some(host.now.after(Span::from_secs(10))));

        host.approved.insert(id("web"));

        assert_eq!(shown(&host), None, "it goes now");
    }
}
