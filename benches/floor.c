/* floor.c - the least a real container start costs on this kernel.
 *
 *   cc -O2 -o floor floor.c && ./floor [key=value ...] ROOTFS CMD [ARG...]
 *
 * Per iteration: make cgroup(s) and set limits, clone3 into new namespaces,
 * build proc/dev/sys, pivot_root, drop caps, load seccomp, execve, wait, remove.
 * Every step can be switched, so that its price is the difference of two rows.
 * Output: one JSON line; all times in microseconds, medians unless said otherwise.
 *
 *   n=200          iterations
 *   ns=pmuicgN     p id, m nt, u ts, i pc, n et, c group, U ser        (default pmuinc)
 *   clone=fork     fork (copy page tables) | vfork (CLONE_VM|CLONE_VFORK)
 *   mounts=oci     none | min (proc,dev,sys) | oci (what runc's default config asks for)
 *   api=new        new: fsopen/fsmount/open_tree/move_mount | old: mount(2)
 *   dev=build      build: tmpfs + mknod | bind: one prepared read-only /dev tree, bind-cloned
 *   seccomp=tree   none | linear (one JEQ a syscall) | tree (binary search over ranges)
 *   caps=1         drop the bounding set and capset
 *   cgroup=tasks   none | procs (parent writes pid to cgroup.procs) | tasks (child writes 0 to
 *                  tasks: takes no global lock) | into (CLONE_INTO_CGROUP, v2 only)
 *   cg2=/sys/fs/cgroup/unified   where cgroup v2 is mounted (cgroup=into)
 *   ctl=min        v1 hierarchies: min (memory,pids,devices) | all (every one mounted)
 *   netpool=0      1: setns into a netns made beforehand instead of CLONE_NEWNET
 *   rss=0          MiB of touched heap in the parent (what fork must copy)
 *   extramounts=0  more bind mounts in the parent's mount namespace (what CLONE_NEWNS copies)
 *   pin=-1         pin to this CPU
 *   first=0        1: CMD's stdout is a pipe; also time until its first byte
 *   overlay=DIR    the root is an overlay over ROOTFS, id-mapped with ns=U; its upper and work
 *                  directories are made in DIR and removed in each iteration
 *   graft=DIR      with overlay=: a second overlay, over DIR, mounted at usr of the root
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
/* from <sys/mount.h>, which clashes with <linux/mount.h> in older glibc */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define MNT_DETACH 2
#ifndef MS_REC
#define MS_RDONLY 1
#define MS_NOSUID 2
#define MS_NODEV 4
#define MS_NOEXEC 8
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_REC 16384
#define MS_PRIVATE (1 << 18)
#define MS_SLAVE (1 << 19)
#endif
#define OPEN_TREE(d, p, f) syscall(SYS_open_tree, d, p, f)
#define MOVE_FD(fd, d, p) syscall(SYS_move_mount, fd, "", d, p, MOVE_MOUNT_F_EMPTY_PATH)

enum { P_CGMK, P_CLONE, P_CGADD, P_NSSETUP, P_ROOT, P_MOUNTS, P_PIVOT, P_SEC, P_EXECWAIT, P_CGRM, P_N };
static const char *pname[] = { "cgroup_create", "clone3", "cgroup_join", "privatise+idmap+hostname", "rootfs_mount",
	"mounts", "pivot+umount_old", "caps+seccomp", "exec+exit+wait", "cgroup_remove" };
struct shared { double t[P_N + 2]; double end_ns; int err; int errline; };
static struct shared *sh;

static struct { int n, vfork, mounts, newapi, devbind, seccomp, caps, cg, ctlall, netpool, rss, extra, pin, first; uint64_t ns; } o =
	{ 200, 0, 2, 1, 0, 2, 1, 2, 0, 0, 0, 0, -1, 0, 0 };
static const char *rootfs, *overlay, *graft; static int graftfd = -1; static char upper2[160], work2[160]; static const char *cg2 = "/sys/fs/cgroup/unified"; static char **cmd;
static char devtree[64], emptytree[64]; static int netfd = -1, cgv2 = -1, outp[2] = { -1, -1 };
static char idbuf[64], upper[160], work[160]; static int syncp[2], rootfd = -1;

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e6 + t.tv_nsec / 1e3; }
static void fail(int line) { sh->err = errno; sh->errline = line; _exit(99); }
#define MUST(x) do { if ((long)(x) < 0) fail(__LINE__); } while (0)

