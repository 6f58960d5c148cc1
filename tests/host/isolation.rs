//! What a container is kept from, as the kernel and the container itself tell it.

use crate::fixture::{Host, proc_status, sleeper};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[test]
#[ignore = "needs root"]
fn a_default_container_has_its_own_namespaces_ids_and_few_rights() {
    let host = Host::up();
    host.write("a.yaml", &sleeper("a", ""));
    host.write("b.yaml", &sleeper("b", ""));
    let (a, b) = (host.pid("a"), host.pid("b"));

    for namespace in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(a), of(std::process::id()), "{namespace}");
        assert_ne!(of(a), of(b), "{namespace}");
    }
    let map = |pid: u32| -> Vec<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
        text.split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    let (map_a, map_b) = (map(a), map(b));
    assert_eq!((map_a[0], map_a[2]), (0, 65_536));
    assert!(map_a[1].abs_diff(map_b[1]) >= 65_536, "{map_a:?} {map_b:?}");
    // The eleven capabilities that Docker gives.
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(proc_status(a, set), "00000000800405fb", "{set}");
    }
    assert_eq!(proc_status(a, "CapInh"), "0000000000000000");
    assert_eq!(proc_status(a, "Seccomp"), "2");
    assert_eq!(proc_status(a, "NoNewPrivs"), "1");
}

#[test]
#[ignore = "needs root"]
fn a_container_sees_loopback_and_its_own_name() {
    let host = Host::up();
    host.write("a.yaml", &sleeper("a", "  hostname: chosen\n"));
    host.pid("a");

    assert_eq!(host.ok(["exec", "a", "--", "cat", "/proc/sys/kernel/hostname"]), "chosen\n");
    let script = "for dev in /sys/class/net/*; do echo ${dev##*/} $(cat $dev/flags); done";
    let devices = host.ok(["exec", "a", "--", "sh", "-c", script]);
    // Some kernels put the ends of tunnels in every network namespace; those are down.
    let is_up = |line: &&str| line.chars().last().is_some_and(|digit| "13579bdf".contains(digit));
    assert_eq!(devices.lines().filter(is_up).collect::<Vec<_>>(), ["lo 0x9"], "up and loopback: {devices}");
}

