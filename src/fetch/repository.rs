//! One fetch: from a reference on a server to the files of one commit.

use super::allowed::AllowedSigners;
use super::order::{Answer, Order, Reference, Refusal, Verify};
use super::{signed, tree};
use crate::host::chain;
use crate::source::{Commit, Revision};
use crate::spec::Timestamp;
use gix::bstr::{BStr, ByteSlice as _};
use gix::progress::Discard;
use gix::remote::Direction;
use gix::remote::fetch::{Shallow, Tags, refmap};
use gix::{ObjectId, Repository};
use std::fs;
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// The copy of the repository, in the process's own directory.
const COPY: &str = "repository.git";
/// Is there while the copy is being changed: what finds it there makes a new copy.
const CHANGING: &str = "changing";
/// What ssh has to say: git's protocol has its standard output.
const SSH_LOG: &str = "ssh.log";
/// Where the copy remembers what it fetched last.
const OURS: &str = "refs/plimsoll/fetched";
/// More packs than this are made one, by fetching anew.
const MAX_PACKS: usize = 64;
/// More commits than this between two revisions are not walked.
const MAX_WALK: usize = 100_000;

/// Why there is no revision.
enum Trouble {
    Failed(String),
    Refused { commit: ObjectId, why: Refusal, reason: String },
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Says what the operation was, with all of the error's causes.
fn failed<'a>(operation: &'a str) -> impl Fn(gix::Error) -> String + 'a {
    move |error| format!("{operation}: {}", chain(&error))
}

/// Fetches what is asked for. Nobody else writes to the directory, which is the process's current one where ssh
/// is used.
pub(super) fn fetch(order: &Order, directory: &Path) -> Answer {
    match fetched(order, directory) {
        Ok(None) => Answer::Unchanged,
        Ok(Some(revision)) => Answer::Revision(Box::new(revision)),
        Err(Trouble::Refused { commit, why, reason }) => Answer::Refused { commit: commit.to_string(), why, reason },
        Err(Trouble::Failed(reason)) => Answer::Failed { reason: format!("{reason}{}", said_by_ssh(directory)) },
    }
}

/// The last line that ssh wrote, which says more than that it has gone.
fn said_by_ssh(directory: &Path) -> String {
    let text = fs::read(directory.join(SSH_LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map_or_else(String::new, |line| format!("; ssh: {line}"))
}

fn fetched(order: &Order, directory: &Path) -> Result<Option<Revision>, Trouble> {
    let allowed = order.verify.as_ref().map(|Verify { allowed_signers, every: _ }| {
        AllowedSigners::parse(allowed_signers).map_err(|error| format!("the allowed signers: {error}"))
    });
    let allowed = allowed.transpose()?;
    let ssh = write_ssh_files(order, directory)?;
    let repository = open(directory, &ssh)?;
    let reference = match &order.reference {
        Reference::Semver(range) => Reference::Tag(highest_tag(&repository, order, range)?),
        other => other.clone(),
    };
    let (source, pinned) = match &reference {
        Reference::Head => ("HEAD".to_owned(), None),
        Reference::Branch(name) => (format!("refs/heads/{name}"), None),
        Reference::Tag(name) => (format!("refs/tags/{name}"), None),
        Reference::Commit(id) => (id.clone(), Some(id.clone())),
        Reference::Semver(_) => unreachable!("was made a tag above"),
    };
    if pinned.is_some() && pinned == order.after {
        return Ok(None);
    }
    let Some((target, commit)) = receive(&repository, order, &source, &reference, &directory.join(CHANGING))? else {
        return Ok(None);
    };
    let refuse = |why, reason| Trouble::Refused { commit, why, reason };

    let before = order.after.as_deref().and_then(|id| ObjectId::from_hex(id.as_bytes()).ok());
    let moves_on = matches!(reference, Reference::Head | Reference::Branch(_));
    if let Some(before) = before.filter(|_| moves_on && order.accepted.as_deref() != Some(&commit.to_string()))
        && !comes_after(&repository, commit, before)?
    {
        let (now, before) = (commit.to_hex_with_len(12), before.to_hex_with_len(12));
        let reason = format!("the history was rewritten: {now} does not come after {before}, which is in use");
        return Err(refuse(Refusal::Rewritten, reason));
    }
    let mut signer = None;
    if let (Some(allowed), Some(verify)) = (&allowed, &order.verify) {
        let is_tag = matches!(reference, Reference::Tag(_)) && target != commit;
        let verified = match is_tag.then(|| signed::tag(&repository, target, allowed)) {
            Some(Ok(who)) => Ok(who),
            // A tag without a signature says no more than the commit does.
            Some(Err(_)) | None => signed::commit(&repository, commit, allowed),
        };
        signer = Some(verified.map_err(|reason| refuse(Refusal::Signature, reason))?);
        if let Some(before) = before.filter(|_| verify.every) {
            for id in between(&repository, commit, before)? {
                signed::commit(&repository, id, allowed).map_err(|reason| refuse(Refusal::Signature, reason))?;
            }
        }
    }
    let about = about(&repository, commit, signer)?;
    let tree = repository.find_commit(commit).and_then(|commit| Ok(commit.tree_id()?.detach()));
    let tree = tree.map_err(failed("reading the commit"))?;
    let manifests = tree::read(&repository, tree, &order.path).map_err(|reason| refuse(Refusal::Content, reason))?;
    Ok(Some(Revision { about, files: manifests.files, ignored: manifests.ignored }))
}

/// The copy; a new one where there is none, or none that is whole.
fn open(directory: &Path, ssh: &str) -> Result<Repository, String> {
    let (copy, changing) = (directory.join(COPY), directory.join(CHANGING));
    let packs = fs::read_dir(copy.join("objects/pack")).map_or(0, |found| {
        found.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|end| end == "pack")).count()
    });
    let options = || gix::open::Options::isolated().config_overrides([format!("core.sshCommand={ssh}")]);
    if !changing.exists()
        && packs <= MAX_PACKS
        && let Ok(repository) = gix::open_opts(&copy, options())
    {
        return Ok(repository);
    }
    make_room(&copy, &changing)?;
    gix::ThreadSafeRepository::init(&copy, gix::create::Kind::Bare, gix::create::Options::default())
        .map_err(failed("making the copy of the repository"))?;
    gix::open_opts(&copy, options()).map_err(failed("opening the copy of the repository"))
}

