//! The commands' side of the socket.

use super::error::ErrorBody;
use super::frame::PROTOCOL;
use super::routes::Said;
use super::socket;
use crate::agent::{Command, Event, ExecRequest, Item, Kept, List, PlanReport, PlanRequest, Report, Summary};
use crate::spec::{ObjectId, Timestamp};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The most that an answer may hold that is read as a whole: thousands of containers.
const MAX_ANSWER: usize = 256 << 20;
/// The longest line of a stream.
const MAX_LINE: usize = 16 << 20;
/// An agent that says nothing for so long, not even its status, is stopped or hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Talks to the agent on one socket; every request has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    pub(super) patience: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no agent answers on {}", socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It takes connections, as the kernel does for it, and says nothing.
    #[error("the agent on {} has not answered for {} s", socket.display(), waited.as_secs())]
    Silent { socket: PathBuf, waited: Duration },
    /// The agent said no, and why.
    #[error("{}", .0.message)]
    Answer(ErrorBody),
    #[error("the connection to the agent broke")]
    Broken(#[source] hyper::Error),
    #[error("the agent's answer is not what was expected: {0}")]
    Unexpected(String),
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogsRequest {
    pub follow: bool,
    pub previous: bool,
    pub since: Option<Timestamp>,
    pub tail: Option<usize>,
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_path_buf(), patience: PATIENCE }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn status(&self) -> Result<Summary, ClientError> {
        self.get("/1.0/status").await
    }

    /// Every container, or those of one namespace, with what they use.
    pub async fn containers(&self, namespace: Option<&str>, label: &str) -> Result<Vec<Item>, ClientError> {
        let mut query = Query::new("/1.0/containers");
        query.add("recursion", "1").add("usage", "1").add("label", label);
        if let Some(namespace) = namespace {
            query.add("namespace", namespace);
        }
        Ok(self.get::<List<Item>>(&query.0).await?.items)
    }

    /// As [`Self::containers`], then every one that changes. One that goes comes a last time with
    /// the phase [`super::REMOVED`].
    pub async fn watch(&self, namespace: Option<&str>, label: &str) -> Result<Lines, ClientError> {
        let mut query = Query::new("/1.0/containers");
        query.add("watch", "1").add("usage", "1").add("label", label);
        if let Some(namespace) = namespace {
            query.add("namespace", namespace);
        }
        self.stream(&query.0).await
    }

    pub async fn container(&self, id: &ObjectId) -> Result<Item, ClientError> {
        self.get(&path(id, "")).await
    }

    /// Follows one container.
    pub async fn watch_one(&self, id: &ObjectId) -> Result<Lines, ClientError> {
        self.stream(&path(id, "?watch=1&usage=0")).await
    }

    /// What was changed about an object, oldest first.
    pub async fn history(&self, id: &ObjectId) -> Result<Vec<Report>, ClientError> {
        self.get(&path(id, "/history")).await
    }

    /// The accepted revisions of a source, the oldest first.
    pub async fn revisions(&self, source: &str) -> Result<Vec<Kept>, ClientError> {
        let escaped = Query::escaped(source);
        self.get(&format!("/1.0/sources/{escaped}/revisions")).await
    }

    /// What changes from one accepted revision of a source to another, or to the one in force.
    pub async fn compare(&self, source: &str, from: &str, to: Option<&str>) -> Result<PlanReport, ClientError> {
        let mut query = Query::new(&format!("/1.0/sources/{}/diff", Query::escaped(source)));
        query.add("from", from);
        if let Some(to) = to {
            query.add("to", to);
        }
        self.get(&query.0).await
    }

    pub async fn why(&self, id: &ObjectId) -> Result<String, ClientError> {
        Ok(self.get::<Said>(&path(id, "/why")).await?.message)
    }

    /// Lines of JSON, each an [`Event`] younger than `after`; with `watch` they go on.
    pub async fn events(&self, after: u64, watch: bool) -> Result<Lines, ClientError> {
        self.stream(&format!("/1.0/events?after={after}&watch={}", u8::from(watch))).await
    }

    /// The events that the agent remembers.
    pub async fn past_events(&self) -> Result<Vec<Event>, ClientError> {
        let mut lines = self.events(0, false).await?;
        let mut events = Vec::new();
        while let Some(event) = lines.next_json().await? {
            events.push(event);
        }
        Ok(events)
    }

    /// The records of a log as they are in its files.
    pub async fn logs(&self, id: &ObjectId, wanted: &LogsRequest) -> Result<Lines, ClientError> {
        let mut query = Query::new(&path(id, "/logs"));
        query.add("follow", if wanted.follow { "1" } else { "0" });
        query.add("previous", if wanted.previous { "1" } else { "0" });
        if let Some(since) = wanted.since {
            query.add("since", &since.to_string());
        }
        if let Some(tail) = wanted.tail {
            query.add("tail", &tail.to_string());
        }
        self.stream(&query.0).await
    }

    /// Gives an order; answers what came of it.
    pub async fn command(&self, command: &Command) -> Result<String, ClientError> {
        Ok(self.post::<_, Said>("/1.0/commands", command).await?.message)
    }

    pub async fn plan(&self, request: &PlanRequest) -> Result<PlanReport, ClientError> {
        self.post("/1.0/plan", request).await
    }

    /// Starts a program inside a container; the connection speaks [`super::frame`] from then on.
    pub async fn exec(&self, request: &ExecRequest) -> Result<TokioIo<Upgraded>, ClientError> {
        let body = encoded(request)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path(&request.object, "/exec"))
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, PROTOCOL);
        let response = self.send(request, body).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::Unexpected(format!("{} to exec", response.status())));
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(ClientError::Broken)
    }

    /// `/metrics`, as it is.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let response = self.send(Request::get("/metrics"), Vec::new()).await?;
        String::from_utf8(bytes(response).await?).map_err(|error| ClientError::Unexpected(error.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        whole(self.send(Request::get(path), Vec::new()).await?).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        whole(self.send(Request::post(path), encoded(body)?).await?).await
    }

    async fn stream(&self, path: &str) -> Result<Lines, ClientError> {
        let response = self.send(Request::get(path), Vec::new()).await?;
        Ok(Lines { body: response.into_body(), buffer: Vec::new(), searched: 0 })
    }

    /// Sends a request and gives the answer when it is one of success. An answer may take its time, as long
    /// as the agent answers others.
    async fn send(
        &self,
        request: hyper::http::request::Builder,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut answer = pin!(self.ask(request, body));
        loop {
            if let Ok(answer) = timeout(self.patience, &mut answer).await {
                return answer;
            }
            let status = self.ask(Request::get("/1.0/status"), Vec::new());
            if timeout(self.patience, status).await.is_err() {
                return Err(ClientError::Silent { socket: self.socket.clone(), waited: self.patience * 2 });
            }
        }
    }

    async fn ask(
        &self,
        request: hyper::http::request::Builder,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = request
            .header(HOST, "plimsoll")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Unexpected(error.to_string()))?;
        let unreachable = |source| ClientError::Unreachable { socket: self.socket.clone(), source };
        let (address, _directory) = socket::address(&self.socket).map_err(unreachable)?;
        let stream = UnixStream::connect(address).await.map_err(unreachable)?;
        let (mut sender, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
        // Its errors come out of the request and of the body.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(ClientError::Broken)?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        Err(ClientError::Answer(whole(response).await?))
    }
}

