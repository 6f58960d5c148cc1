//! What `--help` says, in the layout that other runtimes have.

struct Topic {
    command: &'static str,
    summary: &'static str,
    words: &'static str,
    options: &'static [&'static str],
}

const CREATE: &[&str] = &[
    "--bundle DIR, -b DIR     where config.json and the root are; default: here",
    "--config FILE, -f FILE   in place of the bundle's config.json",
    "--pid-file FILE          gets the number of the process",
    "--console-socket PATH    the unix socket that gets the terminal",
    "--pidfd-socket PATH      the unix socket that gets a pidfd of the process",
    "--preserve-fds N         the program keeps descriptors 3 to 2+N",
    "--no-pivot               move the root in place of pivot_root(2)",
    "--no-new-keyring         keep the caller's session keyring",
];

const RUN: &[&str] = &[
    "--bundle DIR, -b DIR     where config.json and the root are; default: here",
    "--config FILE, -f FILE   in place of the bundle's config.json",
    "--detach, -d             do not wait for its end",
    "--keep                   do not delete it at its end",
    "--print-script           say what it would go through, and do nothing of it",
    "--pid-file FILE          gets the number of the process",
    "--console-socket PATH    the unix socket that gets the terminal",
    "--pidfd-socket PATH      the unix socket that gets a pidfd of the process",
    "--preserve-fds N         the program keeps descriptors 3 to 2+N",
    "--no-pivot               move the root in place of pivot_root(2)",
    "--no-new-keyring         keep the caller's session keyring",
    "--no-subreaper           leave orphans of the container to others",
];

const EXEC: &[&str] = &[
    "--process FILE, -p FILE  the whole process as JSON, in place of a command",
    "--tty, -t                with a terminal",
    "--console-socket PATH    the unix socket that gets the terminal",
    "--pidfd-socket PATH      the unix socket that gets a pidfd of the process",
    "--detach, -d             do not wait for its end",
    "--pid-file FILE          gets the number of the process",
    "--cwd DIR                working directory",
    "--env NAME=VALUE, -e …   another variable; repeatable",
    "--user UID[:GID], -u …   by numbers",
    "--additional-gids GID, -g GID",
    "                         another group; repeatable",
    "--cap CAP, -c CAP        another capability; repeatable",
    "--no-new-privs           no gain of privileges by execve(2)",
    "--preserve-fds N         the program keeps descriptors 3 to 2+N",
    "--cgroup PATH            below the container's cgroup; or CONTROLLER[,…]:PATH",
    "--ignore-paused          also in a paused container, where it stands still",
    "--process-label LABEL    of SELinux",
    "--apparmor PROFILE       of AppArmor",
];

const UPDATE: &[&str] = &[
    "--resources FILE, -r …   linux.resources as JSON; - is standard input",
    "--memory BYTES, --memory-reservation BYTES, --memory-swap BYTES",
    "--cpu-shares N, --cpu-quota µS, --cpu-period µS, --cpu-burst µS, --cpu-idle 0|1",
    "--cpu-rt-period µS, --cpu-rt-runtime µS, --cpuset-cpus LIST, --cpuset-mems LIST",
    "--pids-limit N, --blkio-weight N",
    "--l3-cache-schema TEXT, --mem-bw-schema TEXT",
];

const FORMAT: &str = "--format table|json, -f … what is printed";

const TOPICS: [Topic; 17] = [
    Topic { command: "create", summary: "makes a container that waits for its start", words: "ID", options: CREATE },
    Topic {
        command: "run",
        summary: "creates and starts a container, and waits for its end",
        words: "ID",
        options: RUN,
    },
    Topic { command: "start", summary: "lets a created container run its program", words: "ID", options: &[] },
    Topic { command: "state", summary: "prints the state as JSON", words: "ID", options: &[] },
    Topic {
        command: "kill",
        summary: "sends a signal, SIGTERM by default, to the container's first process",
        words: "ID [SIGNAL]",
        options: &["--all, -a                to all of its processes"],
    },
    Topic {
        command: "delete",
        summary: "removes what is left of a container that has ended",
        words: "ID",
        options: &[
            "--force, -f              kill it first; one that does not exist is no error",
            "--regex                  each whose id an extended regular expression, in place of ID, matches",
        ],
    },
    Topic {
        command: "list",
        summary: "lists the containers of this --root",
        words: "",
        options: &["--quiet, -q              ids only", FORMAT],
    },
    Topic {
        command: "ps",
        summary: "lists the processes of a container",
        words: "ID [OPTIONS OF PS]",
        options: &[FORMAT],
    },
    Topic {
        command: "exec",
        summary: "runs another program in a container",
        words: "ID COMMAND [ARGUMENT ...]",
        options: EXEC,
    },
    Topic { command: "pause", summary: "stops all processes of a container where they are", words: "ID", options: &[] },
    Topic { command: "resume", summary: "lets a paused container go on", words: "ID", options: &[] },
    Topic { command: "update", summary: "changes limits of a running container", words: "ID", options: UPDATE },
    Topic {
        command: "events",
        summary: "prints what a container uses and when it runs out of memory",
        words: "ID",
        options: &["--stats                  once", "--interval TIME          between two figures; default: 5s"],
    },
    Topic {
        command: "spec",
        summary: "writes a config.json to begin with",
        words: "[NAME]",
        options: &[
            "--bundle DIR, -b DIR     where to; default: here",
            "--rootless               for who is not root",
            "--from-manifest FILE     print that of a manifest's container (plim oci)",
        ],
    },
    Topic { command: "features", summary: "prints what is supported, as JSON", words: "", options: &[] },
    Topic { command: "checkpoint", summary: "is not supported", words: "ID", options: &[] },
    Topic { command: "restore", summary: "is not supported", words: "ID", options: &[] },
];

const GLOBAL: &str = "\
   --root DIR               where the state of containers is kept
   --log FILE               gets errors, and with --debug more
   --log-format text|json
   --debug
   --systemd-cgroup, --cgroup-manager cgroupfs|systemd|disabled
   --rootless auto|true|false
   --version, -v
   --help, -h
";

pub(super) fn general(name: &str) -> String {
    let commands: String =
        TOPICS.iter().map(|Topic { command, summary, .. }| format!("   {command:10} {summary}\n")).collect();
    format!(
        "NAME:\n   {name} - Open Container Initiative runtime\n\nUSAGE:\n   {name} [OPTIONS] COMMAND [OPTIONS] [ID ...]\n\n\
         COMMANDS:\n{commands}\nOPTIONS:\n{GLOBAL}"
    )
}

/// One command.
pub(super) fn of(name: &str, command: &str) -> Option<String> {
    let Topic { command, summary, words, options } = TOPICS.iter().find(|topic| topic.command == command)?;
    let brackets = if options.is_empty() { "" } else { " [OPTIONS]" };
    let mut text = format!("NAME:\n   {name} {command} - {summary}\n\nUSAGE:\n   {name} {command}{brackets} {words}");
    text.truncate(text.trim_end().len());
    text.push('\n');
    if !options.is_empty() {
        text.push_str("\nOPTIONS:\n");
        for line in *options {
            text.push_str(&format!("   {line}\n"));
        }
    }
    Some(text)
}
