//! The host at a glance.

use super::{Cell, Table, age};
use crate::agent::{SourceView, Summary};
use crate::cli::screen::{Paint, Tone, one_line, printable};
use crate::spec::Timestamp;
use std::fmt::Write as _;

pub fn summary(summary: &Summary, now: Timestamp, paint: Paint) -> String {
    let mut facts = Table::default();
    let mut fact = |name: &str, value: Cell| facts.row([Cell::toned(Tone::Heading, name), value]);
    let since = age(summary.started_at, now);
    fact("agent", format!("plim {}, pid {}, for {since}", summary.version, summary.agent_pid).into());
    fact(
        "keeper",
        match summary.keeper_pid {
            Some(pid) => format!("pid {pid}").into(),
            None => Cell::toned(Tone::Warning, "not running"),
        },
    );
    if let Some(root) = &summary.root {
        fact("root", root.into());
    }
    // Several lines, one per hierarchy.
    for (number, line) in summary.cgroups.lines().enumerate() {
        fact(if number == 0 { "cgroups" } else { "" }, line.into());
    }
    let last = summary.last_round.map_or_else(|| "none yet".to_owned(), |at| format!("{} ago", age(at, now)));
    fact("last round", format!("{last} ({} so far)", summary.rounds).into());
    let objects: Vec<String> = summary.objects.iter().map(|(word, count)| format!("{count} {word}")).collect();
    fact("objects", if objects.is_empty() { "none".into() } else { objects.join(", ").into() });
    let mut text = facts.render(paint);

    if !summary.sources.is_empty() {
        let mut table = Table::new(&["SOURCE", "PATH", "STATE", "OBJECTS", "READ"]);
        for source in &summary.sources {
            table.row(source_row(source, now));
        }
        let _infallible = write!(text, "\n{}", table.render(paint));
    }
    for source in &summary.sources {
        for (name, reason) in &source.ignored {
            let _infallible = writeln!(text, "  ignored {}: {}", one_line(name), one_line(reason));
        }
        for line in source.problems.iter().flat_map(|problem| problem.lines()) {
            let _infallible = writeln!(text, "{} {}", paint.tone(Tone::Bad, "!"), printable(line));
        }
    }
    for warning in &summary.warnings {
        let _infallible = writeln!(text, "{} {}", paint.tone(Tone::Warning, "!"), one_line(warning));
    }
    text
}

fn source_row(source: &SourceView, now: Timestamp) -> Vec<Cell> {
    vec![
        Cell::from(&source.name),
        Cell::from(&source.path),
        super::sources::state(source),
        Cell::from(source.objects.to_string()),
        Cell::from(source.last_read.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(at, now)))),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_host_at_a_glance() {
        assert_eq!(
            summary(&samples::summary(), samples::NOW, Paint(false)),
            "\
agent       plim 0.1.0, pid 10, for 24h
keeper      pid 11
root        /srv/plim
cgroups     hybrid: v1 controllers
last round  5s ago (12 so far)
objects     1 invalid, 1 synced

SOURCE     PATH                     STATE     OBJECTS  READ
manifests  /etc/plimsoll/manifests  complete  2        5s ago
  ignored a.bak: its name ends in .bak
! CAP_SYS_RESOURCE is missing
"
        );
    }
}
