//! Commands beside a container's own.

use super::super::process::{Place, instance, open_files, script};
use crate::keeper::{Event, ExecRequest, ExecStreams, Fault};
use crate::sandbox::Stdio;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

#[test]
#[ignore = "needs root"]
fn a_command_runs_with_the_callers_streams_and_its_end_is_told() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    place.start(&agent, &id, "exec sleep 1000").unwrap();
    let before = open_files(keeper.pid());
    let null = File::open("/dev/null").unwrap();
    let (ours, theirs) = rustix::pipe::pipe().unwrap();
    let stdio = Stdio { stdin: null.as_fd(), stdout: theirs.as_fd(), stderr: theirs.as_fd() };

    let script = script(&["/bin/sh", "-c", "echo inside; exit 4"]);
    let request = ExecRequest { instance: &id, script: &script, io: ExecStreams::Stdio(stdio), seccomp: None };
    let started = agent.client.exec(&request).unwrap();
    drop(theirs);
    let mut said = String::new();
    File::from(ours).read_to_string(&mut said).unwrap();
    let exit = agent.event(|event| match event {
        Event::ExecExited { instance, exec, exit } if *instance == id && *exec == started.exec => Some(*exit),
        _ => None,
    });

    assert_eq!(said, "inside\n", "the end of the stream came too: the keeper holds none of them");
    assert_eq!(exit.code, Some(4));
    assert_eq!(open_files(keeper.pid()), before);
    agent.client.signal(&id, libc::SIGKILL).unwrap();
    agent.exit_of(&id);
    assert_eq!(agent.client.exec(&request_for(&id, &script, &null)).unwrap_err().fault(), Some(Fault::NotFound));
}

#[test]
#[ignore = "needs root"]
fn a_command_that_is_not_there_is_told_and_the_container_runs_on() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    place.start(&agent, &id, "exec sleep 1000").unwrap();
    let null = File::open("/dev/null").unwrap();

    let script = script(&["/nowhere/nothing"]);
    let error = agent.client.exec(&request_for(&id, &script, &null)).unwrap_err();

    assert_eq!(error.fault(), Some(Fault::NoSuchProgram));
    assert!(error.to_string().contains("/nowhere/nothing"), "{error}");
    for path in ["/etc/passwd", "/etc"] {
        let error = agent.client.exec(&request_for(&id, &super::super::process::script(&[path]), &null)).unwrap_err();
        assert_eq!(error.fault(), Some(Fault::NotExecutable), "{error}");
    }
    assert_eq!(agent.client.stats().unwrap().execs, 0);
    agent.client.signal(&id, libc::SIGKILL).unwrap();
    agent.exit_of(&id);
}

fn request_for<'a>(
    instance: &'a crate::spec::InstanceId,
    script: &'a crate::sandbox::Script,
    null: &'a File,
) -> ExecRequest<'a> {
    let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    ExecRequest { instance, script, io: ExecStreams::Stdio(stdio), seccomp: None }
}
