//! The interface over a real socket, with an agent that has a state and no host.

use super::client::LogsRequest;
use super::frame::{self, Frame};
use super::{Access, Agent, Client, ClientError, REMOVED, listen, serve};
use crate::agent::{
    Command, CommandError, Counts, Event, EventType, ExecRequest, ExecSession, Item, Metrics, PlanReport, PlanRequest,
    Summary, View, Which,
};
use crate::spec::{ObjectId, Timestamp};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{broadcast, oneshot, watch};

#[derive(Clone)]
struct Fake {
    view: Arc<Mutex<Arc<View>>>,
    changes: Arc<watch::Sender<u64>>,
    past: Arc<Vec<Event>>,
    events: broadcast::Sender<Event>,
    files: Arc<Mutex<Vec<PathBuf>>>,
    orders: Arc<Mutex<Vec<(Command, u32)>>>,
    /// How often it was looked at.
    looks: Arc<watch::Sender<u64>>,
    /// Whoever holds it keeps orders from being carried out.
    orders_wait: Arc<tokio::sync::RwLock<()>>,
}

impl Agent for Fake {
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn view(&self, _which: Which, _usage: bool) -> Arc<View> {
        self.looks.send_modify(|looks| *looks += 1);
        self.view.lock().unwrap().clone()
    }

    async fn metrics(&self) -> Metrics {
        Metrics { view: self.view.lock().unwrap().clone(), figures: [].into() }
    }

    async fn command(&self, command: Command, by: u32) -> Result<String, CommandError> {
        self.orders.lock().unwrap().push((command.clone(), by));
        drop(self.orders_wait.read().await);
        match command {
            Command::Reconcile { source: _ } => Ok("looked".to_owned()),
            _ => Err(CommandError::Refused("not today".to_owned())),
        }
    }

    async fn plan(&self, _request: PlanRequest) -> Result<PlanReport, CommandError> {
        Ok(PlanReport::default())
    }

    async fn why(&self, object: &ObjectId) -> Result<String, CommandError> {
        Err(CommandError::NotFound(object.to_string()))
    }

    async fn history(&self, object: &ObjectId) -> Result<Vec<crate::agent::Report>, CommandError> {
        Err(CommandError::NotFound(object.to_string()))
    }

    async fn revisions(&self, source: &str) -> Result<Vec<crate::agent::Kept>, CommandError> {
        Err(CommandError::NotFound(format!("source {source}")))
    }

    async fn compare(&self, source: &str, _: &str, _: Option<&str>) -> Result<PlanReport, CommandError> {
        Err(CommandError::NotFound(format!("source {source}")))
    }

    fn events(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self.past.iter().filter(|event| event.id > after).cloned().collect();
        (past, self.events.subscribe())
    }

    async fn log_files(&self, _object: &ObjectId, _previous: bool) -> Result<Vec<PathBuf>, CommandError> {
        Ok(self.files.lock().unwrap().clone())
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecSession, CommandError> {
        let mut child = std::process::Command::new(&request.argv[0])
            .args(&request.argv[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let (ended, exit) = oneshot::channel();
        let (stdin, stdout, stderr) =
            (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let pid = child.id();
        std::thread::spawn(move || {
            let code = child.wait().unwrap().code().unwrap();
            ended.send(code).unwrap_or(());
        });
        Ok(ExecSession { pid, exec: 0, stdin: stdin.into(), stdout: stdout.into(), stderr: Some(stderr.into()), exit })
    }
}

impl Fake {
    fn show(&self, view: Arc<View>) {
        *self.view.lock().unwrap() = view;
        self.changes.send_modify(|count| *count += 1);
    }
}

/// A fake agent behind a socket of its own.
struct Served {
    agent: Fake,
    client: Client,
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<Result<(), super::ApiError>>,
}

pub(super) fn item(name: &str, phase: &str) -> Item {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "plimsoll/v1", "kind": "Container",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "status": {
            "phase": phase, "sync": "synced", "pid": null, "startedAt": null, "restarts": 0, "exitCode": null,
            "image": {}, "addresses": [], "cgroup": null,
            "resources": {"desired": {}, "actuated": {}, "actual": {}}, "conditions": [],
            "generations": {"running": null, "lastGood": null, "failed": [], "pinned": null},
            "source": null, "instance": null, "host": {},
        },
    }))
    .unwrap()
}

pub(super) fn view(items: Vec<Item>) -> Arc<View> {
    let summary = Summary {
        version: "0".to_owned(),
        agent_pid: 1,
        keeper_pid: None,
        root: None,
        started_at: Timestamp(0),
        last_round: None,
        rounds: 0,
        cgroups: String::new(),
        objects: [].into(),
        sources: Vec::new(),
        warnings: Vec::new(),
    };
    Arc::new(View { items, summary, version: 0, counts: Counts::default() })
}

fn event(id: u64) -> Event {
    Event {
        id,
        at: Timestamp(id),
        kind: EventType::Normal,
        object: "agent".to_owned(),
        reason: "Test".to_owned(),
        message: String::new(),
    }
}

fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let agent = Fake {
        view: Arc::new(Mutex::new(view(vec![item("web", "Running"), item("db", "Pending")]))),
        changes: Arc::new(watch::channel(0).0),
        past: Arc::new(vec![event(1), event(2)]),
        events: broadcast::channel(4).0,
        files: Arc::default(),
        orders: Arc::default(),
        looks: Arc::new(watch::Sender::new(0)),
        orders_wait: Arc::default(),
    };
    let socket = dir.path().join("plim.sock");
    let listener = listen(&socket, Access::default()).unwrap();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(agent.clone(), listener, Access::default(), async move { drop(stopped.await) }));
    Served { agent, client: Client::new(&socket), dir, stop: Some(stop), server }
}