/* ---- seccomp: an allow list of ~300 x86-64 system calls, everything else ENOSYS ---- */
static struct sock_filter prog[2048]; static struct sock_fprog fprog = { 0, prog };
static int denied(int nr) { /* what the usual default profile leaves out, roughly */
	static const int d[] = { SYS_kexec_load, SYS_reboot, SYS_init_module, SYS_delete_module, SYS_finit_module, SYS_mount, SYS_umount2,
		SYS_pivot_root, SYS_swapon, SYS_swapoff, SYS_acct, SYS_settimeofday, SYS_iopl, SYS_ioperm, SYS_create_module, SYS_get_kernel_syms,
		SYS_query_module, SYS_quotactl, SYS_nfsservctl, SYS_uselib, SYS_ustat, SYS_sysfs, SYS__sysctl, SYS_add_key, SYS_request_key, SYS_keyctl,
		SYS_perf_event_open, SYS_unshare, SYS_setns, SYS_kexec_file_load, SYS_bpf, SYS_userfaultfd, SYS_open_by_handle_at, SYS_move_pages,
		SYS_migrate_pages, SYS_vhangup, SYS_clock_settime, SYS_lookup_dcookie, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp };
	for (unsigned i = 0; i < sizeof d / sizeof *d; i++) if (d[i] == nr) return 1;
	return 0; }
static int emit(struct sock_filter f) { prog[fprog.len] = f; return fprog.len++; }
#define STMT(c, k) emit((struct sock_filter)BPF_STMT(c, k))
#define JUMP(c, k, t, f) emit((struct sock_filter)BPF_JUMP(c, k, t, f))
static struct { int lo, hi; } rng[256]; static int nrng;
static void tree(int a, int b) { /* binary search; leaf: nr is known >= rng[a].lo */
	if (a == b) { JUMP(BPF_JMP | BPF_JGT | BPF_K, rng[a].hi, 1, 0); STMT(BPF_RET, SECCOMP_RET_ALLOW); STMT(BPF_RET, SECCOMP_RET_ERRNO | ENOSYS); return; }
	int m = (a + b + 1) / 2; JUMP(BPF_JMP | BPF_JGE | BPF_K, rng[m].lo, 0, 1); int ja = STMT(BPF_JMP | BPF_JA, 0);
	tree(a, m - 1); prog[ja].k = fprog.len - ja - 1; /* nr >= lo: jump over the lower half */
	tree(m, b); }
static void build_filter(int linear) {
	fprog.len = 0; int nallow = 0;
	STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)); JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	STMT(BPF_RET, SECCOMP_RET_ERRNO | ENOSYS); STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int i = 0; i <= 450; i++) { if ((i > 334 && i < 424) || denied(i)) continue;
		nallow++; if (linear) { JUMP(BPF_JMP | BPF_JEQ | BPF_K, i, 0, 1); STMT(BPF_RET, SECCOMP_RET_ALLOW); }
		if (nrng && rng[nrng - 1].hi == i - 1) rng[nrng - 1].hi = i; else rng[nrng].lo = rng[nrng].hi = i, nrng++; }
	if (linear) STMT(BPF_RET, SECCOMP_RET_ERRNO | ENOSYS);
	else { JUMP(BPF_JMP | BPF_JGE | BPF_K, rng[0].lo, 1, 0); STMT(BPF_RET, SECCOMP_RET_ERRNO | ENOSYS); tree(0, nrng - 1); } }

