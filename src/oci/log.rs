//! Errors: in words on standard error, and where `--log` says, for the program that called us.

use super::OciError;
use super::args::Global;
use std::error::Error;
use std::io::Write;

/// One line on standard error.
pub(super) fn say(text: &str) {
    // Nobody is left to be told that nobody listens.
    let _ = writeln!(std::io::stderr(), "plim-oci: {text}");
}

/// The end of an error's journey: all of its causes, once.
pub(super) fn error(global: &Global, error: &OciError) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    say(&text);
    let Some(path) = &global.log else { return };
    let line = if global.log_json {
        let time = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        serde_json::json!({"level": "error", "msg": text, "time": time}).to_string()
    } else {
        format!("level=error msg={text:?}")
    };
    let written = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        say(&format!("writing {}: {error}", path.display()));
    }
}
