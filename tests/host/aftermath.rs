//! What has to be so when what happened at random is over: everything is as asked for, then nothing is left.

use crate::fixture::{Host, alive, pid, sleeper};

/// What is asked for at the end.
pub fn last_text(name: &str) -> String {
    sleeper(name, "  resources: {memory: {limit: 40Mi}}\n")
}

/// Each of them comes to run as its last text says.
pub fn settles(host: &Host, names: &[&str], seed: u64) {
    for name in names {
        let item = host.wait(name, &format!("settled after seed {seed}"), |item| {
            let status = &item["status"];
            status["phase"] == "Running"
                && status["sync"] == "synced"
                && status["resources"]["actuated"]["memory"]["limit"] == "40Mi"
                && status["generations"]["running"] == status["generations"]["lastGood"]
        });
        assert!(alive(pid(&item)), "seed {seed}");
    }
}

/// Their texts are removed, and nothing is left but what was there at rest.
pub fn goes(host: &Host, names: &[&str], at_rest: &[String], seed: u64) {
    let others = host.items().len() - names.len();
    for name in names {
        host.delete(&format!("{name}.yaml"));
    }
    host.until("all of them are gone", || {
        for name in names {
            // More at once than go without consent; refused until the absence has been seen.
            drop(host.plim(["approve", name]));
        }
        host.items().len() == others
    });
    let mut left = Vec::new();
    host.until(&format!("nothing is left after seed {seed}"), || {
        left = host.census();
        left == at_rest
    });
}
