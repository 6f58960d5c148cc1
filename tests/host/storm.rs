//! Everything that can go wrong on a host, at once and at random: files, directories, mounts, disks,
//! limits, processes, programs, the database. Afterwards all is as asked for, and nothing is left over.

use crate::aftermath::{goes, last_text, settles};
use crate::cgroups::unified_mount;
use crate::database::{HARM, Small, files, harm};
use crate::dice::{Dice, number};
use crate::fixture::{Host, alive, sleeper, try_signal};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long it goes on, in seconds, where `PLIM_STORM_SECONDS` does not say.
const SECONDS: u64 = 20;
const VICTIMS: [&str; 6] = ["v0", "v1", "v2", "v3", "v4", "v5"];
const BYSTANDERS: [&str; 3] = ["b0", "b1", "b2"];

struct Storm {
    host: Host,
    dice: Dice,
    disk: Small,
    /// What happened, for a failed test.
    blows: Vec<&'static str>,
}

type Blow = fn(&mut Storm);

/// By name; what is here more than once is likelier.
const BLOWS: [(&str, Blow); 28] = [
    ("a file renamed into place", |storm| storm.save(renamed)),
    ("a file written in place", |storm| storm.save(|path, text| fs::write(path, text).unwrap())),
    ("a file written slowly", |storm| storm.save(slowly)),
    ("a file removed and made anew", |storm| storm.save(removed_first)),
    ("a file that becomes a link", |storm| storm.save(linked)),
    ("a file appended to", |storm| storm.save(appended)),
    ("a file renamed into place", |storm| storm.save(renamed)),
    ("a broken file", |storm| storm.spoil("apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: [\n")),
    ("an unknown field", |storm| storm.spoil("apiVersion: plimsoll/v1\nkind: Container\nspec: {memroy: 1}\n")),
    ("an empty file", |storm| storm.spoil("")),
    ("a removed file", |storm| drop(fs::remove_file(storm.victim_file()))),
    ("a removed file", |storm| drop(fs::remove_file(storm.victim_file()))),
    ("a killed agent", Storm::kill_agent),
    ("a killed agent", Storm::kill_agent),
    ("a killed keeper", |storm| storm.tell_keeper("KILL")),
    ("an upgraded keeper", |storm| storm.tell_keeper("HUP")),
    ("a stopped agent", Storm::halt),
    ("a killed process", Storm::kill_process),
    ("a changed limit", Storm::change_limit),
    ("a frozen cgroup", Storm::freeze),
    ("a directory away", Storm::directory_away),
    ("an unreadable directory", |storm| storm.directory_mode(0o000)),
    ("a directory that all may write", |storm| storm.directory_mode(0o777)),
    ("another mount over the directory", Storm::mount_over),
    ("a damaged database", Storm::damage),
    ("a removed database", Storm::remove_database),
    ("a full disk", Storm::fill_disk),
    ("words of a person", Storm::say),
];

