//! Plimsoll holds a Linux host at the line its owner has drawn: it reads container manifests from a
//! directory or a git repository, compares them with what really runs, and creates, resizes, updates or removes
//! containers until the two agree. It has its own container runtime.
//!
//! This page is the architecture. Each module's own page says what it promises and what it leaves to
//! others.
//!
//! # Processes
//!
//! ```text
//! plim agent    reads sources, plans, executes, serves the API; may be killed at any time
//!     |         unix seqpacket socket: JSON in a sealed memory file, descriptors beside it
//!     |-- fetch   for each question to a git server: another user without privileges, for seconds
//!     |
//! plim-keeper   one per agent root, single-threaded, no policy: the parent of all containers
//!     |
//! containers    the command itself is PID 1; nothing of ours runs beside it
//! ```
//!
//! The keeper starts a container from a [`sandbox::Script`], a list of operations as data, so that
//! between `clone` and `execve` nothing is decided and nothing is allocated. It holds pidfds and
//! pipes, writes logs, reaps, and reports exits. It never restarts anything by itself. Where it runs
//! is a private copy of its own program in sealed memory: nothing inside a container can reach a
//! file of the host through it.
//!
//! # The way of data
//!
//! ```text
//! watch -> read -> Desired ---\
//!                              plan -> Steps -> execute -> record -> status, events
//! observe kernel + records ---/
//! ```
//!
//! One direction; nothing calls back up. [`source`] lists directories, [`manifest`] turns text into
//! objects with positions, [`plan::plan`] is pure, [`agent`] drives. A round is a function of what is
//! there now: a missed event costs a delay and never a state.
//!
//! # Two seams
//!
//! [`host::Host`] (observe; apply one action) and [`store::Store`] (scan, load, put, forget) have a
//! real and a simulated implementation each. Everything else is plain types and functions.
//!
//! # What always holds
//!
//! 1. An event means "look again" and carries no other news.
//! 2. What cannot be read, parsed or trusted holds its object as it is. Absence must be seen, in a
//!    complete listing of a healthy source.
//! 3. Intent is durable before the host changes, and forgotten only after the host is seen clean.
//! 4. An instance is created only where nothing stands, and one object never has two current ones.
//! 5. A change of limits alone never restarts anything, and never makes the kernel kill anything.
//! 6. One step in flight per object; no step waits. Waiting is a deadline in the plan.
//! 7. At rest the plan is empty, and a round writes nothing and logs nothing.
//! 8. What we did not make, we do not touch.
//! 9. A process is known by its pidfd or its cgroup, never by a number from a file.
//! 10. Nothing that a container can write decides what we do on the host.
//!
//! # Decisions
//!
//! - **cgroup layout.** In the v2 hierarchy limits are on `c/<namespace>_<name>/<number>/` and the
//!   processes in `payload/` below. In a v1 hierarchy there is one directory per instance and no
//!   `payload/`: a v1 hierarchy is never delegated into a container, so there is nobody to keep from
//!   the limits, and every directory in every hierarchy costs time at each start.
//! - **Devices are decided by one program for all containers** of an agent in the v2 hierarchy, attached
//!   above them: a start costs nothing more, and it holds where no user namespace does. An OCI container
//!   has a program of its own, from its own rules.
//! - **systemd is spoken to by hand** (`--systemd-cgroup`): four calls and a signal over D-Bus. A library
//!   for it would bring an async runtime into a program that is copied into memory at every start.
//! - **Log files** are named after the run: `log/<namespace>_<name>/<number>/<run>.log`, so that
//!   `--previous` needs no search through one file.
//! - **The keeper gets no list of its containers from disk.** The agent tells a new keeper which live
//!   containers there are and where their output goes; it finds their processes by their cgroups. What
//!   the agent needs for that stands beside each container, in its run directory.
//! - **Nothing that runs is stopped for a revision that cannot start.** Before a restart or a new root
//!   filesystem the host looks whether image, command, mounts and profile are there
//!   ([`plan::Action::Check`]); until they are, the last good revision goes on.
//! - **A child makes its own namespaces.** Only the user and the pid namespace are made at the clone;
//!   the rest is unshared while the parent maps ids and makes the overlays: a network namespace alone
//!   takes a quarter of a start.
//! - **`/dev` is a tmpfs of the host's** with real device nodes, handed over as a detached mount. A user
//!   namespace cannot make nodes, and a bind mount for each of them would cost more.
//! - **Overlays on id-mapped layers** take descriptors where the kernel does (Linux 6.15). Before that a
//!   short-lived child with a mount namespace of its own gives the layers names; nothing can be left
//!   over, because the namespace ends with it.
//! - **x32 system calls are not in the default filter**: nobody has programs for them, and a filter's
//!   length is paid at every start.
//! - **Consent is for one absence**: when an object's text comes back, what was approved before is
//!   forgotten, and its next disappearance is asked about anew.
//! - **The runtime hides its own file without a copy or a second `execve`**: the file's mappings are made
//!   anew through a mount that nobody can name, and what the process shows as its program is an empty file
//!   ([`sandbox::program`]). A copy in sealed memory would cost as much as all the rest of an `exec`.
//! - **`plim-oci` is small, and stays position-independent.** A start maps what it touches once more, and so
//!   pays for every page of code. A release is optimised as a whole and for size (`Cargo.toml`); the program
//!   is linked statically, with packed relocations and without tables for unwinding, as a panic aborts
//!   (`build.rs`). At fixed addresses it would start some 2 % sooner; but it runs as root and reads what others
//!   wrote.
//! - **`plim-oci` has a first function of its own** ([`entry`]): what the standard library does before `main` to
//!   tell a full stack in words takes a tenth of an `exec`.
//! - **Filters are shortened** to a search tree for each architecture: the kernel pays for every
//!   instruction at every start.
//! - **Under systemd there are three units**: the agent, the keeper, and one without a process of its own
//!   (`plimsoll-containers.service`) whose delegated cgroup holds every container. systemd starts no process in a
//!   cgroup whose controllers are handed down, so a keeper whose own unit held them could not be started
//!   again; and this way stopping that unit, as a shutdown does, is what stops containers: in their order, by
//!   an agent that forgets nothing (`plim agent --halt`), so that they run again afterwards. Agent and keeper
//!   can be stopped, restarted and upgraded at any time. Nothing is kept in systemd's descriptor store: what
//!   has to outlive the agent the keeper holds, and what has to outlive the keeper the containers hold.
//! - **A newer keeper takes the place of the one that runs** by `execve`: an agent that finds another program
//!   beside itself than the keeper runs asks for it, and so does SIGHUP (`systemctl reload`). Descriptors go
//!   through a socket that is the next program's standard input, so none is known by its number, and a
//!   program that cannot be executed has cost nothing. It is asked for its words before: after, it is too late.
//! - **A damaged database is set aside**, and rebuilt from what runs and what the manifests say. One that can't
//!   be read yet (a full disk, a read-only one) is waited for: until it is known what was intended, nothing
//!   is decided, and everything goes on.
//! - **A death between any two effects is played for real**: the programs have places to die at when they are
//!   built for tests (`sys::may_die`), and a test goes through them one by one.
//! - **What no worker has begun is taken back** when its object is asked for otherwise meanwhile: it is decided
//!   anew, from what a death at that moment would have left. A word or an edit waits for no queue.
//! - **The rounds have a thread of their own**, beside tokio's: they wait for disks and for the kernel,
//!   and the window after a file event is met to a fraction of a millisecond, where tokio's timer counts
//!   whole ones.
//! - **A round in which nothing changed is cheap by identity.** A listing without a change gives the same
//!   map, from which nothing is folded; a record shares the object that it accepted with the manifest's
//!   snapshot; records, wishes and sightings are walked side by side. What is left is one `stat` per file.
//! - **A file is whole when nobody has it open for writing**, as a read lease tells, or when it was not changed
//!   for five seconds: an editor that writes in place, or a slow copy, shows no half of its text.
//! - **Where a source was is remembered beside the database**, by its file system and its inode: an agent that
//!   starts while a volume is not mounted removes nothing of it.
//! - **A repository is fetched by a process for each time**, not by one that stays: nothing of a server's is
//!   left in memory afterwards, a hanging one is killed whole, and a poll costs a few milliseconds
//!   ([`fetch`]). What it fetched is kept by the agent as plain text ([`source::Revision`]), so that the copy of
//!   the repository is worth nothing: it can be lost, damaged or thrown away at any time.
//! - **A revision that is in force is a complete listing**, also while its server is away: what is not in it was
//!   seen to be gone. A repository of which nothing was fetched yet holds back every removal.
//! - **A configuration is read again as a whole or not at all**, by a command that waits for the answer (`plim
//!   reload`), also where systemd asks for it: a signal could not tell that the old one holds, and where the mistake
//!   is. A source that is asked for as before goes on as it is; of one that is not any more, late answers count for
//!   nothing, and what came from it is gone like from a directory.
//! - **A mount that somebody has taken away costs a restart**: what is mounted is a matter of a process's start
//!   (`plim explain spec.mounts`), and a service that writes where its data is not is as bad as one that hangs.
//! - **What a process was started from** stands beside it. An agent that has lost its database compares
//!   with that, so what was edited meanwhile is replaced and everything else stays.
//! - **Probes are asked by the agent, and judged by the planner**: the keeper only starts their commands and kills
//!   them. What they say is a sighting like any other, kept nowhere: a new agent asks again, and a
//!   container that is older than its startup may take has passed it.
//! - **A wait is an instant of the wall clock with a length of its own.** It outlives the agent and the host's uptime
//!   that way, and a clock that is set back makes none longer: what lies further ahead than its length begins anew.
//!   None ends early either: how far the wall clock is ahead of the time since the boot is noted in the run
//!   directory, and when it is set forward, also while no agent runs, every wait is carried along
//!   ([`plan::carry`]). Across a boot the wall clock is believed.
//! - **What a changed field costs** is one table, [`spec::change`], that the planner, `plim plan` and
//!   the tests read.
//!
#![doc = include_str!("threats.md")]

pub mod agent;
pub mod api;
pub mod cgroup;
pub mod cli;
pub mod fetch;
pub mod host;
pub mod image;
pub mod keeper;
pub mod manifest;
pub mod oci;
pub mod plan;
pub mod sandbox;
pub mod source;
pub mod spec;
pub mod storage;
pub mod store;
pub mod sys;
