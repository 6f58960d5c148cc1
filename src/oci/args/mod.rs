//! The command line, as runc and crun have it: options before and after the container's id.
//!
//! - `words`: one word after the other; `exec`, `update`: the commands with many options.
//! - `signal`: signals by name; `help`: what each command says about itself.

mod exec;
mod help;
mod signal;
mod update;
mod words;

pub use exec::Exec;
pub use update::Update;

use std::path::{Path, PathBuf};
use words::{Word, Words};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// For all commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    pub root: PathBuf,
    pub log: Option<PathBuf>,
    pub log_json: bool,
    pub debug: bool,
    pub cgroups: CgroupManager,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManager {
    /// We do, in the file system.
    Cgroupfs,
    /// systemd does, asked over D-Bus.
    Systemd,
    /// Nobody: the container stays where its creator is.
    Disabled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create(Create),
    Run(Create),
    Start { id: String },
    State { id: String },
    Kill { id: String, signal: i32, all: bool },
    Delete { of: Chosen, force: bool },
    List { quiet: bool, json: bool },
    Ps(Ps),
    Exec(Exec),
    Pause { id: String },
    Resume { id: String },
    Update(Update),
    Events(Events),
    Spec { bundle: PathBuf, rootless: bool },
    SpecOf(FromManifest),
    Features,
    Version { name: String },
    Help { text: String },
}

/// Which containers a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    Id(String),
    /// An extended regular expression, for any part of an id.
    Matching(String),
}

/// `spec --from-manifest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromManifest {
    pub file: PathBuf,
    /// Of one container among several.
    pub name: Option<String>,
    /// Where an image is unpacked that is no directory yet.
    pub bundle: PathBuf,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Create {
    pub id: String,
    pub bundle: PathBuf,
    /// In place of the bundle's `config.json`.
    pub config: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    /// Where a pidfd of the process is sent.
    pub pidfd_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub detach: bool,
    pub keep: bool,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// In the foreground: orphans of the container's are ours to reap.
    pub subreaper: bool,
    /// Print what the container would go through, and make nothing.
    pub print_script: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ps {
    pub id: String,
    pub json: bool,
    /// For ps(1), when the usual columns will not do.
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    pub id: String,
    /// The figures once, and no waiting.
    pub stats: bool,
    pub interval: std::time::Duration,
}

/// Takes the words apart. `name` is what the program was called by.
pub fn parse(name: &str, words: Vec<String>) -> Result<(Global, Command), UsageError> {
    let mut global =
        Global { root: default_root(), log: None, log_json: false, debug: false, cgroups: CgroupManager::Cgroupfs };
    let mut words = Words { rest: words.into(), command: name.to_owned() };
    let help = || Command::Help { text: help::general(name) };
    loop {
        let Some(word) = words.next() else { return Ok((global, help())) };
        let (option, inline) = match word {
            Word::Plain(command) => {
                words.command = command.clone();
                return Ok((global, self::command(name, &command, &mut words)?));
            }
            Word::Option(option, inline) => (option, inline),
            Word::End => return words.fail("a command is missing"),
        };
        match option.as_str() {
            "--root" => global.root = words.value(&option, inline)?.into(),
            "--log" => global.log = log_file(&words.value(&option, inline)?, &words)?,
            "--log-format" => match words.value(&option, inline)?.as_str() {
                "json" => global.log_json = true,
                "text" => global.log_json = false,
                other => return words.fail(format!("--log-format: {other:?} is neither text nor json")),
            },
            "--log-level" => match words.value(&option, inline)?.as_str() {
                "debug" => global.debug = true,
                "warning" | "warn" | "error" | "info" => global.debug = false,
                other => return words.fail(format!("--log-level: {other:?} is not debug, info, warning or error")),
            },
            "--debug" => global.debug = words.flag(&option, inline.as_deref())?,
            "--systemd-cgroup" => {
                if words.flag(&option, inline.as_deref())? {
                    global.cgroups = CgroupManager::Systemd;
                }
            }
            "--cgroup-manager" => {
                global.cgroups = match words.value(&option, inline)?.as_str() {
                    "cgroupfs" => CgroupManager::Cgroupfs,
                    "systemd" => CgroupManager::Systemd,
                    "disabled" => CgroupManager::Disabled,
                    other => {
                        let what = format!("--cgroup-manager: {other:?} is not cgroupfs, systemd or disabled");
                        return words.fail(what);
                    }
                }
            }
            // What we may do shows when we do it.
            "--rootless" => match words.value(&option, inline)?.as_str() {
                "auto" | "false" | "true" => {}
                other => return words.fail(format!("--rootless: {other:?} is not auto, true or false")),
            },
            "--version" | "-v" => return Ok((global, Command::Version { name: name.to_owned() })),
            "--help" | "-h" => return Ok((global, help())),
            _ => return words.unknown(&option),
        }
    }
}

/// Below the user's own run directory, for who may not write to `/run`.
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    own.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("plim-oci")
}

