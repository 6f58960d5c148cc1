//! Configurations with something wrong in them, run for real: an answer in time, and nothing is left.

use super::{Random, finish, runs, spawn};
use crate::fixture::Bundle;
use serde_json::{Value, json};

fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), all)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| places(value, &format!("{at}/{index}"), all));
        }
        _ => {}
    }
}

fn mutate(config: &mut Value, random: &mut Random) -> String {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(7),
        json!(""),
        json!("/"),
        json!("x"),
        json!("/no/such/place"),
        json!("ro"),
        json!([]),
        json!({}),
        json!(["a", "b"]),
    ];
    let mut all = Vec::new();
    places(config, "", &mut all);
    // The root of the host is not one to try things on; names with a slash are no pointers.
    all.retain(|place| !place.is_empty() && !place.starts_with("/root") && config.pointer(place).is_some());
    let pick = |random: &mut Random, count: usize| usize::try_from(random.below(count.try_into().unwrap())).unwrap();
    let place = all[pick(random, all.len())].clone();
    let value = values[pick(random, values.len())].clone();
    let what = format!("{place} = {value}");
    *config.pointer_mut(&place).unwrap() = value;
    what
}

#[test]
#[ignore = "needs root"]
fn nothing_is_left_of_a_configuration_that_is_wrong() {
    let count: usize = std::env::var("PLIM_STRESS").map_or(80, |count| count.parse().unwrap());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for number in 0..count {
        let mut bundle = Bundle::new("true");
        let words: Vec<String> = (0..=number % 3).map(|_| mutate(&mut bundle.config, &mut random)).collect();
        bundle.write();
        let (id, place) = (bundle.id(), bundle.path(""));
        let place = place.to_str().unwrap();

        let code = finish(spawn(&bundle, &["run", "--bundle", place, &id]), &format!("run with {words:?}"));

        assert!(code.code().is_some(), "{words:?}: {code}");
        assert!(bundle.is_gone(), "{words:?}");
        bundle.wait(&format!("the end of {words:?}"), || !runs(place));
        let ours = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!ours.contains(place), "{words:?}");
    }
}