/* ---- cgroups (v1 hierarchies; v2 only for cgroup=into) ---- */
static const char *ctls[] = { "memory", "pids", "devices", "cpu", "cpuacct", "cpuset", "freezer", "blkio", "systemd" };
static char cgp[9][96]; static int ncg, cgfd[9];
static int put(int dfd, const char *f, const char *v) { int fd = openat(dfd, f, O_WRONLY | O_CLOEXEC); if (fd < 0) return -1; int r = write(fd, v, strlen(v)); close(fd); return r; }
static void cg_create(int it) {
	if (o.cg == 3) { snprintf(cgp[0], 96, "%s/floor%d-%d", cg2, getpid(), it); ncg = 1; }
	else if (o.cg) { ncg = o.ctlall ? 9 : 3; for (int i = 0; i < ncg; i++) snprintf(cgp[i], 96, "/sys/fs/cgroup/%s/floor%d-%d", ctls[i], getpid(), it); }
	for (int i = 0; i < ncg; i++) {
		if (mkdir(cgp[i], 0755)) { perror(cgp[i]); exit(1); }
		cgfd[i] = open(cgp[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (o.cg == 3) continue;
		if (i == 0) put(cgfd[i], "memory.limit_in_bytes", "268435456");
		if (i == 1) put(cgfd[i], "pids.max", "100");
		if (i == 2) { static const char *a[] = { "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm" };
			put(cgfd[i], "devices.deny", "a"); for (unsigned k = 0; k < 10; k++) put(cgfd[i], "devices.allow", a[k]); }
		if (i == 5) { put(cgfd[i], "cpuset.cpus", "0-1"); put(cgfd[i], "cpuset.mems", "0"); } } }
static void cg_remove(void) { for (int i = 0; i < ncg; i++) { close(cgfd[i]); for (int k = 0; rmdir(cgp[i]) && errno == EBUSY && k < 1000; k++) usleep(50); } ncg = 0; }

/* ---- mounts ---- */
struct kv { const char *k, *v; };
static void fs_at(const char *type, const char *at, int attr, const struct kv *kv, const char *odata) {
	if (!o.newapi) { unsigned long f = (attr & MOUNT_ATTR_RDONLY ? MS_RDONLY : 0) | (attr & MOUNT_ATTR_NOSUID ? MS_NOSUID : 0) | (attr & MOUNT_ATTR_NODEV ? MS_NODEV : 0) | (attr & MOUNT_ATTR_NOEXEC ? MS_NOEXEC : 0);
		MUST(mount(type, at, type, f, odata)); return; }
	int fs = syscall(SYS_fsopen, type, FSOPEN_CLOEXEC); MUST(fs);
	for (; kv && kv->k; kv++) MUST(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, kv->k, kv->v, 0));
	MUST(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0));
	int m = syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attr); MUST(m); close(fs);
	MUST(MOVE_FD(m, AT_FDCWD, at)); close(m); }
static void bind_at(const char *src, const char *at, int ro) { 
	if (!o.newapi) {
		if (!mount(src, at, 0, MS_BIND | MS_REC, 0)) { if (ro) MUST(mount(0, at, 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0)); }
		else if (errno != ENOENT) fail(__LINE__);
		return; }
	int t = OPEN_TREE(AT_FDCWD, src, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (t < 0) { if (errno == ENOENT) return; fail(__LINE__); }
	if (ro) { struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY }; MUST(syscall(SYS_mount_setattr, t, "", AT_EMPTY_PATH, &a, sizeof a)); }
	if (MOVE_FD(t, AT_FDCWD, at) && errno != ENOENT) fail(__LINE__);
	close(t);
}
static const struct { const char *n; int maj, min; } nodes[] = { { "null", 1, 3 }, { "zero", 1, 5 }, { "full", 1, 7 }, { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 } };
static void fill_dev(const char *dir, int oci, int userns) { char p[128];
	for (unsigned i = 0; i < 6; i++) { snprintf(p, 128, "%s/%s", dir, nodes[i].n);
		if (userns) { char s[32]; snprintf(s, 32, "/dev/%s", nodes[i].n); int f = open(p, O_CREAT | O_CLOEXEC, 0666); close(f); bind_at(s, p, 0); }
		else MUST(mknod(p, S_IFCHR | 0666, makedev(nodes[i].maj, nodes[i].min))); }
	if (!oci) return;
	static const char *l[][2] = { { "/proc/self/fd", "fd" }, { "/proc/self/fd/0", "stdin" }, { "/proc/self/fd/1", "stdout" }, { "/proc/self/fd/2", "stderr" }, { "pts/ptmx", "ptmx" } };
	for (int i = 0; i < 5; i++) { snprintf(p, 128, "%s/%s", dir, l[i][1]); MUST(symlink(l[i][0], p)); }
	static const char *d[] = { "pts", "shm", "mqueue" };
	for (int i = 0; i < 3; i++) { snprintf(p, 128, "%s/%s", dir, d[i]); MUST(mkdir(p, 0755)); } }
