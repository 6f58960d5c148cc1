//! The agent, or the keeper, dies between any two effects.
//!
//! Places to die at are in programs that are built with the feature `attackable` alone (`sys::may_die`);
//! without it there is nothing to see here.

use crate::fixture::{Host, PATIENCE, alive, pid, signal, sleeper, try_signal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::Instant;

/// How many roots play at the same time: most of a life is waiting.
const AT_ONCE: usize = 8;
/// A place that is come to more often is one of many effects, and the last of them is another one than the first.
const OFTEN: u32 = 8;

/// A place and the how-manieth time there.
type Death = (String, u32);

/// One root with a neighbour that nothing may happen to.
struct Stage {
    host: Host,
    neighbour: u32,
    at_rest: Vec<String>,
}

impl Stage {
    fn set() -> Self {
        let host = Host::up();
        let text = "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: neighbour}\nspec:\n  image: host:/\n  \
                    init: true\n  command: [perl, -e, \"$| = 1; while (1) { print ++$i, qq(\\\\n); select undef, undef, undef, 0.2 }\"]\n";
        host.write("neighbour.yaml", text);
        let neighbour = host.pid("neighbour");
        let at_rest = host.census();
        Self { host, neighbour, at_rest }
    }

    /// Starts agent and keeper anew, with this environment.
    fn restart(&mut self, environment: Vec<(String, String)>) {
        let keeper = self.host.keeper_pid();
        self.host.kill_agent();
        signal(keeper, "KILL");
        self.host.environment = environment;
        self.host.begin(&[]);
    }

    /// Looks until it is so, and has the agent started again whenever it dies, as a service manager has.
    fn until(&mut self, what: &str, mut so: impl FnMut(&Host) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(&self.host) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.host.story());
            if self.host.has_ended() {
                self.host.begin(&[]);
            }
            std::thread::park_timeout(std::time::Duration::from_millis(40));
        }
    }

    fn victim(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        self.until(what, |host| {
            let items = host.items_if_any().unwrap_or_default();
            found = items.into_iter().find(|item| item["metadata"]["name"] == "victim").filter(|item| wanted(item));
            found.is_some()
        });
        found.expect("until returns when it is found")
    }

    /// A whole life: made, resized, restarted, killed, made anew, removed.
    fn play(&mut self) {
        let settled = |item: &Value| {
            let status = &item["status"];
            status["phase"] == "Running"
                && status["sync"] == "synced"
                && status["generations"]["running"] == status["generations"]["lastGood"]
        };
        let with = |memory: &str, more: &str| {
            let limits =
                format!("  resources: {{memory: {{limit: {memory}}}}}\n  restart: {{backoff: {{min: 100ms}}}}\n");
            sleeper("victim", &format!("{limits}{more}"))
        };
        self.host.write("victim.yaml", &with("64Mi", ""));
        let first = pid(&self.victim("it runs", settled));
        self.host.write("victim.yaml", &with("96Mi", ""));
        let resized = self.victim("it is resized", |item| {
            settled(item) && item["status"]["resources"]["actuated"]["memory"]["limit"] == "96Mi"
        });
        assert_eq!(pid(&resized), first, "resized in place");
        // Another program in its place, while everything else goes on.
        if let Some(keeper) = self.host.keeper() {
            try_signal(keeper, "HUP");
        }
        self.host.write("victim.yaml", &with("96Mi", "  env: {N: \"1\"}\n"));
        let second = pid(&self.victim("it is restarted", |item| settled(item) && pid(item) != first));
        signal(second, "KILL");
        let third = pid(&self.victim("it comes back", |item| settled(item) && pid(item) != second));
        self.host.write("victim.yaml", &with("96Mi", "  env: {N: \"1\"}\n  network: host\n"));
        self.victim("it is made anew", |item| settled(item) && pid(item) != third);
        self.host.delete("victim.yaml");
        self.until("it is gone", |host| {
            let named = |item: &Value| item["metadata"]["name"] == "victim";
            host.items_if_any().is_some_and(|items| !items.iter().any(named))
        });
    }

    /// What has to be true after everything.
    fn judge(&mut self, after: &str) {
        let mut neighbour = None;
        self.until("the neighbour is known", |host| {
            let items = host.items_if_any().unwrap_or_default();
            neighbour = items.into_iter().find(|item| item["status"]["phase"] == "Running");
            neighbour.is_some()
        });
        let neighbour = neighbour.expect("until returns when it is found");
        assert_eq!(pid(&neighbour), self.neighbour, "{after}\n{}", self.host.story());
        assert_eq!(neighbour["status"]["restarts"], 0, "{after}");
        assert!(alive(self.neighbour), "{after}");
        // Not a line of it is lost, whoever was there to take it.
        self.until(&format!("{after}: it is heard"), |host| {
            let said = host.plim(["logs", "neighbour"]);
            let lines = String::from_utf8_lossy(&said.stdout).into_owned();
            let heard = lines.lines().zip(1..).all(|(line, number)| line == number.to_string());
            assert!(heard, "{after}\n{lines}");
            lines.lines().count() > 0
        });
        let at_rest = self.at_rest.clone();
        let mut left = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        self.until(&format!("{after}: as it was before"), |host| {
            left = host.census();
            let more: Vec<_> = left.iter().filter(|thing| !at_rest.contains(thing)).collect();
            let less: Vec<_> = at_rest.iter().filter(|thing| !left.contains(thing)).collect();
            assert!(Instant::now() < deadline, "{after}\nmore: {more:#?}\nless: {less:#?}\n{}", host.story());
            left == at_rest
        });
    }
}

/// Every place that a whole life comes to, the first times and the last.
fn places() -> Vec<Death> {
    let mut stage = Stage::set();
    let notes = stage.host.dir.join("notes");
    stage.restart(vec![("PLIM_DIE_NOTES".to_owned(), notes.display().to_string())]);
    stage.play();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for line in fs::read_to_string(notes).unwrap().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    let times = |(place, count): (String, u32)| {
        let last = (count > OFTEN).then_some(count);
        [Some(1), last].into_iter().flatten().map(move |time| (place.clone(), time))
    };
    counts.into_iter().flat_map(times).collect()
}

#[test]
#[ignore = "needs root"]
fn dying_between_any_two_effects_leaves_a_host_that_the_next_start_brings_to_rest() {
    if !cfg!(feature = "attackable") {
        return;
    }
    let deaths = places();
    eprintln!("{} deaths", deaths.len());
    assert!(deaths.len() > 30, "{deaths:?}");
    let rest = Mutex::new(deaths.clone());
    // Looks do not come at the same times twice, so the last time of a place may not come; all first times do.
    let survived = Mutex::new(Vec::new());

    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut stage = Stage::set();
                while let Some((place, time)) = { rest.lock().unwrap().pop() } {
                    let death = format!("{place}:{time}");
                    let once = stage.host.dir.join("died");
                    drop(fs::remove_file(&once));
                    let environment = [("PLIM_DIE_AT", death.clone()), ("PLIM_DIE_ONCE", once.display().to_string())];
                    stage.restart(environment.map(|(name, value)| (name.to_owned(), value)).into());
                    stage.play();
                    stage.judge(&death);
                    if !once.exists() {
                        survived.lock().unwrap().push((place, time));
                    }
                }
            });
        }
    });

    let survived = survived.into_inner().unwrap();
    assert!(survived.iter().all(|(_, time)| *time > 1), "nobody died at {survived:?}");
    assert!(survived.len() * 4 < deaths.len(), "of {} deaths none at {survived:?}", deaths.len());
}
