//! The command line, as runc and crun have it: options before and after the container's id.

use std::collections::VecDeque;
use std::path::PathBuf;

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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create(Create),
    Run(Create),
    Start { id: String },
    State { id: String },
    Kill { id: String, signal: i32, all: bool },
    Delete { id: String, force: bool },
    List { quiet: bool, json: bool },
    Ps { id: String, json: bool },
    Exec(Exec),
    Pause { id: String },
    Resume { id: String },
    Update(Update),
    Spec { bundle: PathBuf },
    Features,
    Version,
    Help,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Create {
    pub id: String,
    pub bundle: PathBuf,
    /// In place of the bundle's `config.json`.
    pub config: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub detach: bool,
    pub keep: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    pub id: String,
    pub args: Vec<String>,
    pub process: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub detach: bool,
    pub terminal: bool,
    pub cwd: Option<String>,
    pub env: Vec<String>,
    pub user: Option<(u32, Option<u32>)>,
    pub groups: Vec<u32>,
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub ignore_paused: bool,
}

/// New limits: a file of `linux.resources`, or single ones by option.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    pub id: String,
    /// `-` is standard input.
    pub resources: Option<PathBuf>,
    /// A path in `linux.resources` and its value as JSON.
    pub single: Vec<(&'static str, serde_json::Value)>,
}

struct Words {
    rest: VecDeque<String>,
    command: String,
}

impl Words {
    fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T, UsageError> {
        Err(UsageError(format!("{}: {what}", self.command)))
    }

