//! What the fields of an object mean to each other.
//!
//! Each type has checked its own value by now. Here are the rules between values, each told at the
//! value that breaks it:
//!
//! - `memory.high`, `low` and `min` are at most `limit`. `swap` needs no `limit`: it is a limit of its
//!   own in cgroup v2, and a host that lacks it says so.
//! - a mount is one thing, at one place, and leaves the container's own file systems alone.
//! - an `io` limit limits something.
//! - a wait does not begin above its end, and a time to stop is no more than a day.
//! - no text that goes to the kernel has a NUL in it.

use super::document::{Finding, MAX_DIAGNOSTICS};
use super::tree::{Node, Step};
use crate::spec::{Container, DISABLED, Health, Io, Memory, Object, PRUNE, RECONCILE, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Appends what is wrong with `object`, which was read from `root` without what was `unusable`.
pub(super) fn object(object: &Object, root: &Node, unusable: &[Range<usize>], findings: &mut Vec<Finding>) {
    let Object { id: _, labels, annotations, spec } = object;
    let mut check = Check { root, unusable, findings };
    check.labels(labels);
    check.annotations(annotations);
    check.container(spec);
}

/// Where a field stands: names, and positions in lists.
macro_rules! path {
    ($($step:expr),*) => { &[$(Step::from($step)),*] };
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

struct Check<'a> {
    root: &'a Node,
    unusable: &'a [Range<usize>],
    findings: &'a mut Vec<Finding>,
}

/// As many bytes as Kubernetes takes, for all annotations of an object together.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;
/// A label is a word for selecting; a text belongs into an annotation.
const MAX_LABEL_CHARS: usize = 63;

/// Doubled from nothing, a wait stays nothing.
const MIN_BACKOFF: Span = Span(100);
/// More often than this a probe is a load.
const MIN_PROBE: Span = Span(100);

impl Check<'_> {
    fn say(&mut self, path: &[Step], message: impl Into<String>, help: Option<&str>) {
        if self.findings.len() >= MAX_DIAGNOSTICS {
            return;
        }
        let place = self.root.find(path);
        // What a collection seems to lack may stand in it, and be wrong.
        let whole = &place.node.span;
        if self.unusable.iter().any(|gap| whole.start <= gap.start && gap.end <= whole.end) {
            return;
        }
        let span = place.span();
        self.findings.push(Finding::new(span, message, help));
    }

    /// At the name of an entry rather than at its value.
    fn say_key(&mut self, path: &[Step], message: impl Into<String>, help: Option<&str>) {
        if self.findings.len() >= MAX_DIAGNOSTICS {
            return;
        }
        let place = self.root.find(path);
        let span = place.entry.map_or_else(|| place.span(), |entry| entry.key.span.clone());
        self.findings.push(Finding::new(span, message, help));
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            let path = path!["metadata", "labels", key.as_str()];
            if !is_label_key(key) {
                let help = "a key is PREFIX/NAME or NAME, of letters, digits, '-', '_' and '.', at most 63 of them";
                self.say_key(path, format!("`{key}` cannot be the key of a label"), Some(help));
            }
            let fits = value.is_empty() || is_label_word(value);
            if !fits {
                let help = "letters, digits, '-', '_' and '.', at most 63 of them; longer texts go into annotations";
                self.say(path, format!("{value:?} cannot be the value of a label"), Some(help));
            }
        }
    }

    fn annotations(&mut self, annotations: &BTreeMap<String, String>) {
        for key in annotations.keys().filter(|key| !is_label_key(key)) {
            let help = "a key is PREFIX/NAME or NAME, of letters, digits, '-', '_' and '.', at most 63 of them";
            let path = path!["metadata", "annotations", key.as_str()];
            self.say_key(path, format!("`{key}` cannot be the key of an annotation"), Some(help));
        }
        for key in [PRUNE, RECONCILE] {
            if let Some(word) = annotations.get(key).filter(|word| !["enabled", DISABLED].contains(&word.as_str())) {
                let message = format!("{word:?} says nothing about {key}");
                self.say(path!["metadata", "annotations", key], message, Some("write disabled or enabled"));
            }
        }
        let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_ANNOTATION_BYTES {
            let message = format!("the annotations have {bytes} bytes, more than {MAX_ANNOTATION_BYTES}");
            self.say_key(path!["metadata", "annotations"], message, None);
        }
    }

    fn container(&mut self, spec: &Container) {
        let Container {
            kind: _,
            desired_state: _,
            image: _,
            command,
            args,
            init: _,
            env,
            working_dir: _,
            user: _,
            hostname: _,
            network: _,
            mounts: _,
            resources,
            security: _,
            health,
            restart,
            stop,
            logs,
            ignore_drift: _,
            depends_on: _,
            boot: _,
            deletion_policy: _,
        } = spec;
        self.command(command, args);
        for (name, value) in env {
            if value.contains('\0') {
                let message = format!("the value of {} has a NUL in it, where the kernel ends it", name.as_str());
                self.say(path!["spec", "env", name.as_str()], message, None);
            }
        }
        self.mounts(spec);
        self.memory(&resources.memory);
        for size in resources.hugepages.keys().filter(|size| !size.0.is_power_of_two()) {
            let key = size.to_string();
            let path = path!["spec", "resources", "hugepages", key.as_str()];
            self.say_key(path, format!("{size} is not the size of a page"), Some("write 2Mi or 1Gi"));
        }
        self.io(&resources.io);
        self.health(health);
        if restart.backoff.min < MIN_BACKOFF {
            let message = format!("a wait of {} would restart it without end", restart.backoff.min);
            let help = format!("write at least {MIN_BACKOFF}");
            self.say(path!["spec", "restart", "backoff", "min"], message, Some(&help));
        }
        if restart.backoff.min > restart.backoff.max {
            let message =
                format!("the wait begins at {}, above its `max` of {}", restart.backoff.min, restart.backoff.max);
            self.say(path!["spec", "restart", "backoff", "min"], message, Some("raise `max` or lower `min`"));
        }
        if stop.grace > Span::from_secs(86_400) {
            self.say(path!["spec", "stop", "grace"], format!("{} to stop is more than a day", stop.grace), None);
        }
        if logs.max_size.0 < 4096 {
            let message = format!("a log file of {} bytes holds less than a line", logs.max_size.0);
            self.say(path!["spec", "logs", "maxSize"], message, Some("write at least 4Ki"));
        }
    }

    fn command(&mut self, command: &[String], args: &[String]) {
        match command.first() {
            None => {
                self.say(path!["spec", "command"], "the command is empty", Some("write `command: [/bin/sh, -c, …]`"));
            }
            Some(program) if program.is_empty() => {
                self.say(path!["spec", "command", 0], "the program to run has no name", None);
            }
            Some(program) if program.contains([' ', '\t', '\n']) && command.len() == 1 && !program.starts_with('/') => {
                let help = "write each argument by itself: `[sleep, '5']`, or `[/bin/sh, -c, 'sleep 5']`";
                self.say(path!["spec", "command", 0], format!("{program:?} is not one program"), Some(help));
            }
            Some(_) => {}
        }
        for (field, words) in [("command", command), ("args", args)] {
            for (index, _) in words.iter().enumerate().filter(|(_, word)| word.contains('\0')) {
                let message = "an argument has a NUL in it, where the kernel ends it";
                self.say(path!["spec", field, index], message, None);
            }
        }
    }

    fn mounts(&mut self, spec: &Container) {
        // File systems that the runtime mounts itself: what it masks there must stay masked.
        const OWN: [&str; 3] = ["/proc", "/sys", "/dev"];
        // Directories below them that are for others to mount on.
        const FREE: [&str; 2] = ["/dev/shm", "/dev/hugepages"];
        let mut places = BTreeSet::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            let at = path!["spec", "mounts", index];
            match (&mount.host, &mount.tmpfs) {
                (Some(_), None) => {}
                (None, Some(size)) if size.0 == 0 => {
                    let help = Some("give it a size: `tmpfs: 64Mi`");
                    self.say(path!["spec", "mounts", index, "tmpfs"], "a tmpfs of size 0 has no limit", help);
                }
                (None, Some(_)) => {}
                (None, None) => self.say(at, "a mount of nothing", Some("add `host: /PATH` or `tmpfs: 64Mi`")),
                (Some(_), Some(_)) => {
                    let path = path!["spec", "mounts", index, "tmpfs"];
                    self.say_key(path, "`host` and `tmpfs` at once", Some("leave one of them out"));
                }
            }
            let path = mount.path.as_str();
            let own = OWN.iter().find(|own| path == **own || path.starts_with(&format!("{own}/")));
            let free = FREE.iter().any(|free| path == *free || path.starts_with(&format!("{free}/")));
            if path == "/" {
                let help = "the root filesystem is the `image`: `image: rootfs:/PATH`";
                self.say(path!["spec", "mounts", index, "path"], "a mount over the root filesystem", Some(help));
            } else if let Some(own) = own.filter(|_| !free) {
                let message = format!("a mount over the container's own {own}");
                self.say(path!["spec", "mounts", index, "path"], message, None);
            }
            if !places.insert(path) {
                let message = format!("a second mount at {path}");
                self.say(path!["spec", "mounts", index, "path"], message, Some("leave one of them out"));
            }
        }
    }

    fn health(&mut self, health: &Health) {
        for (name, probe) in health.probes() {
            let given = [!probe.exec.is_empty(), probe.tcp.is_some(), probe.http.is_some()];
            match given.into_iter().filter(|given| *given).count() {
                0 => {
                    let help = Some("add `exec: [CMD]`, `tcp: {port: 80}` or `http: {port: 80}`");
                    self.say_key(path!["spec", "health", name], "a probe that asks nothing", help);
                }
                1 => {}
                _ => {
                    let message = "a probe that asks several things at once";
                    self.say_key(path!["spec", "health", name], message, Some("leave one of exec, tcp and http"));
                }
            }
            let ports =
                [("tcp", probe.tcp.as_ref().map(|tcp| tcp.port)), ("http", probe.http.as_ref().map(|http| http.port))];
            for (kind, _) in ports.into_iter().filter(|(_, port)| *port == Some(0)) {
                self.say(path!["spec", "health", name, kind, "port"], "0 is not a port", Some("write 1 to 65535"));
            }
            for (index, _) in probe.exec.iter().enumerate().filter(|(_, word)| word.contains('\0')) {
                let message = "an argument has a NUL in it, where the kernel ends it";
                self.say(path!["spec", "health", name, "exec", index], message, None);
            }
            let path = probe.http.as_ref().map_or("", |http| http.path.as_str());
            if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
                let message = format!("{path:?} cannot stand in a request");
                self.say(path!["spec", "health", name, "http", "path"], message, Some("write it percent-encoded"));
            }
            for (field, span) in [("every", probe.every), ("timeout", probe.timeout)] {
                if span < MIN_PROBE {
                    let message = format!("{span} is too short for a probe");
                    let help = format!("write at least {MIN_PROBE}");
                    self.say(path!["spec", "health", name, field], message, Some(&help));
                }
            }
            if probe.within.is_some() && name != "startup" {
                let message = format!("`within` says nothing about {name}");
                self.say_key(path!["spec", "health", name, "within"], message, Some("write `failures` and `every`"));
            }
        }
    }

    fn memory(&mut self, memory: &Memory) {
        let Memory { limit, high, low: _, min: _, swap: _ } = memory;
        if limit.is_some_and(|limit| limit < Memory::LEAST) {
            let help = "write at least 1Mi, or leave the field out for no limit";
            let message = "nothing runs in less than 1Mi of memory";
            self.say(path!["spec", "resources", "memory", "limit"], message, Some(help));
            return;
        }
        for (name, value, limit) in memory.above_the_limit() {
            let message = format!("`{name}` of {value} is above the `limit` of {limit}");
            let help = Some("lower it, or raise the `limit`");
            self.say(path!["spec", "resources", "memory", name], message, help);
        }
        if high.is_some_and(|high| high.0 == 0) {
            let help = Some("leave the field out for none");
            self.say(path!["spec", "resources", "memory", "high"], "a `high` of 0 would stall it for ever", help);
        }
    }

    fn io(&mut self, io: &Io) {
        let mut paths = BTreeSet::new();
        for (index, limit) in io.limits.iter().enumerate() {
            let rates = [("readBps", limit.read_bps), ("writeBps", limit.write_bps)];
            let none = limit.read_bps.is_none() && limit.write_bps.is_none();
            if none && limit.read_iops.is_none() && limit.write_iops.is_none() {
                let help = Some("add readBps, writeBps, readIops or writeIops");
                self.say(path!["spec", "resources", "io", "limits", index], "a limit of nothing", help);
            }
            for (name, _) in rates.into_iter().filter(|(_, rate)| rate.is_some_and(|rate| rate.0 == 0)) {
                let help = Some("leave the field out for no limit");
                let path = path!["spec", "resources", "io", "limits", index, name];
                self.say(path, format!("a `{name}` of 0 would stall it for ever"), help);
            }
            if !paths.insert(&limit.path) {
                let message = format!("a second limit for {}", limit.path);
                let path = path!["spec", "resources", "io", "limits", index, "path"];
                self.say(path, message, Some("put both into one"));
            }
        }
    }
}

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    bytes.len() <= MAX_LABEL_CHARS && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_word(key),
        Some((prefix, name)) => {
            let part = |part: &str| is_label_word(part) && !part.contains('_');
            prefix.len() <= 253 && prefix.split('.').all(part) && is_label_word(name)
        }
    }
}
