use super::super::{Fold, desired};
use super::bytes::EMPTY_WINDOW;
use super::*;
use crate::plan::Desired;
use crate::plan::Wish;
use crate::spec::ObjectId;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Instant, SystemTime};

fn manifest(name: &str, memory: &str) -> String {
    format!(
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec:\n  image: host:/\n  command: [/bin/true]\n  resources: {{memory: {{limit: {memory}}}}}\n"
    )
}

fn object(name: &str) -> ObjectId {
    format!("Container/default/{name}").try_into().unwrap()
}

struct Place {
    _dir: tempfile::TempDir,
    root: PathBuf,
    source: Directory,
}

impl Place {
    fn new() -> Self {
        Self::with(Trust::Strict { uids: BTreeSet::from([rustix::process::geteuid().as_raw()]) })
    }

    fn with(trust: Trust) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("manifests");
        fs::create_dir(&root).unwrap();
        Self { source: Directory::new("main", &root, trust), root, _dir: dir }
    }

    fn at(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// A file that was written a while ago.
    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        self.save(file, text);
        self.age(file);
    }

    fn save(&self, file: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(file).parent().unwrap()).unwrap();
        fs::write(self.at(file), text).unwrap();
    }

    fn age(&self, file: &str) {
        let then = SystemTime::now() - Duration::from_secs(5);
        File::options().write(true).open(self.at(file)).unwrap().set_modified(then).unwrap();
    }

    /// The snapshot once nothing is being written any more, as the agent takes it.
    fn settled(&mut self) -> Snapshot {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut parsed = 0;
        loop {
            let mut snapshot = self.source.snapshot();
            parsed += snapshot.parsed;
            match snapshot.settle {
                Some(wait) if Instant::now() < deadline => std::thread::sleep(wait),
                _ => {
                    snapshot.parsed = parsed;
                    return snapshot;
                }
            }
        }
    }

    fn desired(&mut self) -> Desired {
        let snapshot = self.settled();
        desired(&[("main", &snapshot)])
    }
}

fn memory(desired: &Desired, name: &str) -> String {
    match desired.objects.get(&object(name)) {
        Some(Wish::Present(wanted)) => {
            serde_json::to_value(&wanted.object.spec.resources).unwrap()["memory"]["limit"].to_string()
        }
        other => format!("{other:?}"),
    }
}

fn reason(state: &SourceState) -> &str {
    match state {
        SourceState::Complete => "complete",
        SourceState::Unavailable { reason } => reason,
    }
}

fn unreadable(snapshot: &Snapshot, file: &str) -> String {
    match &**snapshot.files.get(file).unwrap() {
        FileState::Unreadable(reason) => reason.to_string(),
        FileState::Read(text) => format!("{text:?}"),
    }
}

#[test]
fn objects_come_with_their_place() {
    let mut place = Place::new();
    place.write("web.yaml", format!("# first\n---\n{}---\n{}", manifest("web", "64Mi"), manifest("db", "1Gi")));
    place.write("team/api.yml", manifest("api", "32Mi"));
    place.write("README.md", "text");
    place.write(".hidden.yaml", "broken: [");
    place.write("old.yaml.bak", "broken: [");
    place.write("gone.yaml.d/drop.yaml", "broken: [");

    let snapshot = place.settled();
    let desired = desired(&[("main", &snapshot)]);

    assert_eq!(snapshot.state, SourceState::Complete);
    assert_eq!(snapshot.parsed, 2);
    assert_eq!(memory(&desired, "web"), "\"64Mi\"");
    let Some(Wish::Present(wanted)) = desired.objects.get(&object("db")) else { panic!("{desired:?}") };
    assert_eq!(wanted.provenance.file, "web.yaml");
    assert_eq!(wanted.provenance.path, place.at("web.yaml").display().to_string());
    assert_eq!((wanted.provenance.document, wanted.provenance.source.as_str()), (2, "main"));
    let Some(Wish::Present(wanted)) = desired.objects.get(&object("api")) else { panic!("{desired:?}") };
    assert_eq!(wanted.provenance.file, "team/api.yml");
    let ignored: Vec<&str> = snapshot.ignored.keys().map(String::as_str).collect();
    assert_eq!(ignored, [".hidden.yaml", "README.md", "gone.yaml.d", "old.yaml.bak"]);
    assert_eq!(snapshot.ignored["gone.yaml.d"], "drop-ins of gone.yaml, which is not beside it");
    assert!(desired.held_files.is_empty());
}

