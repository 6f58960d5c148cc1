//! `plim check`: what this host has of what containers need.

use super::context::Context;
use super::exit::{CliError, Exit};
use super::render::{Cell, Table};
use super::screen::{Paint, Tone};
use super::yaml;
use crate::cgroup::Cgroups;
use crate::host::{ID_RANGES, Paths};
use crate::sandbox::{self, Found, Probe};
use crate::storage::ids_conflicts;
use serde::Serialize;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Check whether this host has what containers need
///
/// Each row says what there is, what is done instead where something is missing, and the remedy.
/// Exit code 1 when something is missing that nothing replaces. Needs no agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo plim check")]
pub struct Args {
    /// How to print it
    #[arg(long, short, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Something else is done instead.
    Fallback,
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    what: String,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl Row {
    fn new(what: &str, verdict: Verdict, detail: impl Into<String>, remedy: &str) -> Self {
        // What is well needs no remedy.
        let remedy = if verdict == Verdict::Ok { "" } else { remedy };
        Self { what: what.to_owned(), verdict, detail: detail.into(), remedy: remedy.to_owned() }
    }
}

pub fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let rows = rows(context);
    let text = match args.output {
        Format::Table => table(&rows, context.screen.paint),
        Format::Json => yaml::json(&rows)?,
    };
    context.screen.put(&text)?;
    let missing = rows.iter().any(|row| row.verdict == Verdict::Missing);
    Ok(if missing { Exit::Failed } else { Exit::Ok })
}

fn table(rows: &[Row], paint: Paint) -> String {
    let mut table = Table::new(&["WHAT", "", "DETAIL"]);
    for row in rows {
        let (tone, word) = match row.verdict {
            Verdict::Ok => (Tone::Good, "ok"),
            Verdict::Fallback => (Tone::Warning, "fallback"),
            Verdict::Missing => (Tone::Bad, "missing"),
        };
        table.row([Cell::from(&row.what), Cell::toned(tone, word), Cell::from(&row.detail), Cell::from(&row.remedy)]);
    }
    table.render(paint)
}

fn rows(context: &Context) -> Vec<Row> {
    let uname = nix::sys::utsname::uname();
    let release = uname.map(|uname| uname.release().to_string_lossy().into_owned()).unwrap_or_default();
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let mut rows = vec![kernel(&release), root(nix::unistd::geteuid().as_raw())];
    rows.extend(sandbox::probe(&place(context)).into_iter().map(tried));
    rows.extend(capabilities(&status));
    rows.extend(cgroups());
    rows.push(ids(context));
    rows
}

fn kernel(release: &str) -> Row {
    let mut numbers = release.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let verdict = if version >= (6, 1) { Verdict::Ok } else { Verdict::Missing };
    Row::new("kernel", verdict, format!("Linux {release}"), "Linux 6.1 or later")
}

fn root(uid: u32) -> Row {
    let verdict = if uid == 0 { Verdict::Ok } else { Verdict::Missing };
    Row::new("root", verdict, format!("user {uid}"), "run it with sudo; the rows below are of your own user")
}

/// What was tried, and what came of it.
fn tried(probe: Probe) -> Row {
    let Probe { name, found, detail, remedy } = probe;
    let verdict = match found {
        Found::Yes => Verdict::Ok,
        Found::Instead => Verdict::Fallback,
        Found::No => Verdict::Missing,
    };
    Row::new(name, verdict, detail, remedy)
}

/// The directory that is there and that the state is in or will be in.
fn place(context: &Context) -> PathBuf {
    let lib = match &context.root {
        Some(root) => root.join("lib"),
        None => PathBuf::from(STATE),
    };
    // Without a working directory there is nothing that a relative name could mean.
    let lib = std::path::absolute(&lib).unwrap_or(lib);
    lib.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Where the system's own agent keeps its state.
const STATE: &str = "/var/lib/plimsoll";

/// What this process may do, which is the most that it can give to a container.
fn capabilities(status: &str) -> Vec<Row> {
    let mask = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
    };
    let names = |missing: u64| -> Vec<&str> {
        let all = crate::spec::Capability::ALL.iter().enumerate();
        all.filter(|(number, _)| missing & (1 << number) != 0).map(|(_, name)| *name).collect()
    };
    let known = (1_u64 << crate::spec::Capability::ALL.len()) - 1;
    let row = |what: &str, missing: u64, needed: u64, remedy: &str| {
        let verdict = match (missing & known, missing & needed) {
            (0, _) => Verdict::Ok,
            (_, 0) => Verdict::Fallback,
            _ => Verdict::Missing,
        };
        let detail = match verdict {
            Verdict::Ok => "all".to_owned(),
            // One who has none of them needs no list.
            Verdict::Fallback | Verdict::Missing if missing & known == known => "none".to_owned(),
            Verdict::Fallback | Verdict::Missing => {
                let (first, others) = (names(missing & needed), names(missing & known & !needed));
                let named: Vec<&str> = first.into_iter().chain(others).collect();
                match named.len() {
                    0..=NAMED => format!("without {}", named.join(", ")),
                    count => format!("without {} and {} more", named[..NAMED].join(", "), count - NAMED),
                }
            }
        };
        Row::new(what, verdict, detail, remedy)
    };
    let needed: u64 = NEEDED
        .iter()
        .filter_map(|name| crate::spec::Capability::ALL.iter().position(|known| known == name))
        .fold(0, |mask, number| mask | 1 << number);
    vec![
        row(
            "capabilities",
            !mask("CapEff:"),
            needed,
            "what is missing can neither be used nor given to a container: run where nothing takes it away",
        ),
        row("bounding set", !mask("CapBnd:"), 0, "as above; `add` of these capabilities is refused"),
    ]
}

