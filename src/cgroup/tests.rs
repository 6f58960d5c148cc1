//! Against the kernel of this host: the same claims on v2, hybrid and v1.

mod root {
    use crate::cgroup::place::{Mounted, Place};
    use crate::cgroup::table::{Controller, Version};
    use crate::cgroup::{
        ALLOWED_DEVICES, Access, CgroupError, CgroupJoinPaths, Cgroups, Created, DeviceKind, DeviceRule, Verdict,
        access,
    };
    use crate::plan::GroupSeen;
    use crate::spec::{Bytes, Count, Cpu, CpuSet, InstanceId, IoLimit, Memory, MilliCpu, Pids, Resources, Weight};
    use rustix::fs::OFlags;
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::{BufRead, BufReader, Write};
    use std::ops::Deref;
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A parent of its own, removed with everything in it.
    struct Ours(Cgroups);

    impl Ours {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            Self(Cgroups::detect(&format!("/plimsoll-test-{}-{number}", std::process::id())).unwrap())
        }

        fn version(&self, controller: Controller) -> Option<Version> {
            self.homes.get(&controller).map(|index| self.hierarchies[*index].version)
        }

        /// The name of the memory limit's file on this host.
        fn memory_max(&self) -> &'static str {
            match self.version(Controller::Memory).expect("the memory controller") {
                Version::V1 => "memory.limit_in_bytes",
                Version::V2 => "memory.max",
            }
        }

        fn seen(&self, instance: &InstanceId) -> GroupSeen {
            self.observe(instance).unwrap().expect("it stands")
        }

        fn says(&self, instance: &InstanceId, file: &str) -> String {
            self.seen(instance).limits[file].clone()
        }

        /// Writes a control file as a person would.
        fn by_hand(&self, controller: Controller, instance: &InstanceId, file: &str, text: &str) {
            std::fs::write(self.path(self.homes[&controller], instance).join(file), text).unwrap();
        }
    }

    impl Deref for Ours {
        type Target = Cgroups;

        fn deref(&self) -> &Cgroups {
            &self.0
        }
    }

    impl Drop for Ours {
        fn drop(&mut self) {
            for instance in self.list().unwrap() {
                self.remove(&instance).unwrap();
            }
            let gone = self.remove_parent().unwrap();
            assert!(gone || std::thread::panicking(), "something was left below {}", self.parent);
        }
    }

    /// A process in an instance's cgroup that does as it is told.
    struct Guest {
        child: Child,
        answers: BufReader<std::process::ChildStdout>,
    }

    const GUEST: &str = r#"
        $| = 1;
        while (<STDIN>) {
            if (/^hold (\d+)/) { open(Z, "<", "/dev/zero"); sysread(Z, $held, $1 << 20); }
            elsif (/^drop/) { undef $held; }
            elsif (/^cache (\d+) (\S+)/) {
                open(F, ">", $2) or die; my $mib = "x" x (1 << 20);
                for (1 .. $1) { syswrite(F, $mib); }
                F->sync if F->can("sync"); close F;
                system("sync", $2);
            }
            elsif (/^fork (\d+)/) { for (1 .. $1) { fork() // die; } }
            print "done $$\n";
        }
        sleep 1000;
    "#;

    impl Guest {
        fn start(created: &Created) -> Self {
            let mut child = Command::new("perl")
                .args(["-MIO::Handle", "-e", GUEST])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            for dir in created.join.v1.iter().chain(&created.join.unified) {
                std::fs::write(format!("{dir}/cgroup.procs"), child.id().to_string()).unwrap();
            }
            let answers = BufReader::new(child.stdout.take().unwrap());
            let mut guest = Self { child, answers };
            guest.tell("hello");
            guest
        }

        /// Returns when it is done; whether it lives.
        fn tell(&mut self, what: &str) -> bool {
            let input = self.child.stdin.as_mut().unwrap();
            input.write_all(format!("{what}\n").as_bytes()).unwrap();
            let mut line = String::new();
            self.answers.read_line(&mut line).unwrap();
            line.starts_with("done")
        }

        fn is_in(&self, group: &str) -> bool {
            let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.child.id())).unwrap();
            text.lines().any(|line| line.ends_with(group))
        }
    }

    impl Drop for Guest {
        fn drop(&mut self) {
            // Ended already in some tests, and reaped in any case.
            let _ended = self.child.kill();
            self.child.wait().unwrap();
        }
    }

    fn web(number: u64) -> InstanceId {
        format!("default_web.{number}").parse().unwrap()
    }

    fn mib(mib: u64) -> Option<Bytes> {
        Some(Bytes(mib << 20))
    }

    fn pids(count: i64) -> Pids {
        Pids { limit: Some(Count::try_from(count).unwrap()) }
    }

    fn limit(limit: u64) -> Resources {
        Resources { memory: Memory { limit: mib(limit), ..Memory::default() }, ..Resources::default() }
    }

    #[test]
    #[ignore = "needs root"]
    fn limits_are_in_the_kernel_before_anything_runs() {
        let ours = Ours::new();
        let want = Resources {
            cpu: Cpu { limit: Some(MilliCpu(1500)), weight: Some(Weight::try_from(200).unwrap()), ..Cpu::default() },
            memory: Memory { limit: mib(64), high: mib(48), swap: mib(0), ..Memory::default() },
            pids: pids(32),
            ..Resources::default()
        };

        let created = ours.create(&web(1), &want, &[]).unwrap();

        let expected: &[(&str, &str)] = match ours.version(Controller::Memory).unwrap() {
            Version::V1 => &[
                ("cpu.cfs_quota_us", "150000"),
                ("cpu.shares", "2451"),
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "67108864"),
                ("pids.max", "32"),
            ],
            Version::V2 => &[
                ("cpu.max", "150000 100000"),
                ("cpu.weight", "200"),
                ("memory.max", "67108864"),
                ("memory.high", "50331648"),
                ("memory.swap.max", "0"),
                ("pids.max", "32"),
            ],
        };
        for (file, text) in expected {
            assert_eq!(created.readback[*file], *text, "{file}");
        }
        assert_eq!(ours.seen(&web(1)), GroupSeen { populated: false, limits: created.readback });
        let lacks_high = ours.version(Controller::Memory) == Some(Version::V1);
        assert_eq!(created.unsupported, if lacks_high { vec!["memory.high"] } else { vec![] });
    }

    #[test]
    #[ignore = "needs root"]
    fn a_hard_limit_that_the_host_lacks_is_refused_with_the_reason_and_leaves_nothing() {
        let ours = Ours::new();
        let no_such_page = BTreeMap::from([(Bytes(3 << 20), Bytes(3 << 20))]);
        let want = Resources { hugepages: no_such_page, ..limit(64) };

        let refused = ours.create(&web(1), &want, &[]);

        let Err(error @ CgroupError::Unsupported { .. }) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().starts_with("this host cannot enforce resources.hugepages: "), "{error}");
        assert_eq!(ours.list().unwrap(), BTreeSet::new());
        assert_eq!(ours.observe(&web(1)).unwrap(), None);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_value_that_the_kernel_refuses_leaves_nothing_and_names_the_file() {
        let ours = Ours::new();
        let more_than_pids = Resources { pids: pids(1 << 40), ..limit(64) };

        let refused = ours.create(&web(1), &more_than_pids, &[]);

        let Err(CgroupError::Write { path, value, .. }) = refused else { panic!("{refused:?}") };
        assert!(path.ends_with("pids.max"), "{path:?}");
        assert_eq!(value, (1_u64 << 40).to_string());
        assert_eq!(ours.list().unwrap(), BTreeSet::new());
        assert_eq!(ours.observe(&web(1)).unwrap(), None);
    }

    #[test]
    #[ignore = "needs root"]
    fn huge_pages_are_limited_where_the_kernel_can_and_refused_elsewhere() {
        let ours = Ours::new();
        let want = Resources { hugepages: BTreeMap::from([(Bytes(2 << 20), Bytes(64 << 20))]), ..limit(64) };

        let created = ours.create(&web(1), &want, &[]);

        match ours.version(Controller::Hugetlb) {
            Some(Version::V2) => assert_eq!(created.unwrap().readback["hugetlb.2MB.max"], "67108864"),
            Some(Version::V1) => assert_eq!(created.unwrap().readback["hugetlb.2MB.limit_in_bytes"], "67108864"),
            None => assert!(matches!(created, Err(CgroupError::Unsupported { .. })), "{created:?}"),
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn huge_pages_can_be_limited_while_it_runs() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();
        let _guest = Guest::start(&created);
        let want = Resources { hugepages: BTreeMap::from([(Bytes(2 << 20), Bytes(64 << 20))]), ..limit(64) };

        let resized = ours.resize(&web(1), &limit(64), &want, &[]);

        match ours.version(Controller::Hugetlb) {
            Some(Version::V2) => assert_eq!(resized.unwrap().readback["hugetlb.2MB.max"], "67108864"),
            Some(Version::V1) => assert_eq!(resized.unwrap().readback["hugetlb.2MB.limit_in_bytes"], "67108864"),
            None => assert!(matches!(resized, Err(CgroupError::Unsupported { .. })), "{resized:?}"),
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_cpu_that_is_not_there_is_refused() {
        let ours = Ours::new();
        let cpuset = Some(CpuSet::try_from("0,999".to_owned()).unwrap());
        let want = Resources { cpu: Cpu { cpuset, ..Cpu::default() }, ..Resources::default() };

        let refused = ours.create(&web(1), &want, &[]);

        assert!(matches!(refused, Err(CgroupError::NotOnThisHost { .. })), "{refused:?}");
        assert_eq!(ours.list().unwrap(), BTreeSet::new());
    }

    #[test]
    #[ignore = "needs root"]
    fn a_raised_limit_reaches_the_kernel_and_the_process_stays() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();
        let mut guest = Guest::start(&created);

        let resized = ours.resize(&web(1), &limit(64), &limit(128), &[]).unwrap();

        assert_eq!(resized.deferred, None);
        assert_eq!(resized.actuated, limit(128));
        assert_eq!(ours.says(&web(1), ours.memory_max()), (128 << 20).to_string());
        assert_eq!(ours.procs(&web(1)).unwrap(), [guest.child.id()]);
        assert!(guest.tell("hello"));
    }

    #[test]
    #[ignore = "needs root"]
    fn lowering_memory_below_what_is_in_use_is_deferred_and_the_rest_is_applied() {
        let ours = Ours::new();
        let from = Resources { pids: pids(32), ..limit(256) };
        let to = Resources { pids: pids(64), ..limit(64) };
        let created = ours.create(&web(1), &from, &[]).unwrap();
        let mut guest = Guest::start(&created);
        assert!(guest.tell("hold 100"));

        let resized = ours.resize(&web(1), &from, &to, &[]).unwrap();

        let message = resized.deferred.expect("it is deferred");
        assert!(message.starts_with("memory 256Mi → 64Mi: 1") && message.ends_with("Mi in use"), "{message}");
        assert_eq!(resized.actuated, Resources { pids: pids(64), ..limit(256) });
        assert_eq!(resized.readback["pids.max"], "64");
        assert_eq!(resized.readback[ours.memory_max()], (256 << 20).to_string());
        let unchanged = |file: &str| created.readback.get(file) == ours.seen(&web(1)).limits.get(file);
        assert!(unchanged("memory.high") && unchanged("memory.memsw.limit_in_bytes"));
        assert!(guest.tell("hello"));
        assert_eq!(ours.oom_kills(&web(1)).unwrap(), 0);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_deferred_limit_is_written_once_the_memory_is_free() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(256), &[]).unwrap();
        let mut guest = Guest::start(&created);
        assert!(guest.tell("hold 100"));
        assert!(ours.resize(&web(1), &limit(256), &limit(64), &[]).unwrap().deferred.is_some());
        assert!(guest.tell("drop"));

        let resized = ours.resize(&web(1), &limit(256), &limit(64), &[]).unwrap();

        assert_eq!(resized.deferred, None);
        assert_eq!(ours.says(&web(1), ours.memory_max()), (64 << 20).to_string());
        assert!(guest.tell("hello"));
    }

    #[test]
    #[ignore = "needs root"]
    fn cached_pages_give_way_to_a_lower_limit() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(256), &[]).unwrap();
        let mut guest = Guest::start(&created);
        let file = format!("/var/tmp/plimsoll-cgroup-test-{}", std::process::id());
        assert!(guest.tell(&format!("cache 100 {file}")));

        let resized = ours.resize(&web(1), &limit(256), &limit(64), &[]);

        std::fs::remove_file(&file).unwrap();
        let resized = resized.unwrap();
        assert_eq!(resized.deferred, None);
        assert_eq!(resized.readback[ours.memory_max()], (64 << 20).to_string());
        assert!(guest.tell("hello"));
        assert_eq!(ours.oom_kills(&web(1)).unwrap(), 0);
    }

    #[test]
    #[ignore = "needs root"]
    fn lowering_the_limit_leaves_high_as_the_manifest_says() {
        let ours = Ours::new();
        let with = |limit: u64, high: u64| Resources {
            memory: Memory { limit: mib(limit), high: mib(high), ..Memory::default() },
            ..Resources::default()
        };
        let created = ours.create(&web(1), &with(256, 200), &[]).unwrap();
        let _guest = Guest::start(&created);

        let resized = ours.resize(&web(1), &with(256, 200), &with(128, 100), &[]).unwrap();

        assert_eq!(resized.deferred, None);
        match ours.version(Controller::Memory).unwrap() {
            Version::V1 => assert_eq!(resized.unsupported, ["memory.high"]),
            Version::V2 => assert_eq!(resized.readback["memory.high"], (100 << 20).to_string()),
        }
        assert_eq!(resized.readback[ours.memory_max()], (128 << 20).to_string());
    }

    #[test]
    #[ignore = "needs root"]
    fn memory_and_swap_grow_and_shrink_together() {
        let ours = Ours::new();
        let with = |limit: u64, swap: u64| Resources {
            memory: Memory { limit: mib(limit), swap: mib(swap), ..Memory::default() },
            ..Resources::default()
        };
        let created = ours.create(&web(1), &with(64, 0), &[]).unwrap();
        let _guest = Guest::start(&created);

        for (from, to) in [((64, 0), (256, 64)), ((256, 64), (32, 16)), ((32, 16), (64, 0))] {
            let resized = ours.resize(&web(1), &with(from.0, from.1), &with(to.0, to.1), &[]).unwrap();

            assert_eq!(resized.deferred, None);
            let swap = match ours.version(Controller::Memory).unwrap() {
                Version::V1 => ("memory.memsw.limit_in_bytes", to.0 + to.1),
                Version::V2 => ("memory.swap.max", to.1),
            };
            assert_eq!(resized.readback[ours.memory_max()], (to.0 << 20).to_string());
            assert_eq!(resized.readback[swap.0], (swap.1 << 20).to_string());
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_limit_that_is_taken_out_is_no_limit() {
        let ours = Ours::new();
        let before = ours.create(&web(1), &Resources::default(), &[]).unwrap().readback;
        let want = Resources {
            cpu: Cpu { limit: Some(MilliCpu(200)), weight: Some(Weight::try_from(20).unwrap()), ..Cpu::default() },
            memory: Memory { limit: mib(64), low: mib(16), swap: mib(0), ..Memory::default() },
            pids: pids(10),
            ..Resources::default()
        };
        let limited = ours.resize(&web(1), &Resources::default(), &want, &[]).unwrap();

        let resized = ours.resize(&web(1), &want, &Resources::default(), &[]).unwrap();

        assert_ne!(limited.readback, before);
        assert_eq!(resized.readback, before);
        assert_eq!(resized.actuated, Resources::default());
    }

    #[test]
    #[ignore = "needs root"]
    fn cpus_and_disks_can_be_limited_while_it_runs() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();
        let mut guest = Guest::start(&created);
        let mut want = limit(64);
        want.cpu.cpuset = Some(CpuSet::try_from("0".to_owned()).unwrap());
        want.io.weight = Some(Weight::try_from(50).unwrap());
        want.io.limits = vec![IoLimit {
            path: "/".parse().unwrap(),
            read_bps: mib(10),
            write_bps: None,
            read_iops: None,
            write_iops: Some(Count::try_from(200).unwrap()),
        }];

        let limited = ours.resize(&web(1), &limit(64), &want, &[]).unwrap();

        assert_eq!(limited.readback["cpuset.cpus"], "0");
        let is_v1 = ours.version(Controller::Io) == Some(Version::V1);
        if is_v1 {
            assert!(limited.readback["blkio.throttle.read_bps_device"].ends_with(" 10485760"));
            assert!(limited.readback["blkio.throttle.write_iops_device"].ends_with(" 200"));
            assert!(guest.is_in(&format!("{}/c/default_web.1", ours.parent)));
        } else {
            assert!(limited.readback["io.max"].ends_with(" rbps=10485760 wbps=max riops=max wiops=200"));
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", guest.child.id())).unwrap();
        assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{status}");

        let freed = ours.resize(&web(1), &want, &limit(64), &[]).unwrap();

        let io = if is_v1 { "blkio.throttle.read_bps_device" } else { "io.max" };
        assert_eq!(freed.readback[io], "");
        let status = std::fs::read_to_string(format!("/proc/{}/status", guest.child.id())).unwrap();
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let cpus = |text: &str| text.lines().find(|line| line.starts_with("Cpus_allowed_list")).map(str::to_owned);
        assert_eq!(cpus(&status), cpus(&own));
        assert!(guest.tell("hello"));
    }

    #[test]
    #[ignore = "needs root"]
    fn cpus_and_disks_can_be_limited_from_the_start() {
        let ours = Ours::new();
        let mut want = limit(64);
        want.cpu.cpuset = Some(CpuSet::try_from("0".to_owned()).unwrap());
        want.cpu.mems = Some(CpuSet::try_from("0".to_owned()).unwrap());
        want.io.weight = Some(Weight::try_from(50).unwrap());

        let created = ours.create(&web(1), &want, &[]).unwrap();

        let guest = Guest::start(&created);
        assert_eq!(created.readback["cpuset.cpus"], "0");
        assert_eq!(created.readback["cpuset.mems"], "0");
        let status = std::fs::read_to_string(format!("/proc/{}/status", guest.child.id())).unwrap();
        assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{status}");
    }

    #[test]
    #[ignore = "needs root"]
    fn a_limit_set_by_hand_is_seen_and_set_right_by_a_resize_to_the_same() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();
        ours.by_hand(Controller::Memory, &web(1), ours.memory_max(), "33554432");
        ours.by_hand(Controller::Pids, &web(1), "pids.max", "7");

        let drifted = ours.seen(&web(1));
        let resized = ours.resize(&web(1), &limit(64), &limit(64), &[]).unwrap();

        assert_eq!(drifted.limits[ours.memory_max()], "33554432");
        assert_eq!(drifted.limits["pids.max"], "7");
        assert_eq!(resized.readback, created.readback);
        assert_eq!(ours.seen(&web(1)).limits, created.readback);
    }

    #[test]
    #[ignore = "needs root"]
    fn another_agent_sees_what_the_first_one_made() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();
        let _guest = Guest::start(&created);

        let other = Cgroups::detect(&ours.parent).unwrap();

        assert_eq!(other.list().unwrap(), BTreeSet::from([web(1)]));
        assert_eq!(other.observe(&web(1)).unwrap(), Some(GroupSeen { populated: true, limits: created.readback }));
        assert_eq!(other.resize(&web(1), &limit(64), &limit(128), &[]).unwrap().actuated, limit(128));
    }

    #[test]
    #[ignore = "needs root"]
    fn kill_reaches_every_child_and_remove_leaves_nothing() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();
        let mut guest = Guest::start(&created);
        assert!(guest.tell("fork 3"));
        assert!(ours.procs(&web(1)).unwrap().len() > 1);
        assert!(ours.seen(&web(1)).populated);

        ours.kill(&web(1)).unwrap();
        assert!(!guest.child.wait().unwrap().success());
        ours.remove(&web(1)).unwrap();

        assert_eq!(ours.observe(&web(1)).unwrap(), None);
        assert_eq!(ours.list().unwrap(), BTreeSet::new());
        for dir in created.join.v1.iter().chain(&created.join.unified) {
            assert!(!std::path::Path::new(dir).exists() || dir.ends_with("/c"), "{dir}");
        }
        ours.remove(&web(1)).unwrap();
        ours.kill(&web(1)).unwrap();
    }

    #[test]
    #[ignore = "needs root"]
    fn remove_kills_what_still_runs_also_below_the_payload() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();
        let guest = Guest::start(&created);
        if let Some(payload) = &created.join.unified {
            std::fs::create_dir_all(format!("{payload}/inner/most")).unwrap();
            std::fs::write(format!("{payload}/inner/most/cgroup.procs"), guest.child.id().to_string()).unwrap();
            assert_eq!(ours.procs(&web(1)).unwrap(), [guest.child.id()]);
        }

        ours.remove(&web(1)).unwrap();

        assert_eq!(ours.observe(&web(1)).unwrap(), None);
    }

    #[test]
    #[ignore = "needs root"]
    fn two_instances_of_an_object_live_apart() {
        let ours = Ours::new();
        let one = ours.create(&web(1), &limit(64), &[]).unwrap();
        let two = ours.create(&web(2), &limit(128), &[]).unwrap();
        let first = Guest::start(&one);
        let mut second = Guest::start(&two);

        let both = BTreeSet::from([web(1), web(2)]);
        assert_eq!(ours.others(&both).unwrap(), BTreeSet::new());
        for known in [BTreeSet::from([web(1)]), BTreeSet::from([web(2), web(3)])] {
            assert_eq!(ours.others(&known).unwrap(), both.difference(&known).cloned().collect());
        }

        ours.remove(&web(1)).unwrap();

        assert_eq!(ours.list().unwrap(), BTreeSet::from([web(2)]));
        assert_eq!(ours.seen(&web(2)), GroupSeen { populated: true, limits: two.readback });
        assert!(second.tell("hello"));
        drop(first);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_place_with_processes_is_not_taken_over_and_an_empty_one_is() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();
        let again = ours.create(&web(1), &limit(32), &[]).unwrap();
        let mut guest = Guest::start(&created);

        let refused = ours.create(&web(1), &limit(16), &[]);

        assert_eq!(again.readback[ours.memory_max()], (32 << 20).to_string());
        assert!(matches!(refused, Err(CgroupError::Occupied { .. })), "{refused:?}");
        assert_eq!(ours.says(&web(1), ours.memory_max()), (32 << 20).to_string());
        assert!(guest.tell("hello"));
    }

    #[test]
    #[ignore = "needs root"]
    fn an_out_of_memory_kill_is_counted() {
        let ours = Ours::new();
        let want =
            Resources { memory: Memory { limit: mib(32), swap: mib(0), ..Memory::default() }, ..Resources::default() };
        let created = ours.create(&web(1), &want, &[]).unwrap();
        let mut guest = Guest::start(&created);

        assert!(!guest.tell("hold 64"));

        assert_eq!(ours.oom_kills(&web(1)).unwrap(), 1);
    }

    #[test]
    #[ignore = "needs root"]
    fn usage_is_what_the_kernel_counts() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(128), &[]).unwrap();
        let mut guest = Guest::start(&created);
        assert!(guest.tell("hold 40"));

        let usage = ours.usage(&web(1)).unwrap();

        assert!((40 << 20..60 << 20).contains(&usage.memory), "{usage:?}");
        assert_eq!(usage.pids, 1);
        assert!(usage.cpu_usec > 0);
        assert!(guest.is_in(&ours.payload_path(&web(1))));
    }

    #[test]
    #[ignore = "needs root"]
    fn looking_makes_nothing() {
        let ours = Ours::new();

        assert_eq!(ours.list().unwrap(), BTreeSet::new());
        assert_eq!(ours.observe(&web(1)).unwrap(), None);
        assert_eq!(ours.procs(&web(1)).unwrap(), Vec::<u32>::new());
        assert!(ours.describe().contains(&ours.parent));

        for hierarchy in &ours.hierarchies {
            assert!(!std::path::Path::new(&format!("{}{}", hierarchy.mount, ours.parent)).exists());
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn devices_outside_the_default_set_are_denied_by_a_v1_host() {
        let ours = Ours::new();
        let created = ours.create(&web(1), &limit(64), &[]).unwrap();

        let shared = created.join.v1.iter().find(|dir| dir.contains("/devices/"));

        // On a v2 host the rules are not files.
        assert_eq!(shared.is_some(), ours.version(Controller::Devices) == Some(Version::V1));
        if let Some(dir) = shared {
            let list = std::fs::read_to_string(format!("{dir}/devices.list")).unwrap();
            assert!(list.lines().any(|line| line == "c 1:3 rwm"), "{list}");
            assert!(!list.lines().any(|line| line.starts_with("a ")), "{list}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_process_in_the_way_is_named_as_the_reason_and_may_leave() {
        let ours = Ours::new();
        let two_mib = BTreeMap::from([(Bytes(2 << 20), Bytes(64 << 20))]);
        let handed_down = (ours.version(Controller::Memory), ours.version(Controller::Hugetlb));
        let (unified, want) = match (ours.unified(), handed_down) {
            (Some(unified), (Some(Version::V2), _)) => (unified, limit(64)),
            (Some(unified), (_, Some(Version::V2))) => {
                (unified, Resources { hugepages: two_mib, ..Resources::default() })
            }
            // Nothing is handed down on this host, so nothing is ever in the way.
            _ => {
                ours.create(&web(1), &limit(64), &[]).unwrap();
                return;
            }
        };
        let parent = format!("{}{}", ours.hierarchies[unified].mount, ours.parent);
        std::fs::create_dir(&parent).unwrap();
        let outside = Created {
            join: CgroupJoinPaths { unified: Some(parent), v1: Vec::new() },
            readback: BTreeMap::new(),
            unsupported: Vec::new(),
        };
        let mut guest = Guest::start(&outside);

        let refused = ours.create(&web(1), &want, &[]);
        ours.enter_keeper(guest.child.id()).unwrap();
        let created = ours.create(&web(1), &want, &[]);

        let Err(error @ CgroupError::Unsupported { .. }) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().ends_with("processes are in that node itself"), "{error}");
        created.unwrap();
        assert!(guest.is_in(&format!("{}/keeper", ours.parent)));
        assert!(guest.tell("hello"));
    }

    /// The v2 hierarchy alone, whatever else there is.
    fn unified_place(name: &str) -> Place {
        let path = format!("/plimsoll-test-{}-{name}", std::process::id());
        let place = Mounted::here().unwrap().find(&path, &BTreeSet::new()).unwrap();
        assert!(place.unified().is_some(), "no v2 hierarchy on this host");
        place
    }

    /// Whether a process in these directories can open a file.
    fn opens(join: &CgroupJoinPaths, file: &str) -> bool {
        let paths = join.unified.iter().chain(&join.v1);
        let enter: String = paths.map(|path| format!("echo 0 >{path}/cgroup.procs && ")).collect();
        let script = format!("{enter} : <{file}");
        Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
    }

    #[test]
    #[ignore = "needs root"]
    fn a_program_decides_about_devices_in_v2_and_is_replaced_as_one() {
        let place = unified_place("devices");
        place.make().unwrap();
        let kmsg = |verdict| DeviceRule {
            verdict,
            kind: Some(DeviceKind::Character),
            major: Some(1),
            minor: Some(11),
            access: Access::READ,
        };
        let join = place.join();
        let directory = place.unified().unwrap().full();
        let cgroup =
            rustix::fs::open(&directory, OFlags::RDONLY | OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();

        for verdict in [Verdict::Deny, Verdict::Allow, Verdict::Deny] {
            let rules: Vec<DeviceRule> = ALLOWED_DEVICES.into_iter().chain([kmsg(verdict)]).collect();
            place.allow_devices(&rules).unwrap();

            assert_eq!(opens(&join, "/dev/kmsg"), verdict == Verdict::Allow);
            assert!(opens(&join, "/dev/null"));
            assert_eq!(access::ours(&cgroup).unwrap().len(), 1);
        }
        place.remove().unwrap();
    }

    #[test]
    #[ignore = "needs root"]
    fn a_program_of_many_rules_passes_the_kernels_verifier() {
        let place = unified_place("rules");
        place.make().unwrap();
        let rule = |number: u32| DeviceRule {
            verdict: if number.is_multiple_of(3) { Verdict::Deny } else { Verdict::Allow },
            kind: [None, Some(DeviceKind::Character), Some(DeviceKind::Block)][number as usize % 3],
            major: Some(number % 7).filter(|major| *major != 0),
            minor: Some(number),
            access: [Access::READ, Access::MAKE, Access::ALL][number as usize / 3 % 3],
        };
        let rules: Vec<DeviceRule> = (0..300).map(rule).collect();

        place.allow_devices(&rules).unwrap();

        place.remove().unwrap();
    }

    #[test]
    #[ignore = "needs root"]
    fn an_instance_opens_the_usual_devices_and_no_others() {
        let ours = Ours::new();
        let created = ours.create(&"default_devices.1".parse().unwrap(), &Resources::default(), &[]).unwrap();

        ours.guards_devices().unwrap();

        assert!(opens(&created.join, "/dev/null") && opens(&created.join, "/dev/urandom"));
        assert!(!opens(&created.join, "/dev/kmsg"));
    }

    /// With devices in a v1 hierarchy all containers share a directory there.
    #[test]
    #[ignore = "needs root"]
    fn what_is_an_instances_own_is_nobody_elses() {
        let cgroups = Ours::new();
        let (one, other): (InstanceId, InstanceId) =
            ("default_one.1".parse().unwrap(), "default_other.1".parse().unwrap());
        for instance in [&one, &other] {
            cgroups.create(instance, &Resources::default(), &[]).unwrap();
        }

        let [own, others] = [&one, &other].map(|instance| cgroups.own(instance).into_iter().collect::<BTreeSet<_>>());

        assert!(own.iter().any(|place| place.exists()));
        assert!(own.is_disjoint(&others), "{own:?} {others:?}");
        for instance in [&one, &other] {
            cgroups.remove(instance).unwrap();
        }
    }
}