fn limit(memory: &str) -> String {
    format!("spec: {{resources: {{memory: {{limit: {memory}}}}}}}\n")
}

/// Why the only object of the place cannot be used, or is held.
fn refused(desired: &Desired) -> String {
    match (desired.objects.get(&object("web")), desired.held_files.values().next()) {
        (Some(Wish::Invalid { message, .. }), _) => message.to_string(),
        (None, Some(reason)) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn drop_ins_change_their_file_by_name_and_are_read_again_only_when_something_changed() {
    let mut place = Place::new();
    place.write("web.yaml", manifest("web", "64Mi"));
    place.write("web.yaml.d/20.yaml", limit("128Mi"));
    place.write("web.yaml.d/10.yaml", limit("256Mi"));
    place.write("web.yaml.d/README", "not one");
    place.write("web.yaml.d/more/30.yaml", limit("512Mi"));

    let snapshot = place.settled();
    let found = desired(&[("main", &snapshot)]);

    assert_eq!((memory(&found, "web").as_str(), snapshot.parsed, snapshot.files.len()), ("\"128Mi\"", 1, 1));
    let ignored: Vec<&str> = snapshot.ignored.keys().map(String::as_str).collect();
    assert_eq!(ignored, ["web.yaml.d/README", "web.yaml.d/more"]);
    let Some(Wish::Present(wanted)) = found.objects.get(&object("web")) else { panic!("{found:?}") };
    assert_eq!(wanted.provenance.drop_in_files(), ["web.yaml.d/10.yaml", "web.yaml.d/20.yaml"]);
    let again = place.settled();
    assert!(again.parsed == 0 && Arc::ptr_eq(&snapshot.files, &again.files));

    place.write("web.yaml.d/30.yaml", limit("1Gi"));
    assert_eq!(memory(&place.desired(), "web"), "\"1Gi\"");
    place.write("web.yaml", manifest("web", "64Mi").replace("true", "false"));
    let found = place.desired();
    let Some(Wish::Present(wanted)) = found.objects.get(&object("web")) else { panic!("{found:?}") };
    assert_eq!((wanted.object.spec.command[0].as_str(), memory(&found, "web").as_str()), ("/bin/false", "\"1Gi\""));
}

#[test]
fn a_drop_in_that_is_gone_for_a_moment_is_waited_for() {
    let mut place = Place::new();
    place.write("web.yaml", manifest("web", "64Mi"));
    place.write("web.yaml.d/10.yaml", limit("128Mi"));
    assert_eq!(memory(&place.desired(), "web"), "\"128Mi\"");

    for gone in ["web.yaml.d/10.yaml", "web.yaml.d"] {
        let aside = place.root.parent().unwrap().join("aside");
        fs::rename(place.at(gone), &aside).unwrap();
        let waits = place.source.snapshot();
        assert!(waits.settle.is_some_and(|wait| wait <= reading::GONE_WINDOW));
        assert_eq!(memory(&desired(&[("main", &waits)]), "web"), "\"128Mi\"", "{gone}");
        fs::rename(&aside, place.at(gone)).unwrap();
        assert_eq!(memory(&place.desired(), "web"), "\"128Mi\"", "{gone}");
    }
    fs::remove_file(place.at("web.yaml.d/10.yaml")).unwrap();

    assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"");
}

#[test]
fn a_drop_in_that_cannot_be_used_holds_its_object_and_names_its_own_place() {
    let mut place = Place::new();
    place.write("web.yaml", manifest("web", "64Mi"));
    place.write("db.yaml", manifest("db", "64Mi"));
    place.write("web.yaml.d/10.yaml", "spec:\n  memroy: 1\n");

    let found = place.desired();
    let shown = place.at("web.yaml.d/10.yaml").display().to_string();
    assert!(refused(&found).starts_with(&format!("{shown}:2:3: unknown field")), "{}", refused(&found));
    assert_eq!(memory(&found, "db"), "\"64Mi\"");

    fs::remove_file(place.at("web.yaml.d/10.yaml")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    type Make<'a> = &'a dyn Fn(&Path);
    let make: [(&str, Make<'_>); 5] = [
        ("is a FIFO", &|path| rustix::fs::mknodat(rustix::fs::CWD, path, fifo, 0o600.into(), 0).unwrap()),
        ("is empty", &|path| drop(File::create_new(path).unwrap())),
        ("is a link that leads out of the directory", &|path| symlink("/etc/hostname", path).unwrap()),
        ("can be written by everybody", &|path| {
            fs::write(path, limit("1Gi")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }),
        ("is larger than", &|path| fs::write(path, vec![b' '; crate::manifest::MAX_FILE_BYTES + 1]).unwrap()),
    ];
    for (expected, make) in make {
        make(&place.at("web.yaml.d/10.yaml"));
        let found = place.desired();
        let reason = refused(&found);
        let begin = "web.yaml cannot be told without its drop-in web.yaml.d/10.yaml, which ";
        assert!(reason.starts_with(&format!("{begin}{expected}")), "{expected}: {reason}");
        assert_eq!(memory(&found, "db"), "\"64Mi\"");
        fs::remove_file(place.at("web.yaml.d/10.yaml")).unwrap();
        assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"", "{expected}");
    }
}

#[test]
fn a_drop_in_that_is_being_written_changes_nothing_yet() {
    let mut place = Place::new();
    place.write("web.yaml", manifest("web", "64Mi"));
    place.write("web.yaml.d/10.yaml", limit("128Mi"));
    assert_eq!(memory(&place.desired(), "web"), "\"128Mi\"");

    let mut file = File::options().write(true).truncate(true).open(place.at("web.yaml.d/10.yaml")).unwrap();
    let half = place.source.snapshot();
    assert!(half.settle.is_some());
    assert_eq!(memory(&desired(&[("main", &half)]), "web"), "\"128Mi\"");
    file.write_all(limit("256Mi").as_bytes()).unwrap();
    drop(file);

    assert_eq!(memory(&place.desired(), "web"), "\"256Mi\"");
}

#[test]
fn what_has_not_changed_is_neither_read_nor_parsed() {
    let mut place = Place::new();
    for number in 0..50 {
        place.write(&format!("c{number}.yaml"), manifest(&format!("c{number}"), "64Mi"));
    }
    let first = place.settled();
    let again = place.settled();
    assert_eq!((first.parsed, again.parsed), (50, 0));
    assert!(Arc::ptr_eq(&first.files, &again.files));
    let mut fold = Fold::default();
    assert_eq!(fold.fold(&[("main", &first)]).map(|desired| desired.objects.len()), Some(50));
    assert!(fold.fold(&[("main", &again)]).is_none());
    assert!(fold.fold(&[("other", &again)]).is_some());

    // As many files as before, and another one among them.
    fs::rename(place.at("c9.yaml"), place.at("d9.yaml")).unwrap();
    let moved = place.settled();
    assert!(moved.files.contains_key("d9.yaml") && !moved.files.contains_key("c9.yaml"));
    fs::remove_file(place.at("d9.yaml")).unwrap();
    assert_eq!(place.settled().files.len(), 49);
    assert_eq!(fold.fold(&[("other", &place.settled())]).map(|desired| desired.objects.len()), Some(49));

    // A new time without a new text.
    place.age("c7.yaml");
    assert_eq!(place.settled().parsed, 0);

    place.write("c7.yaml", manifest("c7", "65Mi"));
    let changed = place.settled();
    assert_eq!(changed.parsed, 1);
    assert_eq!(memory(&desired(&[("main", &changed)]), "c7"), "\"65Mi\"");
    assert!(Arc::ptr_eq(&first.files["c8.yaml"], &changed.files["c8.yaml"]));
}

#[test]
fn every_way_of_saving_is_seen_and_keeps_the_object() {
    type Save = fn(&Path, &[u8]);
    let ways: [(&str, Save); 6] = [
        // Writes a probe, moves the original to a backup, writes a new file, removes the backup.
        ("vim", |path, text| {
            let probe = path.with_file_name("4913");
            File::create_new(&probe).unwrap();
            fs::remove_file(probe).unwrap();
            let backup = path.with_extension("yaml~");
            fs::rename(path, &backup).unwrap();
            fs::write(path, text).unwrap();
            fs::remove_file(backup).unwrap();
        }),
        // Links a backup, writes a temporary file, renames.
        ("emacs", |path, text| {
            symlink("user@host.1:1", path.with_file_name(".#web.yaml")).unwrap();
            fs::copy(path, path.with_extension("yaml~")).unwrap();
            let temporary = path.with_file_name("#web.yaml#");
            fs::write(&temporary, text).unwrap();
            fs::rename(temporary, path).unwrap();
            fs::remove_file(path.with_file_name(".#web.yaml")).unwrap();
        }),
        // Truncates and writes.
        ("nano and VS Code", |path, text| {
            let mut file = File::options().write(true).truncate(true).open(path).unwrap();
            file.write_all(text).unwrap();
        }),
        ("sed -i", |path, text| {
            let temporary = path.with_file_name("sedA1b2C3");
            fs::write(&temporary, text).unwrap();
            fs::rename(temporary, path).unwrap();
        }),
        // From another file system: the old one is removed, the new one written.
        ("mv", |path, text| {
            fs::remove_file(path).unwrap();
            let mut file = File::create_new(path).unwrap();
            for part in text.chunks(100) {
                file.write_all(part).unwrap();
            }
        }),
        ("rsync", |path, text| {
            let temporary = path.with_file_name(".web.yaml.Xy12Zz");
            fs::write(&temporary, text).unwrap();
            fs::rename(temporary, path).unwrap();
        }),
    ];
    for (name, save) in ways {
        let mut place = Place::new();
        place.write("web.yaml", manifest("web", "64Mi"));
        assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"");

        save(&place.at("web.yaml"), manifest("web", "128Mi").as_bytes());
        let snapshot = place.settled();

        assert_eq!(memory(&desired(&[("main", &snapshot)]), "web"), "\"128Mi\"", "{name}");
        assert_eq!(snapshot.state, SourceState::Complete, "{name}");
        assert_eq!(snapshot.parsed, 1, "{name}");
        assert_eq!(snapshot.files.len(), 1, "{name}: {:?}", snapshot.files.keys());
    }
}

#[test]
fn a_slow_writer_never_shows_half_of_its_text() {
    let mut place = Place::new();
    place.write("web.yaml", manifest("web", "64Mi"));
    let before = place.settled();
    let text = manifest("web", "128Mi");

    let mut file = File::options().write(true).truncate(true).open(place.at("web.yaml")).unwrap();
    for byte in text.as_bytes() {
        file.write_all(&[*byte]).unwrap();
        let now = place.source.snapshot();
        assert!(Arc::ptr_eq(&before.files["web.yaml"], &now.files["web.yaml"]));
        assert!(now.settle.is_some());
        assert_eq!(now.state, SourceState::Complete);
    }
    // Whole, and with the times of another file, as a copy that keeps them: not before it is closed.
    file.set_modified(SystemTime::now() - Duration::from_secs(500)).unwrap();
    assert!(Arc::ptr_eq(&before.files["web.yaml"], &place.source.snapshot().files["web.yaml"]));
    drop(file);

    assert_eq!(memory(&place.desired(), "web"), "\"128Mi\"");
}

#[test]
fn a_new_file_is_held_while_it_is_written() {
    let mut place = Place::new();
    place.settled();
    place.save("web.yaml", manifest("web", "64Mi"));

    let first = place.source.snapshot();

    // Unless the machine was too busy to look in time.
    if first.settle.is_some() {
        assert_eq!(unreadable(&first, "web.yaml"), "is being written");
        assert!(desired(&[("main", &first)]).objects.is_empty());
    }
    assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"");
}

#[test]
fn an_emptied_file_is_held_and_never_absent() {
    let mut place = Place::new();
    place.write("web.yaml", manifest("web", "64Mi"));
    let before = place.settled();

    place.save("web.yaml", "");
    let writing = place.source.snapshot();
    assert!(Arc::ptr_eq(&before.files["web.yaml"], &writing.files["web.yaml"]));
    assert!(writing.settle.is_some_and(|wait| wait <= EMPTY_WINDOW));

    place.age("web.yaml");
    let empty = place.settled();
    let wishes = desired(&[("main", &empty)]);
    assert_eq!(unreadable(&empty, "web.yaml"), "is empty");
    assert!(wishes.held_files.contains_key(&("main".to_owned(), "web.yaml".to_owned())));
    assert_eq!(empty.state, SourceState::Complete);

    place.write("web.yaml", manifest("web", "64Mi"));
    assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"");
}