fn make_room(copy: &Path, changing: &Path) -> Result<(), String> {
    is_gone(fs::remove_dir_all(copy))
        .and_then(|()| is_gone(fs::remove_file(changing)))
        .map_err(|error| format!("removing the old copy of the repository: {error}"))
}

fn is_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts down what `ssh` reads from files, and comes back with how it is called.
fn write_ssh_files(order: &Order, directory: &Path) -> Result<String, String> {
    is_gone(fs::remove_file(directory.join(SSH_LOG))).map_err(|error| format!("removing {SSH_LOG}: {error}"))?;
    let common = format!("ssh -F none -E {SSH_LOG} -o BatchMode=yes -o ConnectTimeout=20");
    let Some(ssh) = &order.ssh else { return Ok(common) };
    for (name, text) in [("key", &ssh.key), ("known_hosts", &ssh.known_hosts)] {
        let written =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(directory.join(name));
        let written = written.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // A private key without its last line break is none to ssh.
            if text.ends_with('\n') { Ok(()) } else { file.write_all(b"\n") }
        });
        written.map_err(|error| format!("writing {name} for ssh: {error}"))?;
    }
    // No configuration of the host's, no agent, no question, no host that is not known.
    Ok(format!(
        "{common} -i key -o IdentitiesOnly=yes -o UserKnownHostsFile=known_hosts -o GlobalKnownHostsFile=none \
         -o StrictHostKeyChecking=yes"
    ))
}

type Connection<'a, 'b> =
    gix::remote::Connection<'a, 'b, 'b, Box<dyn gix::protocol::transport::client::blocking_io::Transport + Send>>;

/// Talks to the server with what was given to log in, which goes to no other host than the one of the URL.
fn with_login<'a, 'b>(connection: Connection<'a, 'b>, order: &Order) -> Connection<'a, 'b> {
    let login = order.login.clone();
    let own_host = gix::Url::from_bytes(BStr::new(order.url.as_str())).ok().and_then(|url| authority(&url));
    connection.with_credentials(move |action| {
        use gix::credentials::helper::{Action, NextAction};
        let Action::Get(context) = action else { return Ok(None) };
        let asking = context.url.as_ref().and_then(|url| gix::Url::from_bytes(BStr::new(url.as_slice())).ok());
        let is_own = asking.as_ref().and_then(authority) == own_host;
        Ok(login.as_ref().filter(|_| is_own).map(|login| gix::credentials::protocol::Outcome {
            identity: gix::sec::identity::Account {
                username: login.username.clone(),
                password: login.password.clone(),
                oauth_refresh_token: None,
            },
            next: NextAction::from(context.clone()),
        }))
    })
}

fn authority(url: &gix::Url) -> Option<(String, String, Option<u16>)> {
    Some((url.scheme.as_str().to_owned(), url.host()?.to_owned(), url.port_or_default()))
}

