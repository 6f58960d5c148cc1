//! What changes, as lines: containers and events.

use super::agent::Agent;
use super::routes::{Filter, State, left};
use super::{REMOVED, stream};
use crate::agent::{Item, View, Which};
use axum::response::Response;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use stream::Sink;
use tokio::sync::broadcast::error::RecvError;

/// The items as they are, then every one that changes; one that goes is sent a last time with the
/// phase [`REMOVED`].
pub(super) fn items<A: Agent>(state: State<A>, filter: Filter, usage: bool) -> Response {
    let (sink, response) = stream::response("application/x-ndjson");
    tokio::spawn(follow_items(state, filter, usage, sink));
    response
}

type Known = BTreeMap<(String, String), (Arc<str>, Item)>;

async fn follow_items<A: Agent>(state: State<A>, filter: Filter, usage: bool, sink: Sink) {
    let State { agent, mut leaving } = state;
    let mut changes = agent.changes();
    let mut known = Known::new();
    loop {
        changes.mark_unchanged();
        let view = agent.view(Which::All, false).await;
        let mut changed = differences(&mut known, &view, &filter);
        if usage && !changed.is_empty() {
            let measured = agent.view(Which::All, true).await;
            add_usage(&mut changed, &measured);
        }
        for item in &changed {
            if !sink.line(item).await {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = left(&mut leaving) => return,
            () = sink.closed() => return,
        }
    }
}

/// What is new, different or gone, and `known` brought up to date.
fn differences(known: &mut Known, view: &View, filter: &Filter) -> Vec<Item> {
    let mut before = std::mem::take(known);
    let mut changed = Vec::new();
    for item in view.items.iter().filter(|item| filter.matches(item)) {
        let key = (item.metadata.namespace.clone(), item.metadata.name.clone());
        // Usage changes all the time and is no change.
        let mut item = item.clone();
        item.status.usage = None;
        let text: Arc<str> = serde_json::to_string(&item).unwrap_or_default().into();
        match before.remove(&key) {
            Some((old, _)) if old == text => {}
            _ => changed.push(item.clone()),
        }
        known.insert(key, (text, item));
    }
    changed.extend(before.into_values().map(|(_, mut item)| {
        item.status.phase = REMOVED.to_owned();
        item
    }));
    changed
}

fn add_usage(items: &mut [Item], view: &View) {
    let key = |item: &Item| (item.metadata.namespace.clone(), item.metadata.name.clone());
    let usages: BTreeMap<_, _> = view.items.iter().map(|item| (key(item), &item.status.usage)).collect();
    for item in items {
        item.status.usage = usages.get(&key(item)).copied().cloned().flatten();
    }
}

/// The remembered events after `after`; with `watch`, every later one too. A reader that falls too
/// far behind is disconnected: a gap that nobody notices would be worse.
pub(super) async fn events<A: Agent>(state: State<A>, sink: Sink, after: u64, watch: bool) {
    let State { agent, mut leaving } = state;
    let (remembered, mut live) = agent.events(after);
    for event in &remembered {
        if !sink.line(event).await {
            return;
        }
    }
    if !watch {
        return;
    }
    loop {
        tokio::select! {
            event = live.recv() => match event {
                Ok(event) => if !sink.line(&event).await { return },
                Err(RecvError::Closed) => return,
                Err(RecvError::Lagged(missed)) => {
                    let error = io::Error::other(format!("the reader missed {missed} events"));
                    return sink.fail(error).await;
                }
            },
            () = left(&mut leaving) => return,
            () = sink.closed() => return,
        }
    }
}