#[test]
fn an_invalid_document_is_its_own_affair() {
    let mut place = Place::new();
    let broken = manifest("db", "64Mi").replace("command", "comand");
    place.write("web.yaml", format!("{}---\n{broken}", manifest("web", "64Mi")));

    let wishes = place.desired();

    assert_eq!(memory(&wishes, "web"), "\"64Mi\"");
    let Some(Wish::Invalid { message, provenance }) = wishes.objects.get(&object("db")) else { panic!("{wishes:?}") };
    let first = message.lines().next().unwrap();
    assert!(first.starts_with(&format!("{}:", place.at("web.yaml").display())), "{message}");
    assert!(first.ends_with("(and 1 more)"), "{message}");
    assert!(message.contains("  comand: [/bin/true]"), "{message}");
    assert_eq!(provenance.document, 2);
    assert!(wishes.held_files.is_empty(), "{:?}", wishes.held_files);
}

#[test]
fn a_text_without_an_identity_holds_its_file() {
    let mut place = Place::new();
    place.write("broken.yaml", "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: web\nspec: [\n");
    place.write("nameless.yaml", manifest("web", "64Mi").replace("name: web", "label: web"));

    let wishes = place.desired();

    for file in ["broken.yaml", "nameless.yaml"] {
        let held = wishes.held_files.get(&("main".to_owned(), file.to_owned())).unwrap();
        assert!(held.contains(file), "{held}");
    }
    assert_eq!(wishes.sources["main"], SourceState::Complete);
}

