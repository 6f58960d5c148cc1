//! How it is found out whether a container works.

use super::{AbsolutePath, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Probes of a running container. Without any, it works as long as its process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Health {
    /// Until it has passed once, the others wait. Restarted when it does not pass in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Whether it is ready to work, as READY and `dependsOn` with `condition: healthy` tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// Restarted when it fails, as the restart policy and its backoff say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

/// One question, asked again and again: exactly one of `exec`, `tcp` and `http` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// A command inside the container, which passes by ending with 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<super::Text>")]
    pub exec: Vec<String>,
    /// A port in the container's own network that takes a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// A request in the container's own network that is answered with a status of 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// From the beginning of one to the beginning of the next.
    #[serde(default = "Probe::every")]
    pub every: Span,
    /// How long an answer may take.
    #[serde(default = "Probe::timeout")]
    pub timeout: Span,
    /// So many failures in a row are one that counts.
    #[serde(default = "Probe::failures")]
    #[schemars(range(min = 1, max = 100))]
    pub failures: u8,
    /// Of `startup` alone: how long it may take until it passes, however often it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

/// A TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpProbe {
    /// On loopback.
    #[schemars(range(min = 1))]
    pub port: u16,
}

/// A GET request by HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// On loopback.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// What is asked for.
    #[serde(default = "HttpProbe::root")]
    pub path: AbsolutePath,
}

/// What a [`Probe`] asks, once it has been checked that it is exactly one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    Exec(&'a [String]),
    Tcp(&'a TcpProbe),
    Http(&'a HttpProbe),
}

impl Health {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Each probe that there is, by its name.
    pub fn probes(&self) -> impl Iterator<Item = (&'static str, &Probe)> {
        let Self { startup, readiness, liveness } = self;
        [("startup", startup), ("readiness", readiness), ("liveness", liveness)]
            .into_iter()
            .filter_map(|(name, probe)| Some((name, probe.as_ref()?)))
    }
}

impl Probe {
    fn every() -> Span {
        Span::from_secs(10)
    }

    fn timeout() -> Span {
        Span::from_secs(5)
    }

    fn failures() -> u8 {
        3
    }

    /// `None` when none or several are given, which validation refuses.
    pub fn question(&self) -> Option<Question<'_>> {
        match (&self.exec[..], &self.tcp, &self.http) {
            (exec, None, None) if !exec.is_empty() => Some(Question::Exec(exec)),
            ([], Some(tcp), None) => Some(Question::Tcp(tcp)),
            ([], None, Some(http)) => Some(Question::Http(http)),
            _ => None,
        }
    }

    /// How long a startup may take at most.
    pub fn window(&self) -> Span {
        self.within.unwrap_or(Span(self.every.0.saturating_mul(u64::from(self.failures))))
    }
}

impl HttpProbe {
    fn root() -> AbsolutePath {
        "/".parse().expect("an absolute path")
    }
}

impl fmt::Display for Probe {
    /// `http :80/healthz every 2s, timeout 5s, failures 3, within 1m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.question() {
            Some(Question::Exec(words)) => write!(f, "exec {words:?}")?,
            Some(Question::Tcp(TcpProbe { port })) => write!(f, "tcp :{port}")?,
            Some(Question::Http(HttpProbe { port, path })) => write!(f, "http :{port}{path}")?,
            None => f.write_str("nothing")?,
        }
        let Self { exec: _, tcp: _, http: _, every, timeout, failures, within } = self;
        write!(f, " every {every}, timeout {timeout}, failures {failures}")?;
        match within {
            Some(within) => write!(f, ", within {within}"),
            None => Ok(()),
        }
    }
}
