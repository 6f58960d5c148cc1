//! Everything about one container.

use super::units::{cpus_used, span};
use super::{Cell, Table, age, bytes, containers};
use crate::agent::{Event, Item};
use crate::cli::screen::{Paint, Tone, one_line, printable};
use crate::plan::Exit;
use crate::spec::{Resources, Timestamp};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub fn item(item: &Item, spec: &str, events: &[Event], lines: &str, now: Timestamp, paint: Paint) -> String {
    let mut text = facts(item, now).render(paint);
    if let Some(words) = containers::concern(item, now) {
        let _infallible = writeln!(text, "{} {}", paint.tone(Tone::Warning, "!"), one_line(&words));
    }
    let mut section = |title: &str, body: &str| {
        if !body.is_empty() {
            let _infallible = writeln!(text, "\n{}", paint.tone(Tone::Heading, title));
            for line in body.lines() {
                let _infallible = writeln!(text, "  {line}");
            }
        }
    };
    let message: Vec<String> = item.status.message.lines().map(|line| printable(line).into_owned()).collect();
    // One line has been said above.
    section("Message", &if message.len() > 1 { message.join("\n") } else { String::new() });
    section("Conditions", &conditions(item, paint));
    section("Limits", &limits(item, paint));
    section("Spec", spec);
    section("Events", &if events.is_empty() { String::new() } else { super::events::table(events, now, paint) });
    section("Last lines", lines);
    text
}

fn facts(item: &Item, now: Timestamp) -> Table {
    let status = &item.status;
    let mut table = Table::default();
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.row([Cell::toned(Tone::Heading, name), Cell::from(value)]);
        }
    };
    fact("Name", Some(format!("{}/{}/{}", item.kind, item.metadata.namespace, item.metadata.name)));
    fact("Labels", pairs(&item.metadata.labels));
    fact("Annotations", pairs(&item.metadata.annotations));
    let since = status.started_at.map_or_else(String::new, |at| format!(" for {}", age(at, now)));
    fact("State", Some(format!("{}{since}", containers::words(&status.phase))));
    fact("Sync", Some(status.sync.clone()));
    fact("Next", status.next_at.filter(|at| *at > now).map(|at| format!("in {}", span(at.since(now)))));
    fact("PID", status.pid.map(|pid| pid.to_string()));
    fact("Instance", status.instance.clone());
    fact("Image", status.image.get("ref").cloned().flatten());
    fact("Digest", status.image.get("digest").cloned().flatten());
    fact("Cgroup", status.cgroup.clone());
    fact("Restarts", Some(status.restarts.to_string()));
    fact("Last exit", status.last_exit.as_ref().map(|exit| last_exit(exit, now)));
    if let Some(usage) = &status.usage {
        let mut uses = Vec::new();
        uses.extend(usage.cpu_milli.map(|milli| format!("cpu {}", cpus_used(milli))));
        uses.extend(usage.memory.map(|memory| format!("memory {}", bytes(memory))));
        uses.extend(usage.pids.map(|pids| format!("pids {pids}")));
        uses.push(format!("cpu time {}ms", usage.cpu_usec / 1000));
        fact("Uses", Some(uses.join(", ")));
    }
    fact("Generation", generations(item));
    fact(
        "Source",
        status.source.as_ref().map(|source| {
            format!(
                "{} {}:{} (document {}, {})",
                source.name, source.file, source.line, source.document, source.revision
            )
        }),
    );
    let drop_ins = status.source.as_ref().map(|source| source.drop_ins.join(", ")).unwrap_or_default();
    fact("Changed by", (!drop_ins.is_empty()).then_some(drop_ins));
    table
}

fn pairs(map: &BTreeMap<String, String>) -> Option<String> {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!pairs.is_empty()).then(|| pairs.join(", "))
}

fn last_exit(exit: &Exit, now: Timestamp) -> String {
    let how = match (exit.signal, exit.code) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("code {code}"),
        (None, None) => "nobody saw how".to_owned(),
    };
    let memory = if exit.oom_killed { ", out of memory" } else { "" };
    format!("{how}{memory}, {} ago", age(exit.at, now))
}

