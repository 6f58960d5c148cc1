//! The agent's database is lost, damaged or can't be written, under a host that goes on.

use crate::fixture::{Host, sleeper};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const NAMES: [&str; 3] = ["one", "two", "three"];

fn limited(name: &str, memory: &str) -> String {
    sleeper(name, &format!("  resources: {{memory: {{limit: {memory}}}}}\n"))
}

/// Three containers, and what they run as.
fn three(host: &Host) -> BTreeMap<&'static str, u32> {
    for name in NAMES {
        host.write(&format!("{name}.yaml"), &limited(name, "64Mi"));
    }
    NAMES.into_iter().map(|name| (name, host.pid(name))).collect()
}

/// They run on, and what is changed now is done, written down and known after another death.
fn works(host: &mut Host, before: &BTreeMap<&'static str, u32>, after: &str) {
    let now: BTreeMap<&str, u32> = NAMES.into_iter().map(|name| (name, host.pid(name))).collect();
    assert_eq!(now, *before, "{after}");
    for memory in ["80Mi", "64Mi"] {
        host.write("one.yaml", &limited("one", memory));
        host.wait("one", after, |item| {
            item["status"]["resources"]["actuated"]["memory"]["limit"] == memory && item["status"]["sync"] == "synced"
        });
    }
    host.until(&format!("{after}: nothing fails any more"), || {
        let status = host.ok(["status"]);
        !status.contains("nothing is changed on the host")
    });
    host.kill_agent();
    host.start();
    let now: BTreeMap<&str, u32> = NAMES.into_iter().map(|name| (name, host.pid(name))).collect();
    assert_eq!(now, *before, "after {after} and another death");
    let items = host.items();
    assert!(items.iter().all(|item| item["status"]["restarts"] == 0), "{after}");
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

pub const HARM: [&str; 5] = [
    "emptied",
    "cut to half",
    "with its first byte changed",
    "with a byte in the middle changed",
    "with its last byte changed",
];

/// One way to damage a file.
pub fn harm(file: &Path, how: &str) {
    let open = fs::File::options().read(true).write(true).open(file).unwrap();
    let length = open.metadata().unwrap().len();
    let flip = |at: u64| {
        let mut byte = [0];
        if open.read_exact_at(&mut byte, at).is_ok() {
            open.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
        }
    };
    match how {
        "emptied" => open.set_len(0).unwrap(),
        "cut to half" => open.set_len(length / 2).unwrap(),
        "with its first byte changed" => flip(0),
        "with a byte in the middle changed" => flip(length / 2),
        "with its last byte changed" => flip(length.saturating_sub(1)),
        other => panic!("{other}"),
    }
}

#[test]
#[ignore = "needs root"]
fn whatever_happens_to_a_file_of_the_database_nothing_is_stopped() {
    let mut host = Host::up();
    let before = three(&host);
    let db = host.root().join("lib/db");
    host.kill_agent();
    let names: Vec<PathBuf> = files(&db).iter().map(|file| file.strip_prefix(&db).unwrap().to_owned()).collect();
    assert!(names.len() > 1, "{names:?}");
    host.start();
    let mut said = 0;

    for name in &names {
        for how in HARM {
            let after = format!("{} {how}", name.display());
            host.kill_agent();
            let file = db.join(name);
            // A snapshot has another name every time.
            let file = if file.exists() { Some(file) } else { files(&db).into_iter().find(|file| is_like(file, name)) };
            if let Some(file) = file {
                harm(&file, how);
            }
            host.start();
            for (name, pid) in &before {
                assert_eq!(host.pid(name), *pid, "{after}");
            }
            said += u32::from(host.ok(["status"]).contains("database"));
            works(&mut host, &before, &after);
        }
    }

    assert!(said > 3, "the status said so {said} times");
}

fn is_like(file: &Path, name: &Path) -> bool {
    let stem = |path: &Path| path.file_name().unwrap().to_string_lossy().split('.').next().unwrap().to_owned();
    stem(file) == stem(name)
}

#[test]
#[ignore = "needs root"]
fn snapshots_that_a_power_cut_has_emptied_stop_nothing() {
    let mut host = Host::up();
    let before = three(&host);
    host.kill_agent();
    let db = host.root().join("lib/db");
    let snapshots =
        files(&db).into_iter().filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("snap."));
    for file in snapshots {
        fs::write(file, "").unwrap();
    }
    fs::write(db.join("snap.00000000000000ff"), "").unwrap();

    host.start();

    works(&mut host, &before, "empty snapshots");
}

