//! Where manifests come from.

use super::units::span;
use super::{Cell, Table, age};
use crate::agent::{Kept, MaxDelete, Pin, SourceView};
use crate::cli::screen::{Paint, Tone, one_line, printable};
use crate::spec::Timestamp;
use std::fmt::Write as _;

/// One line for each source.
pub fn list(sources: &[SourceView], now: Timestamp, paint: Paint) -> String {
    let mut table = Table::new(&["SOURCE", "PATH", "REVISION", "STATE", "OBJECTS", "PRUNE", "READ"]);
    for source in sources {
        table.row([
            Cell::from(&source.name),
            Cell::from(&source.path),
            Cell::from(source.revision.as_ref().map_or("", |kept| kept.commit.short())),
            state(source),
            Cell::from(source.objects.to_string()),
            Cell::from(prune(source)),
            Cell::from(source.last_success.or(source.last_read).map_or_else(|| "never".to_owned(), |at| ago(at, now))),
        ]);
    }
    table.render(paint)
}

/// Whether all of a source is read, or why not.
pub fn state(source: &SourceView) -> Cell {
    match (source.complete, source.message.as_str()) {
        (true, "") => Cell::toned(Tone::Good, "complete"),
        (true, message) => Cell::toned(Tone::Warning, message),
        (false, "") => Cell::toned(Tone::Bad, "incomplete"),
        (false, message) => Cell::toned(Tone::Bad, message),
    }
}

/// Everything about one source.
pub fn one(source: &SourceView, now: Timestamp, paint: Paint) -> String {
    let mut facts = Table::default();
    let mut fact = |name: &str, value: Cell| facts.row([Cell::toned(Tone::Heading, name), value]);
    fact("source", Cell::from(&source.name));
    fact("path", Cell::from(&source.path));
    fact("state", state(source));
    if let Some(kept) = &source.revision {
        fact("revision", Cell::from(revision(kept, now)));
        if let Some(signer) = &kept.commit.signer {
            fact("signed by", Cell::from(signer));
        }
    }
    if let Some(kept) = &source.newest {
        fact("newest", Cell::from(revision(kept, now)));
    }
    if let Some(Pin { number: _, by, since, reason }) = &source.pinned {
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        fact("pinned", Cell::toned(Tone::Warning, &format!("{} by user {by}{reason}", ago(*since, now))));
    }
    if let Some(at) = source.last_success {
        fact("answered", Cell::from(ago(at, now)));
    }
    if let Some(at) = source.last_attempt {
        fact("asked", Cell::from(ago(at, now)));
    }
    if let Some(at) = source.next_attempt.filter(|_| !source.suspended) {
        fact("next", Cell::from(format!("in {}", span(at.since(now)))));
    }
    fact("objects", Cell::from(source.objects.to_string()));
    fact("prune", Cell::from(prune(source)));
    let mut text = facts.render(paint);
    for (name, reason) in &source.ignored {
        let _infallible = writeln!(text, "  ignored {}: {}", one_line(name), one_line(reason));
    }
    for line in source.problems.iter().flat_map(|problem| problem.lines()) {
        let _infallible = writeln!(text, "{} {}", paint.tone(Tone::Bad, "!"), printable(line));
    }
    text
}

/// What becomes of what is gone from it.
fn prune(source: &SourceView) -> String {
    match (source.keeps, source.max_delete) {
        (true, _) => "no".to_owned(),
        (false, None) => "yes".to_owned(),
        (false, Some(MaxDelete { count, percent })) => format!("{count} or {percent}%"),
    }
}

/// The accepted revisions of a repository.
pub fn history(kept: &[Kept], now: Timestamp, paint: Paint) -> String {
    let mut table = Table::new(&["REVISION", "COMMIT", "ACCEPTED", "AUTHOR", "SIGNED BY", "SUMMARY"]);
    for Kept { number, accepted_at, commit } in kept {
        table.row([
            Cell::from(number.to_string()),
            Cell::from(commit.short()),
            Cell::from(ago(*accepted_at, now)),
            Cell::from(&commit.author),
            Cell::from(commit.signer.as_deref().unwrap_or("")),
            Cell::from(&commit.summary),
        ]);
    }
    table.render(paint)
}

fn revision(kept: &Kept, now: Timestamp) -> String {
    let Kept { number, accepted_at, commit } = kept;
    let (short, summary, author) = (commit.short(), &commit.summary, &commit.author);
    format!("{number} ({short}) “{summary}” by {author}, accepted {}", ago(*accepted_at, now))
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", age(at, now))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::source::Commit;

    fn kept(number: u64, seconds: u64, signer: Option<&str>) -> Kept {
        let at = Timestamp(samples::NOW.0 - seconds * 1000);
        let commit = Commit {
            id: number.to_string().repeat(40),
            summary: format!("change {number}"),
            author: "Ann".to_owned(),
            at,
            signer: signer.map(str::to_owned),
        };
        Kept { number, accepted_at: at, commit }
    }

    fn fleet() -> SourceView {
        SourceView {
            name: "fleet".to_owned(),
            path: "https://git.example.org/fleet.git branch main".to_owned(),
            complete: true,
            message: "pinned".to_owned(),
            objects: 3,
            max_delete: Some(MaxDelete { count: 5, percent: 10 }),
            revision: Some(kept(1, 300, Some("ann@example.org"))),
            newest: Some(kept(2, 60, None)),
            pinned: Some(Pin {
                number: 1,
                by: 0,
                since: Timestamp(samples::NOW.0 - 30_000),
                reason: Some("web".to_owned()),
            }),
            last_success: Some(Timestamp(samples::NOW.0 - 5000)),
            last_attempt: Some(Timestamp(samples::NOW.0 - 5000)),
            next_attempt: Some(Timestamp(samples::NOW.0 + 55_000)),
            ..SourceView::default()
        }
    }

    #[test]
    fn all_sources_at_a_glance() {
        let mut sources = samples::summary().sources;
        sources.push(fleet());

        assert_eq!(
            list(&sources, samples::NOW, Paint(false)),
            "\
SOURCE     PATH                                           REVISION      STATE     OBJECTS  PRUNE     READ
manifests  /etc/plimsoll/manifests                                      complete  2        yes       5s ago
fleet      https://git.example.org/fleet.git branch main  111111111111  pinned    3        5 or 10%  5s ago
"
        );
    }

    #[test]
    fn a_pinned_source_says_what_it_does_not_follow() {
        assert_eq!(
            one(&fleet(), samples::NOW, Paint(false)),
            "\
source     fleet
path       https://git.example.org/fleet.git branch main
state      pinned
revision   1 (111111111111) “change 1” by Ann, accepted 5m ago
signed by  ann@example.org
newest     2 (222222222222) “change 2” by Ann, accepted 60s ago
pinned     30s ago by user 0: web
answered   5s ago
asked      5s ago
next       in 55s
objects    3
prune      5 or 10%
"
        );
    }

    #[test]
    fn the_revisions_of_a_repository() {
        assert_eq!(
            history(&[kept(1, 300, Some("ann@example.org")), kept(2, 60, None)], samples::NOW, Paint(false)),
            "\
REVISION  COMMIT        ACCEPTED  AUTHOR  SIGNED BY        SUMMARY
1         111111111111  5m ago    Ann     ann@example.org  change 1
2         222222222222  60s ago   Ann                      change 2
"
        );
    }
}
