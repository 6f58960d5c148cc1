//! The routes, in one table: the router is made from it, what the read-only socket refuses, and the document
//! that describes them all ([`super::openapi`]).

use super::agent::Agent;
use super::error::ErrorBody;
use super::routes::{self, State};
use super::{metrics, openapi};
use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodRouter, get, post};

/// What is said of a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub path: &'static str,
    pub method: Method,
    pub summary: &'static str,
    pub query: &'static [(&'static str, &'static str)],
    /// The media type of the answer.
    pub answer: &'static str,
    /// Whether it changes anything, or runs something.
    pub changes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

/// A route with what answers it.
pub(super) struct Route<A> {
    pub about: About,
    handler: MethodRouter<State<A>>,
}

pub(super) const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

impl<A: Agent> Route<A> {
    fn reads(path: &'static str, summary: &'static str, handler: MethodRouter<State<A>>) -> Self {
        let about = About { path, method: Method::Get, summary, query: &[], answer: JSON, changes: false };
        Self { about, handler }
    }

    fn posts(path: &'static str, summary: &'static str, handler: MethodRouter<State<A>>) -> Self {
        let about = About { path, method: Method::Post, summary, query: &[], answer: JSON, changes: true };
        Self { about, handler }
    }

    fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.about.query = query;
        self
    }

    fn answers(mut self, answer: &'static str) -> Self {
        self.about.answer = answer;
        self
    }

    fn only_reads(mut self) -> Self {
        self.about.changes = false;
        self
    }
}

pub(super) fn table<A: Agent>() -> Vec<Route<A>> {
    vec![
        Route::reads("/1.0", "What answers here, and what it can do", get(routes::root)),
        Route::reads("/1.0/openapi.json", "This document", get(openapi::show::<A>)),
        Route::reads("/1.0/status", "The host at a glance", get(routes::status::<A>)),
        Route::reads("/1.0/containers", "The containers, as paths or as objects", get(routes::containers::<A>)).query(
            &[
                ("recursion", "1: the objects, not their paths"),
                ("usage", "1: with what each uses now"),
                ("watch", "1: a line of JSON for each, then for each change"),
                ("namespace", "Those of one namespace"),
                ("label", "Those whose labels match a selector: app=web,!old"),
            ],
        ),
        Route::reads("/1.0/containers/{namespace}/{name}", "One container", get(routes::container::<A>))
            .query(&[("watch", "1: a line of JSON now, then for each change"), ("usage", "0: without what it uses")]),
        Route::reads("/1.0/containers/{namespace}/{name}/why", "The last decision about it", get(routes::why::<A>)),
        Route::reads("/1.0/containers/{namespace}/{name}/history", "What was changed about it", {
            get(routes::history::<A>)
        }),
        Route::reads("/1.0/containers/{namespace}/{name}/logs", "Lines of its log", get(routes::log_lines::<A>))
            .query(&[
                ("follow", "1: later lines, too"),
                ("previous", "1: of the run before"),
                ("since", "Not older than this RFC 3339 instant"),
                ("tail", "The last so many"),
            ])
            .answers(LINES),
        Route::posts("/1.0/containers/{namespace}/{name}/exec", "Run a command inside, over an upgraded connection", {
            post(routes::start_exec::<A>)
        }),
        Route::reads("/1.0/sources", "Where manifests come from", get(routes::sources::<A>)),
        Route::reads("/1.0/sources/{name}/revisions", "The accepted revisions", get(routes::revisions::<A>)),
        Route::reads("/1.0/sources/{name}/diff", "What changes between two revisions", get(routes::compare::<A>))
            .query(&[("from", "A revision"), ("to", "Another one; else the one in force")]),
        Route::reads("/1.0/events", "What happened", get(routes::events::<A>))
            .query(&[("after", "Those younger than this number"), ("watch", "1: later ones, too")])
            .answers(LINES),
        Route::posts("/1.0/commands", "Give an order", post(routes::command::<A>)),
        Route::posts("/1.0/plan", "What would be done; nothing is", post(routes::plan::<A>)).only_reads(),
        Route::reads("/metrics", "What is counted and measured, as OpenMetrics text", get(metrics::show::<A>))
            .answers(metrics::OPEN_METRICS),
    ]
}

/// What a socket may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rights {
    #[default]
    Everything,
    /// Whatever changes or runs something is refused.
    Reading,
}

pub(super) fn router<A: Agent>(state: State<A>, rights: Rights) -> Router {
    let add = |router: Router<State<A>>, Route { about, handler }: Route<A>| {
        let refused = about.changes && rights == Rights::Reading;
        router.route(about.path, if refused { post(refuse) } else { handler })
    };
    table()
        .into_iter()
        .fold(Router::new(), add)
        .fallback(|request: Request| async move {
            ErrorBody::not_found(format!("{} is not a path of this API", request.uri().path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            ErrorBody::method(format!("{} does not take {}", request.uri().path(), request.method()))
        })
        .with_state(state)
}

async fn refuse(request: Request) -> ErrorBody {
    let path = request.uri().path();
    ErrorBody::read_only(format!("{path} changes or runs something, and this socket is for reading: use plim.sock"))
}
