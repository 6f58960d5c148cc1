//! Whether a file or directory may say what runs on this host.
//!
//! Whoever can write a manifest is root here. So a manifest, its directory and everything on the way
//! there belong to somebody who is trusted, and nobody else can write them (the idea of OpenSSH's
//! `StrictModes`).

use super::way::{Found, Way};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whose files are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Files of root and of these users, that nobody else can write.
    Strict { uids: BTreeSet<u32> },
    /// Any file that can be read: for looking at manifests without running them.
    Anyone,
}

impl Trust {
    /// What is wrong with the owner or the mode of a file that is not part of a source, if anything is.
    pub fn objects_to(&self, file: &Metadata) -> Option<String> {
        let judged = Judge::new(self).check(file.uid(), file.gid(), file.mode());
        judged.err().map(|reason| reason.to_string())
    }
}

/// What is wrong with an owner or a mode, as the end of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distrust {
    Owner(u32),
    Everybody,
    Group(u32),
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(uid) => write!(f, "belongs to user {uid}, who is not trusted here (chown root)"),
            Self::Everybody => f.write_str("can be written by everybody (chmod o-w)"),
            Self::Group(gid) => write!(f, "can be written by group {gid} (chmod g-w)"),
        }
    }
}

/// A judge that remembers which groups have one member: asked for every file of a snapshot.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    trust: &'a Trust,
    etc: &'a Path,
    private: BTreeMap<(u32, u32), bool>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(trust: &'a Trust) -> Self {
        Self { trust, etc: Path::new("/etc"), private: BTreeMap::new() }
    }

    /// A file or directory that is read itself.
    pub(super) fn check(&mut self, uid: u32, gid: u32, mode: u32) -> Result<(), Distrust> {
        let uids = match self.trust {
            Trust::Strict { uids } => uids,
            Trust::Anyone => return Ok(()),
        };
        if uid != 0 && !uids.contains(&uid) {
            return Err(Distrust::Owner(uid));
        }
        if mode & 0o002 != 0 {
            return Err(Distrust::Everybody);
        }
        // A group of one is nobody else: what `git clone` makes with the usual umask 002.
        if mode & 0o020 != 0 && !self.is_private(uid, gid) {
            return Err(Distrust::Group(gid));
        }
        Ok(())
    }

    /// Everything on the way to a source. In a sticky directory nobody can replace the entries of
    /// others, and the entry that the way takes is judged by itself.
    pub(super) fn check_way(&mut self, way: &Way) -> Result<(), String> {
        for step in &way.steps {
            let verdict = match step.found {
                Found::Directory if step.mode & 0o1000 != 0 => self.check(step.uid, step.gid, step.mode & !0o022),
                Found::Directory => self.check(step.uid, step.gid, step.mode),
                // A link has no mode of its own.
                Found::Link => self.check(step.uid, step.gid, 0),
                Found::Other | Found::Missing => Ok(()),
            };
            verdict.map_err(|reason| format!("{} {reason}", step.path.display()))?;
        }
        Ok(())
    }

    fn is_private(&mut self, uid: u32, gid: u32) -> bool {
        let etc = self.etc;
        *self.private.entry((uid, gid)).or_insert_with(|| {
            let read = |name: &str| std::fs::read_to_string(etc.join(name)).ok();
            // Without the lists nobody can tell who is in the group.
            read("passwd").zip(read("group")).is_some_and(|(users, groups)| only_member(&users, &groups, uid, gid))
        })
    }
}

/// Whether `uid` is the only one in group `gid`, by primary group and by list.
fn only_member(passwd: &str, group: &str, uid: u32, gid: u32) -> bool {
    let mut names = Vec::new();
    let mut others = false;
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, user, primary, ..] = fields[..] else { continue };
        if user.parse() == Ok(uid) {
            names.push(name);
        } else if primary.parse() == Ok(gid) {
            others = true;
        }
    }
    let listed = group.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, number, members] = fields[..] else { return None };
        (number.parse() == Ok(gid)).then_some(members)
    });
    let stranger =
        |members: &str| members.split(',').map(str::trim).any(|member| !member.is_empty() && !names.contains(&member));
    !others && listed.is_some_and(|members| !stranger(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict() -> Trust {
        Trust::Strict { uids: BTreeSet::from([1000]) }
    }

    #[test]
    fn owner_and_mode_decide() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("passwd"), "root:x:0:0::/:\nann:x:1000:1000::/:\nbob:x:1001:100::/:\n").unwrap();
        std::fs::write(etc.path().join("group"), "root:x:0:\nann:x:1000:\nusers:x:100:\nteam:x:200:ann,bob\n").unwrap();
        let trust = strict();
        let mut judge = Judge { trust: &trust, etc: etc.path(), private: BTreeMap::new() };

        assert_eq!(judge.check(0, 0, 0o644), Ok(()));
        assert_eq!(judge.check(1000, 1000, 0o600), Ok(()));
        assert_eq!(judge.check(1000, 1000, 0o664), Ok(()), "a group of one");
        assert_eq!(judge.check(1001, 1001, 0o644), Err(Distrust::Owner(1001)));
        assert_eq!(judge.check(0, 0, 0o666), Err(Distrust::Everybody));
        assert_eq!(judge.check(1000, 200, 0o664), Err(Distrust::Group(200)));
        assert_eq!(judge.check(1000, 100, 0o664), Err(Distrust::Group(100)), "somebody's primary group");
        assert_eq!(judge.check(1000, 777, 0o664), Err(Distrust::Group(777)), "an unknown group");
        let trust = Trust::Anyone;
        assert_eq!(Judge::new(&trust).check(5, 5, 0o777), Ok(()));
    }
}
