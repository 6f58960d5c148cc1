//! From a container's mouth to its log file.

use super::super::process::{Place, instance, wait_until};
use crate::keeper::LogTarget;

#[test]
#[ignore = "needs root"]
fn a_prompt_without_newline_is_logged_at_the_end() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();

    place.start(&agent, &id, "printf 'one\\ntwo'").unwrap();
    agent.exit_of(&id);

    assert_eq!(place.logged(&id), ["stdout F one", "stdout F two"]);
}

#[test]
#[ignore = "needs root"]
fn a_long_line_arrives_in_parts() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();

    place.start(&agent, &id, "head -c 40000 /dev/zero | tr '\\0' x; echo").unwrap();
    agent.exit_of(&id);

    let lengths: Vec<_> = place.logged(&id).iter().map(|record| (record[7..8].to_owned(), record.len() - 9)).collect();
    assert_eq!(lengths, [("P".to_owned(), 16384), ("P".to_owned(), 16384), ("F".to_owned(), 7232)]);
}

#[test]
#[ignore = "needs root"]
fn much_output_is_complete_and_turned_over() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();

    place.start(&agent, &id, "seq 1 50000").unwrap();
    agent.exit_of(&id);

    let log = place.log(&id);
    let mut text = String::new();
    for number in (1..3).rev() {
        let path = log.with_file_name(format!("{}.{number}", log.file_name().unwrap().display()));
        text.push_str(&std::fs::read_to_string(path).unwrap());
    }
    text.push_str(&std::fs::read_to_string(&log).unwrap());
    let numbers: Vec<u32> = text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=50_000).collect::<Vec<_>>());
    assert!(log.metadata().unwrap().len() <= 1 << 20);
}

#[test]
#[ignore = "needs root"]
fn a_log_moves_while_its_container_runs() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    let go = place.path().join("go");
    let command = format!("echo before; while [ ! -e {} ]; do sleep 0.01; done; echo after", go.display());
    place.start(&agent, &id, &command).unwrap();
    wait_until(|| place.logged(&id) == ["stdout F before"]);

    let moved = place.path().join("moved.log");
    agent.client.set_log(&id, LogTarget { path: moved.clone(), max_size: 1000, files: 1 }).unwrap();
    std::fs::write(go, "").unwrap();
    agent.exit_of(&id);

    assert_eq!(place.logged(&id), ["stdout F before"]);
    assert!(std::fs::read_to_string(moved).unwrap().ends_with(" stdout F after\n"));
}

#[test]
#[ignore = "needs root"]
fn a_chatty_container_is_read_in_large_pieces() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    let before = agent.client.stats().unwrap().wakeups;

    place.start(&agent, &id, "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done").unwrap();
    agent.exit_of(&id);

    let wakeups = agent.client.stats().unwrap().wakeups - before;
    assert_eq!(place.logged(&id).len(), 20_000);
    assert!(wakeups < 2_000, "20,000 writes took {wakeups} wake-ups");
}