#[test]
fn two_places_for_one_object_are_both_named_and_neither_is_used() {
    let mut place = Place::new();
    place.write("a.yaml", manifest("web", "64Mi"));
    place.write("b.yaml", format!("{}---\n{}", manifest("api", "1Mi"), manifest("web", "128Mi")));
    let mut other = Place::new();
    other.write("c.yaml", manifest("api", "2Mi"));
    other.write("d.yaml", manifest("solo", "2Mi"));

    let (one, two) = (place.settled(), other.settled());
    let wishes = desired(&[("main", &one), ("other", &two)]);

    let message = |name: &str| match wishes.objects.get(&object(name)) {
        Some(Wish::Invalid { message, .. }) => message.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(message("web").contains("a.yaml:1") && message("web").contains("b.yaml:9"), "{}", message("web"));
    assert!(message("api").contains("b.yaml:1") && message("api").contains("c.yaml:1"), "{}", message("api"));
    assert_eq!(memory(&wishes, "solo"), "\"2Mi\"");
}

#[test]
fn what_is_no_file_is_held_and_does_not_hang() {
    let mut place = Place::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mkfifoat(rustix::fs::CWD, place.at("fifo.yaml"), mode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.at("socket.yaml")).unwrap();
    symlink("/etc/passwd", place.at("out.yaml")).unwrap();
    symlink("../manifests/../x.yaml", place.at("up.yaml")).unwrap();
    symlink("nothing.yaml", place.at("dangling.yaml")).unwrap();
    symlink("circle.yaml", place.at("circle.yaml")).unwrap();
    place.write("large.yaml", vec![b' '; crate::manifest::MAX_FILE_BYTES + 1]);
    place.write("web.yaml", manifest("web", "64Mi"));

    let snapshot = place.settled();

    assert_eq!(unreadable(&snapshot, "fifo.yaml"), "is a FIFO, not a regular file");
    assert!(unreadable(&snapshot, "socket.yaml").contains("socket"));
    assert!(unreadable(&snapshot, "out.yaml").contains("leads out"));
    assert!(unreadable(&snapshot, "up.yaml").contains("leads out"));
    assert!(unreadable(&snapshot, "dangling.yaml").contains("nothing"));
    assert!(unreadable(&snapshot, "circle.yaml").contains("circle"));
    assert!(unreadable(&snapshot, "large.yaml").contains("1024 KiB"));
    assert_eq!(snapshot.state, SourceState::Complete);
    assert_eq!(memory(&desired(&[("main", &snapshot)]), "web"), "\"64Mi\"");
}

#[test]
fn links_inside_are_read_and_directory_links_are_not_followed() {
    let mut place = Place::new();
    place.write("shared/base.txt", manifest("web", "64Mi"));
    symlink("shared/base.txt", place.at("web.yaml")).unwrap();
    symlink("shared", place.at("again")).unwrap();
    symlink("shared", place.at("again.yaml")).unwrap();

    let snapshot = place.settled();

    assert_eq!(memory(&desired(&[("main", &snapshot)]), "web"), "\"64Mi\"");
    assert_eq!(snapshot.ignored["again.yaml"], "a link to a directory");
    assert!(snapshot.ignored.contains_key("again"));
    assert_eq!(place.settled().parsed, 0);
}

#[test]
fn a_swapped_data_link_shows_the_new_revision_as_one() {
    let mut place = Place::new();
    for (revision, memory) in [("..2026_1", "64Mi"), ("..2026_2", "128Mi")] {
        place.write(&format!("{revision}/web.yaml"), manifest("web", memory));
        place.write(&format!("{revision}/db.yaml"), manifest("db", memory));
    }
    symlink("..2026_1", place.at("..data")).unwrap();
    symlink("..data/web.yaml", place.at("web.yaml")).unwrap();
    symlink("..data/db.yaml", place.at("db.yaml")).unwrap();
    assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"");

    // Swapped all the time while it is read: never one of each.
    let root = place.root.clone();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let swapper = std::thread::spawn(move || {
        for number in 1_u64.. {
            if stop.load(std::sync::atomic::Ordering::Acquire) {
                break;
            }
            symlink(format!("..2026_{}", 1 + number % 2), root.join("..data_tmp")).unwrap();
            fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
            std::thread::sleep(Duration::from_micros(number % 700));
        }
    });
    let mut complete = 0;
    for _ in 0..300 {
        let snapshot = place.source.snapshot();
        if snapshot.state == SourceState::Complete {
            complete += 1;
            let wishes = desired(&[("main", &snapshot)]);
            assert_eq!(memory(&wishes, "web"), memory(&wishes, "db"));
        }
    }
    done.store(true, std::sync::atomic::Ordering::Release);
    swapper.join().unwrap();
    assert!(complete > 0);
}