/// Fetches `source`, if it is not the commit that is used already. Comes back with what it names and the commit
/// that this leads to.
fn receive(
    repository: &Repository,
    order: &Order,
    source: &str,
    reference: &Reference,
    changing: &Path,
) -> Result<Option<(ObjectId, ObjectId)>, Trouble> {
    let connect = || format!("talking to {}", order.url);
    let remote = remote(repository, order, &format!("+{source}:{OURS}"))?;
    let connection = remote.connect(Direction::Fetch).map_err(failed(&connect()))?;
    let prepared =
        with_login(connection, order).prepare_fetch(Discard, Default::default()).map_err(failed(&connect()))?;
    let found = prepared.ref_map().mappings.iter().find_map(|mapping| {
        let target = mapping.remote.as_id()?.to_owned();
        Some((target, mapping.remote.peeled_id().map_or(target, ToOwned::to_owned)))
    });
    let Some((target, commit)) = found else {
        return Err(Trouble::Failed(format!("{} has no {reference}", order.url)));
    };
    if order.after.as_deref() == Some(&commit.to_string()) {
        return Ok(None);
    }
    fs::write(changing, "").map_err(|error| format!("writing {}: {error}", changing.display()))?;
    let has = |id: &str| ObjectId::from_hex(id.as_bytes()).is_ok_and(|id| repository.has_object(id));
    let is_new = repository.refs.find(OURS).is_err();
    // With something to come after, the whole history: it is not known how far away that is.
    let shallow = match &order.after {
        None if is_new => Shallow::DepthAtRemote(NonZeroU32::MIN),
        Some(after) if !is_new && !has(after) => Shallow::undo(),
        None | Some(_) => Shallow::NoChange,
    };
    prepared
        .with_shallow(shallow)
        .receive(Discard, &AtomicBool::new(false))
        .map_err(failed(&format!("fetching from {}", order.url)))?;
    let object = repository.find_object(target).map_err(failed("reading what was fetched"))?;
    let commit = object.peel_to_kind(gix::object::Kind::Commit).map_err(failed("reading what was fetched"))?.id;
    fs::remove_file(changing).map_err(|error| format!("removing {}: {error}", changing.display()))?;
    Ok(Some((target, commit)))
}

/// The server, asked for this refspec and nothing beside it.
fn remote<'a>(repository: &'a Repository, order: &Order, spec: &str) -> Result<gix::Remote<'a>, String> {
    let remote = repository.remote_at(order.url.as_str()).map_err(failed("reading the URL"))?;
    let remote = remote.with_fetch_tags(Tags::None).with_refspecs([spec], Direction::Fetch);
    remote.map_err(failed("the reference"))
}

/// The tag of the highest version in the range.
fn highest_tag(repository: &Repository, order: &Order, range: &semver::VersionReq) -> Result<String, Trouble> {
    let connect = || format!("talking to {}", order.url);
    let remote = remote(repository, order, "+refs/tags/*:refs/tags/*")?;
    let connection = remote.connect(Direction::Fetch).map_err(failed(&connect()))?;
    let (map, _) = with_login(connection, order).ref_map(Discard, Default::default()).map_err(failed(&connect()))?;
    let version = |source: &refmap::Source| {
        let name = source.as_name()?.strip_prefix(b"refs/tags/")?.to_str().ok()?.to_owned();
        let version = semver::Version::parse(name.strip_prefix('v').unwrap_or(&name)).ok()?;
        range.matches(&version).then_some((version, name))
    };
    let highest = map.mappings.iter().filter_map(|mapping| version(&mapping.remote)).max();
    let (_, name) = highest.ok_or_else(|| format!("{} has no tag in the range {range}", order.url))?;
    Ok(name)
}

/// Whether `before` is in the history of `commit`.
fn comes_after(repository: &Repository, commit: ObjectId, before: ObjectId) -> Result<bool, String> {
    if commit == before {
        return Ok(true);
    }
    let walk = repository.rev_walk([commit]).all().map_err(failed("reading the history"))?;
    for found in walk.take(MAX_WALK) {
        if found.map_err(failed("reading the history"))?.id == before {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The commits that came with `commit` since `before`.
fn between(repository: &Repository, commit: ObjectId, before: ObjectId) -> Result<Vec<ObjectId>, String> {
    let walk = repository.rev_walk([commit]).with_hidden([before]).all().map_err(failed("reading the history"))?;
    walk.take(MAX_WALK).map(|found| Ok(found.map_err(failed("reading the history"))?.id)).collect()
}

fn about(repository: &Repository, id: ObjectId, signer: Option<String>) -> Result<Commit, String> {
    let commit = repository.find_commit(id).map_err(failed("reading the commit"))?;
    let text = |text: &BStr| text.to_str_lossy().trim().chars().filter(|c| !c.is_control()).take(200).collect();
    let summary = text(commit.message().map_err(failed("reading the commit's message"))?.title);
    let author = text(commit.author().map_err(failed("reading the commit's author"))?.name);
    let seconds = commit.time().map_err(failed("reading the commit's time"))?.seconds;
    let at = Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    Ok(Commit { id: id.to_string(), summary, author, at, signer })
}

#[cfg(test)]
mod tests;