#[test]
#[ignore = "needs root"]
fn a_database_that_is_deleted_under_a_running_agent_is_made_anew() {
    let mut host = Host::up();
    let before = three(&host);

    fs::remove_dir_all(host.root().join("lib/db")).unwrap();
    host.write("one.yaml", &limited("one", "72Mi"));
    host.until("it is there again", || host.root().join("lib/db/db").exists());
    host.until("it is told", || host.ok(["events"]).contains("database"));

    works(&mut host, &before, "a deleted database");
}

/// A small file system of our own as the agent's state directory.
pub struct Small(pub PathBuf);

impl Small {
    pub fn mount(host: &Host, size: &str) -> Self {
        let lib = host.root().join("lib");
        fs::create_dir_all(&lib).unwrap();
        let data = format!("size={size},mode=755");
        mount(Some("plim-test"), &lib, Some("tmpfs"), MsFlags::empty(), Some(data.as_str())).unwrap();
        Self(lib)
    }

    fn read_only(&self, read_only: bool) -> nix::Result<()> {
        let flag = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        // The mount alone, as its file system is written to by containers.
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flag, None::<&str>)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_is_told_stops_nothing_and_is_survived() {
    let mut host = Host::prepare();
    let small = Small::mount(&host, "6m");
    host.start();
    let before = three(&host);
    let fill = small.0.join("fill");
    let chunk = vec![0_u8; 1 << 20];
    let mut file = fs::File::create(&fill).unwrap();
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    let mut number = 0;
    host.until("it is told", || {
        number += 1;
        host.write("two.yaml", &limited("two", &format!("{}Mi", 65 + number % 30)));
        host.ok(["status"]).contains("nothing is changed on the host until it can be written")
    });
    for (name, pid) in &before {
        assert_eq!(host.items().iter().find(|item| item["metadata"]["name"] == *name).unwrap()["status"]["pid"], *pid);
    }

    drop(file);
    fs::remove_file(&fill).unwrap();
    host.write("two.yaml", &limited("two", "64Mi"));

    host.until("it is told that it works again", || host.ok(["events"]).contains("Recovered"));
    works(&mut host, &before, "a full disk");
    host.interrupt();
    drop(small);
}

#[test]
#[ignore = "needs root"]
fn an_agent_starts_on_a_full_disk_and_takes_over_what_runs() {
    let mut host = Host::prepare();
    let small = Small::mount(&host, "6m");
    host.start();
    let before = three(&host);
    host.kill_agent();
    fs::remove_dir_all(small.0.join("db")).unwrap();
    let fill = small.0.join("fill");
    let chunk = vec![0_u8; 64 << 10];
    let mut file = fs::File::create(&fill).unwrap();
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}

    host.start();
    host.until("it is told", || host.ok(["status"]).contains("No space left"));
    drop(file);
    fs::remove_file(&fill).unwrap();

    works(&mut host, &before, "a start on a full disk");
    host.interrupt();
    drop(small);
}

#[test]
#[ignore = "needs root"]
fn an_agent_starts_on_a_disk_that_has_become_read_only_and_takes_over_what_runs() {
    let mut host = Host::prepare();
    let small = Small::mount(&host, "64m");
    host.start();
    let before = three(&host);

    host.kill_agent();
    // Refused while somebody has a file open for writing.
    host.until("it is read-only", || small.read_only(true).is_ok());
    host.write("one.yaml", &limited("one", "77Mi"));
    host.start();
    host.until("it is told", || host.ok(["status"]).contains("Read-only file system"));
    small.read_only(false).unwrap();

    works(&mut host, &before, "a read-only disk");
    host.interrupt();
    drop(small);
}