/// crun also takes a kind in front: `file:PATH`.
fn log_file(text: &str, words: &Words) -> Result<Option<PathBuf>, UsageError> {
    match text.split_once(':') {
        Some(("journald" | "syslog", _)) => words.fail(format!("--log: {text:?} is not a file")),
        Some(("file", path)) => Ok(Some(path.into())),
        _ => Ok(Some(PathBuf::from(text)).filter(|path| path != Path::new(""))),
    }
}

fn command(name: &str, command: &str, words: &mut Words) -> Result<Command, UsageError> {
    if wants_help(command, words) {
        return match help::of(name, command) {
            Some(text) => Ok(Command::Help { text }),
            None => Err(UsageError(format!("No help topic for '{command}'"))),
        };
    }
    match command {
        "create" => create(words, Verb::Create).map(Command::Create),
        "run" => create(words, Verb::Run).map(Command::Run),
        "start" => Ok(Command::Start { id: id_alone(words)? }),
        "state" => Ok(Command::State { id: id_alone(words)? }),
        "pause" => Ok(Command::Pause { id: id_alone(words)? }),
        "resume" => Ok(Command::Resume { id: id_alone(words)? }),
        "kill" => kill(words),
        "delete" => {
            let (mut force, mut regex) = (false, false);
            let mut plain = words.options(|words, name, inline| match name {
                "--force" | "-f" => words.flag(name, inline.as_deref()).map(|value| force = value),
                "--regex" => words.flag(name, inline.as_deref()).map(|value| regex = value),
                _ => words.unknown(name),
            })?;
            if !regex {
                return Ok(Command::Delete { of: Chosen::Id(words.one(plain)?), force });
            }
            if plain.is_empty() {
                return words.fail("the expression is missing");
            }
            let expression = plain.remove(0);
            words.none(&plain)?;
            Ok(Command::Delete { of: Chosen::Matching(expression), force })
        }
        "list" => {
            let (mut quiet, mut json) = (false, false);
            let plain = words.options(|words, name, inline| match name {
                "--quiet" | "-q" => words.flag(name, inline.as_deref()).map(|value| quiet = value),
                "--format" | "-f" => format(words, name, inline).map(|value| json = value),
                _ => words.unknown(name),
            })?;
            words.none(&plain)?;
            Ok(Command::List { quiet, json })
        }
        "ps" => ps(words).map(Command::Ps),
        "exec" => exec::exec(words).map(Command::Exec),
        "update" => update::update(words).map(Command::Update),
        "events" => events(words).map(Command::Events),
        "spec" => {
            let (mut bundle, mut rootless, mut manifest) = (PathBuf::from("."), false, None);
            let mut plain = words.options(|words, name, inline| match name {
                "--bundle" | "-b" => words.value(name, inline).map(|value| bundle = value.into()),
                "--from-manifest" => words.value(name, inline).map(|value| manifest = Some(PathBuf::from(value))),
                "--rootless" => words.flag(name, inline.as_deref()).map(|value| rootless = value),
                _ => words.unknown(name),
            })?;
            if let Some(file) = manifest {
                let name = (!plain.is_empty()).then(|| plain.remove(0));
                words.none(&plain)?;
                return Ok(Command::SpecOf(FromManifest { file, name, bundle }));
            }
            words.none(&plain)?;
            Ok(Command::Spec { bundle, rootless })
        }
        "features" => {
            let plain = words.options(|words, name, _| words.unknown(name))?;
            words.none(&plain)?;
            Ok(Command::Features)
        }
        "version" => Ok(Command::Version { name: name.to_owned() }),
        "help" => {
            let topic = words.rest.pop_front();
            let text = topic.as_deref().map_or_else(|| Some(help::general(name)), |topic| help::of(name, topic));
            match text {
                Some(text) => Ok(Command::Help { text }),
                None => Err(UsageError(format!("No help topic for '{}'", topic.unwrap_or_default()))),
            }
        }
        "checkpoint" | "restore" => words.fail("not supported"),
        other => Err(UsageError(format!("{other:?} is not a command; see --help"))),
    }
}

