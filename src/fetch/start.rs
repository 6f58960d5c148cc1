//! The agent's side: one process for one fetch, with an end to its time and to its answer.

use super::VERB;
use super::order::{Answer, Order};
use super::privileges::fetcher;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid, chown};
use std::fs::{self, DirBuilder};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{operation} {}", path.display())]
    Directory {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("starting the process that fetches")]
    Start(#[source] io::Error),
    #[error("it took longer than {}s, and was ended", .0.as_secs())]
    Timeout(Duration),
    #[error("the process that fetches {how}{said}")]
    Ended { how: String, said: String },
}

/// What one fetch needs beside its order.
#[derive(Debug, Clone)]
pub struct Fetching {
    /// Holds the copy of the repository. Belongs to whoever fetches.
    pub directory: PathBuf,
    /// The certificates that a server may prove itself by; the host's when not given.
    pub certificates: Option<String>,
    pub timeout: Duration,
}

/// What a process writes about its own end is not longer.
const MAX_WORDS: u64 = 16 << 10;
/// Where programs are found that git's transports are: `ssh`, `git-upload-pack`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a host's administrator says for every program that uses the network.
const PROXIES: [&str; 8] =
    ["http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Fetches once; blocks until it is over.
///
/// # Errors
/// When the process could not do its work. What the server did wrong is in the answer.
pub fn fetch(fetching: &Fetching, order: &Order) -> Result<Answer, FetchError> {
    prepare(fetching)?;
    let directory = &fetching.directory;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("plim").arg(VERB).current_dir(directory).env_clear();
    command.env("PATH", PATH).env("LANG", "C.UTF-8").env("HOME", directory);
    command.envs(PROXIES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    if fetching.certificates.is_some() {
        command.env("SSL_CERT_FILE", directory.join("certificates.pem"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(FetchError::Start)?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = streams else { unreachable!("all three are piped") };
    // Its programs are in its group: the number is not given to others while the child is not waited for.
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));

    let text = serde_json::to_vec(order).map_err(|error| FetchError::Start(error.into()))?;
    let written = std::thread::spawn(move || stdin.write_all(&text));
    let words = std::thread::spawn(move || {
        let mut words = Vec::new();
        // What was read until an error is what there is to say.
        let _ = stderr.take(MAX_WORDS).read_to_end(&mut words);
        String::from_utf8_lossy(&words).trim().to_owned()
    });
    let (heard, answer) = mpsc::channel();
    std::thread::spawn(move || heard.send(Answer::read(BufReader::new(stdout))));
    let answer = answer.recv_timeout(fetching.timeout);
    // Also after an answer: nothing of it goes on. An error says that there is nothing left to kill.
    let _ = killpg(group, Signal::SIGKILL);
    let status = child.wait().map_err(FetchError::Start)?;
    let said = words.join().unwrap_or_default();
    // An order that was not read whole shows in the answer.
    drop(written.join());
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let how = match status.signal() {
                Some(signal) if signal != libc::SIGKILL => format!("was ended by signal {signal}"),
                _ => format!("gave no answer: {error}"),
            };
            let said = said.lines().last().map_or_else(String::new, |line| format!(": {line}"));
            Err(FetchError::Ended { how, said })
        }
        Err(_) => Err(FetchError::Timeout(fetching.timeout)),
    }
}

/// Makes the directory that whoever fetches writes to, and puts down what is no secret.
fn prepare(fetching: &Fetching) -> Result<(), FetchError> {
    let directory = &fetching.directory;
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Directory { operation, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("making", directory))?;
    let (uid, gid) = fetcher();
    let own = |path: &Path| chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(io::Error::from);
    if Uid::effective().is_root() {
        own(directory).map_err(failed("handing over", directory))?;
    }
    // git's own programs are asked about repositories of other users: that is what a `file:` URL names.
    let mut files = vec![(".gitconfig", "[safe]\n\tdirectory = *\n")];
    files.extend(fetching.certificates.as_deref().map(|text| ("certificates.pem", text)));
    for (name, text) in files {
        let path = directory.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        // Not written through what stands there: the directory is not ours alone.
        let new = directory.join(format!("{name}.new"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing", &new)(error)),
            _ => {}
        }
        let made = fs::OpenOptions::new().write(true).create_new(true).open(&new);
        made.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed("writing", &new))?;
        fs::rename(&new, &path).map_err(failed("writing", &path))?;
    }
    Ok(())
}