fn path(id: &ObjectId, rest: &str) -> String {
    format!("/1.0/containers/{}/{}{rest}", id.namespace, id.name)
}

fn encoded<B: Serialize>(body: &B) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|error| ClientError::Unexpected(error.to_string()))
}

async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    serde_json::from_slice(&bytes(response).await?).map_err(|error| ClientError::Unexpected(error.to_string()))
}

async fn bytes(response: Response<Incoming>) -> Result<Vec<u8>, ClientError> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
            bytes.extend(data);
        }
        if bytes.len() > MAX_ANSWER {
            return Err(ClientError::Unexpected("it does not end".to_owned()));
        }
    }
    Ok(bytes)
}

/// A path with a query.
struct Query(String);

impl Query {
    fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    fn add(&mut self, name: &str, value: &str) -> &mut Self {
        let separator = if self.0.contains('?') { '&' } else { '?' };
        let _infallible = write!(self.0, "{separator}{name}={}", Self::escaped(value));
        self
    }

    fn escaped(value: &str) -> String {
        let mut text = String::new();
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _infallible = write!(text, "%{byte:02X}");
            }
        }
        text
    }
}

/// An answer that comes line by line.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// How far the buffer is known to hold no end of a line.
    searched: usize,
}

impl Lines {
    /// The next line without its end; `None` when there are no more.
    pub async fn next_line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(ClientError::Unexpected("a line that does not end".to_owned()));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
                self.buffer.extend(data);
            }
        }
    }

    /// The next line as a value.
    pub async fn next_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let Some(line) = self.next_line().await? else { return Ok(None) };
        serde_json::from_slice(&line).map(Some).map_err(|error| ClientError::Unexpected(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        let mut query = Query::new("/x");

        query.add("label", "app=web,!old ä").add("n", "1");

        assert_eq!(query.0, "/x?label=app%3Dweb%2C%21old%20%C3%A4&n=1");
    }
}