static void do_mounts(void) { /* cwd is the rootfs */
	const int nsd = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, usr = !!(o.ns & CLONE_NEWUSER);
	static const struct kv dv[] = { { "mode", "755" }, { "size", "65536k" }, { 0, 0 } }, sm[] = { { "mode", "1777" }, { "size", "65536k" }, { 0, 0 } }, pts[] = { { "ptmxmode", "0666" }, { "mode", "0620" }, { 0, 0 } };
	fs_at("proc", "proc", nsd, 0, 0);
	if (o.devbind) bind_at(devtree, "dev", 0);
	else { fs_at("tmpfs", "dev", MOUNT_ATTR_NOSUID, dv, "mode=755,size=65536k"); fill_dev("dev", o.mounts == 2, usr); }
	if (o.mounts == 2) { fs_at("devpts", "dev/pts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, pts, "newinstance,ptmxmode=0666,mode=0620");
		fs_at("tmpfs", "dev/shm", nsd, sm, "mode=1777,size=65536k"); fs_at("mqueue", "dev/mqueue", nsd, 0, 0); }
	fs_at("sysfs", "sys", nsd | MOUNT_ATTR_RDONLY, 0, 0);
	if (o.mounts != 2) return;
	static const char *mask[] = { "proc/kcore", "proc/keys", "proc/timer_list", "proc/latency_stats", "proc/sched_debug" }, *maskd[] = { "proc/acpi", "proc/scsi", "proc/asound", "sys/firmware" }, *ro[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
	for (int i = 0; i < 5; i++) bind_at("/dev/null", mask[i], 0);
	for (int i = 0; i < 4; i++) if (!access(maskd[i], F_OK)) { bind_at(emptytree, maskd[i], 1); }
	for (int i = 0; i < 5; i++) bind_at(ro[i], ro[i], 1); }

static void child(void) {
	sh->t[P_CLONE + 1] = now();
	if (o.cg == 2) for (int i = 0; i < ncg; i++) MUST(put(cgfd[i], "tasks", "0"));
	if (o.cg == 1 || o.ns & CLONE_NEWUSER || overlay) { int fd[2]; if (read(syncp[0], fd, sizeof fd) == sizeof fd) { rootfd = fd[0]; graftfd = fd[1]; } } /* parent: cgroup.procs, uid_map */
	sh->t[P_CGADD + 1] = now();
	if (netfd >= 0) MUST(setns(netfd, CLONE_NEWNET));
	if (o.ns & CLONE_NEWUSER) { MUST(setresgid(0, 0, 0)); MUST(setresuid(0, 0, 0)); }
	if (o.ns & CLONE_NEWNS) MUST(mount(0, "/", 0, MS_REC | MS_SLAVE, 0));
	if (o.ns & CLONE_NEWUTS) MUST(sethostname("bench", 5));
	sh->t[P_NSSETUP + 1] = now();
	if (o.ns & CLONE_NEWNS) { if (overlay) { MUST(MOVE_FD(rootfd, AT_FDCWD, rootfs)); } else bind_at(rootfs, rootfs, 0); MUST(chdir(rootfs)); if (graftfd >= 0) MUST(MOVE_FD(graftfd, AT_FDCWD, "usr")); }
	sh->t[P_ROOT + 1] = now();
	if (o.mounts) do_mounts();
	sh->t[P_MOUNTS + 1] = now();
	if (o.ns & CLONE_NEWNS) { MUST(syscall(SYS_pivot_root, ".", ".")); MUST(umount2(".", MNT_DETACH)); MUST(chdir("/")); }
	sh->t[P_PIVOT + 1] = now();
	if (o.caps) { const uint64_t keep = 0x800405fb; for (int c = 0; c <= 40; c++) if (!(keep >> c & 1)) MUST(prctl(PR_CAPBSET_DROP, c));
		struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 }; struct __user_cap_data_struct d[2] = { { (uint32_t)keep, (uint32_t)keep, 0 }, { 0, 0, 0 } };
		MUST(syscall(SYS_capset, &h, d)); }
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (outp[1] >= 0) MUST(dup2(outp[1], 1));
	if (o.seccomp) MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &fprog));
	sh->t[P_SEC + 1] = now();
	static char *env[] = { "PATH=/bin", 0 };
	execve(cmd[0], cmd, env); fail(__LINE__); }

