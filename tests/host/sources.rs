//! The watched directory: what comes, goes, moves and breaks in it.

use crate::fixture::{Host, alive, pid, sleeper};
use std::fs;

#[test]
#[ignore = "needs root"]
fn a_directory_that_vanishes_stops_nothing() {
    let host = Host::up();
    host.write("a.yaml", &sleeper("a", ""));
    host.write("b.yaml", &sleeper("b", ""));
    let before = (host.pid("a"), host.pid("b"));
    let away = host.dir.join("away");

    fs::rename(&host.manifests, &away).unwrap();
    host.wait("a", "unavailable", |item| item["status"]["sync"] == "unavailable");
    host.ok(["reconcile"]);
    assert!(alive(before.0) && alive(before.1));

    fs::rename(&away, &host.manifests).unwrap();
    assert_eq!((host.pid("a"), host.pid("b")), before);
}

#[test]
#[ignore = "needs root"]
fn another_mount_in_place_of_the_directory_is_seen_at_once_and_removes_nothing() {
    use nix::mount::{MsFlags, mount, umount};
    let host = Host::up();
    host.write("a.yaml", &sleeper("a", ""));
    host.write("b.yaml", &sleeper("b", ""));
    let before = (host.pid("a"), host.pid("b"));
    let sync = |word: &'static str| move |item: &serde_json::Value| item["status"]["sync"] == word;
    // The periodic listing comes after 30 s at the earliest.
    let soon = std::time::Instant::now() + std::time::Duration::from_secs(25);

    mount(Some("none"), &host.manifests, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    host.wait("a", "unavailable", sync("unavailable"));
    assert!(alive(before.0) && alive(before.1));
    umount(&host.manifests).unwrap();
    host.wait("a", "back", sync("synced"));

    assert!(std::time::Instant::now() < soon);
    assert_eq!((host.pid("a"), host.pid("b")), before);
}

#[test]
#[ignore = "needs root"]
fn a_directory_that_is_unmounted_while_the_agent_is_down_is_still_missed_by_the_next_one() {
    use nix::mount::{MsFlags, mount, umount};
    let mut host = Host::prepare();
    mount(Some("none"), &host.manifests, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
    host.start();
    // One alone: where it is the only one, its absence needs no consent.
    fs::write(host.manifests.join("a.yaml"), sleeper("a", "")).unwrap();
    let before = host.pid("a");

    host.kill_agent();
    umount(&host.manifests).unwrap();
    host.start();

    let item = host.wait("a", "unavailable", |item| item["status"]["sync"] == "unavailable");
    assert!(item["status"]["conditions"].to_string().contains("another mount"), "{item}");
    host.ok(["reconcile"]);
    assert!(alive(before), "{}", host.story());

    let unknown = host.fails(3, ["approve", "--source", "manifest"]);
    assert!(unknown.contains("source manifest"), "{unknown}");
    host.ok(["approve", "--source", "manifests"]);
    host.gone("a");
}

#[test]
#[ignore = "needs root"]
fn a_writer_that_pauses_in_the_middle_of_a_file_is_waited_for() {
    use std::io::Write as _;
    let host = Host::up();
    host.write("a.yaml", &sleeper("a", "  env: {N: before}\n"));
    let before = host.pid("a");
    let generation = |item: &serde_json::Value| item["status"]["generations"]["running"].as_u64().unwrap();
    let first = generation(&host.running("a"));

    // Its first half is a manifest of its own.
    let mut file = fs::File::create(host.manifests.join("a.yaml")).unwrap();
    file.write_all(sleeper("a", "").as_bytes()).unwrap();
    let paused = std::time::Instant::now();
    while paused.elapsed() < std::time::Duration::from_millis(500) {
        host.ok(["reconcile"]);
    }
    assert_eq!((host.pid("a"), generation(&host.running("a"))), (before, first));
    file.write_all(b"  env: {N: after}\n").unwrap();
    drop(file);

    let item = host.wait("a", "the whole file", |item| {
        item["status"]["phase"] == "Running" && item["status"]["sync"] == "synced" && generation(item) != first
    });
    assert_eq!(generation(&item), first + 1);
}

#[test]
#[ignore = "needs root"]
fn a_directory_that_is_emptied_waits_for_consent() {
    let host = Host::up();
    let names: Vec<String> = (0..6).map(|number| format!("w{number}")).collect();
    for name in &names {
        host.write(&format!("{name}.yaml"), &sleeper(name, ""));
    }
    let pids: Vec<u32> = names.iter().map(|name| host.pid(name)).collect();

    for name in &names {
        host.delete(&format!("{name}.yaml"));
    }
    for name in &names {
        host.wait(name, "held", |item| item["status"]["sync"] == "held");
    }
    assert!(pids.iter().all(|pid| alive(*pid)));

    host.ok(["approve", "container/w0"]);
    host.gone("w0");
    assert!(pids[1..].iter().all(|pid| alive(*pid)));
    host.ok(["approve", "--all"]);
    for name in &names {
        host.gone(name);
    }
}

#[test]
#[ignore = "needs root"]
fn the_same_name_in_two_files_changes_nothing_and_names_both() {
    let host = Host::up();
    host.write("a.yaml", &sleeper("web", ""));
    let before = host.pid("web");

    host.write("b.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}}\n"));
    let item = host.wait("web", "invalid", |item| item["status"]["sync"] == "invalid");

    let message = item["status"]["message"].as_str().unwrap();
    assert!(message.contains("a.yaml") && message.contains("b.yaml"), "{message}");
    assert_eq!(pid(&item), before);
    host.delete("b.yaml");
    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn two_hundred_manifests_at_once_all_run() {
    let host = Host::prepare();
    for number in 0..200 {
        let text =
            sleeper(&format!("m{number}"), "  resources: {memory: {limit: 16Mi}}\n").replace("  init: true\n", "");
        fs::write(host.manifests.join(format!("m{number}.yaml")), text).unwrap();
    }
    let mut host = host;
    host.start();

    host.until("200 running", || {
        host.items()
            .iter()
            .filter(|item| item["status"]["phase"] == "Running" && item["status"]["sync"] == "synced")
            .count()
            == 200
    });
}

#[test]
#[ignore = "needs root"]
fn a_file_that_others_may_write_is_not_trusted_and_stops_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", ""));
    let before = host.pid("web");

    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}}\n"));
    fs::set_permissions(host.manifests.join("web.yaml"), fs::Permissions::from_mode(0o666)).unwrap();
    host.wait("web", "invalid", |item| item["status"]["sync"] == "invalid");

    assert_eq!(host.item("web").unwrap()["status"]["pid"], before);
}

#[test]
#[ignore = "needs root"]
fn the_examples_run_and_the_web_server_answers() {
    use std::io::{Read as _, Write as _};
    let host = Host::up();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap().replace("18080", &free.to_string());
        host.write(path.file_name().unwrap().to_str().unwrap(), &text);
    }

    host.until("all of them", || {
        let items = host.items();
        items.len() >= 3 && items.iter().all(|item| item["status"]["sync"] == "synced")
    });
    let mut answer = String::new();
    host.until("an answer", || {
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", free)) else { return false };
        stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        answer.clear();
        stream.read_to_string(&mut answer).is_ok()
    });

    assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{answer}");
}