impl Storm {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.dice.roll(of.len())]
    }

    fn victim_file(&mut self) -> PathBuf {
        let name = self.pick(&VICTIMS);
        self.host.manifests.join(format!("{name}.yaml"))
    }

    /// One of a few revisions, each a change of another class from the one before.
    fn save(&mut self, how: fn(&Path, &str)) {
        let name = self.pick(&VICTIMS);
        let memory = self.pick(&["32Mi", "48Mi", "64Mi"]);
        let network = self.pick(&["none", "host"]);
        let command = self.dice.roll(8);
        // Some cannot start, some end by themselves at once.
        let more = match command {
            0 => "  command: [/not/there]\n",
            1 => "  command: [sh, -c, 'exit 3']\n",
            2 => "  env: {N: x}\n",
            _ => "",
        };
        let base = sleeper(name, &format!("  resources: {{memory: {{limit: {memory}}}}}\n  network: {network}\n"));
        let text = if more.contains("command") {
            base.replace("  command: [sleep, infinity]\n  init: true\n", more)
        } else {
            base + more
        };
        how(&self.host.manifests.join(format!("{name}.yaml")), &text);
    }

    fn spoil(&mut self, text: &str) {
        let path = self.victim_file();
        if fs::symlink_metadata(&path).is_ok() {
            renamed(&path, text);
        }
    }

    fn kill_agent(&mut self) {
        if !self.host.has_ended() {
            self.host.kill_agent();
        }
    }

    /// Stopped for a while, as under a debugger or on a host that is out of memory.
    fn halt(&mut self) {
        if !self.host.has_ended() {
            try_signal(self.host.agent_pid(), "STOP");
            std::thread::park_timeout(Duration::from_millis(30));
            try_signal(self.host.agent_pid(), "CONT");
        }
    }

    fn tell_keeper(&self, signal: &str) {
        if let Some(keeper) = self.host.keeper() {
            try_signal(keeper, signal);
        }
    }

    /// The directories of a victim's instances, in every hierarchy.
    fn groups(&mut self) -> Vec<PathBuf> {
        let name = self.pick(&VICTIMS);
        self.host.cgroups(&format!("default_{name}"))
    }

    fn kill_process(&mut self) {
        let pids =
            self.groups().iter().flat_map(|group| fs::read_to_string(group.join("cgroup.procs"))).collect::<String>();
        let pids: Vec<u32> = pids.lines().filter_map(|pid| pid.parse().ok()).collect();
        if !pids.is_empty() {
            try_signal(pids[self.dice.roll(pids.len())], "KILL");
        }
    }

    fn change_limit(&mut self) {
        for group in self.groups() {
            for file in ["memory.limit_in_bytes", "memory.max"] {
                if group.join(file).exists() {
                    drop(fs::write(group.join(file), (100_u64 << 20).to_string()));
                }
            }
        }
    }

    fn freeze(&mut self) {
        let Some(mount) = unified_mount() else { panic!("every host here has a v2 hierarchy") };
        for group in self.groups().into_iter().filter(|group| group.starts_with(&mount)) {
            drop(fs::write(group.join("cgroup.freeze"), "1"));
        }
    }

    fn directory_away(&mut self) {
        let away = self.host.dir.join("away");
        fs::rename(&self.host.manifests, &away).unwrap();
        self.pause();
        fs::rename(&away, &self.host.manifests).unwrap();
    }

    fn directory_mode(&mut self, mode: u32) {
        fs::set_permissions(&self.host.manifests, fs::Permissions::from_mode(mode)).unwrap();
        self.pause();
        fs::set_permissions(&self.host.manifests, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn mount_over(&mut self) {
        mount(Some("plim-test"), &self.host.manifests, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        // With a file of its own, so that it is not the emptiness alone that is noticed.
        fs::write(self.host.manifests.join("v0.yaml"), sleeper("v0", "")).unwrap();
        self.pause();
        umount2(&self.host.manifests, MntFlags::MNT_DETACH).unwrap();
    }

    fn damage(&mut self) {
        self.kill_agent();
        let found = files(&self.disk.0).into_iter().filter(|file| file.starts_with(self.disk.0.join("db")));
        let found: Vec<PathBuf> = found.collect();
        if !found.is_empty() {
            harm(&found[self.dice.roll(found.len())], HARM[self.dice.roll(HARM.len())]);
        }
    }

    fn remove_database(&mut self) {
        drop(fs::remove_dir_all(self.disk.0.join("db")));
    }

    fn fill_disk(&mut self) {
        let fill = self.disk.0.join("fill");
        let mut file = fs::File::create(&fill).unwrap();
        let chunk = vec![0_u8; 1 << 20];
        while file.write_all(&chunk).is_ok() {}
        self.pause();
        self.pause();
        fs::remove_file(&fill).unwrap();
    }

    fn say(&mut self) {
        let name = self.pick(&VICTIMS);
        let word = self.pick(&["stop", "start", "restart", "suspend", "resume", "approve"]);
        drop(self.host.plim([word, name]));
    }

    /// The time between two blows is part of the dice, and nothing is waited for.
    fn pause(&mut self) {
        let millis = u64::try_from(self.dice.roll(150)).unwrap();
        std::thread::park_timeout(Duration::from_millis(millis));
    }

    fn go_on(&mut self) {
        if self.host.has_ended() {
            self.host.begin(&[]);
        }
    }
}

fn renamed(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

fn slowly(path: &Path, text: &str) {
    let mut file = fs::File::create(path).unwrap();
    for part in text.as_bytes().chunks(17) {
        file.write_all(part).unwrap();
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn removed_first(path: &Path, text: &str) {
    drop(fs::remove_file(path));
    std::thread::park_timeout(Duration::from_millis(30));
    fs::write(path, text).unwrap();
}

fn linked(path: &Path, text: &str) {
    let target = path.with_extension("target");
    fs::write(&target, text).unwrap();
    let link = path.with_extension("link");
    drop(fs::remove_file(&link));
    symlink(target.file_name().unwrap(), &link).unwrap();
    fs::rename(&link, path).unwrap();
}

fn appended(path: &Path, text: &str) {
    drop(fs::remove_file(path));
    let (first, second) = text.split_at(text.len() / 2);
    for part in [first, second] {
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        file.write_all(part.as_bytes()).unwrap();
    }
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
#[ignore = "needs root"]
fn whatever_happens_at_once_it_converges_stops_nobody_else_and_leaves_nothing() {
    let seed = number("PLIM_STORM_SEED", u64::from(std::process::id()));
    eprintln!("PLIM_STORM_SEED={seed} repeats it");
    let mut host = Host::prepare();
    let disk = Small::mount(&host, "64m");
    host.start();
    for name in BYSTANDERS {
        host.write(
            &format!("{name}.yaml"),
            &sleeper(name, "  resources: {memory: {limit: 32Mi}, pids: {limit: 16}}\n"),
        );
    }
    let before = BYSTANDERS.map(|name| host.pid(name));
    let at_rest = host.census();
    let mut storm = Storm { host, dice: Dice(seed), disk, blows: Vec::new() };

    let end = Instant::now() + Duration::from_secs(number("PLIM_STORM_SECONDS", SECONDS));
    while Instant::now() < end {
        let (name, blow) = BLOWS[storm.dice.roll(BLOWS.len())];
        storm.blows.push(name);
        blow(&mut storm);
        assert!(
            before.iter().all(|pid| alive(*pid)),
            "seed {seed}: a bystander is dead after {:?}\n{}",
            &storm.blows[storm.blows.len().saturating_sub(20)..],
            storm.host.story()
        );
        if storm.dice.roll(2) == 0 {
            storm.go_on();
        }
        storm.pause();
    }

    storm.go_on();
    let Storm { mut host, disk, .. } = storm;
    host.until("the agent answers", || host.plim(["status"]).status.success());
    for name in VICTIMS {
        renamed(&host.manifests.join(format!("{name}.yaml")), &last_text(name));
        for word in ["resume", "start"] {
            drop(host.plim([word, name]));
        }
    }
    settles(&host, &VICTIMS, seed);
    goes(&host, &VICTIMS, &at_rest, seed);
    assert_eq!(BYSTANDERS.map(|name| host.pid(name)), before, "seed {seed}");
    let old = descriptors(host.agent_pid()) + descriptors(host.keeper_pid());
    host.kill_agent();
    try_signal(host.keeper().unwrap(), "KILL");
    host.start();
    assert_eq!(BYSTANDERS.map(|name| host.pid(name)), before, "seed {seed}");
    let new = descriptors(host.agent_pid()) + descriptors(host.keeper_pid());
    assert!(old <= new + 4, "seed {seed}: {old} descriptors, {new} in new programs");
    host.interrupt();
    drop(disk);
}
