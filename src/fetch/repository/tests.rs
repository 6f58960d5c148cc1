use super::*;
use crate::source::Found;
use std::process::Command;

const TIME: &str = "2026-01-15T12:00:00Z";

/// A repository that people push to, and a directory that is fetched to.
struct Server {
    dir: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let server = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(server.work()).unwrap();
        std::fs::create_dir(server.directory()).unwrap();
        server.git(&["init", "-q", "-b", "main"]);
        server
    }

    fn work(&self) -> std::path::PathBuf {
        self.dir.path().join("work")
    }

    fn directory(&self) -> std::path::PathBuf {
        self.dir.path().join("fetcher")
    }

    /// git without the configuration of whoever runs the test.
    fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.current_dir(self.work()).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ann").env(format!("GIT_{role}_EMAIL"), "ann@example.org");
            command.env(format!("GIT_{role}_DATE"), TIME);
        }
        let done = command.args(args).output().expect("git is installed");
        assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commits one file, and comes back with the commit.
    fn commit(&self, path: &str, text: &str) -> String {
        self.write(path, text);
        self.commit_all(&["-m", &format!("{path}: {text}")])
    }

    fn commit_all(&self, args: &[&str]) -> String {
        self.git(&["add", "-A"]);
        self.git(&[&["commit", "-q", "--allow-empty"], args].concat());
        self.git(&["rev-parse", "HEAD"])
    }

    fn order(&self) -> Order {
        Order {
            url: format!("file://{}", self.work().display()),
            reference: Reference::Branch("main".to_owned()),
            path: String::new(),
            after: None,
            accepted: None,
            login: None,
            ssh: None,
            verify: None,
        }
    }

    fn fetch(&self, order: &Order) -> Answer {
        fetch(order, &self.directory())
    }

    fn revision(&self, order: &Order) -> Revision {
        match self.fetch(order) {
            Answer::Revision(revision) => *revision,
            other => panic!("{other:?}"),
        }
    }

    /// A key, and the line that allows it.
    fn key(&self, name: &str) -> (String, String) {
        let key = self.dir.path().join(name).display().to_string();
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &key]).status();
        assert!(made.expect("ssh-keygen is installed").success());
        let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
        (key, public.trim().to_owned())
    }

    fn sign_with(&self, key: &str) {
        self.git(&["config", "gpg.format", "ssh"]);
        self.git(&["config", "user.signingKey", key]);
    }
}

