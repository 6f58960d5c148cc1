//! `state` and `list`: what there is.

use super::OciError;
use super::log;
use super::show::print;
use super::state::{Home, Record};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The specification's state, and beside it what other runtimes tell; in the order that they have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    /// 0 when it has ended.
    pid: i32,
    status: &'static str,
    bundle: &'a str,
    rootfs: &'a str,
    created: String,
    /// The unit that its cgroup is, as crun has it.
    #[serde(rename = "systemd-scope", skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

pub(super) fn describe<'a>(home: &Home, record: &'a Record) -> State<'a> {
    let Record { id, oci_version, bundle, rootfs, annotations, created, scope, init, .. } = record;
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(*created);
    State {
        oci_version,
        id,
        pid: init.as_ref().filter(|init| init.alive().is_some()).map_or(0, |init| init.pid),
        status: home.status(record).word(),
        bundle,
        rootfs,
        created: humantime::format_rfc3339_seconds(created).to_string(),
        scope: scope.as_deref(),
        annotations,
        owner: owner(home),
    }
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

fn unwritten(error: serde_json::Error) -> OciError {
    OciError::Io { what: "writing to standard output".to_owned(), source: error.into() }
}

pub(super) fn state(root: &Path, id: &str) -> Result<(), OciError> {
    let home = Home::of(root, id);
    let record = home.load(id)?;
    print(&format!("{}\n", serde_json::to_string_pretty(&describe(&home, &record)).map_err(unwritten)?))
}

/// Those of all containers, in order.
pub(super) fn ids(root: &Path) -> Result<Vec<String>, OciError> {
    let mut ids: Vec<String> = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(OciError::Io { what: format!("reading {}", root.display()), source }),
        Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
    };
    ids.retain(|id| !id.starts_with('.'));
    ids.sort();
    Ok(ids)
}

pub(super) fn list(root: &Path, quiet: bool, json: bool) -> Result<(), OciError> {
    let ids = ids(root)?;
    if quiet && !json {
        return print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let mut found = Vec::new();
    for id in ids {
        let home = Home::of(root, &id);
        match home.load(&id) {
            Ok(record) => found.push((home, record)),
            // Going, or not quite there yet.
            Err(OciError::NoContainer(_)) => {}
            // One that is damaged hides no other one.
            Err(error) => log::say(&format!("{id}: {error}")),
        }
    }
    let rows: Vec<State<'_>> = found.iter().map(|(home, record)| describe(home, record)).collect();
    if json {
        return print(&format!("{}\n", serde_json::to_string(&rows).map_err(unwritten)?));
    }
    print(&table(&rows))
}

fn table(rows: &[State<'_>]) -> String {
    let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    table.extend(rows.iter().map(|row| {
        [row.id, &row.pid.to_string(), row.status, row.bundle, &row.created, &row.owner].map(str::to_owned)
    }));
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0) + 2;
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.trim_end())
    };
    table.iter().map(line).collect()
}
