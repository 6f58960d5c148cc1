//! Bad input and failed starts: a clear word, nothing disturbed, nothing left.

use crate::fixture::{Host, sleeper};
use std::fs;

fn message(item: &serde_json::Value) -> String {
    let conditions = item["status"]["conditions"].as_array().unwrap().iter();
    let texts = conditions.map(|condition| condition["message"].as_str().unwrap_or_default().to_owned());
    format!("{} {}", item["status"]["message"].as_str().unwrap_or_default(), texts.collect::<Vec<_>>().join(" "))
}

#[test]
#[ignore = "needs root"]
fn a_broken_file_stops_nothing_and_says_where() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}}\n"));
    let before = host.pid("web");

    for broken in [
        sleeper("web", "  resources: {memroy: {limit: 64Mi}}\n"),
        sleeper("web", "  resources: {memory: {limit: -1}}\n"),
        sleeper("web", "  resources: {cpu: {limit: 0}}\n"),
        sleeper("web", "  resources: {memory: {limit: 1Gi, high: 10Gi}}\n"),
        sleeper("web", "  hostname: [\n"),
        "\u{0}\u{1}\u{2}".to_owned(),
        String::new(),
    ] {
        host.write("web.yaml", &broken);
        let item = host.wait("web", "invalid", |item| item["status"]["sync"] == "invalid");

        assert!(message(&item).contains("web.yaml"), "{broken}: {}", message(&item));
        assert_eq!(host.item("web").unwrap()["status"]["pid"], before, "{broken}");
        host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}}\n"));
        assert_eq!(host.pid("web"), before);
    }
}

#[test]
#[ignore = "needs root"]
fn one_bad_document_does_not_touch_its_neighbours_in_the_file() {
    let host = Host::up();
    host.write("all.yaml", &format!("{}---\n{}", sleeper("one", ""), sleeper("two", "")));
    let (one, two) = (host.pid("one"), host.pid("two"));

    host.write(
        "all.yaml",
        &format!(
            "{}---\n{}",
            sleeper("one", "  bogus: 1\n"),
            sleeper("two", "  labels: {}\n").replace("  labels: {}\n", "")
        ),
    );
    host.wait("one", "invalid", |item| item["status"]["sync"] == "invalid");

    assert_eq!(host.item("one").unwrap()["status"]["pid"], one);
    assert_eq!(host.pid("two"), two);
}

#[test]
#[ignore = "needs root"]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let host = Host::up();
    let with = |name: &str, spec: &str| {
        format!("apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec:\n{spec}")
    };
    let cases = [
        ("nocmd", "  image: host:/\n  command: [/no/such/program]\n", "/no/such/program"),
        ("nopath", "  image: host:/\n  command: [no-such-program]\n", "no-such-program"),
        ("noimage", "  image: rootfs:/no/such/directory\n  command: [sh]\n", "/no/such/directory"),
        ("notar", "  image: tar:/no/such.tar\n  command: [sh]\n", "/no/such.tar"),
        (
            "nomount",
            "  image: host:/\n  command: [sh]\n  mounts: [{host: /no/such/source, path: /data}]\n",
            "/no/such/source",
        ),
        ("nouser", "  image: host:/\n  command: [sh]\n  user: nosuchuser\n", "nosuchuser"),
        (
            "noprofile",
            "  image: host:/\n  command: [sh]\n  security: {seccomp: \"file:/no/profile.json\"}\n",
            "/no/profile.json",
        ),
    ];
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();

    for (name, spec, _) in &cases {
        host.write(&format!("{name}.yaml"), &with(name, spec));
    }
    for (name, _, words) in &cases {
        let item = host
            .wait(name, "failed", |item| item["status"]["phase"] != "Starting" && item["status"]["sync"] == "failed");

        assert!(message(&item).contains(words), "{name}: {}", message(&item));
        // It is tried again now and then, and then there is something of it for a moment.
        host.until(&format!("nothing of {name} is left"), || host.traces(&format!("default_{name}")).is_empty());
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

#[test]
#[ignore = "needs root"]
fn a_failed_start_is_tried_again_at_once_when_its_file_changes() {
    let host = Host::up();
    host.write("late.yaml", &sleeper("late", "").replace("[sleep, infinity]", "[/no/such/program]"));
    host.wait("late", "failed", |item| item["status"]["sync"] == "failed");

    host.write("late.yaml", &sleeper("late", ""));

    host.pid("late");
}

#[test]
#[ignore = "needs root"]
fn a_name_that_would_leave_a_directory_is_refused() {
    let host = Host::prepare();
    for name in ["../evil", "a/b", ".", "Web", "a_b", "", "-a", "a-"] {
        host.write("evil.yaml", &sleeper(&format!("{name:?}"), ""));

        let said = host.fails(4, ["validate", host.manifests.to_str().unwrap()]);

        assert!(said.contains("evil.yaml"), "{name}: {said}");
        assert!(said.contains("name"), "{name}: {said}");
    }
}

#[test]
#[ignore = "needs root"]
fn what_runs_goes_on_when_its_new_image_or_command_is_missing() {
    let host = Host::up();
    let text = sleeper("kept", "");
    host.write("kept.yaml", &text);
    let before = host.pid("kept");
    let file = host.manifests.join("kept.yaml").display().to_string();

    for (broken, said) in [
        (text.replace("host:/", "rootfs:/no/place"), "rootfs:/no/place: there is no such directory"),
        (text.replace("[sleep", "[/bin/no-such"), "the command /bin/no-such is not there in host:/"),
    ] {
        assert_ne!(broken, text);
        host.write("kept.yaml", &broken);
        let item = host.wait("kept", "failed", |item| {
            [said, "kept.yaml:", "running last good"].iter().all(|words| message(item).contains(words))
        });

        assert_eq!(item["status"]["pid"], before);
        let is = |condition: &serde_json::Value| condition["type"] == "DependencyMissing";
        assert!(item["status"]["conditions"].as_array().unwrap().iter().any(is), "{item}");
        assert!(host.fails(4, ["validate", file.as_str()]).contains(said));
        assert!(host.fails(4, ["plan", file.as_str()]).contains(said));
    }
    // Who is in the image only the host can tell, when it has the image.
    for user in ["nosuchuser", "0:nosuchgroup"] {
        host.write("kept.yaml", &text.replace("spec:\n", &format!("spec:\n  user: {user}\n")));
        let item = host.wait("kept", "failed", |item| {
            ["nosuch", "kept.yaml:", "running last good"].iter().all(|words| message(item).contains(words))
        });
        assert_eq!(item["status"]["pid"], before);
    }
    host.write("kept.yaml", &text);
    assert_eq!(host.pid("kept"), before);
    let item = host.running("kept");
    assert!(!item["status"]["conditions"].to_string().contains("DependencyMissing"), "{item}");
}
