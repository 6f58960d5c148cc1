//! Rules of reading and deciding that show only on a whole agent: what wakes it, what it finds by itself,
//! what holds up what, and what it leaves alone. `src/source/rules.md` says which test stands for which rule.

use crate::fixture::{Host, PATIENCE, STARTS, alive, pid, signal, sleeper};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::Instant;

const LIMIT: [&str; 2] = ["memory.max", "memory.limit_in_bytes"];

fn limited(name: &str, memory: u32) -> String {
    sleeper(name, &format!("  resources: {{memory: {{limit: {memory}Mi}}}}\n"))
}

fn bytes(memory: u32) -> String {
    (u64::from(memory) << 20).to_string()
}

fn rounds(host: &Host) -> u64 {
    host.status()["rounds"].as_u64().unwrap()
}

#[test]
#[ignore = "needs root"]
fn one_touch_is_two_rounds_at_most() {
    let mut host = Host::prepare();
    host.start_with(&["--resync", "1h"]);
    host.write("web.yaml", &limited("web", 64));
    host.running("web");
    // Whatever the start has still to say is said.
    let mut before = rounds(&host);
    let mut calm = Instant::now();
    host.until("it is at rest", || {
        let now = rounds(&host);
        if std::mem::replace(&mut before, now) != now {
            calm = Instant::now();
        }
        calm.elapsed().as_millis() > 500
    });

    let file = fs::File::options().append(true).open(host.manifests.join("web.yaml")).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    drop(file);
    host.until("it is noticed", || rounds(&host) > before);
    let calm = Instant::now();
    host.until("it is at rest again", || calm.elapsed().as_millis() > 500);

    assert!(rounds(&host) <= before + 2, "{} rounds", rounds(&host) - before);
}

#[test]
#[ignore = "needs root"]
fn a_drop_in_changes_a_limit_in_place_stops_nothing_when_it_is_broken_and_is_taken_back() {
    let host = Host::up();
    host.write("web.yaml", &limited("web", 64));
    let before = host.pid("web");
    let drop_ins = host.manifests.join("web.yaml.d");
    fs::create_dir(&drop_ins).unwrap();
    let limit = |memory: u32| {
        host.until(&format!("limited to {memory} MiB"), || host.control("default_web", LIMIT) == bytes(memory));
        assert_eq!(pid(&host.item("web").unwrap()), before);
    };

    host.write("web.yaml.d/10-host.yaml", "spec:\n  resources: {memory: {limit: 96Mi}}\n");
    limit(96);
    let item = host.running("web");
    assert_eq!(item["status"]["source"]["dropIns"][0], "web.yaml.d/10-host.yaml");
    assert!(host.ok(["describe", "container", "web"]).contains("web.yaml.d/10-host.yaml"));

    host.write("web.yaml.d/10-host.yaml", "spec:\n  resources: {memroy: {limit: 128Mi}}\n");
    let place = format!("{}:2:15: unknown field \"memroy\"", drop_ins.join("10-host.yaml").display());
    host.wait("web", "invalid, and where", |item| {
        item["status"]["sync"] == "invalid"
            && item["status"]["message"].as_str().is_some_and(|text| text.contains(&place))
    });
    limit(96);

    fs::remove_file(drop_ins.join("10-host.yaml")).unwrap();
    limit(64);
    assert!(host.running("web")["status"]["source"]["dropIns"].is_null());
}