fn web() -> ObjectId {
    ObjectId::try_from("Container/default/web".to_owned()).unwrap()
}

fn names(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.metadata.name.as_str()).collect()
}

fn refusal<T>(result: Result<T, ClientError>) -> (u16, String, String) {
    match result {
        Err(ClientError::Answer(body)) => (body.code, body.reason, body.message),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[tokio::test]
async fn containers_are_listed_and_selected() {
    let served = served();

    assert_eq!(names(&served.client.containers(None, "").await.unwrap()), ["web", "db"]);
    assert_eq!(names(&served.client.containers(Some("default"), "app=db").await.unwrap()), ["db"]);
    assert_eq!(names(&served.client.containers(Some("ops"), "").await.unwrap()), [""; 0]);
    assert_eq!(served.client.container(&web()).await.unwrap().status.phase, "Running");
    assert_eq!(served.client.status().await.unwrap().version, "0");
}

#[tokio::test]
async fn what_goes_wrong_has_one_shape() {
    let served = served();
    let nobody = ObjectId::try_from("Container/default/nobody".to_owned()).unwrap();

    assert_eq!(refusal(served.client.container(&nobody).await).0, 404);
    assert_eq!(refusal(served.client.why(&web()).await).1, "NotFound");
    assert_eq!(refusal(served.client.containers(None, "a in b").await).0, 400);
    let relative = PlanRequest { paths: vec!["web.yaml".into()] };
    assert_eq!(refusal(served.client.plan(&relative).await).2, "web.yaml is not an absolute path");
    let stop = Command::StopAll { kill: false };
    assert_eq!(refusal(served.client.command(&stop).await), (409, "Refused".to_owned(), "not today".to_owned()));
}

#[tokio::test]
async fn an_order_carries_the_callers_user_id() {
    let served = served();

    assert_eq!(served.client.command(&Command::Reconcile { source: None }).await.unwrap(), "looked");

    let orders = served.agent.orders.lock().unwrap();
    assert!(
        matches!(orders.as_slice(), [(Command::Reconcile { source: None }, by)] if *by == nix::unistd::getuid().as_raw())
    );
}

#[tokio::test]
async fn a_socket_without_an_agent_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(&dir.path().join("plim.sock"));

    let error = client.status().await.unwrap_err();

    assert!(matches!(&error, ClientError::Unreachable { socket, .. } if socket == client.socket()), "{error:?}");
}

#[tokio::test]
async fn an_agent_that_takes_a_request_and_never_answers_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("plim.sock");
    // As one that is stopped: the kernel takes connections in its place.
    let _stopped = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut client = Client::new(&socket);
    client.patience = Duration::from_millis(50);

    let asked = client.status().await.unwrap_err();
    let ordered = client.command(&Command::Reconcile { source: None }).await.unwrap_err();

    assert!(matches!(asked, ClientError::Silent { .. }), "{asked:?}");
    assert!(matches!(ordered, ClientError::Silent { .. }), "{ordered:?}");
}

#[tokio::test]
async fn an_answer_may_take_its_time_while_the_agent_answers_others() {
    let mut served = served();
    served.client.patience = Duration::from_millis(20);
    let orders_wait = served.agent.orders_wait.clone();
    let waiting = orders_wait.write().await;
    let client = served.client.clone();
    let order = tokio::spawn(async move { client.command(&Command::Reconcile { source: None }).await });

    served.agent.looks.subscribe().wait_for(|looks| *looks >= 3).await.unwrap();
    drop(waiting);

    assert_eq!(order.await.unwrap().unwrap(), "looked");
}

#[tokio::test]
async fn a_watch_shows_what_is_there_then_changes_then_removals() {
    let served = served();
    let mut lines = served.client.watch(None, "").await.unwrap();
    let mut next = async || {
        let item: Item = lines.next_json().await.unwrap().unwrap();
        (item.metadata.name, item.status.phase)
    };
    let is = |name: &str, phase: &str| (name.to_owned(), phase.to_owned());

    assert_eq!(next().await, is("web", "Running"));
    assert_eq!(next().await, is("db", "Pending"));
    served.agent.show(view(vec![item("web", "Running"), item("db", "Running")]));
    assert_eq!(next().await, is("db", "Running"));
    served.agent.show(view(vec![item("db", "Running")]));
    assert_eq!(next().await, is("web", REMOVED));
}

