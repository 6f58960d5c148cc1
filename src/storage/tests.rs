use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::Arc;

struct Place {
    dir: tempfile::TempDir,
    storage: Storage,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("skeleton/etc")).unwrap();
        let storage = Storage::new(&path("lib"), &path("run"), &path("log"));
        Self { storage, dir }
    }

    fn image(&self) -> Prepared {
        Prepared {
            layers: Layers::Overlay {
                base: self.dir.path().join("skeleton"),
                grafts: Arc::from([(String::from("usr"), PathBuf::from("/usr"))]),
            },
            digest: None,
            notes: Arc::from([]),
        }
    }
}

fn id(number: u64) -> InstanceId {
    format!("default_web.{number}").parse().unwrap()
}

fn range(base: u32) -> Option<IdRange> {
    Some(IdRange { base, size: IdRange::SIZE })
}

#[test]
fn nothing_is_listed_before_the_first() {
    let place = Place::new();

    assert!(place.storage.list().unwrap().is_empty());
    assert!(place.storage.images_in_use().unwrap().is_empty());
    place.storage.remove(&id(1)).unwrap();
    assert_eq!(place.storage.look(&id(1)).unwrap(), None);
}

#[test]
fn logs_of_older_runs_are_pruned() {
    let place = Place::new();
    place.storage.make_log_dir(&id(1)).unwrap();
    for run in [1, 2, 3, 9] {
        fs::write(place.storage.log_path(&id(1), run), "x").unwrap();
    }
    fs::write(place.storage.log_path(&id(1), 1).with_extension("log.1"), "x").unwrap();
    fs::write(place.storage.log_path(&id(1), 3).with_extension("log.1"), "x").unwrap();

    place.storage.prune_logs(&id(1), 4).unwrap();
    place.storage.prune_logs(&id(2), 4).unwrap();

    let mut left: Vec<_> = fs::read_dir(place.storage.log_path(&id(1), 0).parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["3.log", "3.log.1", "9.log"]);
    assert_eq!(place.storage.log_path(&id(1), 4), place.dir.path().join("log/default_web/1/4.log"));
}

mod root {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn an_instance_has_layers_of_its_own_root() {
        let place = Place::new();

        let root = place.storage.create(&id(1), &place.image(), range(1_000_000)).unwrap();

