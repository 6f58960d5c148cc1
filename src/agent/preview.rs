//! `plim plan`: what would be done, from the same inputs as a round. Reads, and never writes.

use super::handle::{CommandError, PlanReport, PlanRequest, PlannedChange};
use crate::plan::{Desired, Inputs, ProcessSeen, Record, SourceState, Sync, Wanted, Wish};
use crate::source::{Directory, Snapshot, Trust};
use crate::spec::change::{self, Class};
use crate::spec::{DesiredState, Object, ObjectId};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

pub(super) fn report(inputs: &Inputs<'_>, request: &PlanRequest) -> Result<PlanReport, CommandError> {
    let given;
    let mut problems = Vec::new();
    let desired = if request.paths.is_empty() {
        inputs.desired
    } else {
        given = with_paths(inputs.desired, request, &mut problems)?;
        &given
    };
    let inputs = Inputs { desired, ..*inputs };
    let findings = crate::plan::plan(inputs).findings;
    let mut ids: Vec<&ObjectId> = inputs.records.keys().chain(desired.objects.keys()).collect();
    ids.sort();
    ids.dedup();
    let mut changes = Vec::new();
    for id in ids {
        let held = findings.get(id).is_some_and(|finding| finding.sync == Sync::Held);
        match (desired.objects.get(id), inputs.records.get(id)) {
            (Some(Wish::Invalid { message, .. }), _) => problems.push(message.to_string()),
            (Some(Wish::Present(wanted)), Some(record)) => {
                let change = changed(id, record, &wanted.object);
                if change.is_some() {
                    problems.extend(missing(wanted, running_pid(&inputs, record)));
                }
                changes.extend(change);
            }
            (Some(Wish::Present(wanted)), None) => {
                problems.extend(missing(wanted, None));
                let reason = match wanted.object.spec.desired_state {
                    DesiredState::Running => "new",
                    DesiredState::Stopped => "new, stopped",
                };
                changes.push(planned(id, "create", Class::Recreate, reason.to_owned(), Vec::new(), false));
            }
            (None, Some(record)) => {
                let source = &record.provenance.source;
                let complete = desired.sources.get(source).is_none_or(|state| *state == SourceState::Complete);
                let file = (source.clone(), record.provenance.file.clone());
                if complete && !desired.held_files.contains_key(&file) {
                    let reason = format!("{} no longer has it", record.provenance.path);
                    changes.push(planned(id, "destroy", Class::Recreate, reason, Vec::new(), held));
                }
            }
            (None, None) => {}
        }
    }
    problems.extend(desired.held_files.values().map(ToString::to_string));
    // A file that is watched as well as given has said the same twice.
    let mut said = BTreeSet::new();
    problems.retain(|problem| said.insert(problem.clone()));
    Ok(PlanReport { changes, problems })
}

/// What differs between two states that were asked for, whatever runs.
pub(super) fn between(old: &Desired, new: &Desired) -> PlanReport {
    let mut report = PlanReport::default();
    let ids: BTreeSet<&ObjectId> = old.objects.keys().chain(new.objects.keys()).collect();
    for id in ids {
        let change = match (old.objects.get(id), new.objects.get(id)) {
            (_, Some(Wish::Invalid { message, .. })) => {
                report.problems.push(message.to_string());
                None
            }
            (Some(Wish::Present(old)), Some(Wish::Present(new))) => between_objects(id, &old.object, &new.object),
            (None | Some(Wish::Invalid { .. }), Some(Wish::Present(_))) => {
                Some(planned(id, "create", Class::Recreate, "new".to_owned(), Vec::new(), false))
            }
            (Some(_), None) => {
                Some(planned(id, "destroy", Class::Recreate, "no longer there".to_owned(), Vec::new(), false))
            }
            (None, None) => None,
        };
        report.changes.extend(change);
    }
    report.problems.extend(new.held_files.values().map(ToString::to_string));
    report
}

fn running_pid(inputs: &Inputs<'_>, record: &Record) -> Option<u32> {
    match inputs.seen.instances.get(&record.instance.as_ref()?.id)?.process {
        ProcessSeen::Running { pid, .. } => Some(pid),
        ProcessSeen::None | ProcessSeen::Exited(_) => None,
    }
}

/// What it names and this host does not have.
fn missing(wanted: &Wanted, pid: Option<u32>) -> Option<String> {
    let missing = crate::host::missing_beside(&wanted.object.spec, pid)?;
    Some(match crate::host::pointed(&wanted.provenance, &missing) {
        Some(place) => format!("{place}\n{}", place.render().trim_end()),
        None => format!("{}: {missing}", wanted.provenance.path),
    })
}

fn planned(
    id: &ObjectId,
    verb: &str,
    class: Class,
    reason: String,
    fields: Vec<change::FieldChange>,
    held: bool,
) -> PlannedChange {
    PlannedChange { object: id.clone(), verb: verb.to_owned(), class, reason, fields, held }
}

fn changed(id: &ObjectId, record: &Record, wanted: &Object) -> Option<PlannedChange> {
    // What runs is the truth to compare with: an accepted revision may still wait for its restart.
    let instance = record.instance.as_ref();
    let mut running = instance.map_or_else(|| (*record.accepted).clone(), |instance| (*instance.started_from).clone());
    if let Some(instance) = instance {
        running.spec.resources = instance.actuated.clone();
        // Class `none` takes effect by being accepted.
        running.labels.clone_from(&record.accepted.labels);
        running.annotations.clone_from(&record.accepted.annotations);
        running.spec.restart.clone_from(&record.accepted.spec.restart);
        running.spec.stop.clone_from(&record.accepted.spec.stop);
        running.spec.logs = record.accepted.spec.logs;
        running.spec.desired_state = record.accepted.spec.desired_state;
    }
    between_objects(id, &running, wanted)
}

fn between_objects(id: &ObjectId, old: &Object, new: &Object) -> Option<PlannedChange> {
    let fields = change::between_objects(old, new);
    let class = fields.iter().map(|field| field.class).max()?;
    let reason = fields.iter().map(|field| field.field.trim_start_matches("spec.")).collect::<Vec<_>>().join(", ");
    Some(planned(id, &class.to_string(), class, reason, fields, false))
}

/// The present desired state with the objects of the given files in place of those of the same
/// names. Nothing becomes absent by it.
fn with_paths(present: &Desired, request: &PlanRequest, problems: &mut Vec<String>) -> Result<Desired, CommandError> {
    let mut snapshots: Vec<(String, Snapshot)> = Vec::new();
    for path in &request.paths {
        // One file is read as the only one of its directory.
        let file = path.file_name().filter(|_| path.is_file());
        let dir = if file.is_some() { path.parent().unwrap_or(path) } else { path };
        let mut snapshot = Directory::new("plan", dir, Trust::Anyone).snapshot();
        if let Some(file) = file {
            Arc::make_mut(&mut snapshot.files).retain(|name, _| Path::new(name) == file);
        }
        if let SourceState::Unavailable { reason } = &snapshot.state {
            return Err(CommandError::NotFound(format!("{}: {reason}", Path::display(path))));
        }
        snapshots.push((path.display().to_string(), snapshot));
    }
    let borrowed: Vec<(&str, &Snapshot)> = snapshots.iter().map(|(name, snapshot)| (name.as_str(), snapshot)).collect();
    let given = crate::source::desired(&borrowed);
    let mut desired = present.clone();
    problems.extend(given.held_files.values().map(ToString::to_string));
    desired.objects.extend(given.objects);
    Ok(desired)
}
