use super::encode;
use crate::agent::{Change, Counts, Metrics, SourceView, View};
use crate::api::tests::{item, view};
use crate::cgroup::{Counter, IoEntry, Pressure, Statistics, Waiting};
use crate::host::Figures;
use crate::spec::Timestamp;
use crate::spec::change::Class;
use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::{MetricsExposition, OpenMetricsType, OpenMetricsValue, Sample};
use std::sync::Arc;

type Exposition = MetricsExposition<OpenMetricsType, OpenMetricsValue>;

fn metrics() -> Metrics {
    let View { items: _, summary, version, counts: _ } = Arc::unwrap_or_clone(view(Vec::new()));
    let mut summary = summary;
    summary.rounds = 12;
    summary.last_round = Some(Timestamp(1_500));
    summary.objects = [("synced".to_owned(), 2)].into();
    let mut source = SourceView { name: "a \"fleet\"\n\\ of ours".to_owned(), complete: true, ..SourceView::default() };
    source.last_read = Some(Timestamp(2_250));
    summary.sources.push(source);
    let mut counts = Counts { waiting: 3, working: 8, watch_losses: 1, ..Counts::default() };
    counts.changed(Change { class: Class::Live, action: "Resizing", went_well: true });
    counts.changed(Change { class: Class::Live, action: "Resizing", went_well: true });
    counts.changed(Change { class: Class::Recreate, action: "Starting", went_well: false });
    let mut statistics = Statistics::default();
    statistics.cpu.total = 1_500_000_000;
    statistics.cpu.throttled_time = 250_000_000;
    statistics.memory.usage = Counter { usage: 4096, max_usage: 8192, limit: 1 << 20, failures: 7 };
    statistics.pids = 2;
    let entry = |operation: &str| IoEntry { major: 8, minor: 16, operation: operation.to_owned(), value: 512 };
    statistics.io.bytes = vec![entry("Read"), entry("Total")];
    let waiting = |total_usec| Waiting { total_usec, ..Waiting::default() };
    statistics.memory.pressure = Some(Pressure { some: waiting(2_000_000), full: waiting(500_000) });
    let figures = [(("default".to_owned(), "web".to_owned()), Figures { statistics, oom_kills: 5 })].into();
    let items = vec![item("web", "Running"), item("db", "Pending")];
    Metrics { view: Arc::new(View { items, summary, version, counts }), figures }
}

fn parsed(text: &str) -> Exposition {
    parse_openmetrics(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn value(exposition: &Exposition, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let family = exposition.families.get(family)?;
    let matches = |sample: &&Sample<OpenMetricsValue>| {
        let set = sample.get_labelset().unwrap();
        labels.iter().all(|(name, value)| set.get_label_value(name) == Some(*value))
    };
    family.iter_samples().find(matches).map(|sample| match &sample.value {
        OpenMetricsValue::Gauge(number) => number.as_f64(),
        OpenMetricsValue::Counter(counter) => counter.value.as_f64(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn what_is_shown_is_open_metrics_with_the_figures_that_there_are() {
    let shown = parsed(&encode(&metrics()).unwrap());

    let web = [("namespace", "default"), ("name", "web")];
    let is = |family: &str, labels: &[(&str, &str)], wanted: f64| {
        assert_eq!(value(&shown, family, labels), Some(wanted), "{family} {labels:?}");
    };
    is("plimsoll_rounds", &[], 12.0);
    is("plimsoll_last_round_timestamp_seconds", &[], 1.5);
    is("plimsoll_objects", &[("sync", "synced")], 2.0);
    is("plimsoll_changes", &[("class", "live"), ("action", "Resizing"), ("result", "done")], 2.0);
    is("plimsoll_changes", &[("class", "recreate"), ("action", "Starting"), ("result", "failed")], 1.0);
    is("plimsoll_queue_actions", &[("state", "waiting")], 3.0);
    is("plimsoll_queue_actions", &[("state", "working")], 8.0);
    is("plimsoll_container_state", &[("name", "db"), ("phase", "Pending")], 1.0);
    is("plimsoll_container_cpu_seconds", &web, 1.5);
    is("plimsoll_container_cpu_throttled_seconds", &web, 0.25);
    is("plimsoll_container_memory_usage_bytes", &web, 4096.0);
    is("plimsoll_container_memory_limit_bytes", &web, 1_048_576.0);
    is("plimsoll_container_oom_kills", &web, 5.0);
    is("plimsoll_container_io_bytes", &[("device", "8:16"), ("operation", "read")], 512.0);
    is("plimsoll_container_pressure_waiting_seconds", &[("resource", "memory"), ("extent", "full")], 0.5);
    assert_eq!(value(&shown, "plimsoll_container_pids_limit", &web), None, "there is none");
    assert_eq!(value(&shown, "plimsoll_container_io_bytes", &[("operation", "total")]), None, "a sum of the others");
}

#[test]
fn every_family_says_what_it_is_and_the_text_has_an_end() {
    let text = encode(&metrics()).unwrap();

    assert!(text.ends_with("# EOF\n"));
    for (name, family) in &parsed(&text).families {
        assert!(family.family_type != OpenMetricsType::Unknown && !family.help.is_empty(), "{name}");
        let units = ["seconds", "bytes"].into_iter().filter(|unit| name.ends_with(&format!("_{unit}")));
        assert_eq!(units.collect::<String>(), family.unit, "{name}");
    }
}

#[test]
fn a_label_is_what_it_was_whatever_is_in_it() {
    let text = encode(&metrics()).unwrap();

    assert!(text.contains(r#"source="a \"fleet\"\n\\ of ours""#), "{text}");
    let last = value(&parsed(&text), "plimsoll_source_last_success_timestamp_seconds", &[]);
    assert_eq!(last, Some(2.25));
}
