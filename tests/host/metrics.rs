//! `/metrics`, against what the kernel's own files say.

use crate::fixture::{Host, sleeper};
use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::{MetricsExposition, OpenMetricsType, OpenMetricsValue};

struct Shown(MetricsExposition<OpenMetricsType, OpenMetricsValue>);

impl Shown {
    fn by(host: &Host) -> Self {
        let text = host.ok(["metrics"]);
        Self(parse_openmetrics(&text).unwrap_or_else(|error| panic!("{error}\n{text}")))
    }

    fn value(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self.0.families.get(family)?.iter_samples();
        let mut matching = samples.filter(|sample| {
            let set = sample.get_labelset().unwrap();
            labels.iter().all(|(name, value)| set.get_label_value(name) == Some(*value))
        });
        matching.next().map(|sample| match &sample.value {
            OpenMetricsValue::Gauge(number) => number.as_f64(),
            OpenMetricsValue::Counter(counter) => counter.value.as_f64(),
            other => panic!("{other:?}"),
        })
    }
}

#[test]
#[ignore = "needs root"]
fn metrics_are_what_the_kernel_and_the_agent_count() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}, pids: {limit: 77}}\n"));
    host.pid("web");
    let changes = |result: &str, action: &str| {
        Shown::by(&host).value("plimsoll_changes", &[("action", action), ("result", result)]).unwrap_or(0.0)
    };
    assert_eq!((changes("done", "Starting"), changes("done", "Resizing")), (1.0, 0.0));

    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 96Mi}, pids: {limit: 77}}\n"));
    host.until("the change is counted", || changes("done", "Resizing") >= 1.0);

    let shown = Shown::by(&host);
    let web = [("namespace", "default"), ("name", "web")];
    assert_eq!(shown.value("plimsoll_container_memory_limit_bytes", &web), Some(f64::from(96 << 20)));
    assert_eq!(shown.value("plimsoll_container_pids_limit", &web), Some(77.0));
    let pids: u32 = host.control("default_web", ["pids.current", "pids.current"]).parse().unwrap();
    assert_eq!(shown.value("plimsoll_container_pids", &web), Some(f64::from(pids)));
    assert!(shown.value("plimsoll_container_memory_usage_bytes", &web).unwrap() > 0.0);
    assert!(shown.value("plimsoll_container_cpu_seconds", &web).unwrap() > 0.0);
    assert_eq!(shown.value("plimsoll_container_oom_kills", &web), Some(0.0));
    assert_eq!(shown.value("plimsoll_source_complete", &[]), Some(1.0));
    assert!(shown.value("plimsoll_source_last_success_timestamp_seconds", &[]).unwrap() > 1e9);
    assert_eq!(shown.value("plimsoll_queue_actions", &[("state", "working")]), Some(0.0));
}

#[test]
#[ignore = "needs root"]
fn what_hinders_a_container_is_counted() {
    let host = Host::up();
    host.write(
        "busy.yaml",
        r#"apiVersion: plimsoll/v1
kind: Container
metadata: {name: busy}
spec:
  image: host:/
  init: true
  command:
  - sh
  - -c
  - perl -e "\$x = 'a' x (128 << 20)"; while true; do true; done
  resources: {cpu: {limit: 0.1}, memory: {limit: 32Mi, swap: 0}}
"#,
    );
    host.pid("busy");
    let over = |family: &str| Shown::by(&host).value(family, &[("name", "busy")]).is_some_and(|value| value > 0.0);

    for family in [
        "plimsoll_container_oom_kills",
        "plimsoll_container_cpu_throttled_seconds",
        "plimsoll_container_cpu_throttled_periods",
    ] {
        host.until(family, || over(family));
    }
}
