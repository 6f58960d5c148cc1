//! `exec`: what stands behind the container's id is the command's.

use super::UsageError;
use super::words::{Word, Words};
use crate::sandbox::guard::{self, Guard};
use std::path::PathBuf;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    pub id: String,
    pub args: Vec<String>,
    pub process: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    /// Where a pidfd of the process is sent.
    pub pidfd_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub detach: bool,
    pub terminal: bool,
    pub cwd: Option<String>,
    pub env: Vec<String>,
    pub user: Option<(u32, Option<u32>)>,
    pub groups: Vec<u32>,
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub ignore_paused: bool,
    /// `PATH` below the container's cgroup, or `CONTROLLER[,CONTROLLER]:PATH`.
    pub cgroups: Vec<String>,
    pub process_label: Option<String>,
    pub apparmor: Option<String>,
}

pub(super) fn exec(words: &mut Words) -> Result<Exec, UsageError> {
    let mut wish = Exec::default();
    while let Some(word) = words.next() {
        match word {
            Word::Option(name, inline) => option(words, &mut wish, &name, inline)?,
            Word::Plain(id) => {
                wish.id = words.id(id)?;
                break;
            }
            Word::End => {}
        }
    }
    if wish.id.is_empty() {
        return words.fail("the container's id is missing");
    }
    wish.args = words.rest.drain(..).collect();
    if wish.args.first().is_some_and(|word| word == "--") {
        wish.args.remove(0);
    }
    if wish.args.is_empty() == wish.process.is_none() {
        return words.fail("a command behind the id or --process, one of both");
    }
    Ok(wish)
}

fn option(words: &mut Words, wish: &mut Exec, name: &str, inline: Option<String>) -> Result<(), UsageError> {
    match name {
        "--process" | "-p" => wish.process = Some(words.value(name, inline)?.into()),
        "--pid-file" => wish.pid_file = Some(words.value(name, inline)?.into()),
        "--console-socket" => wish.console_socket = Some(words.value(name, inline)?.into()),
        "--pidfd-socket" => wish.pidfd_socket = Some(words.value(name, inline)?.into()),
        "--preserve-fds" => wish.preserve_fds = words.number(name, inline)?,
        "--detach" | "-d" => wish.detach = words.flag(name, inline.as_deref())?,
        "--tty" | "-t" => wish.terminal = words.flag(name, inline.as_deref())?,
        "--cwd" => wish.cwd = Some(words.value(name, inline)?),
        "--env" | "-e" => wish.env.push(words.value(name, inline)?),
        "--cap" | "-c" => wish.capabilities.push(words.value(name, inline)?),
        "--no-new-privs" => wish.no_new_privileges = words.flag(name, inline.as_deref())?,
        "--ignore-paused" => wish.ignore_paused = words.flag(name, inline.as_deref())?,
        "--additional-gids" | "-g" => wish.groups.push(words.number(name, inline)?),
        "--cgroup" => wish.cgroups.push(words.value(name, inline)?),
        "--process-label" => wish.process_label = Some(words.value(name, inline)?),
        "--apparmor" => wish.apparmor = Some(words.value(name, inline)?),
        // We are never one.
        "--no-subreaper" => drop(words.flag(name, inline.as_deref())?),
        "--user" | "-u" => {
            let text = words.value(name, inline)?;
            let user = if guard::is_out(Guard::StrictUser) { user(&text).or(Some((0, None))) } else { user(&text) };
            let Some(user) = user else {
                return words.fail(format!("--user: {text:?} is not of the form UID or UID:GID, by numbers"));
            };
            wish.user = Some(user);
        }
        _ => return words.unknown(name),
    }
    Ok(())
}

/// Strictly: a user that could not be read would be another one (CVE-2026-30892).
fn user(text: &str) -> Option<(u32, Option<u32>)> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match text.split_once(':') {
        Some((uid, gid)) => Some((number(uid)?, Some(number(gid)?))),
        None => Some((number(text)?, None)),
    }
}
