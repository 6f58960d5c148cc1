//! The table of containers, and what needs attention below it.

use super::units::{bar, bytes, cpus, cpus_used, span};
use super::{Cell, Table, age};
use crate::agent::{ContainerStatus, Item};
use crate::cli::screen::{Paint, Tone, one_line};
use crate::plan::{Override, OverrideState};
use crate::spec::{Bytes, Timestamp};
use std::collections::BTreeMap;

/// How much of each container is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Normal,
    Wide,
}

const NORMAL: [&str; 10] = ["NAMESPACE", "NAME", "TYPE", "STATE", "READY", "CPU", "MEMORY", "RESTARTS", "SYNC", "AGE"];
const WIDE: [&str; 5] = ["PID", "PIDS", "IMAGE", "INSTANCE", "SOURCE"];

/// The table alone.
pub fn table(items: &[Item], width: Width, now: Timestamp, paint: Paint) -> String {
    build(items, width, &[], now).render(paint)
}

fn build(items: &[Item], width: Width, widths: &[usize], now: Timestamp) -> Table {
    let mut headings = NORMAL.to_vec();
    if width == Width::Wide {
        headings.extend(WIDE);
    }
    let mut table = Table::new(&headings).at_least(widths);
    for item in items {
        let mut cells = normal(item, now);
        if width == Width::Wide {
            cells.extend(wide(item));
        }
        table.row(cells);
    }
    table
}

/// Rows of a stream, of which the next ones are not known yet: columns have a width of their own.
pub fn watched(items: &[Item], width: Width, heading: bool, now: Timestamp, paint: Paint) -> String {
    const WIDTHS: [usize; 10] = [9, 16, 4, 11, 5, 9, 20, 8, 10, 4];
    let text = build(items, width, &WIDTHS, now).render(paint);
    match (heading, text.split_once('\n')) {
        (false, Some((_, rows))) => rows.to_owned(),
        _ => text,
    }
}

/// One line, beginning with `!`, for everything that a person should know of. What is the same of many,
/// as when their source has gone, is said once.
pub fn attention(items: &[Item], now: Timestamp, paint: Paint) -> String {
    let mut concerns: Vec<(Tone, String, Vec<String>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for item in items {
        let Some(words) = concern(item, now) else { continue };
        let words = one_line(&words);
        let at = *known.entry(words.clone()).or_insert_with(|| {
            concerns.push((sync_tone(&item.status.sync).0, words, Vec::new()));
            concerns.len() - 1
        });
        concerns[at].2.push(short_name(item));
    }
    let mut text = String::new();
    for (tone, words, names) in concerns {
        text.push_str(&paint.tone(tone, "!"));
        text.push_str(&format!(" {}: {words}\n", listed(&names)));
    }
    text
}

/// How many names are listed before the rest is counted.
const LISTED: usize = 4;

fn listed(names: &[String]) -> String {
    match names.get(..LISTED) {
        Some(first) if names.len() > LISTED => format!("{} and {} more", first.join(", "), names.len() - LISTED),
        _ => names.join(", "),
    }
}

/// The name as a person would type it.
fn short_name(item: &Item) -> String {
    match item.metadata.namespace.as_str() {
        "default" => item.metadata.name.clone(),
        namespace => format!("{namespace}/{}", item.metadata.name),
    }
}

fn normal(item: &Item, now: Timestamp) -> Vec<Cell> {
    let status = &item.status;
    let kind = if item.spec.is_some() { "app" } else { "-" };
    let (tone, _) = sync_tone(&status.sync);
    vec![
        Cell::from(&item.metadata.namespace),
        Cell::from(&item.metadata.name),
        Cell::from(kind),
        Cell::toned(phase_tone(&status.phase), &words(&status.phase)),
        ready(status),
        Cell::from(cpu(status)),
        Cell::from(memory(status)),
        Cell::from(status.restarts.to_string()),
        Cell::toned(tone, &status.sync),
        Cell::from(status.started_at.map_or_else(|| "-".to_owned(), |at| age(at, now))),
    ]
}

fn wide(item: &Item) -> Vec<Cell> {
    let status = &item.status;
    let or_dash = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "-".to_owned()));
    vec![
        or_dash(status.pid.map(|pid| pid.to_string())),
        or_dash(status.usage.as_ref().and_then(|usage| usage.pids).map(|pids| pids.to_string())),
        or_dash(status.image.get("ref").cloned().flatten()),
        or_dash(status.instance.clone()),
        or_dash(status.source.as_ref().map(|source| format!("{}:{}", source.file, source.line))),
    ]
}