fn generations(item: &Item) -> Option<String> {
    let generations = &item.status.generations;
    let number = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let mut text = format!("running {}, last good {}", number(generations.running), number(generations.last_good));
    if !generations.failed.is_empty() {
        let failed: Vec<String> = generations.failed.iter().map(ToString::to_string).collect();
        let _infallible = write!(text, ", failed {}", failed.join(" "));
    }
    if let Some(pinned) = generations.pinned {
        let _infallible = write!(text, ", pinned {pinned}");
    }
    Some(text)
}

fn conditions(item: &Item, paint: Paint) -> String {
    if item.status.conditions.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["TYPE", "STATUS", "REASON", "MESSAGE"]);
    for condition in &item.status.conditions {
        table.row([
            Cell::from(&condition.kind),
            Cell::from(&condition.status),
            Cell::from(&condition.reason),
            Cell::from(condition.message.lines().next().unwrap_or_default()),
        ]);
    }
    table.render(paint)
}

/// Each limit as wanted, as last written, and the kernel's files below.
fn limits(item: &Item, paint: Paint) -> String {
    let resources = &item.status.resources;
    let (desired, actuated) = (flat(&resources.desired), flat(&resources.actuated));
    let mut names: Vec<&String> = desired.keys().chain(actuated.keys()).collect();
    names.sort();
    names.dedup();
    let mut text = String::new();
    if !names.is_empty() {
        let mut table = Table::new(&["LIMIT", "WANTED", "WRITTEN"]);
        for name in names {
            let value = |map: &BTreeMap<String, String>| map.get(name).cloned().unwrap_or_else(|| "-".to_owned());
            let (wanted, written) = (value(&desired), value(&actuated));
            let tone = if wanted == written { Tone::Plain } else { Tone::Warning };
            table.row([Cell::from(name), Cell::from(wanted), Cell::toned(tone, &written)]);
        }
        text.push_str(&table.render(paint));
    }
    if !resources.actual.is_empty() {
        let mut table = Table::new(&["FILE", "KERNEL"]);
        for (file, value) in &resources.actual {
            table.row([Cell::from(file), Cell::from(value)]);
        }
        text.push_str(&table.render(paint));
    }
    text
}

/// `memory.limit` → `512Mi`, for every limit that is set.
fn flat(resources: &Resources) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    // Plain values: they always have a form in JSON.
    flatten("", &serde_json::to_value(resources).unwrap_or_default(), &mut flat);
    flat
}

fn flatten(path: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(name, value)| flatten(&join(name), value, into)),
        serde_json::Value::Array(values) => {
            values.iter().enumerate().for_each(|(at, value)| flatten(&format!("{path}[{at}]"), value, into));
        }
        serde_json::Value::Null => {}
        serde_json::Value::String(text) => drop(into.insert(path.to_owned(), text.clone())),
        other => drop(into.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::agent::EventType;

    #[test]
    fn everything_about_one_container() {
        let mut web = samples::items().remove(0);
        web.status.resources.desired.memory.limit = Some(crate::spec::Bytes(768 << 20));
        web.status.last_exit =
            Some(Exit { code: Some(137), signal: Some(9), at: Timestamp(samples::NOW.0 - 300_000), oom_killed: true });
        let events = [samples::event(1, EventType::Normal, "Started", "pid 4711")];

        assert_eq!(
            item(&web, "image: host:/\n", &events, "", samples::NOW, Paint(false)),
            "\
Name        Container/default/web
Labels      app=web
State       running for 3d
Sync        synced
PID         4711
Instance    default_web.3
Image       host:/
Cgroup      /plimsoll/c/default_web/3/payload
Restarts    0
Last exit   signal 9, out of memory, 5m ago
Uses        cpu 0.31, memory 212Mi, pids 3, cpu time 1500ms
Generation  running 2, last good 2
Source      manifests web.yaml:1 (document 1, sha256:00)
Changed by  web.yaml.d/10-host.yaml

Conditions
  TYPE   STATUS  REASON   MESSAGE
  Ready  True    Running

Limits
  LIMIT         WANTED  WRITTEN
  cpu.limit     1500m   1500m
  memory.limit  768Mi   512Mi
  FILE        KERNEL
  memory.max  536870912

Spec
  image: host:/

Events
  AGE  TYPE    OBJECT                 REASON   MESSAGE
  59s  normal  Container/default/web  Started  pid 4711
"
        );
    }
}