#[test]
fn a_swapped_root_link_is_followed() {
    let mut place = Place::new();
    place.write("rev-1/web.yaml", manifest("web", "64Mi"));
    place.write("rev-2/web.yaml", manifest("web", "128Mi"));
    symlink("rev-1", place.at("current")).unwrap();
    place.source = Directory::new("main", &place.at("current"), place.source.trust.clone());
    assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"");

    symlink("rev-2", place.at("new")).unwrap();
    fs::rename(place.at("new"), place.at("current")).unwrap();

    let snapshot = place.settled();
    assert_eq!(snapshot.state, SourceState::Complete);
    assert_eq!(memory(&desired(&[("main", &snapshot)]), "web"), "\"128Mi\"");
}

#[test]
fn a_directory_that_is_not_there_removes_nothing() {
    let mut place = Place::new();
    place.write("web.yaml", manifest("web", "64Mi"));
    let first = place.settled();
    let away = place.root.with_extension("away");

    fs::rename(&place.root, &away).unwrap();
    let gone = place.settled();
    assert!(reason(&gone.state).ends_with("manifests is not there"), "{:?}", gone.state);

    fs::write(&place.root, "a file").unwrap();
    let file = place.settled();
    assert!(reason(&file.state).ends_with("is not a directory"), "{:?}", file.state);

    fs::remove_file(&place.root).unwrap();
    fs::rename(&away, &place.root).unwrap();
    let back = place.settled();
    assert_eq!((&back.state, back.parsed), (&SourceState::Complete, 0));
    assert!(Arc::ptr_eq(&first.files["web.yaml"], &back.files["web.yaml"]));

    fs::remove_file(place.at("web.yaml")).unwrap();
    let emptied = place.settled();
    assert_eq!((&emptied.state, emptied.files.len()), (&SourceState::Complete, 0));
}

