//! An agent whose configuration changes while it runs.

use crate::fixture::{Host, alive, pid, sleeper};
use crate::git::{Agent, file_source};
use crate::servers::Repository;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// A directory with one container per name, as an entry of `sources`.
fn directory(agent: &Agent, name: &str, containers: &[&str]) -> String {
    let path = agent.host.dir.join(name);
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    for container in containers {
        fs::write(path.join(format!("{container}.yaml")), sleeper(container, "")).unwrap();
    }
    format!("- {{name: {name}, directory: {}}}", path.display())
}

#[test]
#[ignore = "needs root"]
fn sources_come_change_and_go_without_a_restart() {
    let mut agent = Agent::prepare();
    let repository = Repository::new(&agent.host.dir);
    let (one, two) = (sleeper("one", ""), sleeper("two", ""));
    repository.push(&[("one/one.yaml", Some(&one)), ("two/two.yaml", Some(&two))]);
    let first = directory(&agent, "first", &["a"]);
    agent.configure(&first);
    agent.start();
    let (a, process) = (agent.host.pid("a"), agent.host.status()["agentPid"].clone());

    let second = directory(&agent, "second", &["b"]);
    agent.configure(&[first.clone(), second, file_source(&repository, ", path: one")].join("\n"));
    let said = agent.host.ok(["reload"]);
    assert!(said.contains("source second was added; source fleet was added"), "{said}");
    let b = agent.host.pid("b");
    agent.host.pid("one");

    agent.configure(&[first.clone(), file_source(&repository, ", path: two")].join("\n"));
    let said = agent.host.ok(["reload"]);
    assert!(said.contains("source fleet was changed; source second was taken out"), "{said}");
    agent.host.pid("two");
    agent.host.gone("one");
    agent.host.gone("b");
    assert!(!alive(b));
    assert!(!agent.host.ok(["source", "list"]).contains("second"));

    let same = agent.host.ok(["reload"]);
    assert_eq!(same.trim_end(), "the configuration was read");
    assert_eq!((agent.host.pid("a"), &agent.host.status()["agentPid"]), (a, &process));
    let added = sleeper("later", "");
    fs::write(agent.host.dir.join("first/later.yaml"), added).unwrap();
    agent.host.pid("later");
}

#[test]
#[ignore = "needs root"]
fn much_that_came_from_a_source_that_was_taken_out_waits_for_consent() {
    let mut agent = Agent::prepare();
    let names = ["b1", "b2", "b3", "b4"];
    let (first, second) = (directory(&agent, "first", &["a"]), directory(&agent, "second", &names));
    agent.configure(&[first.clone(), second].join("\n"));
    agent.start();
    let before = names.map(|name| agent.host.pid(name));

    agent.configure(&first);
    agent.host.ok(["reload"]);
    for name in names {
        agent.host.wait(name, "held", |item| item["status"]["sync"] == "held");
    }
    agent.kill();
    agent.start();
    for (name, before) in names.into_iter().zip(before) {
        let item = agent.host.wait(name, "held", |item| item["status"]["sync"] == "held");
        assert_eq!(pid(&item), before);
    }

    agent.host.ok(["approve", "--all"]);
    names.iter().for_each(|name| agent.host.gone(name));
    agent.host.pid("a");
}

#[test]
#[ignore = "needs root"]
fn a_configuration_with_a_mistake_keeps_the_sources_as_they_are_and_says_where() {
    let mut agent = Agent::prepare();
    let (first, second) = (directory(&agent, "first", &["a"]), directory(&agent, "second", &["b"]));
    agent.configure(&first);
    agent.start();
    let a = agent.host.pid("a");

    agent.configure(&[second.clone(), "- {name: third, directroy: /srv}".to_owned()].join("\n"));
    let said = agent.host.fails(4, ["reload"]);
    assert!(said.contains("agent.yaml:5:") && said.contains("directroy") && said.contains("what was holds"), "{said}");
    assert!(agent.host.status()["warnings"].to_string().contains("agent.yaml:5:"));
    assert!(agent.host.ok(["events"]).contains("agent.yaml:5:"));
    agent.configure(&[second.clone(), second.clone()].join("\n"));
    let said = agent.host.fails(4, ["reload"]);
    assert!(said.contains("agent.yaml:") && said.contains("two sources of the name second"), "{said}");
    agent.host.ok(["reconcile"]);
    assert_eq!(agent.host.pid("a"), a);
    assert!(agent.host.item("b").is_none());

    agent.configure(&[first, second].join("\n"));
    agent.host.ok(["reload"]);
    agent.host.pid("b");
    let warnings = agent.host.status()["warnings"].to_string();
    assert!(!warnings.contains("agent.yaml"), "{warnings}");
    assert_eq!(agent.host.pid("a"), a);
}

#[test]
#[ignore = "needs root"]
fn an_agent_in_the_foreground_has_no_configuration_to_read_again() {
    let host = Host::up();

    let said = host.fails(6, ["reload"]);

    assert!(said.contains("command line"), "{said}");
}
