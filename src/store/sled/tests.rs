use super::*;
use crate::plan::Wanted;
use crate::plan::tests::{object, provenance};
use tempfile::tempdir;

fn record(name: &str) -> Record {
    let object = Arc::new(object(name, "{image: 'host:/', command: [c]}"));
    Record::first(&Wanted { provenance: provenance(&object.id), object })
}

fn open(dir: &Path) -> SledStore {
    let Opened { store, note } = SledStore::open(dir).unwrap();
    assert_eq!(note, None);
    store
}

#[test]
fn what_was_put_is_there_after_a_new_opening_and_what_was_forgotten_is_not() {
    let dir = tempdir().unwrap();
    let store = open(&dir.path().join("db"));
    store.put(&[record("b"), record("a")]).unwrap();
    store.forget(&[record("b").id, record("never").id]).unwrap();
    drop(store);

    let store = open(&dir.path().join("db"));

    assert_eq!(store.scan().unwrap(), [record("a")]);
    assert_eq!(store.load(&record("a").id).unwrap(), Some(record("a")));
    assert_eq!(store.load(&record("b").id).unwrap(), None);
}

#[test]
fn a_put_is_on_the_disk_when_it_returns() {
    let dir = tempdir().unwrap();
    let store = open(&dir.path().join("db"));
    store.put(&[record("a")]).unwrap();

    // What a power cut would leave: the files as they are, while the database is still open.
    copy_tree(&dir.path().join("db"), &dir.path().join("copy")).unwrap();

    assert_eq!(SledStore::open(&dir.path().join("copy")).unwrap().store.scan().unwrap(), [record("a")]);
}

#[test]
fn a_database_that_lost_everything_says_so_and_works() {
    let dir = tempdir().unwrap();
    let db = dir.path().join("db");
    let store = open(&db);
    store.put(&[record("a"), record("b")]).unwrap();
    drop(store);
    let log = fs::read(db.join("db")).unwrap();
    fs::write(db.join("db"), vec![0xff; log.len()]).unwrap();

    let Opened { store, note } = SledStore::open(&db).unwrap();

    assert!(note.is_some());
    store.put(&[record("c")]).unwrap();
    assert_eq!(store.load(&record("c").id).unwrap(), Some(record("c")));
}

#[test]
fn a_damaged_database_is_kept_aside_and_never_stops_the_agent() {
    let dir = tempdir().unwrap();
    let db = dir.path().join("db");
    let store = open(&db);
    store.put(&[record("a")]).unwrap();
    drop(store);
    fs::write(db.join("conf"), "no configuration of sled").unwrap();

    let Opened { store, note } = SledStore::open(&db).unwrap();

    store.put(&[record("b")]).unwrap();
    let note = note.expect("a note");
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let aside: Vec<String> = names.filter(|name| name.starts_with("db.damaged-")).collect();
    assert_eq!(aside.len(), 1);
    assert!(note.contains(&aside[0]), "{note}");
}

#[test]
fn only_the_newest_damaged_databases_are_kept() {
    let dir = tempdir().unwrap();
    let db = dir.path().join("db");
    for number in 0..5 {
        drop(open(&db));
        fs::write(db.join("conf"), format!("damage number {number}")).unwrap();
        drop(SledStore::open(&db).unwrap());
    }

    let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut aside: Vec<_> = entries.filter(|path| path.to_string_lossy().contains("db.damaged-")).collect();
    aside.sort();
    let said: Vec<String> = aside.iter().map(|path| fs::read_to_string(path.join("conf")).unwrap()).collect();
    assert_eq!(said, ["damage number 2", "damage number 3", "damage number 4"]);
}

#[test]
fn an_empty_snapshot_after_a_power_cut_loses_nothing_of_the_log() {
    let dir = tempdir().unwrap();
    let db = dir.path().join("db");
    let store = open(&db);
    store.put(&[record("a")]).unwrap();
    drop(store);
    fs::write(db.join("snap.0000000000000001"), "").unwrap();

    let store = SledStore::open(&db).unwrap().store;

    assert_eq!(store.scan().unwrap(), [record("a")]);
}

#[test]
fn a_database_that_was_taken_away_is_noticed_told_and_made_anew() {
    let dir = tempdir().unwrap();
    let db = dir.path().join("db");
    let store = open(&db);
    store.put(&[record("a")]).unwrap();
    store.check().unwrap();

    fs::remove_dir_all(&db).unwrap();
    let noticed = store.check();
    let told = store.news();
    store.put(&[record("a"), record("b")]).unwrap();

    assert!(matches!(noticed, Err(StoreError::TakenAway { .. })), "{noticed:?}");
    assert!(told.len() == 1 && told[0].contains("taken away"), "{told:?}");
    drop(store);
    assert_eq!(open(&db).scan().unwrap(), [record("a"), record("b")]);
}

#[test]
fn one_record_that_cannot_be_read_does_not_hide_the_others() {
    let dir = tempdir().unwrap();
    let store = open(&dir.path().join("db"));
    store.put(&[record("a"), record("b")]).unwrap();
    let key = record("a").id.to_string();
    let harm = |open: &Open| open.records.insert(key.as_bytes(), "{}").map(drop);
    store.with("writing", &"nonsense", harm).unwrap();

    assert_eq!(store.scan().unwrap(), [record("b")]);
    assert!(store.news()[0].contains("Container/default/a"));
}

#[test]
fn a_newer_schema_is_refused_in_clear_words() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let write = |open: &Open| open.database.insert(SCHEMA_KEY, "2").and_then(|_| open.database.flush());
    store.with("writing", &"the schema", write).unwrap();
    drop(store);

    let error = SledStore::open(dir.path()).unwrap_err();

    assert!(error.to_string().contains("newer plim (schema 2, this one knows 1)"), "{error}");
}

#[test]
fn a_second_agent_is_told_that_one_runs() {
    let dir = tempdir().unwrap();
    let _first = open(dir.path());

    let error = SledStore::open_within(dir.path(), Duration::ZERO).unwrap_err();

    assert!(error.to_string().contains("another agent runs"), "{error}");
}

#[test]
#[ignore = "needs root"]
fn after_a_full_disk_it_goes_on() {
    let dir = tempdir().unwrap();
    let fill = dir.path().join("fill");
    let data = Some("size=2m,mode=755");
    nix::mount::mount(Some("t"), dir.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), data).unwrap();
    let store = open(&dir.path().join("db"));
    store.put(&[record("a")]).unwrap();
    fs::write(&fill, vec![0_u8; 4 << 20]).unwrap_err();
    let full = (0..10_000).any(|number| store.put(&[record(&format!("b{number}"))]).is_err());

    fs::remove_file(&fill).unwrap();
    store.put(&[record("c")]).unwrap();

    let kept = store.scan().unwrap();
    drop(store);
    // A child that another test is starting may hold its files for a moment yet.
    nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert!(full && kept.contains(&record("a")) && kept.contains(&record("c")), "{full} {}", kept.len());
}
