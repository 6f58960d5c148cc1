//! Commands that only tell: `ps`, `--version`.

use super::OciError;
use super::args::Ps;
use super::state::Home;
use serde_json::json;
use std::io::Write;
use std::path::Path;

pub(super) fn print(text: &str) -> Result<(), OciError> {
    let failed = |source| OciError::Io { what: "writing to standard output".to_owned(), source };
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}

pub(super) fn ps(root: &Path, wish: &Ps) -> Result<(), OciError> {
    let pids = Home::of(root, &wish.id).load(&wish.id)?.place().procs()?;
    if wish.json {
        return print(&format!("{}\n", json!(pids)));
    }
    let usual = ["-ef".to_owned()];
    let options: &[String] = if wish.options.is_empty() { &usual } else { &wish.options };
    // Its options and columns are that program's own.
    let table = match std::process::Command::new("ps").args(options).output() {
        Ok(table) if table.status.success() => table,
        // Who gives no options is content with less, where ps is missing or /proc lacks what it wants.
        _ if wish.options.is_empty() => return print(&plain_table(&pids)),
        Ok(table) => return Err(OciError::Start(format!("ps: {}", String::from_utf8_lossy(&table.stderr).trim()))),
        Err(source) => return Err(OciError::Io { what: "running ps".to_owned(), source }),
    };
    match of_these(&String::from_utf8_lossy(&table.stdout), &pids) {
        Some(lines) => print(&lines),
        None => Err(OciError::Start("what ps prints with these options has no column PID".to_owned())),
    }
}

fn plain_table(pids: &[u32]) -> String {
    let mut table = format!("{:>7} CMD\n", "PID");
    for pid in pids {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        // What a process calls itself is its own choice, and may be meant for a terminal.
        let words: String = words.trim_end().chars().filter(|c| !c.is_control()).collect();
        table.push_str(&format!("{pid:>7} {words}\n"));
    }
    table
}

/// The heading of a table, and the lines whose column `PID` has one of these numbers.
fn of_these(table: &str, pids: &[u32]) -> Option<String> {
    let mut lines = table.lines();
    let heading = lines.next()?;
    let column = heading.split_whitespace().position(|word| word == "PID")?;
    let is_ours = |line: &&str| {
        let number = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        number.is_some_and(|number: u32| pids.contains(&number))
    };
    Some(std::iter::once(heading).chain(lines.filter(is_ours)).map(|line| format!("{line}\n")).collect())
}

/// The lines are in the order, and have the names, that other tools know.
pub(super) fn version(name: &str) -> Result<(), OciError> {
    let version = env!("CARGO_PKG_VERSION");
    let parts = "+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF";
    print(&format!("{name} version {version}\ncommit: {version}\nspec: 1.3.0\n{parts}\n"))
}