    /// The value of an option, behind `=` or in the next word.
    fn value(&mut self, name: &str, inline: Option<String>) -> Result<String, UsageError> {
        match inline.or_else(|| self.rest.pop_front()) {
            Some(value) => Ok(value),
            None => self.fail(format!("{name} takes a value")),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str, inline: Option<String>) -> Result<T, UsageError> {
        let text = self.value(name, inline)?;
        text.parse().or_else(|_| self.fail(format!("{name}: {text:?} is not a number that fits")))
    }

    /// The next option, or the word that is none. `None` at the end.
    fn next(&mut self) -> Option<Word> {
        let word = self.rest.pop_front()?;
        if word == "-" || !word.starts_with('-') {
            return Some(Word::Plain(word));
        }
        if word == "--" {
            return Some(Word::End);
        }
        Some(match word.split_once('=') {
            Some((name, value)) => Word::Option(dashes(name), Some(value.to_owned())),
            None => Word::Option(dashes(&word), None),
        })
    }
}

/// One dash is as good as two, as programs written in Go have it.
fn dashes(name: &str) -> String {
    let bare = name.trim_start_matches('-');
    if bare.chars().count() == 1 { format!("-{bare}") } else { format!("--{bare}") }
}

enum Word {
    Option(String, Option<String>),
    Plain(String),
    End,
}

fn flag(words: &Words, name: &str, inline: Option<&str>) -> Result<bool, UsageError> {
    match inline {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => words.fail(format!("{name}: {other:?} is neither true nor false")),
    }
}

/// Takes the words apart.
pub fn parse(words: Vec<String>) -> Result<(Global, Command), UsageError> {
    let mut global = Global { root: PathBuf::from("/run/plim-oci"), log: None, log_json: false, debug: false };
    let mut words = Words { rest: words.into(), command: "plim-oci".to_owned() };
    loop {
        let Some(word) = words.next() else { return Ok((global, Command::Help)) };
        let (name, inline) = match word {
            Word::Plain(command) => {
                words.command = command.clone();
                return Ok((global, self::command(&command, &mut words)?));
            }
            Word::Option(name, inline) => (name, inline),
            Word::End => return words.fail("a command is missing"),
        };
        match name.as_str() {
            "--root" => global.root = words.value(&name, inline)?.into(),
            "--log" => {
                global.log =
                    Some(words.value(&name, inline)?.into()).filter(|path: &PathBuf| !path.as_os_str().is_empty())
            }
            "--log-format" => match words.value(&name, inline)?.as_str() {
                "json" => global.log_json = true,
                "text" => global.log_json = false,
                other => return words.fail(format!("--log-format: {other:?} is neither text nor json")),
            },
            "--debug" => global.debug = flag(&words, &name, inline.as_deref())?,
            "--systemd-cgroup" => {
                if flag(&words, &name, inline.as_deref())? {
                    return words.fail("--systemd-cgroup is not supported yet");
                }
            }
            "--cgroup-manager" => match words.value(&name, inline)?.as_str() {
                "cgroupfs" => {}
                other => return words.fail(format!("--cgroup-manager: {other:?} is not supported yet, only cgroupfs")),
            },
            "--rootless" => match words.value(&name, inline)?.as_str() {
                "auto" | "false" => {}
                other => return words.fail(format!("--rootless: {other:?} is not supported yet")),
            },
            "--version" | "-v" => return Ok((global, Command::Version)),
            "--help" | "-h" => return Ok((global, Command::Help)),
            _ => return words.fail(format!("{name} is not an option")),
        }
    }
}

fn command(name: &str, words: &mut Words) -> Result<Command, UsageError> {
    match name {
        "create" => create(words, Verb::Create).map(Command::Create),
        "run" => create(words, Verb::Run).map(Command::Run),
        "start" => Ok(Command::Start { id: id_alone(words)? }),
        "state" => Ok(Command::State { id: id_alone(words)? }),
        "pause" => Ok(Command::Pause { id: id_alone(words)? }),
        "resume" => Ok(Command::Resume { id: id_alone(words)? }),
        "kill" => kill(words),
        "delete" => {
            let (mut force, mut plain) = (false, Vec::new());
            options(words, &mut plain, |words, name, inline| match name {
                "--force" | "-f" => flag(words, name, inline.as_deref()).map(|value| force = value),
                _ => unknown(words, name),
            })?;
            Ok(Command::Delete { id: one(words, plain)?, force })
        }
        "list" => {
            let (mut quiet, mut json, mut plain) = (false, false, Vec::new());
            options(words, &mut plain, |words, name, inline| match name {
                "--quiet" | "-q" => flag(words, name, inline.as_deref()).map(|value| quiet = value),
                "--format" | "-f" => format(words, name, inline).map(|value| json = value),
                _ => unknown(words, name),
            })?;
            none(words, &plain)?;
            Ok(Command::List { quiet, json })
        }
        "ps" => {
            let (mut json, mut plain) = (false, Vec::new());
            options(words, &mut plain, |words, name, inline| match name {
                "--format" | "-f" => format(words, name, inline).map(|value| json = value),
                _ => unknown(words, name),
            })?;
            Ok(Command::Ps { id: one(words, plain)?, json })
        }
        "exec" => exec(words).map(Command::Exec),
        "update" => update(words).map(Command::Update),
        "spec" => {
            let (mut bundle, mut plain) = (PathBuf::from("."), Vec::new());
            options(words, &mut plain, |words, name, inline| match name {
                "--bundle" | "-b" => words.value(name, inline).map(|value| bundle = value.into()),
                _ => unknown(words, name),
            })?;
            none(words, &plain)?;
            Ok(Command::Spec { bundle })
        }
        "features" => {
            let mut plain = Vec::new();
            options(words, &mut plain, |words, name, _| unknown(words, name))?;
            none(words, &plain)?;
            Ok(Command::Features)
        }
        "help" => Ok(Command::Help),
        other => Err(UsageError(format!("{other:?} is not a command; see --help"))),
    }
}

/// Every option goes to `take`, all else to `plain`.
fn options(
    words: &mut Words,
    plain: &mut Vec<String>,
    mut take: impl FnMut(&mut Words, &str, Option<String>) -> Result<(), UsageError>,
) -> Result<(), UsageError> {
    while let Some(word) = words.next() {
        match word {
            Word::Plain(word) => plain.push(word),
            Word::Option(name, inline) => take(words, &name, inline)?,
            Word::End => plain.extend(words.rest.drain(..)),
        }
    }
    Ok(())
}

fn unknown(words: &Words, name: &str) -> Result<(), UsageError> {
    words.fail(format!("{name} is not an option"))
}

fn format(words: &mut Words, name: &str, inline: Option<String>) -> Result<bool, UsageError> {
    match words.value(name, inline)?.as_str() {
        "json" => Ok(true),
        "table" => Ok(false),
        other => words.fail(format!("--format: {other:?} is neither table nor json")),
    }
}

fn none(words: &Words, plain: &[String]) -> Result<(), UsageError> {
    plain.first().map_or(Ok(()), |word| words.fail(format!("{word:?} is one word too many")))
}

/// The container's id, and nothing else.
fn one(words: &Words, plain: Vec<String>) -> Result<String, UsageError> {
    let mut plain = plain.into_iter();
    match (plain.next(), plain.next()) {
        (Some(id), None) => check_id(words, id),
        (None, _) => words.fail("the container's id is missing"),
        (Some(_), Some(word)) => words.fail(format!("{word:?} is one word too many")),
    }
}

fn id_alone(words: &mut Words) -> Result<String, UsageError> {
    let mut plain = Vec::new();
    options(words, &mut plain, |words, name, _| unknown(words, name))?;
    one(words, plain)
}

/// It becomes the name of a directory.
fn check_id(words: &Words, id: String) -> Result<String, UsageError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if !id.is_empty() && id.len() <= 255 && id.chars().all(fine) && !id.starts_with('.') {
        Ok(id)
    } else {
        words.fail(format!("{id:?} is not an id: letters, digits and _ + - . with no dot in front"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Run,
}

fn create(words: &mut Words, verb: Verb) -> Result<Create, UsageError> {
    let mut wish = Create { bundle: PathBuf::from("."), ..Create::default() };
    let mut plain = Vec::new();
    options(words, &mut plain, |words, name, inline| {
        match name {
            "--bundle" | "-b" => wish.bundle = words.value(name, inline)?.into(),
            "--config" | "-f" => wish.config = Some(words.value(name, inline)?.into()),
            "--pid-file" => wish.pid_file = Some(words.value(name, inline)?.into()),
            "--console-socket" => wish.console_socket = Some(words.value(name, inline)?.into()),
            "--preserve-fds" => wish.preserve_fds = words.number(name, inline)?,
            "--detach" | "-d" if verb == Verb::Run => wish.detach = flag(words, name, inline.as_deref())?,
            "--keep" if verb == Verb::Run => wish.keep = flag(words, name, inline.as_deref())?,
            "--no-pivot" | "--no-new-keyring" if inline.as_deref() == Some("false") => {}
            "--no-pivot" | "--no-new-keyring" => return words.fail(format!("{name} is not supported yet")),
            _ => return unknown(words, name),
        }
        Ok(())
    })?;
    wish.id = one(words, plain)?;
    Ok(wish)
}

fn kill(words: &mut Words) -> Result<Command, UsageError> {
    let (mut all, mut plain) = (false, Vec::new());
    options(words, &mut plain, |words, name, inline| match name {
        "--all" | "-a" => flag(words, name, inline.as_deref()).map(|value| all = value),
        _ => unknown(words, name),
    })?;
    let signal = if plain.len() > 1 { plain.remove(1) } else { "SIGTERM".to_owned() };
    let Some(number) = signal_number(&signal) else { return words.fail(format!("{signal:?} is not a signal")) };
    Ok(Command::Kill { id: one(words, plain)?, signal: number, all })
}

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3`.
pub fn signal_number(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let within = |number: i32| (1..=RTMAX).contains(&number).then_some(number);
    if let Ok(number) = text.parse::<i32>() {
        return within(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(position) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(position + 1).ok();
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    match (name, name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        ("POLL", ..) => Some(29),
        ("IOT", ..) => Some(6),
        (_, Some(rest), _) => offset(rest).filter(|n| (0..=30).contains(n)).and_then(|n| within(RTMIN + n)),
        (_, _, Some(rest)) => offset(rest).filter(|n| (-30..=0).contains(n)).and_then(|n| within(RTMAX + n)),
        _ => None,
    }
}

fn exec(words: &mut Words) -> Result<Exec, UsageError> {
    let mut wish = Exec::default();
    // What comes behind the id is the command's, options and all.
    while let Some(word) = words.next() {
        let (name, inline) = match word {
            Word::Option(name, inline) => (name, inline),
            Word::Plain(id) => {
                wish.id = check_id(words, id)?;
                break;
            }
            Word::End => continue,
        };
        match name.as_str() {
            "--process" | "-p" => wish.process = Some(words.value(&name, inline)?.into()),
            "--pid-file" => wish.pid_file = Some(words.value(&name, inline)?.into()),
            "--console-socket" => wish.console_socket = Some(words.value(&name, inline)?.into()),
            "--preserve-fds" => wish.preserve_fds = words.number(&name, inline)?,
            "--detach" | "-d" => wish.detach = flag(words, &name, inline.as_deref())?,
            "--tty" | "-t" => wish.terminal = flag(words, &name, inline.as_deref())?,
            "--cwd" => wish.cwd = Some(words.value(&name, inline)?),
            "--env" | "-e" => wish.env.push(words.value(&name, inline)?),
            "--cap" | "-c" => wish.capabilities.push(words.value(&name, inline)?),
            "--no-new-privs" => wish.no_new_privileges = flag(words, &name, inline.as_deref())?,
            "--ignore-paused" => wish.ignore_paused = flag(words, &name, inline.as_deref())?,
            "--additional-gids" | "-g" => wish.groups.push(words.number(&name, inline)?),
            "--user" | "-u" => {
                let text = words.value(&name, inline)?;
                let Some(user) = user(&text) else {
                    return words.fail(format!("--user: {text:?} is not of the form UID or UID:GID, by numbers"));
                };
                wish.user = Some(user);
            }
            "--process-label" | "--apparmor" | "--cgroup" => {
                return words.fail(format!("{name} is not supported yet"));
            }
            _ => return unknown(words, &name).map(|()| wish),
        }
    }
    if wish.id.is_empty() {
        return words.fail("the container's id is missing");
    }
    wish.args = words.rest.drain(..).collect();
    if wish.args.first().is_some_and(|word| word == "--") {
        wish.args.remove(0);
    }
    if wish.args.is_empty() == wish.process.is_none() {
        return words.fail("a command behind the id or --process, one of both");
    }
    Ok(wish)
}

/// Strictly: a user that could not be read would be another one (CVE-2026-30892).
fn user(text: &str) -> Option<(u32, Option<u32>)> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match text.split_once(':') {
        Some((uid, gid)) => Some((number(uid)?, Some(number(gid)?))),
        None => Some((number(text)?, None)),
    }
}

fn update(words: &mut Words) -> Result<Update, UsageError> {
    const NUMBERS: [(&str, &str); 11] = [
        ("--memory", "memory/limit"),
        ("--memory-reservation", "memory/reservation"),
        ("--memory-swap", "memory/swap"),
        ("--cpu-share", "cpu/shares"),
        ("--cpu-shares", "cpu/shares"),
        ("--cpu-quota", "cpu/quota"),
        ("--cpu-period", "cpu/period"),
        ("--cpu-burst", "cpu/burst"),
        ("--cpu-idle", "cpu/idle"),
        ("--pids-limit", "pids/limit"),
        ("--blkio-weight", "blockIO/weight"),
    ];
    let mut wish = Update::default();
    let mut plain = Vec::new();
    options(words, &mut plain, |words, name, inline| {
        if let Some((_, path)) = NUMBERS.iter().find(|(known, _)| *known == name) {
            let number: i64 = words.number(name, inline)?;
            wish.single.push((path, number.into()));
            return Ok(());
        }
        match name {
            "--resources" | "-r" => wish.resources = Some(words.value(name, inline)?.into()),
            "--cpuset-cpus" => wish.single.push(("cpu/cpus", words.value(name, inline)?.into())),
            "--cpuset-mems" => wish.single.push(("cpu/mems", words.value(name, inline)?.into())),
            _ => return unknown(words, name),
        }
        Ok(())
    })?;
    wish.id = one(words, plain)?;
    if wish.resources.is_some() != wish.single.is_empty() {
        return words.fail("limits by options or by --resources, one of both");
    }
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<(Global, Command), UsageError> {
        parse(line.split_whitespace().map(ToOwned::to_owned).collect())
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
    fn signals_have_numbers_and_names() {
        let cases = [
            ("9", Some(9)),
            ("kill", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", None),
            ("FOO", None),
        ];
        for (text, expected) in cases {
            assert_eq!(signal_number(text), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("create", "create: the container's id is missing"),
            ("create ../x", "create: \"../x\" is not an id: letters, digits and _ + - . with no dot in front"),
            ("create a b", "create: \"b\" is one word too many"),
            ("run --frob a", "run: --frob is not an option"),
            ("--systemd-cgroup run a", "plim-oci: --systemd-cgroup is not supported yet"),
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