fn text(revision: &Revision, path: &str) -> String {
    match revision.files.get(path) {
        Some(Found::Text(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

fn refusal(answer: Answer) -> (Refusal, String) {
    match answer {
        Answer::Refused { why, reason, commit: _ } => (why, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_manifests_of_a_branch_come_as_they_are_committed() {
    let server = Server::new();
    server.write("README.md", "words");
    server.write("hosts/web.yaml", "web");
    server.write("hosts/deeper/db.yml", "db");
    let id = server.commit("elsewhere/other.yaml", "other");
    // Not committed, so nobody's.
    server.write("hosts/web.yaml", "half");

    let whole = server.revision(&server.order());
    let part = server.revision(&Order { path: "hosts".to_owned(), ..server.order() });

    assert_eq!(whole.about.id, id);
    assert_eq!((whole.about.author.as_str(), whole.about.at.to_string().as_str()), ("Ann", "2026-01-15T12:00:00.000Z"));
    assert_eq!(whole.about.summary, "elsewhere/other.yaml: other");
    let paths: Vec<&str> = whole.files.keys().map(String::as_str).collect();
    assert_eq!(paths, ["elsewhere/other.yaml", "hosts/deeper/db.yml", "hosts/web.yaml"]);
    assert!(whole.ignored.contains_key("README.md"));
    assert_eq!(part.files.keys().map(String::as_str).collect::<Vec<_>>(), ["deeper/db.yml", "web.yaml"]);
    assert_eq!(text(&part, "web.yaml"), "web");
}

#[test]
fn a_reference_that_has_not_moved_is_nothing_to_do_and_one_that_has_is_fetched_without_the_rest() {
    let server = Server::new();
    server.commit("a.yaml", "one");
    let first = server.commit("a.yaml", "two");
    assert_eq!(server.revision(&server.order()).about.id, first);

    let after = |id: &str| Order { after: Some(id.to_owned()), ..server.order() };
    assert_eq!(server.fetch(&after(&first)), Answer::Unchanged);
    server.commit("b.yaml", "three");
    let last = server.commit("a.yaml", "four");
    let revision = server.revision(&after(&first));

    assert_eq!((revision.about.id.as_str(), text(&revision, "a.yaml").as_str()), (last.as_str(), "four"));
    let copy = gix::open_opts(server.directory().join(COPY), gix::open::Options::isolated()).unwrap();
    // What was there before the first fetch was never asked for.
    assert_eq!(copy.rev_walk([copy.find_reference(OURS).unwrap().id()]).all().unwrap().count(), 3);
    assert_eq!(server.fetch(&after(&last)), Answer::Unchanged);
}

#[test]
fn tags_ranges_of_versions_and_commits_are_found() {
    let server = Server::new();
    let mut ids = Vec::new();
    for tag in ["v1.2.0", "1.10.0", "v2.0.0", "nightly"] {
        ids.push(server.commit("a.yaml", tag));
        // One of the two kinds of tags, and then the other.
        let annotated: &[&str] = if ids.len() % 2 == 0 { &["tag", "-a", "-m", "words", tag] } else { &["tag", tag] };
        server.git(annotated);
    }
    let at = |reference: Reference| server.revision(&Order { reference, ..server.order() }).about.id;

    assert_eq!(at(Reference::Tag("v1.2.0".to_owned())), ids[0]);
    assert_eq!(at(Reference::Tag("1.10.0".to_owned())), ids[1]);
    assert_eq!(at(Reference::Semver("^1.2".parse().unwrap())), ids[1]);
    assert_eq!(at(Reference::Semver(">=1".parse().unwrap())), ids[2]);
    assert_eq!(at(Reference::Head), ids[3]);
    assert_eq!(at(Reference::Commit(ids[2].clone())), ids[2]);
    let pinned = Order { reference: Reference::Commit(ids[0].clone()), after: Some(ids[0].clone()), ..server.order() };
    assert_eq!(server.fetch(&pinned), Answer::Unchanged);
    let none = server.fetch(&Order { reference: Reference::Semver("^3".parse().unwrap()), ..server.order() });
    assert!(matches!(none, Answer::Failed { reason } if reason.contains("no tag in the range ^3")));
    let none = server.fetch(&Order { reference: Reference::Branch("none".to_owned()), ..server.order() });
    assert!(matches!(none, Answer::Failed { reason } if reason.contains("has no branch none")));
}

#[test]
fn a_rewritten_history_waits_for_consent() {
    let server = Server::new();
    let base = server.commit("a.yaml", "one");
    let used = server.commit("a.yaml", "two");
    server.revision(&server.order());
    server.git(&["reset", "-q", "--hard", &base]);
    let rewritten = server.commit("a.yaml", "three");
    let order = Order { after: Some(used.clone()), ..server.order() };

    for _ in 0..2 {
        let (why, reason) = refusal(server.fetch(&order));
        assert_eq!(why, Refusal::Rewritten);
        assert!(reason.contains(&used[..12]) && reason.contains(&rewritten[..12]), "{reason}");
    }
    let accepted = server.revision(&Order { accepted: Some(rewritten.clone()), ..order });
    assert_eq!(accepted.about.id, rewritten);
    // What came before the commit in use is no news either.
    server.git(&["reset", "-q", "--hard", &base]);
    let back = Order { after: Some(rewritten), ..server.order() };
    assert_eq!(refusal(server.fetch(&back)).0, Refusal::Rewritten);
}

#[test]
fn a_copy_that_is_lost_or_was_left_half_made_costs_a_download_and_no_question() {
    let server = Server::new();
    let first = server.commit("a.yaml", "one");
    server.revision(&server.order());
    server.commit("a.yaml", "two");
    let order = Order { after: Some(first), ..server.order() };
    for damage in ["lost", "half", "emptied"] {
        let copy = server.directory().join(COPY);
        match damage {
            "lost" => std::fs::remove_dir_all(&copy).unwrap(),
            "half" => std::fs::write(server.directory().join(CHANGING), "").unwrap(),
            _ => std::fs::write(copy.join("HEAD"), "").unwrap(),
        }

        assert_eq!(text(&server.revision(&order), "a.yaml"), "two", "{damage}");
    }
    assert!(!server.directory().join(CHANGING).exists());
}

#[test]
fn links_are_followed_within_the_repository_and_nowhere_else() {
    let server = Server::new();
    server.write("common/base.yaml", "base");
    std::fs::create_dir_all(server.work().join("hosts/web")).unwrap();
    for (name, target) in [
        ("base.yaml", "../../common/base.yaml"),
        ("chain.yaml", "base.yaml"),
        ("out.yaml", "../../../secret.yaml"),
        ("absolute.yaml", "/etc/passwd"),
        ("nothing.yaml", "none.yaml"),
        ("circle.yaml", "circle.yaml"),
        ("directory.yaml", "../../common"),
    ] {
        std::os::unix::fs::symlink(target, server.work().join("hosts/web").join(name)).unwrap();
    }
    server.commit_all(&["-m", "links"]);

    let revision = server.revision(&Order { path: "hosts/web".to_owned(), ..server.order() });

    assert_eq!(text(&revision, "base.yaml"), "base");
    assert_eq!(text(&revision, "chain.yaml"), "base");
    assert_eq!(revision.ignored.get("directory.yaml").map(String::as_str), Some("a link to a directory"));
    for (name, reason) in
        [("out.yaml", "out of"), ("absolute.yaml", "out of"), ("nothing.yaml", "to nothing"), ("circle.yaml", "circle")]
    {
        let found = &revision.files[name];
        assert!(matches!(found, Found::Unusable(text) if text.contains(reason)), "{name}: {found:?}");
    }
}

#[test]
fn a_directory_that_is_not_there_is_no_empty_one() {
    let server = Server::new();
    server.commit("a.yaml", "one");

    let (why, reason) = refusal(server.fetch(&Order { path: "hosts".to_owned(), ..server.order() }));

    assert_eq!((why, reason.as_str()), (Refusal::Content, "there is no directory hosts in it"));
    let missing = Order { url: "file:///nowhere/at/all".to_owned(), ..server.order() };
    assert!(matches!(server.fetch(&missing), Answer::Failed { reason } if reason.contains("/nowhere/at/all")));
}

#[test]
fn a_file_that_is_too_large_is_not_unpacked() {
    let server = Server::new();
    server.write("large.yaml", &" ".repeat(crate::manifest::MAX_FILE_BYTES + 1));
    server.commit("a.yaml", "one");

    let revision = server.revision(&server.order());

    assert_eq!(revision.files["large.yaml"], Found::Unusable("is larger than 1024 KiB".to_owned()));
    assert_eq!(text(&revision, "a.yaml"), "one");
}

#[test]
fn only_what_is_signed_by_somebody_who_may_is_used() {
    let server = Server::new();
    let (ann, ann_public) = server.key("ann");
    let (eve, _) = server.key("eve");
    let verify = |options: &str, every| {
        Some(Verify { allowed_signers: format!("ann@example.org {options}{ann_public}\n"), every })
    };
    let order = |options: &str| Order { verify: verify(options, false), ..server.order() };

    server.commit("a.yaml", "one");
    assert!(refusal(server.fetch(&order(""))).1.ends_with("is not signed"));
    server.sign_with(&eve);
    server.commit_all(&["-S", "-m", "eve's"]);
    let (why, reason) = refusal(server.fetch(&order("")));
    assert_eq!(why, Refusal::Signature);
    assert!(reason.contains("nobody who may sign"), "{reason}");
    server.sign_with(&ann);
    let good = server.commit_all(&["-S", "-m", "ann's"]);
    assert_eq!(server.revision(&order("")).about.signer.as_deref(), Some("ann@example.org"));
    // The commit was made on the 15th of January.
    for (options, text) in [
        ("valid-before=\"20260115\" ", "valid until"),
        ("valid-after=\"20260116\" ", "valid from"),
        ("namespaces=\"file\" ", "may not sign for git"),
    ] {
        let (why, reason) = refusal(server.fetch(&order(options)));
        assert_eq!(why, Refusal::Signature);
        assert!(reason.contains(text), "{reason}");
    }

    // A signature is of one text: the same one under another tree is wrong.
    let raw = server.git(&["cat-file", "commit", "HEAD"]);
    server.write("forged", &format!("{}\n", raw.replace("ann's", "eve's")));
    let forged = server.git(&["hash-object", "-t", "commit", "-w", "forged"]);
    server.git(&["reset", "-q", "--hard", &forged]);
    assert!(refusal(server.fetch(&order(""))).1.contains("a wrong signature"));

    // An unsigned commit below a signed one.
    server.git(&["reset", "-q", "--hard", &good]);
    server.revision(&order(""));
    server.commit("b.yaml", "unsigned");
    server.commit_all(&["-S", "-m", "signed"]);
    let after = |every| Order { after: Some(good.clone()), verify: verify("", every), ..server.order() };
    assert!(refusal(server.fetch(&after(true))).1.ends_with("is not signed"));
    server.revision(&after(false));
}

#[test]
fn a_signed_tag_says_who_released_an_unsigned_commit() {
    let server = Server::new();
    let (ann, ann_public) = server.key("ann");
    server.commit("a.yaml", "one");
    server.sign_with(&ann);
    server.git(&["tag", "-s", "-m", "release", "v1.0.0"]);
    server.git(&["tag", "-a", "-m", "unsigned", "v1.1.0"]);
    let verify = Some(Verify { allowed_signers: format!("ann {ann_public}"), every: false });
    let order =
        |tag: &str| Order { reference: Reference::Tag(tag.to_owned()), verify: verify.clone(), ..server.order() };

    assert_eq!(server.revision(&order("v1.0.0")).about.signer.as_deref(), Some("ann"));
    assert_eq!(refusal(server.fetch(&order("v1.1.0"))).0, Refusal::Signature);
}