#[test]
fn two_hundred_files_at_once() {
    let mut place = Place::new();
    place.settled();
    for number in 0..200 {
        place.save(&format!("c{number}.yaml"), manifest(&format!("c{number}"), "64Mi"));
    }

    let wishes = place.desired();

    assert_eq!(wishes.objects.len(), 200);
    assert!(wishes.objects.values().all(|wish| matches!(wish, Wish::Present(_))));
    assert!(wishes.held_files.is_empty());
}

#[test]
fn what_others_can_write_is_not_believed() {
    let mut place = Place::new();
    place.write("web.yaml", manifest("web", "64Mi"));
    place.write("loose.yaml", manifest("loose", "64Mi"));
    fs::set_permissions(place.at("loose.yaml"), fs::Permissions::from_mode(0o666)).unwrap();
    let snapshot = place.settled();
    assert!(unreadable(&snapshot, "loose.yaml").contains("written by everybody"));
    assert_eq!(snapshot.state, SourceState::Complete);

    fs::set_permissions(place.at("loose.yaml"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(memory(&place.desired(), "loose"), "\"64Mi\"");

    fs::set_permissions(&place.root, fs::Permissions::from_mode(0o777)).unwrap();
    let open = place.settled();
    assert!(reason(&open.state).contains("written by everybody"), "{:?}", open.state);
    assert!(open.files.is_empty());

    fs::set_permissions(&place.root, fs::Permissions::from_mode(0o755)).unwrap();
    let parent = place.root.parent().unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o757)).unwrap();
    let parent_open = place.settled();
    assert!(reason(&parent_open.state).contains("written by everybody"), "{:?}", parent_open.state);
}

