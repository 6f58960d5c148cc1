//! Errors: in words on standard error, and where `--log` says, for the program that called us. With
//! `--debug` also what is done, in the log or else on standard error.

use super::OciError;
use super::args::Global;
use std::error::Error;
use std::io::Write;
use std::path::Path;

/// One line on standard error.
pub(super) fn say(text: &str) {
    // Nobody is left to be told that nobody listens.
    let _ = writeln!(std::io::stderr(), "plim-oci: {text}");
}

/// What is left out, and does not stop anything.
pub(super) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// The end of an error's journey: all of its causes, once.
pub(super) fn error(global: &Global, error: &OciError) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match error {
        // Nobody is left to be told that nobody listens.
        OciError::Program(_) => drop(writeln!(std::io::stderr(), "{text}")),
        _ => say(&text),
    }
    if let Some(path) = &global.log {
        append(path, &line(global, "error", &text));
    }
}

/// For who looks for a mistake.
pub(super) fn debug(global: &Global, text: impl FnOnce() -> String) {
    if !global.debug {
        return;
    }
    let lines: String = text().lines().map(|text| line(global, "debug", text)).collect();
    match &global.log {
        Some(path) => append(path, &lines),
        // Nobody is left to be told that nobody listens.
        None => drop(std::io::stderr().write_all(lines.as_bytes())),
    }
}

/// In the forms that logrus writes, which callers read.
fn line(global: &Global, level: &str, text: &str) -> String {
    let time = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    if global.log_json {
        serde_json::json!({"level": level, "msg": text, "time": time}).to_string() + "\n"
    } else {
        format!("time={time:?} level={level} msg={text:?}\n")
    }
}

fn append(path: &Path, lines: &str) {
    let written = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(lines.as_bytes()));
    if let Err(error) = written {
        say(&format!("writing {}: {error}", path.display()));
    }
}
