//! What a command's end means to whoever called it: the one table of exit codes.

use crate::agent::AgentError;
use crate::api::{ApiError, ClientError};
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok,
    /// `plan` found differences, or something is not ready.
    Different,
    /// A failure that has no number of its own.
    Failed,
    Usage,
    NotFound,
    /// A manifest cannot be used.
    Invalid,
    Unreachable,
    /// Refused by policy.
    Refused,
    Timeout,
    Interrupted,
    /// `exec`: what the program returned, and 125 to 127 as podman has them.
    Program(u8),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Different | Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Invalid => 4,
            Self::Unreachable => 5,
            Self::Refused => 6,
            Self::Timeout => 7,
            Self::Interrupted => 130,
            Self::Program(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Timeout(String),
    #[error("{0}")]
    Interrupted(String),
    #[error("{0}")]
    Failed(String),
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    /// Whoever read our output has had enough: no error for `plim get | head`.
    #[error("nobody reads the output")]
    OutputClosed,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl CliError {
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NotFound(_) => Exit::NotFound,
            Self::Timeout(_) | Self::Client(ClientError::Silent { .. }) => Exit::Timeout,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::OutputClosed => Exit::Ok,
            Self::Client(ClientError::Unreachable { .. }) => Exit::Unreachable,
            Self::Client(ClientError::Answer(body)) => match body.code {
                400 => Exit::Usage,
                404 => Exit::NotFound,
                403 | 409 => Exit::Refused,
                422 if body.reason == crate::api::MISCONFIGURED => Exit::Invalid,
                _ => Exit::Failed,
            },
            Self::Failed(_)
            | Self::Io { .. }
            | Self::Client(ClientError::Broken(_) | ClientError::Unexpected(_))
            | Self::Agent(_)
            | Self::Api(_) => Exit::Failed,
        }
    }

    /// The error with all of its causes in one line, and what to do about it below.
    pub fn explain(&self) -> String {
        let mut text = chain(self);
        if let Self::Client(ClientError::Unreachable { source, .. }) = self {
            text.push_str(match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "\n  The agent answers root and members of the group plimsoll: try sudo."
                }
                _ => {
                    "\n  Start one with `plim up DIR` (in the foreground) or `plim agent` (as a service).\n  \
                     If it has a --root of its own, name that: --root DIR, or export PLIM_ROOT=DIR."
                }
            });
        }
        if let Self::Client(ClientError::Silent { .. }) = self {
            text.push_str(
                "\n  It is stopped, or hangs. What runs goes on running; a new agent takes it over:\n  \
                 `systemctl restart plimsoll`, or end that process and start another.",
            );
        }
        if let Self::Client(ClientError::Answer(body)) = self {
            for detail in &body.details {
                let _infallible = write!(text, "\n  {detail}");
            }
        }
        text
    }
}

/// An error with all of its causes as one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // An error that is `transparent` over its cause would say the same twice.
        if !text.ends_with(&words) {
            let _infallible = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_not_there_is_named_with_its_socket_and_what_to_type() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let error = CliError::from(ClientError::Unreachable { socket: "/run/x.sock".into(), source });

        assert_eq!(error.exit().code(), 5);
        for word in ["/run/x.sock", "plim up DIR", "plim agent", "PLIM_ROOT"] {
            assert!(error.explain().contains(word), "{word}: {}", error.explain());
        }
    }
}