#[tokio::test]
async fn events_go_on_after_those_that_are_remembered() {
    let served = served();

    let past = served.client.past_events().await.unwrap();
    let mut lines = served.client.events(1, true).await.unwrap();
    let first: Event = lines.next_json().await.unwrap().unwrap();
    served.agent.events.send(event(3)).unwrap();
    let second: Event = lines.next_json().await.unwrap().unwrap();

    assert_eq!(past.iter().map(|event| event.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!([first.id, second.id], [2, 3]);
}

#[tokio::test]
async fn a_reader_that_missed_events_is_disconnected() {
    let served = served();
    let mut lines = served.client.events(1, true).await.unwrap();
    let _first: Event = lines.next_json().await.unwrap().unwrap();

    // More at once than the channel holds, without a chance for the server to run in between.
    for id in 3..20 {
        served.agent.events.send(event(id)).unwrap();
    }

    let broken = loop {
        match lines.next_json::<Event>().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(broken, Err(ClientError::Broken(_))), "{broken:?}");
}

#[tokio::test]
async fn leaving_ends_streams() {
    let mut served = served();
    let mut lines = served.client.events(0, true).await.unwrap();
    let _first: Event = lines.next_json().await.unwrap().unwrap();

    served.stop.take().unwrap().send(()).unwrap();
    served.server.await.unwrap().unwrap();

    while let Some(event) = lines.next_json::<Event>().await.unwrap() {
        assert!(event.id < 3);
    }
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    writeln!(file, "2026-01-01T00:00:00Z stdout F {text}").unwrap();
}

#[tokio::test]
async fn logs_are_followed_through_rotation_and_into_a_new_run() {
    let served = served();
    let (log, rotated, second) =
        (served.dir.path().join("1.log"), served.dir.path().join("1.log.1"), served.dir.path().join("2.log"));
    append(&log, "one");
    append(&log, "two");
    *served.agent.files.lock().unwrap() = vec![log.clone()];
    let wanted = LogsRequest { follow: true, tail: Some(1), ..LogsRequest::default() };
    let mut lines = served.client.logs(&web(), &wanted).await.unwrap();
    let mut next = async || {
        let line = String::from_utf8(lines.next_line().await.unwrap().unwrap()).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };

    assert_eq!(next().await, "two");
    append(&log, "three");
    assert_eq!(next().await, "three");
    append(&log, "four");
    std::fs::rename(&log, &rotated).unwrap();
    append(&log, "five");
    *served.agent.files.lock().unwrap() = vec![rotated, log];
    assert_eq!(next().await, "four");
    assert_eq!(next().await, "five");
    append(&second, "six");
    *served.agent.files.lock().unwrap() = vec![second];
    served.agent.show(view(vec![item("web", "Running")]));
    assert_eq!(next().await, "six");
}

#[tokio::test]
async fn a_program_is_talked_to_over_the_connection() {
    let served = served();
    let script = "cat; echo problem >&2; exit 3";
    let request = ExecRequest {
        object: web(),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        tty: false,
        env: Vec::new(),
        cwd: None,
        user: None,
    };

    let connection = served.client.exec(&request).await.unwrap();
    let (mut from, mut to) = tokio::io::split(connection);
    // More than any buffer on the way holds.
    let block = vec![b'x'; 40_000];
    let sent = tokio::spawn(async move {
        for _ in 0..50 {
            frame::write(&mut to, &Frame::Stdin(block.clone())).await.unwrap();
        }
        frame::write(&mut to, &Frame::StdinEof).await.unwrap();
        to
    });
    let (mut out, mut err) = (0, Vec::new());
    let code = loop {
        match frame::read(&mut from).await.unwrap() {
            Some(Frame::Stdout(bytes)) => out += bytes.len(),
            Some(Frame::Stderr(bytes)) => err.extend(bytes),
            Some(Frame::Exit(code)) => break code,
            other => panic!("{other:?}"),
        }
    };

    assert_eq!((out, String::from_utf8(err).unwrap().as_str(), code), (2_000_000, "problem\n", 3));
    drop(sent.await.unwrap());
}

#[tokio::test]
async fn a_child_that_is_left_behind_does_not_hold_exec_up() {
    let served = served();
    let script = "sleep 60 & echo $!; exit 0";
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let request = ExecRequest { object: web(), argv, tty: false, env: Vec::new(), cwd: None, user: None };

    let mut connection = served.client.exec(&request).await.unwrap();
    let mut out = Vec::new();
    let code = loop {
        match frame::read(&mut connection).await.unwrap() {
            Some(Frame::Stdout(bytes)) => out.extend(bytes),
            Some(Frame::Exit(code)) => break code,
            other => panic!("{other:?}"),
        }
    };

    let left: i32 = String::from_utf8(out).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(left), nix::sys::signal::SIGKILL).unwrap();
    assert_eq!(code, 0);
}

#[tokio::test]
async fn the_socket_is_for_root_and_its_group() {
    use std::os::unix::fs::MetadataExt as _;
    let served = served();

    let mode = std::fs::metadata(served.client.socket()).unwrap().mode();

    assert_eq!(mode & 0o7777, 0o660);
}
