//! The default profile: which system calls a container may make.
//!
//! As broad as the defaults of Docker and Podman, so that what runs there runs here. What is not
//! listed either reaches beyond the container, is a large part of the kernel that few programs need
//! (io_uring, userfaultfd, keyrings), or is gone.

use super::profile::{Action, Arch, Comparison, Condition, Operator, Profile, Rule};
use crate::spec::Capability;

/// Files, directories, attributes and descriptors.
const FILES: &str = "
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
    fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64
    fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat
    llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at
    newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr
    setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range
    sync_file_range2 arm_sync_file_range arm_fadvise64_64 syncfs tee truncate truncate64 umask unlink unlinkat
    utime utimensat utimensat_time64 utimes vmsplice write writev statmount listmount file_getattr file_setattr";

/// Waiting for something.
const EVENTS: &str = "
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect
    pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4";

/// Memory.
const MEMORY: &str = "
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap
    mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
    process_mrelease remap_file_pages";

/// Processes, threads and signals.
const PROCESSES: &str = "
    alarm arch_prctl cacheflush breakpoint set_tls execve execveat exit exit_group fork futex futex_requeue
    futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu getitimer getpgid getpgrp
    getpid getppid getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules lsm_set_self_attr modify_ldt
    nanosleep pause pidfd_open pidfd_send_signal prctl prlimit64 ptrace restart_syscall rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setitimer
    setpgid setpriority setrlimit setsid sigaction sigaltstack signal sigpending sigprocmask sigreturn sigsuspend
    tgkill times tkill ugetrlimit vfork wait4 waitid waitpid uretprobe riscv_flush_icache riscv_hwprobe";

/// Users, groups and capabilities.
const IDENTITY: &str = "
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32
    getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid
    setuid32";

/// Sockets; `socket` itself has a condition.
const NETWORK: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair";

/// Clocks and timers.
const TIME: &str = "
    adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 gettimeofday time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64";

/// System V and POSIX communication, inside the container's own namespace.
const IPC: &str = "
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
    shmget";

/// Asking about the machine, and randomness.
const MACHINE: &str = "getrandom olduname sysinfo uname";

/// Allowed with one of these capabilities.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
         open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount
         umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// Flags of clone(2) that make namespaces, the user namespace among them.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Linux, 32-bit Linux, both with their own idea of `uname` (`UNAME26`), and "tell me" (personality(2)).
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Speaks to the hypervisor, past any network namespace (vsock(7)).
const AF_VSOCK: u64 = 40;

/// What every container gets unless its manifest says otherwise.
pub fn default_profile() -> Profile {
    let names = |list: &str| list.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let admin = Condition { caps: vec!["CAP_SYS_ADMIN".to_owned()], ..Condition::default() };
    let one = |name: &str, args: Vec<Comparison>| Rule { args, ..Rule::allow(vec![name.to_owned()]) };
    let compare = |op, value, value_two| Comparison { index: 0, value, value_two, op };

    let mut syscalls: Vec<Rule> = [FILES, EVENTS, MEMORY, PROCESSES, IDENTITY, NETWORK, TIME, IPC, MACHINE]
        .iter()
        .map(|list| Rule::allow(names(list)))
        .collect();
    for personality in PERSONALITIES {
        syscalls.push(one("personality", vec![compare(Operator::Equal, personality, 0)]));
    }
    syscalls.push(one("socket", vec![compare(Operator::NotEqual, AF_VSOCK, 0)]));
    syscalls.push(Rule {
        excludes: admin.clone(),
        ..one("clone", vec![compare(Operator::MaskedEqual, CLONE_NAMESPACES, 0)])
    });
    // A filter can't look behind the pointer that clone3 takes. ENOSYS makes libc use clone.
    syscalls.push(Rule {
        action: Action::Errno,
        errno_ret: Some(libc::ENOSYS.cast_unsigned()),
        excludes: admin,
        ..Rule::allow(vec!["clone3".to_owned()])
    });
    for (capability, list) in WITH_CAPABILITY {
        debug_assert!(Capability::ALL.contains(&capability));
        let includes = Condition { caps: vec![format!("CAP_{capability}")], ..Condition::default() };
        syscalls.push(Rule { includes, ..Rule::allow(names(list)) });
    }
    Profile {
        default_action: Action::Errno,
        default_errno_ret: Some(libc::EPERM.cast_unsigned()),
        architectures: Arch::family_of_this_machine(),
        arch_map: Vec::new(),
        syscalls,
    }
}
