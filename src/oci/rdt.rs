//! Shares of cache and memory bandwidth: a group of the resctrl file system
//! (Documentation/filesystems/resctrl.rst).

use super::config::{IntelRdt, Invalid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A container's group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Where the whole file system is.
    root: PathBuf,
    path: PathBuf,
    /// A group in it in which only what the container uses is counted.
    monitor: Option<PathBuf>,
    /// The directories that were made for the container, the outer ones first.
    made: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum RdtError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("linux.intelRdt: {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RdtError {
    let path = path.to_owned();
    move |source| RdtError::Io { what, path, source }
}

/// Where the host has it; refused where it is asked for and is not there.
pub(super) fn root(mounts: &str) -> Result<PathBuf, Invalid> {
    let is_it = |line: &&str| line.split_once(" - ").is_some_and(|(_, right)| right.starts_with("resctrl "));
    let found = mounts.lines().find(is_it).and_then(|line| line.split(' ').nth(4));
    let what = "the host has no resctrl file system: mount -t resctrl resctrl /sys/fs/resctrl, where its processor can";
    found.map(PathBuf::from).ok_or_else(|| Invalid::new("linux.intelRdt", what))
}

/// The lines that are to stand in the group's `schemata`.
fn lines(rdt: &IntelRdt) -> Vec<&str> {
    let IntelRdt { clos_id: _, l3_cache_schema, mem_bw_schema, schemata, enable_monitoring: _ } = rdt;
    let texts = [l3_cache_schema, mem_bw_schema].into_iter().filter_map(Option::as_deref);
    let lines = texts.flat_map(str::lines).chain(schemata.iter().flat_map(|text| text.lines()));
    lines.map(str::trim).filter(|line| !line.is_empty()).collect()
}

impl Group {
    /// Finds or makes the group. On failure what was made is gone again.
    pub(super) fn make(root: &Path, rdt: &IntelRdt, id: &str) -> Result<Self, RdtError> {
        let name = rdt.clos_id.as_deref().filter(|name| !name.is_empty());
        let invalid = |what: String| Invalid::new("linux.intelRdt.closID", what);
        if name.is_some_and(|name| {
            name.contains(['/', '\0', '\n']) || matches!(name, "." | ".." | "info" | "mon_groups" | "mon_data")
        }) {
            return Err(invalid(format!("{:?} is not the name of a group", name.unwrap_or_default())).into());
        }
        let path = root.join(name.unwrap_or(id));
        let mut group = Self { root: root.to_owned(), path, monitor: None, made: Vec::new() };
        let result = group.fill(rdt, name, id);
        if result.is_err() {
            // The first error is the one to tell.
            let _ = group.remove();
        }
        result.map(|()| group)
    }

    fn fill(&mut self, rdt: &IntelRdt, name: Option<&str>, id: &str) -> Result<(), RdtError> {
        let lines = lines(rdt);
        match std::fs::create_dir(&self.path) {
            Ok(()) => {
                self.made.push(self.path.clone());
                if name.is_some() && lines.is_empty() {
                    let what =
                        format!("there is no group {:?}, and nothing says how to make one", name.unwrap_or_default());
                    return Err(Invalid::new("linux.intelRdt.closID", what).into());
                }
                self.write(&lines)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && name.is_some() => self.compare(&lines)?,
            Err(error) => return Err(failed("making", &self.path)(error)),
        }
        if rdt.enable_monitoring {
            let monitor = self.path.join("mon_groups").join(id);
            std::fs::create_dir(&monitor).map_err(failed("making", &monitor))?;
            self.made.push(monitor.clone());
            self.monitor = Some(monitor);
        }
        Ok(())
    }

    /// A group of somebody's is used as it is, and has to be what is asked for.
    fn compare(&self, lines: &[&str]) -> Result<(), RdtError> {
        let file = self.path.join("schemata");
        let now = std::fs::read_to_string(&file).map_err(failed("reading", &file))?;
        let plain = |line: &str| line.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
        let has: Vec<String> = now.lines().map(plain).collect();
        match lines.iter().find(|line| !has.contains(&plain(line))) {
            None => Ok(()),
            Some(line) => {
                let what = format!("the group exists and says something else than {line:?}");
                Err(Invalid::new("linux.intelRdt.closID", what).into())
            }
        }
    }

    /// New shares.
    pub(super) fn write(&self, lines: &[&str]) -> Result<(), RdtError> {
        let file = self.path.join("schemata");
        for line in lines {
            put(&file, line).map_err(failed("writing", &file))?;
        }
        Ok(())
    }

    /// Puts the calling process into the group, so that it clones its child there: a task is born into
    /// the group of the one that makes it.
    pub(super) fn enter(&self) -> Result<(), RdtError> {
        for group in [Some(&self.path), self.monitor.as_ref()].into_iter().flatten() {
            let file = group.join("tasks");
            put(&file, &std::process::id().to_string()).map_err(failed("entering", &file))?;
        }
        Ok(())
    }

    /// Puts the calling process where everybody is.
    pub(super) fn leave(&self) -> Result<(), RdtError> {
        let file = self.root.join("tasks");
        put(&file, &std::process::id().to_string()).map_err(failed("entering", &file))
    }

    /// What the group has and uses, under the names that runc has for it. What the host does not know is
    /// left out.
    pub(super) fn statistics(&self) -> Value {
        let text = |path: PathBuf| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let number = |path: PathBuf| text(path).and_then(|text| text.parse::<u64>().ok());
        let line = |of: &Path, resource: &str| {
            let text = text(of.join("schemata"))?;
            text.lines().map(str::trim).find(|line| line.starts_with(resource)).map(str::to_owned)
        };
        let info = |resource: &str, strings: &[&str], numbers: &[&str]| {
            let directory = self.root.join("info").join(resource);
            let strings =
                strings.iter().filter_map(|name| Some(((*name).to_owned(), text(directory.join(name))?.into())));
            let numbers =
                numbers.iter().filter_map(|name| Some(((*name).to_owned(), number(directory.join(name))?.into())));
            let members: Map<String, Value> = strings.chain(numbers).collect();
            (!members.is_empty()).then_some(Value::Object(members))
        };
        let counted = self.monitor.as_ref().unwrap_or(&self.path).join("mon_data");
        let mut domains: Vec<PathBuf> =
            std::fs::read_dir(counted).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        domains.sort();
        let counters = |names: &[&str]| {
            let of = |domain: &PathBuf| {
                let numbers =
                    names.iter().filter_map(|name| Some(((*name).to_owned(), number(domain.join(name))?.into())));
                let members: Map<String, Value> = numbers.collect();
                (!members.is_empty()).then_some(Value::Object(members))
            };
            let found: Vec<Value> = domains.iter().filter_map(of).collect();
            (!found.is_empty()).then_some(Value::Array(found))
        };
        let members = [
            ("l3_cache_info", info("L3", &["cbm_mask"], &["min_cbm_bits", "num_closids"])),
            ("l3_cache_schema_root", line(&self.root, "L3:").map(Value::from)),
            ("l3_cache_schema", line(&self.path, "L3:").map(Value::from)),
            ("mem_bw_info", info("MB", &[], &["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"])),
            ("mem_bw_schema_root", line(&self.root, "MB:").map(Value::from)),
            ("mem_bw_schema", line(&self.path, "MB:").map(Value::from)),
            ("mbm_stats", counters(&["mbm_total_bytes", "mbm_local_bytes"])),
            ("cmt_stats", counters(&["llc_occupancy"])),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
    }

    pub(super) fn remove(&self) -> Result<(), RdtError> {
        for path in self.made.iter().rev() {
            match std::fs::remove_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing", path)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn put(file: &Path, line: &str) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(file)?.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A directory that looks like the file system, with one group in it.
    fn host() -> TempDir {
        let dir = TempDir::new().unwrap();
        for path in ["", "gold"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.join("mon_groups")).unwrap();
            std::fs::write(path.join("schemata"), "    L3:0=ff;1=f0\n    MB:0=70\n").unwrap();
            std::fs::write(path.join("tasks"), "").unwrap();
        }
        dir
    }

    fn rdt(name: &str, schema: &str) -> IntelRdt {
        IntelRdt { clos_id: Some(name.to_owned()), l3_cache_schema: Some(schema.to_owned()), ..IntelRdt::default() }
    }

    #[test]
    fn it_is_found_among_the_mounts_and_else_refused() {
        let line = "30 22 0:25 / /sys/fs/resctrl rw,relatime shared:5 - resctrl resctrl rw\n";

        assert_eq!(root(line), Ok(PathBuf::from("/sys/fs/resctrl")));
        assert!(
            root("22 1 0:5 / / rw - ext4 /dev/a rw\n").unwrap_err().to_string().starts_with("linux.intelRdt: the host")
        );
    }

    #[test]
    fn a_group_of_somebodys_is_entered_and_stays() {
        let host = host();
        let group = Group::make(host.path(), &rdt("gold", "L3:0=ff;1=F0"), "web").unwrap();

        group.enter().unwrap();

        let tasks = std::fs::read_to_string(host.path().join("gold/tasks")).unwrap();
        assert_eq!(tasks.trim(), std::process::id().to_string());
        group.remove().unwrap();
        assert!(host.path().join("gold").exists());
    }

    #[test]
    fn a_group_that_says_something_else_is_refused() {
        let host = host();

        let error = Group::make(host.path(), &rdt("gold", "L3:0=1"), "web").unwrap_err();

        assert!(
            error.to_string().contains("linux.intelRdt.closID: the group exists and says something else"),
            "{error}"
        );
        assert!(host.path().join("gold").exists());
    }

    #[test]
    fn a_group_that_cannot_be_filled_is_gone_again() {
        let host = host();

        // In a plain directory there is no file to be filled.
        let error = Group::make(host.path(), &rdt("silver", "L3:0=1"), "web").unwrap_err();
        assert!(error.to_string().contains("writing"), "{error}");
        assert!(!host.path().join("silver").exists());

        let error = Group::make(host.path(), &rdt("silver", ""), "web").unwrap_err();
        assert!(error.to_string().contains("there is no group \"silver\""), "{error}");
        assert!(!host.path().join("silver").exists());
    }

    #[test]
    fn what_is_counted_is_counted_in_a_group_of_its_own() {
        let host = host();
        let wish = IntelRdt { enable_monitoring: true, ..rdt("gold", "") };

        let group = Group::make(host.path(), &wish, "web").unwrap();
        assert!(host.path().join("gold/mon_groups/web").exists());
        group.remove().unwrap();
        assert!(!host.path().join("gold/mon_groups/web").exists());
    }

    #[test]
    fn figures_are_those_of_the_containers_own_group() {
        let host = host();
        let wish = IntelRdt { enable_monitoring: true, ..rdt("gold", "") };
        let group = Group::make(host.path(), &wish, "web").unwrap();
        let domain = host.path().join("gold/mon_groups/web/mon_data/mon_L3_00");
        let info = host.path().join("info/L3");
        for (directory, file, text) in [
            (&domain, "llc_occupancy", "4096\n"),
            (&domain, "mbm_total_bytes", "7\n"),
            (&domain, "mbm_local_bytes", "Unavailable\n"),
            (&info, "cbm_mask", "ff\n"),
            (&info, "num_closids", "16\n"),
        ] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join(file), text).unwrap();
        }

        let expected = serde_json::json!({
            "l3_cache_info": {"cbm_mask": "ff", "num_closids": 16},
            "l3_cache_schema_root": "L3:0=ff;1=f0", "l3_cache_schema": "L3:0=ff;1=f0",
            "mem_bw_schema_root": "MB:0=70", "mem_bw_schema": "MB:0=70",
            "mbm_stats": [{"mbm_total_bytes": 7}], "cmt_stats": [{"llc_occupancy": 4096}],
        });
        assert_eq!(group.statistics(), expected);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let host = host();
        for name in ["..", "a/b", "info"] {
            assert!(Group::make(host.path(), &rdt(name, "L3:0=1"), "web").is_err(), "{name}");
        }
    }
}