/// `-h` among the options; behind the id of `exec` and `ps` it is not ours.
fn wants_help(command: &str, words: &Words) -> bool {
    let is_help = |word: &String| word == "-h" || word == "--help";
    if matches!(command, "exec" | "ps") {
        return words.rest.front().is_some_and(is_help);
    }
    words.rest.iter().take_while(|word| *word != "--").any(is_help)
}

fn format(words: &mut Words, name: &str, inline: Option<String>) -> Result<bool, UsageError> {
    match words.value(name, inline)?.as_str() {
        "json" => Ok(true),
        "table" => Ok(false),
        other => words.fail(format!("--format: {other:?} is neither table nor json")),
    }
}

fn id_alone(words: &mut Words) -> Result<String, UsageError> {
    let plain = words.options(|words, name, _| words.unknown(name))?;
    words.one(plain)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Run,
}

fn create(words: &mut Words, verb: Verb) -> Result<Create, UsageError> {
    let mut wish = Create { bundle: PathBuf::from("."), subreaper: true, ..Create::default() };
    let plain = words.options(|words, name, inline| {
        match name {
            "--bundle" | "-b" => wish.bundle = words.value(name, inline)?.into(),
            "--config" | "-f" => wish.config = Some(words.value(name, inline)?.into()),
            "--pid-file" => wish.pid_file = Some(words.value(name, inline)?.into()),
            "--console-socket" => wish.console_socket = Some(words.value(name, inline)?.into()),
            "--pidfd-socket" => wish.pidfd_socket = Some(words.value(name, inline)?.into()),
            "--preserve-fds" => wish.preserve_fds = words.number(name, inline)?,
            "--detach" | "-d" if verb == Verb::Run => wish.detach = words.flag(name, inline.as_deref())?,
            "--keep" if verb == Verb::Run => wish.keep = words.flag(name, inline.as_deref())?,
            "--no-pivot" => wish.no_pivot = words.flag(name, inline.as_deref())?,
            "--print-script" if verb == Verb::Run => wish.print_script = words.flag(name, inline.as_deref())?,
            "--no-new-keyring" => wish.no_new_keyring = words.flag(name, inline.as_deref())?,
            "--no-subreaper" => wish.subreaper = !words.flag(name, inline.as_deref())?,
            _ => return words.unknown(name),
        }
        Ok(())
    })?;
    wish.id = words.one(plain)?;
    Ok(wish)
}

fn kill(words: &mut Words) -> Result<Command, UsageError> {
    let mut all = false;
    let mut plain = words.options(|words, name, inline| match name {
        "--all" | "-a" => words.flag(name, inline.as_deref()).map(|value| all = value),
        _ => words.unknown(name),
    })?;
    let signal = if plain.len() > 1 { plain.remove(1) } else { "SIGTERM".to_owned() };
    let Some(number) = signal::number(&signal) else { return words.fail(format!("{signal:?} is not a signal")) };
    Ok(Command::Kill { id: words.one(plain)?, signal: number, all })
}

fn ps(words: &mut Words) -> Result<Ps, UsageError> {
    let mut wish = Ps::default();
    while let Some(word) = words.next() {
        match word {
            Word::Plain(id) => {
                wish.id = words.id(id)?;
                break;
            }
            Word::Option(name, inline) => match name.as_str() {
                "--format" | "-f" => wish.json = format(words, &name, inline)?,
                _ => return words.unknown(&name),
            },
            Word::End => {}
        }
    }
    if wish.id.is_empty() {
        return words.fail("the container's id is missing");
    }
    // What comes behind the id is for ps(1), `-f` too.
    while let Some(word) = words.rest.pop_front() {
        match word.split_once('=') {
            None if word == "--format" => wish.json = format(words, "--format", None)?,
            Some(("--format", value)) => wish.json = format(words, "--format", Some(value.to_owned()))?,
            None if word == "--" && wish.options.is_empty() => {}
            _ => wish.options.push(word),
        }
    }
    Ok(wish)
}

