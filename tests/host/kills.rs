//! Agent and keeper are killed at random while manifests change, and the keeper is upgraded in between.

use crate::aftermath::{goes, last_text, settles};
use crate::dice::{Dice, number};
use crate::fixture::{Host, sleeper, try_signal};
use std::fs;
use std::time::{Duration, Instant};

/// How long it goes on, in seconds, where `PLIM_KILL_SECONDS` does not say.
const SECONDS: u64 = 15;
const NAMES: [&str; 5] = ["k0", "k1", "k2", "k3", "k4"];

/// One of a few revisions, each a change of another class from the one before.
fn revision(name: &str, dice: &mut Dice) -> String {
    let memory = ["32Mi", "48Mi", "64Mi"][dice.roll(3)];
    let env = dice.roll(2);
    let network = ["none", "host"][dice.roll(2)];
    sleeper(
        name,
        &format!("  resources: {{memory: {{limit: {memory}}}}}\n  env: {{N: \"{env}\"}}\n  network: {network}\n"),
    )
}

#[test]
#[ignore = "needs root"]
fn killed_at_random_while_manifests_change_it_converges_and_leaves_nothing() {
    let seed = number("PLIM_KILL_SEED", u64::from(std::process::id()));
    eprintln!("PLIM_KILL_SEED={seed} repeats it");
    let mut dice = Dice(seed);
    let mut host = Host::up();
    host.write("bystander.yaml", &sleeper("bystander", ""));
    let bystander = host.pid("bystander");
    let at_rest = host.census();

    let end = Instant::now() + Duration::from_secs(number("PLIM_KILL_SECONDS", SECONDS));
    let mut kills = 0;
    while Instant::now() < end {
        let name = NAMES[dice.roll(NAMES.len())];
        let file = format!("{name}.yaml");
        match dice.roll(9) {
            0 => drop(fs::remove_file(host.manifests.join(&file))),
            1 if !host.has_ended() => {
                host.kill_agent();
                kills += 1;
            }
            2 => {
                // It may have gone between the two looks.
                if let Some(keeper) = host.keeper() {
                    try_signal(keeper, "KILL");
                    kills += 1;
                }
            }
            3 => {
                if let Some(keeper) = host.keeper() {
                    try_signal(keeper, "HUP");
                }
            }
            _ => host.write(&file, &revision(name, &mut dice)),
        }
        if host.has_ended() && dice.roll(2) == 0 {
            host.begin(&[]);
        }
        // The time between two blows is part of the dice, and nothing is waited for.
        std::thread::park_timeout(Duration::from_millis(u64::try_from(dice.roll(120)).unwrap()));
    }

    if host.has_ended() {
        host.begin(&[]);
    }
    host.until("the agent answers", || host.plim(["status"]).status.success());
    for name in NAMES {
        host.write(&format!("{name}.yaml"), &last_text(name));
    }
    settles(&host, &NAMES, seed);
    assert_eq!(host.pid("bystander"), bystander, "seed {seed}");
    assert!(kills > 3, "seed {seed}: {kills} kills");
    goes(&host, &NAMES, &at_rest, seed);
    assert_eq!(host.pid("bystander"), bystander, "seed {seed}");
}