#[test]
#[ignore = "needs root"]
fn host_files_outside_the_allow_list_cannot_be_read() {
    let host = Host::up();
    let canary = format!("canary-{}", std::process::id());
    let mut planted = Vec::new();
    for dir in ["/root", "/home", "/var", "/srv", "/tmp", "/run", "/etc", "/opt"] {
        let file = std::path::Path::new(dir).join(&canary);
        fs::write(&file, "secret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        planted.push(file);
    }
    host.write("a.yaml", &sleeper("a", ""));
    host.pid("a");

    let found: Vec<String> = planted
        .iter()
        .filter(|file| host.plim(["exec", "a", "--", "test", "-e", file.to_str().unwrap()]).status.success())
        .map(|file| file.display().to_string())
        .collect();
    let secrets =
        host.plim(["exec", "a", "--", "sh", "-c", "cat /etc/shadow /etc/ssl/private/* /etc/ssh/* 2>/dev/null"]);
    for file in &planted {
        fs::remove_file(file).unwrap();
    }

    assert!(found.is_empty(), "{found:?}");
    assert!(secrets.stdout.is_empty(), "{}", String::from_utf8_lossy(&secrets.stdout));
}

#[test]
#[ignore = "needs root"]
fn a_read_only_root_takes_no_write_but_its_mounts_do() {
    let host = Host::up();
    let more = "  mounts: [{path: /scratch, tmpfs: 1Mi}]\n  security: {readOnlyRoot: true}\n";
    host.write("ro.yaml", &sleeper("ro", more));
    host.pid("ro");

    for path in ["/x", "/usr/x", "/etc/x", "/sys/x", "/proc/sys/kernel/hostname"] {
        let wrote = host.plim(["exec", "ro", "--", "sh", "-c", &format!("echo x > {path}")]);
        assert!(!wrote.status.success(), "{path} was written");
    }
    host.ok(["exec", "ro", "--", "sh", "-c", "echo x > /scratch/x"]);
    let full = host.plim(["exec", "ro", "--", "sh", "-c", "head -c 2000000 /dev/zero > /scratch/big"]);
    assert!(!full.status.success(), "the tmpfs has no limit");
}

#[test]
#[ignore = "needs root"]
fn a_writable_root_is_thrown_away_with_its_instance_and_never_reaches_the_host() {
    let host = Host::up();
    host.write("rw.yaml", &sleeper("rw", ""));
    host.pid("rw");

    host.ok(["exec", "rw", "--", "sh", "-c", "echo x > /usr/bin/plim-canary; echo x > /etc/plim-canary"]);

    assert!(!fs::exists("/usr/bin/plim-canary").unwrap());
    assert!(!fs::exists("/etc/plim-canary").unwrap());
}

#[test]
#[ignore = "needs root"]
fn a_mounted_directory_of_the_host_is_shared_and_its_owner_is_kept() {
    let host = Host::prepare();
    let data = host.dir.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("from-host"), "hello").unwrap();
    let mut host = host;
    host.start();
    let more =
        format!("  mounts: [{{path: /data, host: {0}}}, {{path: /ro, host: {0}, readOnly: true}}]\n", data.display());
    host.write("m.yaml", &sleeper("m", &more));
    host.pid("m");

    assert_eq!(host.ok(["exec", "m", "--", "cat", "/data/from-host"]), "hello");
    host.ok(["exec", "m", "--", "sh", "-c", "echo hi > /data/from-inside"]);
    assert!(!host.plim(["exec", "m", "--", "sh", "-c", "echo hi > /ro/x"]).status.success());

    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(data.join("from-inside")).unwrap());
    assert_eq!(owner, 0, "id-mapped: root inside writes as root");
}

#[test]
#[ignore = "needs root"]
fn dangerous_system_calls_and_kernel_files_are_refused() {
    let host = Host::up();
    host.write("a.yaml", &sleeper("a", ""));
    host.pid("a");

    for attempt in [
        "mount -t tmpfs none /mnt",
        "unshare -U true",
        "cat /proc/kcore | head -c 1 | grep -q .",
        "cat /proc/keys | grep -q .",
        "echo b > /proc/sysrq-trigger",
        "mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk",
        "echo 1 > /sys/fs/cgroup/cgroup.procs",
    ] {
        let done = host.plim(["exec", "a", "--", "sh", "-c", attempt]);
        assert!(!done.status.success(), "{attempt} succeeded");
    }
}

#[test]
#[ignore = "needs root"]
fn capabilities_are_dropped_and_added_by_name() {
    let host = Host::up();
    host.write("none.yaml", &sleeper("none", "  security: {capabilities: {drop: [ALL]}}\n"));
    host.write("net.yaml", &sleeper("net", "  security: {capabilities: {drop: [ALL], add: [NET_ADMIN]}}\n"));

    assert_eq!(proc_status(host.pid("none"), "CapBnd"), "0000000000000000");
    assert_eq!(proc_status(host.pid("net"), "CapEff"), format!("{:016x}", 1_u64 << 12));
}

#[test]
#[ignore = "needs root"]
fn another_user_runs_the_command_and_can_open_its_own_output() {
    let host = Host::up();
    let text = "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: user}\nspec:\n  image: host:/\n  user: www-data\n  init: true\n  \
                command: [sh, -c, \"id -u; echo reopened > /dev/stdout; echo wrong >&2; exec sleep 1000000\"]\n";
    host.write("user.yaml", text);
    host.pid("user");

    host.until("its words", || host.ok(["logs", "user"]).contains("wrong"));
    assert_eq!(host.ok(["logs", "user"]), "33\nreopened\nwrong\n");
}
