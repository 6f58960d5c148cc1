//! Commands that only tell: `state`, `list`, `ps`, `--version`.

use super::OciError;
use super::args::Ps;
use super::state::{Home, Record, Status};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub(super) fn print(text: &str) -> Result<(), OciError> {
    let failed = |source| OciError::Io { what: "writing to standard output".to_owned(), source };
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}

fn pretty(value: &serde_json::Value) -> Result<(), OciError> {
    print(&format!("{value:#}\n"))
}

fn created(record: &Record) -> String {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(record.created)).to_string()
}

/// The specification's state; a process that has ended has no number any more.
fn describe(home: &Home, record: &Record) -> serde_json::Value {
    let pid = record.init.as_ref().filter(|init| init.alive().is_some()).map_or(0, |init| init.pid);
    described(record, home.status(record), pid)
}

pub(super) fn described(record: &Record, status: Status, pid: i32) -> serde_json::Value {
    json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": status.word(),
        "pid": pid,
        "bundle": record.bundle,
        "created": created(record),
        "annotations": record.annotations,
    })
}

/// The user that the container's directory belongs to, by name where `passwd` is of a plain file.
fn owner(home: &Home) -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(uid) = std::fs::metadata(&home.path).map(|metadata| metadata.uid().to_string()) else {
        return String::new();
    };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

pub(super) fn state(root: &Path, id: &str) -> Result<(), OciError> {
    let home = Home::of(root, id);
    pretty(&describe(&home, &home.load(id)?))
}

pub(super) fn list(root: &Path, quiet: bool, json: bool) -> Result<(), OciError> {
    let mut ids: Vec<String> = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(OciError::Io { what: format!("reading {}", root.display()), source }),
        Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
    };
    ids.retain(|id| !id.starts_with('.'));
    ids.sort();
    let mut rows = Vec::new();
    for id in ids {
        let home = Home::of(root, &id);
        match home.load(&id) {
            Ok(record) => {
                let mut row = describe(&home, &record);
                row["owner"] = owner(&home).into();
                rows.push(row);
            }
            // Going, or not quite there yet.
            Err(OciError::NoContainer(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if json {
        return pretty(&serde_json::Value::Array(rows));
    }
    let text = |row: &serde_json::Value, field: &str| match &row[field] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if quiet {
        return print(&rows.iter().map(|row| text(row, "id") + "\n").collect::<String>());
    }
    let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    table.extend(
        rows.iter().map(|row| ["id", "pid", "status", "bundle", "created", "owner"].map(|field| text(row, field))),
    );
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0) + 2;
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut lines = String::new();
    for row in &table {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        lines.push_str(cells.collect::<String>().trim_end());
        lines.push('\n');
    }
    print(&lines)
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
    print(&format!("{name} version {version}\ncommit: {version}\nspec: 1.3.0\n"))
}