/* ---- the root as an overlay: made by the parent, its descriptor shared by CLONE_FILES ---- */
#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif
static void overlay_dirs(void) {
	if (mkdir(upper, 0755) || mkdir(work, 0755)) { perror(upper); exit(1); }
	if (graft && (mkdir(upper2, 0755) || mkdir(work2, 0755))) { perror(upper2); exit(1); } }
static void overlay_remove(void) { char p[176];
	snprintf(p, sizeof p, "%s/work", work); rmdir(p); rmdir(work);
	static const char *made[] = { "dev", "proc", "sys" };
	for (int i = 0; i < 3; i++) { snprintf(p, sizeof p, "%s/%s", upper, made[i]); rmdir(p); }
	if (graft) { snprintf(p, sizeof p, "%s/work", work2); rmdir(p); rmdir(work2); if (rmdir(upper2)) perror(upper2); }
	if (rmdir(upper)) perror(upper); }
static int overlay_root(long pid, const char *lower, const char *upper, const char *work) { char p[64];
	int low = OPEN_TREE(AT_FDCWD, lower, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC); if (low < 0) { perror("open_tree"); exit(1); }
	if (o.ns & CLONE_NEWUSER) { snprintf(p, 64, "/proc/%ld/ns/user", pid); int u = open(p, O_RDONLY | O_CLOEXEC);
		struct mount_attr a = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = u };
		if (syscall(SYS_mount_setattr, low, "", AT_EMPTY_PATH, &a, sizeof a)) { perror("mount_setattr"); exit(1); } close(u); }
	int fs = syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC); snprintf(p, 64, "/proc/self/fd/%d", low);
	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "lowerdir+", p, 0) || syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "upperdir", upper, 0)
		|| syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "workdir", work, 0) || syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0)) { perror("overlay"); exit(1); }
	int m = syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0); if (m < 0) { perror("fsmount"); exit(1); } close(fs); close(low); return m; }

static __attribute__((noinline)) long clone3_raw(struct clone_args *a) { /* inline asm: safe to share the stack, as vfork does */
	long r; __asm__ volatile("syscall" : "=a"(r) : "0"(SYS_clone3), "D"(a), "S"(sizeof *a) : "rcx", "r11", "memory");
	if (r == 0) { child(); _exit(99); }
	return r; }

static int cmpd(const void *a, const void *b) { double x = *(double *)a - *(double *)b; return x < 0 ? -1 : x > 0; }
static double q(double *v, int n, double p) { qsort(v, n, sizeof *v, cmpd); return v[(int)((n - 1) * p)]; }
static int opt(const char *a, const char *k, const char **v) { size_t l = strlen(k); if (strncmp(a, k, l) || a[l] != '=') return 0; *v = a + l + 1; return 1; }

