//! What would be done, with its class, its reason and every field.

use crate::agent::{PlanReport, PlannedChange};
use crate::cli::screen::{Paint, Tone, printable};
use crate::spec::change::{Class, FieldChange};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub fn report(report: &PlanReport, paint: Paint) -> String {
    let changes: Vec<&PlannedChange> = report.changes.iter().filter(|change| change.verb != "none").collect();
    let width = |text: String| text.chars().count();
    let names = changes.iter().map(|change| width(change.object.to_string()) + 2);
    let fields = changes.iter().flat_map(|change| &change.fields).map(|field| width(field.field.clone()) + 4);
    // Names and fields share a column, so that the eye finds both.
    let column = names.chain(fields).max().unwrap_or(0) + 2;

    let mut text = String::new();
    for change in &changes {
        let name = change.object.to_string();
        let padding = " ".repeat(column.saturating_sub(width(name.clone()) + 2));
        let verb = format!("{:<9}", change.verb);
        let held = if change.held { "  (held: waits for `plim approve`)" } else { "" };
        let line = format!(
            "{} {}{padding}{} {}{}",
            paint.tone(tone(change), "►"),
            paint.tone(Tone::Heading, &name),
            paint.tone(tone(change), &verb),
            printable(&change.reason),
            paint.tone(Tone::Warning, held),
        );
        let _infallible = writeln!(text, "{}", line.trim_end());
        for field in &change.fields {
            let name = format!("    {}", field.field);
            let _infallible = writeln!(text, "{name:<column$}{}", difference(field));
        }
    }
    for problem in &report.problems {
        for (number, line) in problem.lines().enumerate() {
            let mark = if number == 0 { paint.tone(Tone::Bad, "! ") } else { "  ".to_owned() };
            let _infallible = writeln!(text, "{mark}{}", printable(line));
        }
    }
    text.push_str(&summary(&changes, report.problems.len()));
    text
}

fn tone(change: &PlannedChange) -> Tone {
    match (change.verb.as_str(), change.class) {
        ("destroy", _) => Tone::Bad,
        ("create", _) | (_, Class::None | Class::Live) => Tone::Good,
        (_, Class::Restart | Class::Recreate) => Tone::Warning,
    }
}

fn difference(field: &FieldChange) -> String {
    match (&field.old, &field.new) {
        (Some(old), Some(new)) => format!("± {} → {}", printable(old), printable(new)),
        (None, Some(new)) => format!("+ {}", printable(new)),
        (Some(old), None) => format!("- {}", printable(old)),
        (None, None) => "±".to_owned(),
    }
}

fn summary(changes: &[&PlannedChange], problems: usize) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for change in changes {
        *counts.entry(change.verb.as_str()).or_default() += 1;
    }
    let mut text = if counts.is_empty() {
        "No changes: the host is as the manifests say.".to_owned()
    } else {
        let counts: Vec<String> = counts.iter().map(|(verb, count)| format!("{count} {verb}")).collect();
        let held = changes.iter().filter(|change| change.held).count();
        format!("Plan: {}. {held} held.", counts.join(", "))
    };
    match problems {
        0 => {}
        1 => text.push_str(" 1 problem."),
        problems => text.push_str(&format!(" {problems} problems.")),
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ObjectId;

    fn change(name: &str, verb: &str, class: Class, reason: &str, fields: Vec<FieldChange>) -> PlannedChange {
        let object = ObjectId::try_from(format!("Container/default/{name}")).unwrap();
        PlannedChange { object, verb: verb.to_owned(), class, reason: reason.to_owned(), fields, held: false }
    }

    fn field(name: &str, old: Option<&str>, new: Option<&str>) -> FieldChange {
        let own = |text: Option<&str>| text.map(str::to_owned);
        FieldChange { field: name.to_owned(), class: Class::Live, old: own(old), new: own(new) }
    }

    #[test]
    fn a_plan_shows_class_reason_and_fields() {
        let live = vec![
            field("spec.resources.memory.limit", Some("512Mi"), Some("768Mi")),
            field("spec.resources.pids.limit", None, Some("64")),
            field("spec.resources.cpu.limit", Some("1.5"), None),
        ];
        let mut gone = change("old", "destroy", Class::Recreate, "file removed", Vec::new());
        gone.held = true;
        let plan = PlanReport {
            changes: vec![
                change("web", "live", Class::Live, "memory, pids, cpu", live),
                change("same", "none", Class::None, "", Vec::new()),
                change("api", "create", Class::Recreate, "new", Vec::new()),
                gone,
            ],
            problems: vec!["error: unknown field\n --> a.yaml:3:1\x1b".to_owned()],
        };

        assert_eq!(
            report(&plan, Paint(false)),
            "\
► Container/default/web          live      memory, pids, cpu
    spec.resources.memory.limit  ± 512Mi → 768Mi
    spec.resources.pids.limit    + 64
    spec.resources.cpu.limit     - 1.5
► Container/default/api          create    new
► Container/default/old          destroy   file removed  (held: waits for `plim approve`)
! error: unknown field
   --> a.yaml:3:1\\x1b
Plan: 1 create, 1 destroy, 1 live. 1 held. 1 problem.
"
        );
    }

    #[test]
    fn an_empty_plan_says_so() {
        assert_eq!(report(&PlanReport::default(), Paint(false)), "No changes: the host is as the manifests say.\n");
    }
}