#[test]
#[ignore = "needs root"]
fn what_no_event_tells_of_is_found_by_the_next_listing() {
    let mut host = Host::prepare();
    host.start_with(&["--resync", "1s"]);
    host.write("web.yaml", &limited("web", 64));
    let before = host.pid("web");

    // inotify(7): it tells nothing of what is written through a mapping; and the file stays open.
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nat=m.find(b'64Mi')\n\
                  m[at:at+4]=b'65Mi'\nm.flush()\nprint('written',flush=True)\nsys.stdin.read()";
    let mut writer = Command::new("python3")
        .args(["-c", script])
        .arg(host.manifests.join("web.yaml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(writer.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "written\n");
    host.until("it is found", || host.control("default_web", LIMIT) == bytes(65));

    drop(writer.stdin.take());
    writer.wait().unwrap();
    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn more_events_than_the_kernel_keeps_cost_a_listing_and_lose_nothing() {
    let mut host = Host::prepare();
    host.start_with(&["--resync", "1h"]);
    host.write("web.yaml", &limited("web", 64));
    let before = host.pid("web");
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();

    signal(host.agent_pid(), "STOP");
    let junk = host.manifests.join("junk");
    for _ in 0..most / 2 {
        drop(fs::File::create(&junk).unwrap());
        fs::remove_file(&junk).unwrap();
    }
    fs::write(host.manifests.join("web.yaml"), limited("web", 66)).unwrap();
    signal(host.agent_pid(), "CONT");

    host.until("the change is there", || host.control("default_web", LIMIT) == bytes(66));
    let events = host.ok(["events"]);
    assert!(events.contains("WatchLost"), "{events}");
    assert_eq!(host.pid("web"), before);
    host.write("web.yaml", &limited("web", 67));
    host.until("it is watched again", || host.control("default_web", LIMIT) == bytes(67));
}

#[test]
#[ignore = "needs root"]
fn a_failure_holds_up_no_other_object() {
    let host = Host::up();
    // More of them than are worked on at the same time.
    for number in 0..20 {
        let name = format!("bad{number:02}");
        host.write(&format!("{name}.yaml"), &sleeper(&name, "").replace("host:/", "rootfs:/no/place"));
    }
    host.wait("bad19", "failed", |item| item["status"]["sync"] == "failed");

    for number in 0..4 {
        host.write(&format!("good{number}.yaml"), &sleeper(&format!("good{number}"), ""));
    }
    for number in 0..4 {
        host.running(&format!("good{number}"));
    }
    assert_eq!(host.item("bad19").unwrap()["status"]["sync"], "failed");
}

#[test]
#[ignore = "needs root"]
fn a_failed_revision_is_tried_less_and_less_often() {
    let host = Host::up();
    host.write("bad.yaml", &sleeper("bad", "").replace("host:/", "rootfs:/no/place"));
    let began = Instant::now();

    let mut tries = 0;
    host.until("it was tried three times more", || {
        let events = host.ok(["events", "-o", "json"]);
        tries = events.lines().filter(|line| line.contains("\"Failed\"") && line.contains("/bad\"")).count();
        let item = host.item("bad");
        let said = item.map(|item| item["status"]["conditions"].to_string()).unwrap_or_default();
        said.contains("next try in 8s") || said.contains("next try in 7s")
    });

    // After 1, 2 and 4 seconds.
    assert!(began.elapsed().as_millis() >= 6500, "{:?}", began.elapsed());
    assert!(tries <= 4, "{tries} tries\n{}", host.story());
}

#[test]
#[ignore = "needs root"]
fn the_watched_directory_is_never_written_to() {
    let host = Host::up();
    host.write("web.yaml", &limited("web", 64));
    host.running("web");
    let look = || {
        let directory = fs::metadata(&host.manifests).unwrap();
        let file = fs::metadata(host.manifests.join("web.yaml")).unwrap();
        (
            directory.mtime_nsec(),
            directory.ctime_nsec(),
            file.ctime_nsec(),
            fs::read_dir(&host.manifests).unwrap().count(),
        )
    };
    let before = look();

    host.ok(["stop", "web", "--reason", "a test", "--wait"]);
    host.ok(["start", "web", "--wait"]);
    host.ok(["set", "resources", "web", "--memory", "80Mi"]);
    host.ok(["suspend", "web"]);
    host.ok(["resume", "web"]);
    host.ok(["reconcile"]);

    assert_eq!(look(), before);
}

#[test]
#[ignore = "needs root"]
fn directories_that_cannot_be_watched_are_looked_at_every_second() {
    let mut host = Host::prepare();
    let nobody_else = STARTS.write().unwrap_or_else(PoisonError::into_inner);
    let mut held = Vec::new();
    let begun = Instant::now();
    loop {
        // As many watchers as one user may have; another test may give one back meanwhile.
        while let Ok(one) = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
            held.push(one);
        }
        host.start_now(&["--resync", "1h"]);
        if host.ok(["status"]).contains("looked at every second") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "there are always more watchers");
        host.kill_agent();
    }
    host.write("web.yaml", &limited("web", 64));
    let before = host.pid("web");
    host.write("web.yaml", &limited("web", 68));
    host.until("the change is there", || host.control("default_web", LIMIT) == bytes(68));

    drop(held);
    drop(nobody_else);
    host.until("it is watched", || !host.ok(["status"]).contains("looked at every second"));
    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn what_is_not_confirmed_to_be_gone_is_not_forgotten() {
    let host = Host::up();
    host.write("web.yaml", &limited("web", 64));
    let before = pid(&host.running("web"));
    let keeper = host.keeper_pid();

    // Nobody answers whether it has ended.
    signal(keeper, "STOP");
    host.delete("web.yaml");
    host.wait("web", "on its way out", |item| item["status"]["phase"] != "Running");
    assert!(host.item("web").is_some());
    signal(keeper, "CONT");

    host.gone("web");
    assert!(!alive(before));
    assert_eq!(host.traces("default_web"), Vec::<std::path::PathBuf>::new());
}

/// Nobody may set this machine's clock for a test: the note of it says instead that it was set while no
/// agent ran.
#[test]
#[ignore = "needs root"]
fn a_clock_that_was_set_forward_ends_no_wait_early_also_while_no_agent_ran() {
    let mut host = Host::up();
    host.write("web.yaml", &limited("web", 64));
    let before = host.pid("web");
    host.ok(["start", "web", "--for", "2h"]);
    let until = |host: &Host| {
        let item = host.item("web").unwrap();
        let text = item["status"]["override"]["until"].as_str().map(str::to_owned);
        humantime::parse_rfc3339(&text.unwrap_or_else(|| panic!("{item}"))).unwrap()
    };
    let said = until(&host);
    host.kill_agent();

    let note = host.root().join("run/clock");
    let text = fs::read_to_string(&note).unwrap();
    let (boot, booted) = text.trim_end().split_once(' ').unwrap();
    let booted: u64 = booted.parse().unwrap();
    fs::write(&note, format!("{boot} {}\n", booted - 3_600_000)).unwrap();
    host.start();

    host.until("the word holds as much longer", || {
        until(&host).duration_since(said).is_ok_and(|later| later.as_secs().abs_diff(3600) < 5)
    });
    host.until("the status says so", || host.ok(["events"]).contains("the clock was set forward by 1h"));
    assert_eq!(pid(&host.item("web").unwrap()), before);
    let text = fs::read_to_string(&note).unwrap();
    assert!(text.trim_end().split_once(' ').unwrap().1.parse::<u64>().unwrap().abs_diff(booted) < 5_000, "{text}");
}