int main(int argc, char **argv) {
	const char *v, *nss = "pmuinc"; int i;
	for (i = 1; i < argc && strchr(argv[i], '=') && argv[i][0] != '/'; i++) { char *a = argv[i];
		if (opt(a, "n", &v)) o.n = atoi(v); else if (opt(a, "ns", &v)) nss = v; else if (opt(a, "clone", &v)) o.vfork = *v == 'v';
		else if (opt(a, "mounts", &v)) o.mounts = *v == 'n' ? 0 : *v == 'm' ? 1 : 2; else if (opt(a, "api", &v)) o.newapi = *v == 'n';
		else if (opt(a, "dev", &v)) o.devbind = v[1] == 'i'; else if (opt(a, "seccomp", &v)) o.seccomp = *v == 'n' ? 0 : *v == 'l' ? 1 : 2;
		else if (opt(a, "caps", &v)) o.caps = atoi(v); else if (opt(a, "cgroup", &v)) o.cg = *v == 'n' ? 0 : *v == 'p' ? 1 : *v == 't' ? 2 : 3;
		else if (opt(a, "cg2", &v)) cg2 = v; else if (opt(a, "ctl", &v)) o.ctlall = *v == 'a'; else if (opt(a, "netpool", &v)) o.netpool = atoi(v); else if (opt(a, "rss", &v)) o.rss = atoi(v);
		else if (opt(a, "extramounts", &v)) o.extra = atoi(v); else if (opt(a, "pin", &v)) o.pin = atoi(v); else if (opt(a, "first", &v)) o.first = atoi(v); else if (opt(a, "overlay", &v)) overlay = v; else if (opt(a, "graft", &v)) graft = v;
		else { fprintf(stderr, "unknown option %s\n", a); return 2; } }
	if (argc - i < 2) { fprintf(stderr, "usage: floor [key=value ...] ROOTFS CMD [ARG...]\n"); return 2; }
	rootfs = realpath(argv[i], 0); cmd = argv + i + 1; if (!rootfs) { perror(argv[i]); return 1; }
	for (const char *c = nss; *c; c++) o.ns |= *c == 'p' ? CLONE_NEWPID : *c == 'm' ? CLONE_NEWNS : *c == 'u' ? CLONE_NEWUTS : *c == 'i' ? CLONE_NEWIPC : *c == 'n' ? CLONE_NEWNET : *c == 'c' ? CLONE_NEWCGROUP : *c == 'U' ? CLONE_NEWUSER : 0;
	if (!(o.ns & CLONE_NEWNS)) o.mounts = 0;
	if (o.vfork && (o.cg == 1 || o.ns & CLONE_NEWUSER)) { fprintf(stderr, "clone=vfork cannot wait for its parent (cgroup=procs, ns=U)\n"); return 2; }
	if (o.pin >= 0) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(o.pin, &s); sched_setaffinity(0, sizeof s, &s); }
	sh = mmap(0, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (o.seccomp) build_filter(o.seccomp == 1);
	if (overlay) { snprintf(upper, sizeof upper, "%s/upper", overlay); snprintf(work, sizeof work, "%s/work", overlay);
		snprintf(upper2, sizeof upper2, "%s/usr.upper", overlay); snprintf(work2, sizeof work2, "%s/usr.work", overlay); }
	if (o.rss) { char *h = mmap(0, (size_t)o.rss << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); madvise(h, (size_t)o.rss << 20, MADV_NOHUGEPAGE); memset(h, 1, (size_t)o.rss << 20); }
	umask(0); char td[] = "/tmp/floorXXXXXX", p[64]; if (!mkdtemp(td)) return 1;
	strcpy(emptytree, td); /* what hidden directories show: an empty one, bound read-only */
	if (o.extra || o.devbind) { unshare(CLONE_NEWNS); mount(0, "/", 0, MS_REC | MS_PRIVATE, 0); mount("t", td, "tmpfs", 0, 0); /* our own mounts stay ours */
		snprintf(emptytree, 64, "%s/empty", td); mkdir(emptytree, 0755);
		for (int k = 0; k < o.extra; k++) { snprintf(p, 64, "%s/m%d", td, k); mkdir(p, 0755); mount(rootfs, p, 0, MS_BIND, 0); } }
	if (o.devbind) { snprintf(devtree, 64, "%s/dev", td); mkdir(devtree, 0755); mount("dev", devtree, "tmpfs", MS_NOSUID, "mode=755"); fill_dev(devtree, 1, 0); mount(0, devtree, 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, 0); }
	if (o.netpool) { int self = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC); unshare(CLONE_NEWNET); netfd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC); setns(self, CLONE_NEWNET); close(self); o.ns &= ~(uint64_t)CLONE_NEWNET; }
	double *tot = calloc(o.n, 8), *fb = calloc(o.n, 8), *rdy = calloc(o.n, 8), *ph = calloc((size_t)o.n * P_N, 8); struct rusage r0, r1, c0, c1;
	getrusage(RUSAGE_SELF, &r0); getrusage(RUSAGE_CHILDREN, &c0);
	for (int it = 0; it < o.n; it++) {
		double *t = sh->t, first = 0; sh->err = 0;
		if (o.first && pipe2(outp, O_CLOEXEC)) return 1;
		t[0] = now(); cg_create(it); if (overlay) overlay_dirs(); t[1] = now();
		int pidfd = -1, st; char c = 0; pipe2(syncp, O_CLOEXEC);
		struct clone_args ca = { .flags = o.ns | CLONE_PIDFD | (overlay ? CLONE_FILES : 0) | (o.vfork ? CLONE_VM | CLONE_VFORK : 0), .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD };
		if (o.cg == 3) { int d = open(cgp[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC); cgv2 = d; ca.flags |= CLONE_INTO_CGROUP; ca.cgroup = d; }
		long pid = clone3_raw(&ca); if (pid < 0) { errno = -pid; perror("clone3"); return 1; }
		if (o.cg == 1) { char b[24]; snprintf(b, 24, "%ld", pid); for (int k = 0; k < ncg; k++) if (put(cgfd[k], "cgroup.procs", b) < 0) perror("cgroup.procs"); }
		if (o.ns & CLONE_NEWUSER) { snprintf(idbuf, 64, "/proc/%ld/uid_map", pid); put(AT_FDCWD, idbuf, "0 0 65536"); snprintf(idbuf, 64, "/proc/%ld/gid_map", pid); put(AT_FDCWD, idbuf, "0 0 65536"); }
		int root = overlay ? overlay_root(pid, rootfs, upper, work) : -1, usr = overlay && graft ? overlay_root(pid, graft, upper2, work2) : -1;
		if (o.cg == 1 || o.ns & CLONE_NEWUSER || overlay) { int both[2] = { root, usr }; write(syncp[1], both, sizeof both); }
		if (o.first) { close(outp[1]); if (read(outp[0], &c, 1) == 1) first = now() - t[0]; close(outp[0]); }
		waitpid(pid, &st, 0); t[P_CGRM] = now(); if (root >= 0) close(root); if (usr >= 0) close(usr); close(pidfd); close(syncp[0]); close(syncp[1]); if (cgv2 >= 0) { close(cgv2); cgv2 = -1; }
		cg_remove(); if (overlay) overlay_remove(); t[P_N] = now();
		if (sh->err || st) { umount2(td, MNT_DETACH); rmdir(td); fprintf(stderr, "child failed: line %d: %s (status %x)\n", sh->errline, strerror(sh->err), st); return 1; }
		tot[it] = t[P_N] - t[0]; fb[it] = first; rdy[it] = t[P_SEC + 1] - t[0];
		for (int k = 0; k < P_N; k++) ph[(size_t)k * o.n + it] = t[k + 1] - t[k]; }
	getrusage(RUSAGE_SELF, &r1); getrusage(RUSAGE_CHILDREN, &c1); umount2(td, MNT_DETACH); rmdir(td);
#define TV(a) (a.tv_sec * 1e6 + a.tv_usec)
	double us = (TV(r1.ru_utime) - TV(r0.ru_utime) + TV(c1.ru_utime) - TV(c0.ru_utime)) / o.n, sy = (TV(r1.ru_stime) - TV(r0.ru_stime) + TV(c1.ru_stime) - TV(c0.ru_stime)) / o.n;
	if (isatty(1) || o.n > 1) printf("{\"total\": %.0f, \"p10\": %.0f, \"p99\": %.0f, \"to_exec\": %.0f, \"first_byte\": %.0f, \"user\": %.0f, \"sys\": %.0f, \"filter_insns\": %d", q(tot, o.n, .5), q(tot, o.n, .1), q(tot, o.n, .99), q(rdy, o.n, .5), q(fb, o.n, .5), us, sy, fprog.len);
	if (isatty(1) || o.n > 1) for (int k = 0; k < P_N; k++) printf(", \"%s\": %.0f", pname[k], q(ph + (size_t)k * o.n, o.n, .5));
	if (isatty(1) || o.n > 1) puts("}");
	return 0; }
