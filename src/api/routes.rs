//! The paths and what they answer.

use super::agent::Agent;
use super::error::ErrorBody;
use super::peer::Peer;
use super::selector::Selector;
use super::{FEATURES, exec, logs, metrics, stream, watch as watching};
use crate::agent::{
    Command, ExecRequest, Item, Kept, List, PlanReport, PlanRequest, Report, SourceView, Summary, View, Which,
};
use crate::spec::{API_VERSION, Kind, ObjectId};
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Path, Query, Request, State as Shared};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What every handler has.
#[derive(Clone)]
pub(super) struct State<A> {
    pub agent: A,
    /// Becomes true when the agent leaves: streams end then.
    pub leaving: watch::Receiver<bool>,
}

/// Resolves when the agent leaves.
pub(super) async fn left(leaving: &mut watch::Receiver<bool>) {
    // An error means that the server has ended altogether.
    drop(leaving.wait_for(|leaving| *leaving).await);
}

type Answer<T> = Result<T, ErrorBody>;
type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) fn router<A: Agent>(state: State<A>) -> Router {
    Router::new()
        .route("/1.0", get(root))
        .route("/1.0/status", get(status::<A>))
        .route("/1.0/containers", get(containers::<A>))
        .route("/1.0/containers/{namespace}/{name}", get(container::<A>))
        .route("/1.0/containers/{namespace}/{name}/why", get(why::<A>))
        .route("/1.0/containers/{namespace}/{name}/history", get(history::<A>))
        .route("/1.0/containers/{namespace}/{name}/logs", get(log_lines::<A>))
        .route("/1.0/containers/{namespace}/{name}/exec", post(start_exec::<A>))
        .route("/1.0/sources", get(sources::<A>))
        .route("/1.0/sources/{name}/revisions", get(revisions::<A>))
        .route("/1.0/sources/{name}/diff", get(compare::<A>))
        .route("/1.0/events", get(events::<A>))
        .route("/1.0/commands", post(command::<A>))
        .route("/1.0/plan", post(plan::<A>))
        .route("/metrics", get(metrics::show::<A>))
        .fallback(|request: Request| async move {
            ErrorBody::not_found(format!("{} is not a path of this API", request.uri().path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            ErrorBody::method(format!("{} does not take {}", request.uri().path(), request.method()))
        })
        .with_state(state)
}

/// The answer to `GET /1.0`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    pub api_version: String,
    pub version: String,
    pub features: Vec<String>,
}

async fn root() -> Json<Root> {
    Json(Root {
        api_version: API_VERSION.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
    })
}

async fn status<A: Agent>(Shared(state): Shared<State<A>>) -> Json<Summary> {
    Json(state.agent.view(Which::None, false).await.summary.clone())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ContainersQuery {
    recursion: u8,
    usage: u8,
    watch: u8,
    namespace: Option<String>,
    label: String,
}

/// Which items a caller wants.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub namespace: Option<String>,
    pub label: Selector,
    pub name: Option<String>,
}

impl Filter {
    pub fn matches(&self, item: &Item) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == item.metadata.namespace)
            && self.name.as_ref().is_none_or(|name| *name == item.metadata.name)
            && self.label.matches(&item.metadata.labels)
    }
}

async fn containers<A: Agent>(Shared(state): Shared<State<A>>, query: Asked<ContainersQuery>) -> Answer<Response> {
    let query = asked(query)?;
    let label = query.label.parse().map_err(|error: super::InvalidSelector| ErrorBody::invalid(error.to_string()))?;
    let filter = Filter { namespace: query.namespace, label, name: None };
    if query.watch != 0 {
        return Ok(watching::items(state, filter, query.usage != 0));
    }
    let view = state.agent.view(Which::All, query.usage != 0).await;
    let items = view.items.iter().filter(|item| filter.matches(item));
    if query.recursion != 0 {
        return Ok(Json(list(items.collect::<Vec<&Item>>())).into_response());
    }
    let path = |item: &Item| format!("/1.0/containers/{}/{}", item.metadata.namespace, item.metadata.name);
    Ok(Json(list(items.map(path).collect::<Vec<String>>())).into_response())
}

