//! What is mounted how: the kernel says it, in the container or to its host.

use crate::fixture::{Answer, Bundle, in_mounts_of_its_own};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

impl Bundle {
    /// Another mount, behind all others.
    fn mount(&mut self, mount: Value) -> usize {
        let mounts = self.config["mounts"].as_array_mut().unwrap();
        mounts.push(mount);
        mounts.len() - 1
    }

    fn bind(&mut self, source: &str, options: &[&str]) -> usize {
        let source = self.path(source);
        self.mount(json!({"destination": "/data", "type": "bind", "source": source, "options": options}))
    }

    fn directory(&self, name: &str) -> std::path::PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn user_namespace(&mut self, mappings: &Value) {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        self.config["linux"]["uidMappings"] = mappings.clone();
        self.config["linux"]["gidMappings"] = mappings.clone();
    }

    /// A bundle whose root belongs to somebody else can be reached by him.
    fn open_to(&self, id: u32) {
        use std::os::unix::fs::{PermissionsExt, chown};
        fs::set_permissions(self.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["", "dev", "proc", "sys", "tmp", "etc", "usr"] {
            chown(self.path("rootfs").join(name), Some(id), Some(id)).unwrap();
        }
    }
}

fn well(answer: &Answer) -> &str {
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{answer:?}");
    &answer.out
}

/// The options of each mount at `at` or below, as mountinfo has them.
const OPTIONS: &str = "while read -r id up dev root at options rest; do case $at in /data*) echo $at $options;; esac; \
                       done < /proc/self/mountinfo";

#[test]
#[ignore = "needs root"]
fn owners_show_as_the_mapping_of_a_mount_says() {
    let mapping = |inside: u32, outside: u32| json!([{"containerID": inside, "hostID": outside, "size": 10}]);
    for (option, listed, expected) in [
        ("idmap", true, "5000 6000"),
        ("rw", true, "5000 6000"),
        ("idmap=uids=1000-70-1;gids=1000-80-1", false, "70 80"),
        ("idmap=uids=0-5-1#1000-71-1;gids=990-80-20", false, "71 90"),
        // What the mapping does not have is nobody's.
        ("idmap=uids=0-0-1;gids=0-0-1", false, "65534 65534"),
    ] {
        let mut bundle = Bundle::new("stat -c '%u %g' /data/file");
        fs::write(bundle.directory("shared").join("file"), "").unwrap();
        std::os::unix::fs::chown(bundle.path("shared/file"), Some(1000), Some(1000)).unwrap();
        let index = bundle.bind("shared", &["bind", option]);
        if listed {
            bundle.config["mounts"][index]["uidMappings"] = mapping(1000, 5000);
            bundle.config["mounts"][index]["gidMappings"] = mapping(1000, 6000);
        }

        assert_eq!(well(&bundle.run()), expected, "{option}");
    }
}

#[test]
#[ignore = "needs root"]
fn owners_show_as_ids_of_the_containers_user_namespace() {
    let base = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    for (option, expected) in [
        ("idmap", "1000 1000"),
        ("idmap=uids=1000-100007-1;gids=1000-100008-1", "7 8"),
        ("idmap=uids=@1000-7-1;gids=@1000-8-1", "7 8"),
        ("rw", "65534 65534"),
    ] {
        let mut bundle = Bundle::new("stat -c '%u %g' /data/file");
        fs::write(bundle.directory("shared").join("file"), "").unwrap();
        std::os::unix::fs::chown(bundle.path("shared/file"), Some(1000), Some(1000)).unwrap();
        bundle.user_namespace(&base);
        bundle.open_to(100_000);
        bundle.bind("shared", &["bind", option]);

        assert_eq!(well(&bundle.run()), expected, "{option}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_mapping_reaches_what_is_mounted_below_when_it_is_recursive() {
    in_mounts_of_its_own(|| {
        for (option, expected) in [("idmap", "70\n0"), ("ridmap", "70\n70")] {
            let mut bundle = Bundle::new("stat -c %u /data/file; stat -c %u /data/inner/file");
            let inner = bundle.directory("shared/inner");
            rustix::mount::mount("tmpfs", &inner, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
            fs::write(bundle.path("shared/file"), "").unwrap();
            fs::write(inner.join("file"), "").unwrap();
            bundle.bind("shared", &["rbind", &format!("{option}=uids=0-70-1;gids=0-70-1")]);

            let answer = bundle.run();
            rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::DETACH).unwrap();

            assert_eq!(well(&answer), expected, "{option}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn every_option_of_a_mount_is_the_kernels_and_the_recursive_ones_reach_below() {
    in_mounts_of_its_own(|| {
        for (option, word, recursive) in [
            ("ro", "ro", "rro"),
            ("nosuid", "nosuid", "rnosuid"),
            ("nodev", "nodev", "rnodev"),
            ("noexec", "noexec", "rnoexec"),
            ("nosymfollow", "nosymfollow", "rnosymfollow"),
            ("noatime", "noatime", "rnoatime"),
            ("nodiratime", "nodiratime", "rnodiratime"),
        ] {
            for (options, reaches) in [(["rbind", option], false), (["rbind", recursive], true)] {
                let mut bundle = Bundle::new(OPTIONS);
                let inner = bundle.directory("shared/inner");
                rustix::mount::mount("tmpfs", &inner, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
                bundle.bind("shared", &options);

                let answer = bundle.run();
                rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::DETACH).unwrap();

                let lines: Vec<bool> =
                    well(&answer).lines().map(|line| line.split([' ', ',']).any(|one| one == word)).collect();
                assert_eq!(lines, [true, reaches], "{options:?}: {answer:?}");
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn recursive_options_also_take_away() {
    in_mounts_of_its_own(|| {
        use rustix::mount::MountFlags;
        let all =
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME | MountFlags::RDONLY;
        let mut bundle = Bundle::new(OPTIONS);
        let inner = bundle.directory("shared/inner");
        rustix::mount::mount("tmpfs", &inner, "tmpfs", all, None).unwrap();
        bundle.bind("shared", &["rbind", "rrw", "rsuid", "rdev", "rexec", "rrelatime"]);

        let answer = bundle.run();
        rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::DETACH).unwrap();

        assert_eq!(well(&answer).lines().nth(1), Some("/data/inner rw,relatime"), "{answer:?}");
    });
}

#[test]
#[ignore = "needs root"]
fn a_tmpfs_begins_with_a_copy_of_what_is_there() {
    for options in [json!(["tmpcopyup", "mode=755"]), json!(["tmpcopyup", "ro"])] {
        let mut bundle = Bundle::new(
            "cd /etc/deep; cat one sub/two; readlink link; stat -c '%a %u %Y' one sub; stat -f -c %T .; \
             touch new 2>/dev/null && echo written",
        );
        let deep = bundle.directory("rootfs/etc/deep/sub");
        let one = deep.parent().unwrap().join("one");
        fs::write(&one, "1\n").unwrap();
        fs::write(deep.join("two"), "2\n").unwrap();
        symlink("/outside/of/it", deep.parent().unwrap().join("link")).unwrap();
        std::os::unix::fs::chown(&one, Some(12), Some(13)).unwrap();
        let time = |path: &std::path::Path| fs::metadata(path).unwrap().mtime();
        bundle.mount(json!({"destination": "/etc/deep", "type": "tmpfs", "source": "tmpfs", "options": options}));

        let answer = bundle.run();

        let written = if options[1] == "ro" { "" } else { "\nwritten" };
        let expected = format!("1\n2\n/outside/of/it\n644 12 {}\n755 0 {}\ntmpfs{written}", time(&one), time(&deep));
        let code = if written.is_empty() { 1 } else { 0 };
        assert_eq!((answer.code, answer.out.as_str()), (Some(code), expected.as_str()), "{answer:?}");
        assert!(!deep.parent().unwrap().join("new").exists());
    }
}

#[test]
#[ignore = "needs root"]
fn links_are_copied_mounted_or_mounted_over_as_said() {
    let mut bundle = Bundle::new("readlink /data; cat /data/file");
    fs::write(bundle.directory("shared").join("file"), "through\n").unwrap();
    symlink("/tmp", bundle.path("pointer")).unwrap();
    bundle.bind("pointer", &["bind", "copy-symlink"]);
    let answer = bundle.run();
    assert!(answer.out == "/tmp" && fs::read_link(bundle.path("rootfs/data")).unwrap().ends_with("tmp"), "{answer:?}");

    // One that is not a link is bound.
    let mut bundle = Bundle::new("cat /data/file");
    fs::write(bundle.directory("shared").join("file"), "through\n").unwrap();
    bundle.bind("shared", &["bind", "copy-symlink"]);
    assert_eq!(well(&bundle.run()), "through");

    let mut bundle = Bundle::new("readlink /data");
    symlink("/far/away", bundle.path("pointer")).unwrap();
    fs::write(bundle.path("rootfs/data"), "").unwrap();
    bundle.bind("pointer", &["bind", "src-nofollow"]);
    assert_eq!(well(&bundle.run()), "/far/away");

    let mut bundle = Bundle::new("cat /data; ls /etc");
    fs::write(bundle.path("song"), "song\n").unwrap();
    symlink("/etc/target", bundle.path("rootfs/data")).unwrap();
    bundle.bind("song", &["bind", "dest-nofollow"]);
    assert_eq!(well(&bundle.run()), "song");
    assert!(!bundle.path("rootfs/etc/target").exists());
}

#[test]
#[ignore = "needs root"]
fn an_option_of_a_bind_takes_away_those_of_its_source_unless_a_user_namespace_holds_them() {
    in_mounts_of_its_own(|| {
        use rustix::mount::{MountFlags, mount};
        let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        for (options, own, held) in [
            (&["bind"][..], "rw,nosuid,noexec,noatime", "rw,nosuid,noexec,noatime"),
            (&["bind", "ro"], "ro,noatime", "ro,nosuid,noexec,noatime"),
            (&["bind", "dev", "relatime"], "rw,relatime", "rw,nosuid,noexec,relatime"),
            (&["bind", "exec"], "rw,noatime", "rw,nosuid,noatime"),
        ] {
            for (user, expected) in [(false, own), (true, held)] {
                let mut bundle = Bundle::new(OPTIONS);
                let shared = bundle.directory("shared");
                mount("tmpfs", &shared, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NOATIME, None)
                    .unwrap();
                bundle.bind("shared", options);
                if user {
                    bundle.user_namespace(&mapping);
                    bundle.open_to(100_000);
                }

                let answer = bundle.run();

                rustix::mount::unmount(&shared, rustix::mount::UnmountFlags::DETACH).unwrap();
                assert_eq!(well(&answer), format!("/data {expected}"), "{options:?} {user}");
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_tmpfs_without_a_mode_has_that_of_what_it_covers() {
    use std::os::unix::fs::PermissionsExt;
    for (covers, options, expected) in
        [(true, json!([]), "1710"), (true, json!(["size=1m", "mode=700"]), "700"), (false, json!([]), "1777")]
    {
        let mut bundle = Bundle::new("stat -c %a /data; grep -c ' /data .*mode=1710' /proc/mounts");
        if covers {
            let place = bundle.directory("rootfs/data");
            fs::set_permissions(place, fs::Permissions::from_mode(0o1710)).unwrap();
        }
        bundle.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options}));

        let answer = bundle.run();

        assert_eq!(answer.out, format!("{expected}\n{}", u8::from(expected == "1710")), "{answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_link_that_leads_to_nothing_stands_for_a_place_inside() {
    for (link, leads, made) in [
        ("rootfs/data", "/new/file", "rootfs/new/file"),
        ("rootfs/data", "new/./deep/../file", "rootfs/new/file"),
        ("rootfs/data", "/../../../outside", "rootfs/outside"),
        ("rootfs/data", "/jump/file", "rootfs/far/away/file"),
    ] {
        let mut bundle = Bundle::new("cat /data");
        fs::write(bundle.path("song"), "song\n").unwrap();
        symlink(leads, bundle.path(link)).unwrap();
        symlink("far/away", bundle.path("rootfs/jump")).unwrap();
        bundle.bind("song", &["bind"]);

        assert_eq!(well(&bundle.run()), "song", "{leads}");
        assert!(bundle.path(made).is_file(), "{leads}");
    }

    let mut bundle = Bundle::new("true");
    symlink("/data", bundle.path("rootfs/data")).unwrap();
    fs::write(bundle.path("song"), "song\n").unwrap();
    bundle.bind("song", &["bind"]);
    let answer = bundle.run();
    assert!(answer.code == Some(1) && answer.err.contains("Too many levels of symbolic links"), "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn a_proc_that_is_a_link_is_refused_with_the_words_that_others_have() {
    for name in ["proc", "sys"] {
        let bundle = Bundle::new("true");
        fs::remove_dir(bundle.path("rootfs").join(name)).unwrap();
        symlink("/tmp", bundle.path("rootfs").join(name)).unwrap();

        let answer = bundle.run();

        let expected = "it must be mounted on ordinary directory";
        assert!(answer.code == Some(1) && answer.err.contains(expected), "{answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_remount_changes_what_is_mounted_there() {
    for (kind, options, expected) in [
        ("tmpfs", json!(["remount", "ro", "nosuid", "size=8k"]), "/data ro,nosuid,relatime"),
        ("", json!(["bind", "remount", "ro", "noexec", "dev"]), "/data ro,nosuid,noexec,relatime"),
    ] {
        let mut bundle = Bundle::new(OPTIONS);
        let first = ["nosuid", "nodev"];
        bundle.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": first}));
        bundle.mount(json!({"destination": "/data", "type": kind, "options": options}));

        assert_eq!(well(&bundle.run()), expected);
    }
}

#[test]
#[ignore = "needs root"]
fn a_mount_that_the_kernel_refuses_is_told_with_its_place() {
    let mut bundle = Bundle::new("true");
    let first = bundle.mount(json!({"destination": "/data", "type": "tmpfs", "options": ["size=1m", "frob=1"]}));

    let answer = bundle.run();

    let expected = format!("plim-oci: mounts[{first}]: mounting tmpfs at /data (size=1m,frob=1): Invalid argument");
    assert_eq!((answer.code, answer.err), (Some(1), expected));
    assert!(bundle.is_gone());

    let mut bundle = Bundle::new("true");
    let index = bundle.bind("nowhere", &["bind"]);
    let answer = bundle.run();
    assert!(answer.err.starts_with(&format!("plim-oci: mounts[{index}]: taking /")), "{answer:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn any_file_system_is_mounted_by_its_type() {
    let mut bundle = Bundle::new("cat /data/low /data/high; echo x > /data/new; ls /queue; stat -f -c %T /queue /ram");
    let [low, high, upper, work] = ["low", "high", "upper", "work"].map(|name| bundle.directory(name));
    fs::write(low.join("low"), "low\n").unwrap();
    fs::write(high.join("high"), "high\n").unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let options = [
        format!("lowerdir={}:{}", text(&high), text(&low)),
        format!("upperdir={}", text(&upper)),
        format!("workdir={}", text(&work)),
    ];
    bundle.mount(json!({"destination": "/data", "type": "overlay", "source": "overlay", "options": options}));
    bundle.mount(json!({"destination": "/queue", "type": "mqueue", "source": "mqueue"}));
    bundle.mount(json!({"destination": "/ram", "type": "ramfs", "source": "ramfs"}));

    let answer = bundle.run();

    assert_eq!(well(&answer), "low\nhigh\nmqueue\nramfs");
    assert!(upper.join("new").exists());
}

/// `shared:N` and `master:N` of mountinfo, without the numbers.
const PROPAGATION: &str = "while read -r id up dev root at options rest; do case $at in /) echo ${rest%% *};; esac; \
                           done < /proc/self/mountinfo";

#[test]
#[ignore = "needs root"]
fn the_root_propagates_as_said() {
    in_mounts_of_its_own(|| {
        use rustix::mount::{MountPropagationFlags, mount_change};
        mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
        for (word, expected) in [
            ("private", "-"),
            ("rprivate", "-"),
            ("slave", "master"),
            ("rslave", "master"),
            ("shared", "shared"),
            ("rshared", "shared"),
            ("unbindable", "unbindable"),
            ("runbindable", "unbindable"),
        ] {
            let mut bundle = Bundle::new(PROPAGATION);
            bundle.config["linux"]["rootfsPropagation"] = json!(word);

            let answer = bundle.run();

            assert_eq!(well(&answer).split(':').next(), Some(expected), "{word}: {answer:?}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn what_is_mounted_in_a_shared_tree_shows_on_the_host_and_in_no_other() {
    in_mounts_of_its_own(|| {
        use rustix::mount::{MountPropagationFlags, mount_change};
        mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
        for (option, shows) in [("rshared", true), ("rslave", false), ("rprivate", false), ("rw", false)] {
            let mut bundle = Bundle::new("true");
            let inner = bundle.directory("shared/inner");
            bundle.bind("shared", &["rbind", option]);
            bundle.mount(json!({"destination": "/data/inner", "type": "tmpfs", "source": "tmpfs"}));

            let answer = bundle.run();

            assert_eq!(well(&answer), "");
            let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            assert_eq!(mounts.contains(inner.to_str().unwrap()), shows, "{option}");
            if shows {
                rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::DETACH).unwrap();
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_dev_of_the_hosts_is_taken_as_it_is() {
    let mut bundle = Bundle::new("[ -c /dev/null ] && [ -c /dev/kmsg ] && echo theirs");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.mount(json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "ro"]}));
    bundle.config["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]);
    assert_eq!(well(&bundle.run()), "theirs");

    bundle.config["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]);
    let answer = bundle.run();
    let expected = "linux.devices[0].path: /dev is bound to /dev, and has no such device";
    assert!(answer.code == Some(1) && answer.err.contains(expected), "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn a_user_namespace_has_its_devices_bound_where_there_is_no_dev_of_its_own() {
    let mut bundle = Bundle::new(
        "for node in null zero full random urandom tty fuse; do stat -c '%n %t:%T %a %u' /dev/$node; done; \
         echo gone > /dev/null; stat -c %F /dev/null; [ -p /dev/pipe ] && readlink /dev/fd",
    );
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let outside = bundle.path("outside");
    fs::write(&outside, "kept").unwrap();
    symlink(&outside, bundle.path("rootfs/dev/null")).unwrap();
    bundle.user_namespace(&json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    bundle.open_to(100_000);
    bundle.config["linux"]["devices"] = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7},
        {"path": "/dev/pipe", "type": "p"},
    ]);

    let answer = bundle.run();

    let expected = "/dev/null 1:3 666 0\n/dev/zero 1:5 666 0\n/dev/full 1:7 666 0\n/dev/random 1:8 666 0\n\
                    /dev/urandom 1:9 666 0\n/dev/tty 5:0 666 0\n/dev/fuse a:e5 640 7\ncharacter special file\n/proc/self/fd";
    assert_eq!(well(&answer), expected);
    assert_eq!(fs::read_to_string(outside).unwrap(), "kept");
}

#[test]
#[ignore = "needs root"]
fn a_read_only_dev_has_its_devices() {
    let mut bundle = Bundle::new("touch /dev/x 2>/dev/null || echo no; echo gone > /dev/null && echo there");
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push(json!("ro"));
        }
    }

    assert_eq!(well(&bundle.run()), "no\nthere");
}

#[test]
#[ignore = "needs root"]
fn a_root_may_be_a_link_absolute_or_relative() {
    let text = |bundle: &Bundle, name: &str| bundle.path(name).to_str().unwrap().to_owned();
    for number in 0..3 {
        let mut bundle = Bundle::new("echo fine");
        symlink("rootfs", bundle.path("link")).unwrap();
        let path = [text(&bundle, "rootfs"), "rootfs/../link".to_owned(), text(&bundle, "link")][number].clone();
        bundle.config["root"]["path"] = json!(path);

        assert_eq!(well(&bundle.run()), "fine", "{path}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_root_that_cannot_be_written_needs_its_mount_points() {
    in_mounts_of_its_own(|| {
        use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
        let mut bundle = Bundle::new("echo fine");
        let root = bundle.path("rootfs");
        mount(&root, &root, "", MountFlags::BIND, None).unwrap();
        mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();

        let fine = bundle.run();
        let index = bundle.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"}));
        let refused = bundle.run();
        unmount(&root, UnmountFlags::DETACH).unwrap();

        assert_eq!(well(&fine), "fine");
        let expected = format!("plim-oci: mounts[{index}]: mounting tmpfs at /data: Read-only file system");
        assert_eq!((refused.code, refused.err), (Some(1), expected));
        assert!(bundle.is_gone());
    });
}

#[test]
#[ignore = "needs root"]
fn a_root_is_also_changed_to_without_a_pivot() {
    let mut bundle = Bundle::new("ls /; [ -d /proc/1 ] && echo own");
    bundle.config["process"]["cwd"] = json!("/etc");
    let answer = bundle.run_with(&["--no-pivot"]);

    assert_eq!(well(&answer), "bin\ndev\netc\nlib\nlib64\nproc\nsbin\nsys\ntmp\nusr\nown");
}

#[test]
#[ignore = "needs root"]
fn a_source_in_the_root_has_what_has_been_mounted_there() {
    let ids = |inside: u32, outside: u32| json!([{"containerID": inside, "hostID": outside, "size": 10}]);
    for (user, mapped) in [(false, false), (false, true), (true, false)] {
        let mut bundle = Bundle::new("cat /copy/low/file /copy/deep/low/file; stat -c %u /copy/low");
        for place in ["low", "deep"] {
            bundle.directory(&format!("rootfs/tree/{place}"));
        }
        fs::write(bundle.directory("shared").join("file"), "from the host\n").unwrap();
        let root = bundle.path("rootfs");
        let below = |path: &str| root.join(path).to_str().unwrap().to_owned();
        let shared = bundle.path("shared");
        std::os::unix::fs::chown(&shared, Some(3), Some(3)).unwrap();
        bundle.mount(json!({"destination": "/tree/low", "source": shared, "options": ["bind"]}));
        bundle.mount(json!({"destination": "/tree/deep", "type": "tmpfs", "source": "tmpfs"}));
        bundle.mount(json!({"destination": below("tree/deep"), "source": below("tree"), "options": ["rbind", "ro"]}));
        let mut copy = json!({"destination": "/copy", "source": below("tree"), "options": ["rbind", "rprivate"]});
        if mapped {
            copy["options"].as_array_mut().unwrap().push(json!("ridmap"));
            (copy["uidMappings"], copy["gidMappings"]) = (ids(0, 70), ids(0, 70));
        }
        bundle.mount(copy);
        if user {
            bundle.user_namespace(&json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
            bundle.open_to(100_000);
        }

        let answer = bundle.run();

        let owner = if mapped {
            "73"
        } else if user {
            "65534"
        } else {
            "3"
        };
        assert_eq!(well(&answer), format!("from the host\nfrom the host\n{owner}"), "{user} {mapped}");
    }
}

#[test]
#[ignore = "needs root"]
fn another_command_has_the_same_root_without_a_pivot() {
    for hooks in [json!({}), json!({"createRuntime": [{"path": "/bin/true"}]})] {
        let mut bundle = Bundle::new("sleep 1000");
        fs::write(bundle.path("rootfs/etc/marker"), "own\n").unwrap();
        bundle.config["hooks"] = hooks;
        bundle.write();
        let place = bundle.path("");
        let words = ["run", "--no-pivot", "--detach", "--bundle", place.to_str().unwrap(), &bundle.id()];
        let mut command = bundle.command(&words);
        // Nobody has to wait for the end of its output.
        let status = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(0));

        let answer = bundle.call(&["exec", &bundle.id(), "cat", "/etc/marker"]);

        assert_eq!(well(&answer), "own");
        bundle.on(&["delete", "--force"]);
    }
}

#[test]
#[ignore = "needs root"]
fn without_a_pivot_no_proc_that_hides_nothing_is_in_reach() {
    for user in [false, true] {
        for option in ["--preserve-fds=0", "--no-pivot"] {
            // As who has all rights in a user namespace of his own.
            let mut bundle = Bundle::new("unshare -mrpf sh -c 'mount -t proc proc /tmp 2>/dev/null' || echo refused");
            if user {
                bundle.user_namespace(&json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
                bundle.open_to(100_000);
            }
            for set in ["bounding", "permitted", "effective"] {
                let list = bundle.config["process"]["capabilities"][set].as_array_mut().unwrap();
                list.push(json!("CAP_SETFCAP"));
            }

            let answer = bundle.run_with(&[option]);

            assert_eq!(well(&answer), "refused", "{user} {option}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn cgroups_show_as_the_container_is_in_them() {
    let script = "while read -r id up dev root at options rest; do case $at in /sys/fs/cgroup*) \
                  echo $root $at ${options%%,*};; esac; done < /proc/self/mountinfo";
    for (namespace, option) in [(true, "ro"), (true, "rw"), (false, "ro"), (false, "rw")] {
        let mut bundle = Bundle::new(script);
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "cgroup");
        if namespace {
            namespaces.push(json!({"type": "cgroup"}));
        }
        for mount in bundle.config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", option]);
            }
        }

        let answer = bundle.run();

        let lines: Vec<Vec<&str>> = well(&answer).lines().map(|line| line.split(' ').collect()).collect();
        assert!(!lines.is_empty());
        let id = bundle.id();
        for line in lines {
            let [root, _, shown] = line.as_slice() else { panic!("{line:?}") };
            assert_eq!(*shown, option, "{answer:?}");
            // The tmpfs that holds those of v1 has a root of its own.
            assert!(*root == "/" || (!namespace && root.ends_with(&id)), "{namespace}: {answer:?}");
        }
    }
}

#[test]
fn a_script_is_printed_and_nothing_is_made() {
    let mut bundle = Bundle::new("true");
    bundle.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=4k"]}));

    let answer = bundle.run_with(&["--print-script"]);

    let lines: Vec<&str> = well(&answer).lines().map(|line| line.split("  ").last().unwrap()).collect();
    let position =
        |what: &str| lines.iter().position(|line| *line == what).unwrap_or_else(|| panic!("{what}: {answer:?}"));
    let order = ["sealing the process", "mounting proc at /proc", "mounting tmpfs at /data (size=4k)"].map(position);
    assert!(order.is_sorted() && lines.last() == Some(&"executing /bin/sh"), "{answer:?}");
    assert!(bundle.is_gone());
}