/// Prints how long a listing takes: `cargo test --release a_thousand -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "its result is what it prints")]
fn a_thousand_unchanged_files_take() {
    let mut place = Place::new();
    for number in 0..1000 {
        place.write(&format!("c{number}.yaml"), manifest(&format!("c{number}"), "64Mi"));
    }
    let start = Instant::now();
    place.settled();
    println!("first: {:?}", start.elapsed());
    for round in 0..5 {
        place.write("c7.yaml", manifest("c7", &format!("{}Mi", 65 + round)));
        let start = Instant::now();
        let snapshot = place.source.snapshot();
        let one = start.elapsed();
        let start = Instant::now();
        let same = place.source.snapshot();
        let none = start.elapsed();
        let start = Instant::now();
        let wishes = desired(&[("main", &same)]);
        println!("one changed ({}): {one:?}, none: {none:?}, fold: {:?}", snapshot.parsed, start.elapsed());
        assert_eq!(wishes.objects.len(), 1000);
    }
}

mod root {
    use super::*;
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    use std::os::unix::fs::chown;

    #[test]
    #[ignore = "needs root"]
    fn a_file_of_somebody_else_holds_its_objects() {
        let mut place = Place::new();
        place.write("web.yaml", manifest("web", "64Mi"));
        place.settled();

        chown(place.at("web.yaml"), Some(12345), None).unwrap();
        let snapshot = place.settled();

        assert!(unreadable(&snapshot, "web.yaml").contains("belongs to user 12345"));
        assert!(desired(&[("main", &snapshot)]).held_files.contains_key(&("main".to_owned(), "web.yaml".to_owned())));
        place.source = Directory::new("main", &place.root, Trust::Strict { uids: BTreeSet::from([12345]) });
        assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"");
        chown(&place.root, Some(4711), None).unwrap();
        assert!(reason(&place.settled().state).contains("belongs to user 4711"));
    }

    struct Mounted(PathBuf);

    impl Mounted {
        fn new(at: &Path) -> Self {
            mount("plimsoll-test", at, "tmpfs", MountFlags::empty(), Some(c"mode=755")).unwrap();
            Self(at.to_owned())
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            // Fine when the test has done so.
            let _ = unmount(&self.0, UnmountFlags::DETACH);
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn an_unmounted_directory_removes_nothing() {
        let mut place = Place::new();
        let mounted = Mounted::new(&place.root);
        place.write("web.yaml", manifest("web", "64Mi"));
        assert_eq!(memory(&place.desired(), "web"), "\"64Mi\"");

        drop(mounted);
        let snapshot = place.settled();

        assert!(reason(&snapshot.state).contains("another mount"), "{:?}", snapshot.state);
        place.source.forget_place();
        assert_eq!(place.settled().state, SourceState::Complete);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_mount_over_a_part_hides_nothing_silently() {
        let mut place = Place::new();
        place.write("web.yaml", manifest("web", "64Mi"));
        place.write("team/api.yaml", manifest("api", "64Mi"));
        place.settled();

        let _mounted = Mounted::new(&place.at("team"));
        let snapshot = place.settled();

        assert!(reason(&snapshot.state).contains("team is another mount"), "{:?}", snapshot.state);
    }
}
