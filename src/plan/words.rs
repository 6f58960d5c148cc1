//! The sentences in which the planner gives its reasons.

use super::{Exit, Record};
use crate::spec::Span;
use crate::spec::change::FieldChange;

/// `memory.limit 512Mi → 1Gi, cpu.limit 1 → 2, and 3 more`.
pub(super) fn changes(changes: &[FieldChange]) -> String {
    const SHOWN: usize = 3;
    // The dearest first: they are why the others cost what they cost.
    let mut sorted: Vec<&FieldChange> = changes.iter().collect();
    sorted.sort_by_key(|change| std::cmp::Reverse(change.class));
    let mut parts: Vec<String> = sorted.iter().take(SHOWN).map(ToString::to_string).collect();
    if changes.len() > SHOWN {
        parts.push(format!("and {} more", changes.len() - SHOWN));
    }
    parts.join(", ")
}

/// `exited with 1`, `ended by signal 9 (out of memory)`.
pub(super) fn exit(exit: &Exit) -> String {
    let how = match (exit.signal, exit.code) {
        (Some(signal), _) => format!("ended by signal {signal}"),
        (None, Some(code)) => format!("exited with {code}"),
        (None, None) => "ended, and nobody saw how".to_owned(),
    };
    if exit.oom_killed { format!("{how} (out of memory)") } else { how }
}

/// The exit that a record remembers, or what can be said without one.
pub(super) fn last_exit(record: &Record) -> String {
    record.last_exit.as_ref().map_or_else(|| "ended".to_owned(), exit)
}

/// `4s`, `1m 20s`: to the second and never none, for "in …".
pub(super) fn wait(span: Span) -> String {
    Span::from_secs(span.0.div_ceil(1000).max(1)).to_string()
}