/// How many capabilities are named; more than that and the count says enough.
const NAMED: usize = 8;

/// Without one of these no container can be made.
const NEEDED: [&str; 8] = ["SYS_ADMIN", "CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "SETPCAP", "KILL"];

/// Ids of the host that containers get and somebody else claims.
fn ids(context: &Context) -> Row {
    let what = "ids for containers";
    // A root that is not there yet has no ids either, and a check makes no directories.
    let root = context.root.as_deref().filter(|root| root.is_dir());
    let paths = match Paths::new(root) {
        Ok(paths) => paths,
        Err(error) => return Row::new(what, Verdict::Missing, error.to_string(), "a --root that can be read"),
    };
    let conflicts = ids_conflicts(paths.id_base(), ID_RANGES);
    let remedy = "give those accounts other ids, or remove the entries in /etc/subuid and /etc/subgid";
    match conflicts.as_slice() {
        [] => Row::new(what, Verdict::Ok, format!("{ID_RANGES} ranges from {}", paths.id_base()), ""),
        conflicts => Row::new(what, Verdict::Fallback, conflicts.join("; "), remedy),
    }
}

/// The layout, and a row per hierarchy.
fn cgroups() -> Vec<Row> {
    match Cgroups::detect("/plimsoll") {
        Ok(cgroups) => {
            let text = cgroups.describe();
            let row = |(number, line): (usize, &str)| {
                Row::new(if number == 0 { "cgroups" } else { "" }, Verdict::Ok, line.trim(), "")
            };
            text.lines().enumerate().map(row).collect()
        }
        Err(error) => {
            vec![Row::new("cgroups", Verdict::Missing, error.to_string(), "mount -t cgroup2 none /sys/fs/cgroup")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_kernel_is_6_1() {
        let verdicts =
            ["5.15.0-91-generic", "6.0.12", "6.1.0-13-amd64", "6.18.44", "7.0-rc1"].map(|text| kernel(text).verdict);

        assert_eq!(verdicts, [Verdict::Missing, Verdict::Missing, Verdict::Ok, Verdict::Ok, Verdict::Ok]);
    }

    #[test]
    fn a_missing_capability_is_named() {
        let all = "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n";
        let without_resource = "CapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\n";
        let nobody = "CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n";

        assert!(capabilities(all).iter().all(|row| row.verdict == Verdict::Ok));
        let rows = capabilities(without_resource);
        assert_eq!((rows[0].verdict, rows[0].detail.as_str()), (Verdict::Fallback, "without SYS_RESOURCE"));
        assert_eq!(capabilities(nobody)[0].verdict, Verdict::Missing);
        assert_eq!(capabilities(nobody)[0].detail, "none");
        let few = capabilities("CapEff:\t00000000a80425fb\nCapBnd:\t000001ffffffffff\n");
        assert!(few[0].detail.starts_with("without SYS_ADMIN, "), "{}", few[0].detail);
        assert!(few[0].detail.ends_with(" more") && few[0].detail.len() < 160, "{}", few[0].detail);
    }

    #[test]
    fn what_is_done_instead_is_no_failure_and_has_a_remedy() {
        let probe = |found, remedy| Probe { name: "x", found, detail: "tried".to_owned(), remedy };

        let rows = [(Found::Yes, ""), (Found::Instead, "newer"), (Found::No, "other")]
            .map(|(found, remedy)| tried(probe(found, remedy)));

        let verdicts = rows.each_ref().map(|row| row.verdict);
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Fallback, Verdict::Missing]);
        assert_eq!(rows.map(|row| row.remedy), ["", "newer", "other"]);
    }
}