fn events(words: &mut Words) -> Result<Events, UsageError> {
    let mut wish = Events { interval: std::time::Duration::from_secs(5), ..Events::default() };
    let plain = words.options(|words, name, inline| {
        match name {
            "--stats" => wish.stats = words.flag(name, inline.as_deref())?,
            "--interval" => {
                let text = words.value(name, inline)?;
                // Every unit that humantime knows, Go's among them.
                let interval = humantime::parse_duration(&text).ok().filter(|interval| !interval.is_zero());
                let Some(interval) = interval else {
                    return words.fail(format!("--interval: {text:?} is not a time like 5s"));
                };
                wish.interval = interval;
            }
            _ => return words.unknown(name),
        }
        Ok(())
    })?;
    wish.id = words.one(plain)?;
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<(Global, Command), UsageError> {
        parse("plim-oci", line.split_whitespace().map(ToOwned::to_owned).collect())
    }

    #[test]
    fn options_stand_before_and_after_the_id() {
        let before = words("--root /r --log=/l --log-format json create --bundle /b --pid-file /p web").unwrap();
        let after = words("--root=/r --log /l --log-format=json create web --bundle=/b -pid-file /p").unwrap();

        assert_eq!(before, after);
        assert_eq!(before.0.root, PathBuf::from("/r"));
        let Command::Create(create) = before.1 else { panic!("{:?}", before.1) };
        assert_eq!((create.id.as_str(), create.bundle), ("web", PathBuf::from("/b")));
    }

    #[test]
    fn what_stands_behind_the_id_of_exec_is_the_commands() {
        let (_, command) = words("exec -e A=1 --user 3:4 web ls --detach -la").unwrap();

        let Command::Exec(exec) = command else { panic!("{command:?}") };
        assert_eq!(exec.args, ["ls", "--detach", "-la"]);
        assert_eq!((exec.user, exec.detach, exec.env), (Some((3, Some(4))), false, vec!["A=1".to_owned()]));
    }

    #[test]
    fn what_stands_behind_the_id_of_ps_is_for_ps() {
        let (_, command) = words("ps web -e -f --format json").unwrap();

        let options = vec!["-e".to_owned(), "-f".to_owned()];
        assert_eq!(command, Command::Ps(Ps { id: "web".to_owned(), json: true, options }));
    }

    #[test]
    fn every_command_has_help_in_the_name_that_it_was_called_by() {
        for command in ["create", "run", "exec", "update", "events", "checkpoint"] {
            let (_, parsed) = parse("runc", vec![command.to_owned(), "--help".to_owned()]).unwrap();

            let Command::Help { text } = parsed else { panic!("{parsed:?}") };
            assert!(text.contains(&format!("runc {command} - ")), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("create", "create: the container's id is missing"),
            ("create ../x", "create: \"../x\" is not an id: letters, digits and _ + - . with no dot in front"),
            ("create a b", "create: \"b\" is one word too many"),
            ("run --frob a", "run: --frob is not an option"),
            (
                "--cgroup-manager none run a",
                "plim-oci: --cgroup-manager: \"none\" is not cgroupfs, systemd or disabled",
            ),
            ("--log journald:x run a", "plim-oci: --log: \"journald:x\" is not a file"),
            ("--rootless maybe run a", "plim-oci: --rootless: \"maybe\" is not auto, true or false"),
            ("delete --regex", "delete: the expression is missing"),
            ("delete --regex a b", "delete: \"b\" is one word too many"),
            ("frob -h", "No help topic for 'frob'"),
            ("events --interval 0s a", "events: --interval: \"0s\" is not a time like 5s"),
            ("update --memory 1q a", "update: --memory: \"1q\" is not a number of bytes"),
            ("frob", "\"frob\" is not a command; see --help"),
            ("exec -u root a ls", "exec: --user: \"root\" is not of the form UID or UID:GID, by numbers"),
            ("exec -u 1:x a ls", "exec: --user: \"1:x\" is not of the form UID or UID:GID, by numbers"),
            ("exec a", "exec: a command behind the id or --process, one of both"),
            ("update a", "update: limits by options or by --resources, one of both"),
            ("kill a FOO", "kill: \"FOO\" is not a signal"),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap_err().to_string(), expected, "{line}");
        }
    }
}