fn list<T>(items: Vec<T>) -> List<T> {
    List { api_version: API_VERSION.to_owned(), kind: "List".to_owned(), items }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ContainerQuery {
    watch: u8,
    usage: Option<u8>,
}

async fn container<A: Agent>(
    Shared(state): Shared<State<A>>,
    Path(path): Path<(String, String)>,
    query: Asked<ContainerQuery>,
) -> Answer<Response> {
    let query = asked(query)?;
    let id = object(path)?;
    let usage = query.usage != Some(0);
    let view = state.agent.view(Which::One(id.clone()), usage).await;
    let item = find(&view, &id)?;
    if query.watch == 0 {
        return Ok(Json(item).into_response());
    }
    let (namespace, name) = (Some(id.namespace.to_string()), Some(id.name.to_string()));
    Ok(watching::items(state, Filter { namespace, name, label: Selector::default() }, usage))
}

async fn why<A: Agent>(Shared(state): Shared<State<A>>, Path(path): Path<(String, String)>) -> Answer<Json<Said>> {
    let message = state.agent.why(&object(path)?).await?;
    Ok(Json(Said { message }))
}

async fn history<A: Agent>(
    Shared(state): Shared<State<A>>,
    Path(path): Path<(String, String)>,
) -> Answer<Json<Vec<Report>>> {
    Ok(Json(state.agent.history(&object(path)?).await?))
}

async fn sources<A: Agent>(Shared(state): Shared<State<A>>) -> Json<List<SourceView>> {
    Json(list(state.agent.view(Which::None, false).await.summary.sources.clone()))
}

async fn revisions<A: Agent>(Shared(state): Shared<State<A>>, Path(name): Path<String>) -> Answer<Json<Vec<Kept>>> {
    Ok(Json(state.agent.revisions(&name).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareQuery {
    from: String,
    to: Option<String>,
}

async fn compare<A: Agent>(
    Shared(state): Shared<State<A>>,
    Path(name): Path<String>,
    query: Asked<CompareQuery>,
) -> Answer<Json<PlanReport>> {
    let query = asked(query)?;
    Ok(Json(state.agent.compare(&name, &query.from, query.to.as_deref()).await?))
}

/// An answer in words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    pub message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogsQuery {
    follow: u8,
    previous: u8,
    /// An RFC 3339 instant.
    since: Option<String>,
    tail: Option<usize>,
}

async fn log_lines<A: Agent>(
    Shared(state): Shared<State<A>>,
    Path(path): Path<(String, String)>,
    query: Asked<LogsQuery>,
) -> Answer<Response> {
    let query = asked(query)?;
    let since = query.since.map(crate::spec::Timestamp::try_from).transpose();
    let wanted = logs::Wanted {
        object: object(path)?,
        follow: query.follow != 0,
        previous: query.previous != 0,
        since: since.map_err(|error| ErrorBody::invalid(error.to_string()))?,
        tail: query.tail,
    };
    logs::answer(state, wanted).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EventsQuery {
    after: u64,
    watch: u8,
}

async fn events<A: Agent>(Shared(state): Shared<State<A>>, query: Asked<EventsQuery>) -> Answer<Response> {
    let query = asked(query)?;
    let (sink, response) = stream::response("application/x-ndjson");
    tokio::spawn(watching::events(state, sink, query.after, query.watch != 0));
    Ok(response)
}

async fn command<A: Agent>(
    Shared(state): Shared<State<A>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Answer<Json<Said>> {
    let command: Command = parsed(&body)?;
    // It is carried out also when the caller goes away in the middle.
    let carried_out = tokio::spawn(async move { state.agent.command(command, peer.uid).await }).await;
    let message = carried_out.map_err(|error| ErrorBody::failed(error.to_string()))??;
    Ok(Json(Said { message }))
}

async fn plan<A: Agent>(Shared(state): Shared<State<A>>, body: Bytes) -> Answer<Json<PlanReport>> {
    let request: PlanRequest = if body.is_empty() { PlanRequest::default() } else { parsed(&body)? };
    // The agent's working directory is not the caller's.
    if let Some(path) = request.paths.iter().find(|path| path.is_relative()) {
        return Err(ErrorBody::invalid(format!("{} is not an absolute path", path.display())));
    }
    Ok(Json(state.agent.plan(request).await?))
}

async fn start_exec<A: Agent>(
    Shared(state): Shared<State<A>>,
    Path(path): Path<(String, String)>,
    request: Request,
) -> Answer<Response> {
    let id = object(path)?;
    let (mut parts, body) = request.into_parts();
    let upgrade = exec::upgrade(&mut parts)?;
    let body = axum::body::to_bytes(body, 1 << 20).await.map_err(|error| ErrorBody::invalid(error.to_string()))?;
    let request: ExecRequest = parsed(&body)?;
    if request.object != id {
        return Err(ErrorBody::invalid(format!("the path names {id} and the body {}", request.object)));
    }
    if request.argv.is_empty() {
        return Err(ErrorBody::invalid("there is no command to run"));
    }
    let session = state.agent.exec(request).await?;
    Ok(exec::answer(upgrade, session))
}

fn asked<T>(query: Asked<T>) -> Answer<T> {
    query.map(|Query(query)| query).map_err(|error| ErrorBody::invalid(error.body_text()))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| ErrorBody::invalid(error.to_string()))
}

fn object((namespace, name): (String, String)) -> Answer<ObjectId> {
    let invalid = |error: &dyn std::error::Error| ErrorBody::invalid(error.to_string());
    let namespace = crate::spec::Name::try_from(namespace).map_err(|error| invalid(&error))?;
    let name = crate::spec::Name::try_from(name).map_err(|error| invalid(&error))?;
    Ok(ObjectId { kind: Kind::Container, namespace, name })
}

fn find(view: &View, id: &ObjectId) -> Answer<Item> {
    let same =
        |item: &&Item| id.namespace.as_str() == item.metadata.namespace && id.name.as_str() == item.metadata.name;
    let item = view.items.iter().find(same).cloned();
    item.ok_or_else(|| ErrorBody::not_found(format!("{id} is not known to this agent")))
}