        let Root::Overlay { base, grafts } = &root else { panic!("{root:?}") };
        assert_eq!(base.lower, [place.dir.path().join("skeleton").to_str().unwrap()]);
        assert_eq!(grafts[0].0, "usr");
        assert_eq!(grafts[0].1.lower, ["/usr"]);
        for path in [&base.upper, &base.work, &grafts[0].1.upper, &grafts[0].1.work] {
            let found = fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1_000_000, 1_000_000, 0o755), "{path}");
        }
        let instance = place.storage.place(&id(1));
        assert_eq!(instance.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        let mut text = [0_u8; 32];
        let length = rustix::fs::getxattr(&instance, "trusted.plimsoll.ids", &mut text[..]).unwrap();
        assert_eq!(&text[..length], b"1000000+65536");
        assert_eq!(place.storage.list().unwrap(), BTreeMap::from([(id(1), range(1_000_000))]));
        assert_eq!(place.storage.look(&id(1)).unwrap(), Some(range(1_000_000)));
        assert_eq!(place.storage.images_in_use().unwrap(), BTreeSet::from([place.dir.path().join("skeleton")]));
    }

    #[test]
    #[ignore = "needs root"]
    fn a_second_call_keeps_what_the_container_made() {
        let place = Place::new();
        let first = place.storage.create(&id(1), &place.image(), range(1_000_000)).unwrap();
        let upper = place.storage.place(&id(1)).join("upper");
        fs::write(upper.join("data"), "kept").unwrap();
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o700)).unwrap();

        let second = place.storage.create(&id(1), &place.image(), range(1_000_000)).unwrap();

        assert_eq!(first, second);
        assert_eq!(fs::read_to_string(upper.join("data")).unwrap(), "kept");
        assert_eq!(upper.metadata().unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    #[ignore = "needs root"]
    fn what_a_crash_left_is_completed() {
        let place = Place::new();
        let instance = place.storage.place(&id(1));
        // After the note, in the middle of the layers.
        fs::create_dir_all(instance.join("upper.new")).unwrap();
        fs::create_dir_all(instance.join("usr.work.new")).unwrap();
        symlink("1000000+65536", instance.join("ids")).unwrap();
        symlink("/somewhere", instance.join(".image")).unwrap();

        place.storage.create(&id(1), &place.image(), range(1_000_000)).unwrap();

        assert_eq!(instance.join("upper").metadata().unwrap().uid(), 1_000_000);
        assert_eq!(instance.join("usr.work").metadata().unwrap().uid(), 1_000_000);
        assert!(!instance.join("upper.new").exists());
    }

    #[test]
    #[ignore = "needs root"]
    fn other_ids_are_refused() {
        let place = Place::new();
        place.storage.create(&id(1), &place.image(), range(1_000_000)).unwrap();
        place.storage.create(&id(2), &place.image(), None).unwrap();

        let other = place.storage.create(&id(1), &place.image(), range(1_065_536)).unwrap_err().to_string();
        let none = place.storage.create(&id(1), &place.image(), None);
        let some = place.storage.create(&id(2), &place.image(), range(1_000_000));

        assert!(other.contains("default_web/1 was written with the ids from 1000000"), "{other}");
        assert!(matches!(none, Err(StorageError::OtherIds { .. })));
        assert!(matches!(some, Err(StorageError::OtherIds { .. })));
        // As on a file system without attributes.
        rustix::fs::removexattr(place.storage.place(&id(1)), "trusted.plimsoll.ids").unwrap();
        symlink("1000000+65536", place.storage.place(&id(1)).join("ids")).unwrap();
        assert!(place.storage.create(&id(1), &place.image(), range(1_065_536)).is_err());
        assert_eq!(place.storage.list().unwrap(), BTreeMap::from([(id(1), range(1_000_000)), (id(2), None)]));
    }

    #[test]
    #[ignore = "needs root"]
    fn removal_takes_everything_of_one_instance_alone() {
        let place = Place::new();
        for number in [1, 2] {
            place.storage.create(&id(number), &place.image(), range(1_000_000)).unwrap();
            place.storage.make_run_dir(&id(number)).unwrap();
            place.storage.make_log_dir(&id(number)).unwrap();
            fs::write(place.storage.log_path(&id(number), 1), "x").unwrap();
        }
        let upper = place.storage.place(&id(1)).join("upper");
        fs::create_dir_all(upper.join("a/b")).unwrap();
        symlink(place.storage.place(&id(2)), upper.join("a/other")).unwrap();
        symlink("/", upper.join("a/b/root")).unwrap();
        fs::set_permissions(upper.join("a"), fs::Permissions::from_mode(0o000)).unwrap();

        place.storage.remove(&id(1)).unwrap();
        place.storage.remove(&id(1)).unwrap();

        assert!(!place.storage.place(&id(1)).exists());
        assert!(!place.storage.run_dir(&id(1)).exists());
        assert!(!place.storage.log_path(&id(1), 1).exists());
        assert!(place.storage.place(&id(2)).join("upper").exists());
        assert!(place.storage.log_path(&id(2), 1).exists());
        place.storage.remove(&id(2)).unwrap();
        for name in ["lib/instances", "run/instances", "log"] {
            assert_eq!(fs::read_dir(place.dir.path().join(name)).unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_failed_removal_is_still_listed_with_its_ids() {
        let place = Place::new();
        place.storage.create(&id(1), &place.image(), range(1_000_000)).unwrap();
        let at = place.storage.place(&id(1)).join("upper/mounted");
        fs::create_dir(&at).unwrap();
        rustix::mount::mount_bind(place.dir.path().join("skeleton"), &at).unwrap();

        let result = place.storage.remove(&id(1));

        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(result.is_err());
        assert!(place.dir.path().join("skeleton/etc").exists());
        assert_eq!(place.storage.list().unwrap(), BTreeMap::from([(id(1), range(1_000_000))]));
        place.storage.remove(&id(1)).unwrap();
        assert!(place.storage.list().unwrap().is_empty());
    }

    #[test]
    #[ignore = "needs root"]
    fn a_directory_as_root_is_used_as_it_is() {
        let place = Place::new();
        let rootfs = place.dir.path().join("skeleton");
        let image = Prepared { layers: Layers::Directory(rootfs.clone()), digest: None, notes: Arc::from([]) };

        let root = place.storage.create(&id(1), &image, range(1_000_000)).unwrap();
        place.storage.remove(&id(1)).unwrap();

        assert_eq!(root, Root::Directory { path: rootfs.to_str().unwrap().to_owned() });
        assert!(rootfs.join("etc").exists());
    }

    #[test]
    #[ignore = "needs root"]
    fn the_hosts_programs_run_on_their_own_layers() {
        let place = Place::new();
        let images = crate::image::Images::new(place.dir.path().join("lib"));
        let image = images.prepare(&crate::spec::ImageRef::Host).unwrap();
        let root = place.storage.create(&id(1), &image, None).unwrap();
        let Root::Overlay { base, grafts } = &root else { panic!("{root:?}") };
        let at = place.dir.path().join("at");
        fs::create_dir(&at).unwrap();
        let at = at.to_str().unwrap();
        let mut script = String::from("set -e; mount --make-rprivate /\n");
        let mounts =
            std::iter::once((String::new(), base)).chain(grafts.iter().map(|(name, graft)| (name.clone(), graft)));
        for (name, Overlay { lower, upper, work }) in mounts {
            let lower = lower.join(":");
            script += &format!("mount -t overlay o -o lowerdir={lower},upperdir={upper},workdir={work} {at}/{name}\n");
        }
        script += &format!(
            "exec chroot {at} /bin/sh -c 'id -un; id -un www-data; ls /root /home /etc/shadow; echo x > /usr/made; cat /etc/passwd | wc -l'"
        );

        let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();

        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
        assert!(text.starts_with("root\nwww-data\n/home:\n\n/root:\n18"), "{text}{errors}");
        assert!(errors.contains("/etc/shadow"), "{errors}");
        assert!(place.storage.place(&id(1)).join("usr.upper/made").exists());
        place.storage.remove(&id(1)).unwrap();
        assert!(place.storage.list().unwrap().is_empty());
    }
}
