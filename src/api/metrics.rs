//! `GET /metrics`: what the agent has counted and what its containers' cgroups tell, as OpenMetrics text.
//!
//! Everything is read when it is asked for; between two questions it costs nothing. The families are a list
//! that is made in one place ([`families`]); how they are written is the library's affair.

mod families;

use super::agent::Agent;
use super::error::ErrorBody;
use super::routes::State;
use crate::agent::Metrics;
use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use families::{Family, Kind, Value};
use hyper::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn show<A: Agent>(Shared(state): Shared<State<A>>) -> Result<Response, ErrorBody> {
    let text = encode(&state.agent.metrics().await).map_err(|error| ErrorBody::failed(error.to_string()))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn encode(metrics: &Metrics) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("plimsoll");
    registry.register_collector(Box::new(Families(families::of(metrics))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, unit, kind, samples } in &self.0 {
            let metric_type = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), metric_type)?;
            for (labels, value) in samples {
                let one = family.encode_family(labels)?;
                match (kind, *value) {
                    (Kind::Counter, Value::Whole(value)) => ConstCounter::new(value).encode(one)?,
                    (Kind::Counter, Value::Seconds(value)) => ConstCounter::new(value).encode(one)?,
                    (Kind::Gauge, Value::Whole(value)) => ConstGauge::new(value).encode(one)?,
                    (Kind::Gauge, Value::Seconds(value)) => ConstGauge::new(value).encode(one)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
