//! Which files hold what a container wrote.

use super::machine::{Machine, MachineError};
use super::{chain, note::InstanceNote};
use crate::spec::InstanceId;
use std::path::{Path, PathBuf};

impl Machine {
    /// The log files of the present or the previous run, oldest first; none when there was no such
    /// run.
    pub fn log_files(&self, instance: &InstanceId, previous: bool) -> Result<Vec<PathBuf>, String> {
        self.try_log_files(instance, previous).map_err(|error| chain(&error))
    }

    fn try_log_files(&self, instance: &InstanceId, previous: bool) -> Result<Vec<PathBuf>, MachineError> {
        let Some(note) = InstanceNote::read(&self.storage.run_dir(instance))? else { return Ok(Vec::new()) };
        let present = note.output.log.path;
        let run = present.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        let file = match (previous, run) {
            (false, _) => present,
            (true, Some(run)) if run > 1 => self.storage.log_path(instance, run - 1),
            (true, _) => return Ok(Vec::new()),
        };
        Ok(turned_over(&file))
    }
}

/// `run.log.2`, `run.log.1`, `run.log`, as far as they are there.
fn turned_over(file: &Path) -> Vec<PathBuf> {
    let older = |number: u32| {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let mut files: Vec<PathBuf> = (1..).map(older).take_while(|file| file.exists()).collect();
    files.reverse();
    if file.exists() {
        files.push(file.to_path_buf());
    }
    files
}