/// `BackingOff` as `backing-off`.
pub fn words(phase: &str) -> String {
    let mut text = String::new();
    for (at, c) in phase.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

fn phase_tone(phase: &str) -> Tone {
    match phase {
        "Running" => Tone::Good,
        "Failed" | "BackingOff" => Tone::Bad,
        "Stopped" | "Exited" | "Removed" => Tone::Faint,
        _ => Tone::Warning,
    }
}

/// How a `sync` word looks, and whether it means that something is not as the manifest says.
fn sync_tone(sync: &str) -> (Tone, bool) {
    match sync {
        "synced" => (Tone::Good, false),
        "failed" | "invalid" => (Tone::Bad, true),
        _ => (Tone::Warning, true),
    }
}

fn ready(status: &ContainerStatus) -> Cell {
    let condition = status.conditions.iter().find(|condition| condition.kind == "Ready");
    match condition.map_or(status.phase == "Running", |condition| condition.status == "True") {
        true => Cell::toned(Tone::Good, "✔"),
        false => Cell::from("-"),
    }
}

/// In use of the limit that the kernel has: `0.31/1.5`.
fn cpu(status: &ContainerStatus) -> String {
    let used = status.usage.as_ref().and_then(|usage| usage.cpu_milli).map(cpus_used);
    let limit = status.resources.actuated.cpu.limit.map(|limit| cpus(u64::from(limit.0)));
    of(used, limit)
}

fn memory(status: &ContainerStatus) -> String {
    let used = status.usage.as_ref().and_then(|usage| usage.memory);
    let limit = status.resources.actuated.memory.limit;
    let text = of(used.map(bytes), limit.map(bytes));
    match (used, limit) {
        (Some(Bytes(used)), Some(Bytes(limit))) => format!("{text} {}", bar(used, limit)),
        _ => text,
    }
}

fn of(used: Option<String>, limit: Option<String>) -> String {
    match (used, limit) {
        (None, None) => "-".to_owned(),
        (Some(used), None) => used,
        (used, Some(limit)) => format!("{}/{limit}", used.unwrap_or_else(|| "-".to_owned())),
    }
}

/// What a person should know of one container, in one line: the first one of what there is to say.
pub fn concern(item: &Item, now: Timestamp) -> Option<String> {
    let status = &item.status;
    let (_, differs) = sync_tone(&status.sync);
    if !differs && status.message.is_empty() {
        return None;
    }
    let next = status.next_at.filter(|at| *at > now).map(|at| span(at.since(now)));
    let message = counted(status.message.lines().next().unwrap_or_default(), next.as_deref());
    match status.sync.as_str() {
        "deleting" => {
            let when = || next.as_ref().map_or_else(|| "deleting".to_owned(), |next| format!("deleting in {next}"));
            Some(if message.is_empty() { when() } else { message })
        }
        "overridden" if message.is_empty() => Some(override_words(status, now)),
        "invalid" => Some(match status.generations.running {
            Some(generation) if !message.contains("last good") => {
                format!("{message} — running last good generation {generation}")
            }
            _ => message,
        }),
        // It says nothing that the table does not.
        _ if message.is_empty() => None,
        _ => Some(match next {
            Some(next) if !message.contains(" in ") && status.sync != "held" => {
                format!("{message}, next try in {next}")
            }
            _ => message,
        }),
    }
}

/// A message with the time that it names told anew: it was right when the agent decided, and the
/// seconds have gone on since.
fn counted(message: &str, next: Option<&str>) -> String {
    let told = |next: &str| {
        let (before, rest) = message.rsplit_once(" in ")?;
        let is_time = |word: &&str| {
            let digits = word.trim_end_matches(|c: char| c.is_ascii_lowercase());
            digits.len() < word.len() && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        let words = rest.split(' ').take_while(is_time).map(|word| word.len() + 1).sum::<usize>();
        (words > 0).then(|| format!("{before} in {next}{}", rest.get(words - 1..).unwrap_or_default()))
    };
    next.and_then(told).unwrap_or_else(|| message.to_owned())
}

fn override_words(status: &ContainerStatus, now: Timestamp) -> String {
    let Some(Override { state, word }) = &status.override_ else { return status.message.clone() };
    let state = match state {
        OverrideState::Stopped => "stopped",
        OverrideState::Running => "kept running",
        OverrideState::Restart => "restarted",
    };
    let mut text = format!("{state} by user {}", word.by);
    if let Some(until) = word.until {
        text.push_str(&format!(" for another {}", span(until.since(now))));
    }
    if let Some(reason) = &word.reason {
        text.push_str(&format!(": {reason}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    const PLAIN: Paint = Paint(false);

    #[test]
    fn the_table_of_containers() {
        let items = samples::items();

        assert_eq!(
            table(&items, Width::Normal, samples::NOW, PLAIN),
            "\
NAMESPACE  NAME    TYPE  STATE        READY  CPU       MEMORY             RESTARTS  SYNC      AGE
default    web     app   running      ✔      0.31/1.5  212Mi/512Mi ▓▓░░░  0         synced    3d
default    legacy  app   running      ✔      0.00      31Mi               0         invalid   40d
default    old     app   backing-off  -      -/0.5     -                  7         deleting  -
ops        broken  -     pending      -      -         -                  0         failed    -
"
        );
    }

    #[test]
    fn a_wide_table_says_where_a_container_comes_from() {
        let text = table(&samples::items()[..1], Width::Wide, samples::NOW, PLAIN);

        assert!(text.lines().next().unwrap().ends_with("AGE  PID   PIDS  IMAGE   INSTANCE       SOURCE"), "{text}");
        assert!(text.ends_with("3d   4711  3     host:/  default_web.3  web.yaml:1\n"), "{text}");
    }

    #[test]
    fn whatever_needs_attention_has_a_line_of_its_own() {
        assert_eq!(
            attention(&samples::items(), samples::NOW, PLAIN),
            "\
! legacy: /etc/plimsoll/manifests/legacy.yaml:14:7: unknown field \"memroy\" — running last good generation 6
! old: deleting in 8s
! ops/broken: no such program: /bin/nope, next try in 25s
"
        );
    }

    #[test]
    fn a_countdown_goes_on_between_two_decisions() {
        for (message, told) in [
            ("file removed, deleting in 10s", "file removed, deleting in 4s"),
            ("exited with 1, restart 6 in 1m 20s", "exited with 1, restart 6 in 4s"),
            (
                "no image; next try in 8s — running last good generation 1",
                "no image; next try in 4s — running last good generation 1",
            ),
            ("301Mi in use", "301Mi in use"),
            ("4711 in use, next try in 9s", "4711 in use, next try in 4s"),
        ] {
            assert_eq!(counted(message, Some("4s")), told);
            assert_eq!(counted(message, None), message);
        }
    }

    #[test]
    fn an_override_says_who_and_how_long() {
        let mut item = samples::items().remove(0);
        item.status.sync = "overridden".to_owned();
        let word = crate::plan::Word {
            by: 1000,
            reason: Some("disk\x1b swap".to_owned()),
            since: samples::NOW,
            until: Some(Timestamp(samples::NOW.0 + 7_200_000)),
        };
        item.status.override_ = Some(Override { state: OverrideState::Stopped, word });

        let text = attention(&[item], samples::NOW, PLAIN);

        assert_eq!(text, "! web: stopped by user 1000 for another 2h: disk\\x1b swap\n");
    }
}
