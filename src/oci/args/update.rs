//! `update`: new limits by options, or a file of them.

use super::UsageError;
use super::words::Words;
use std::path::PathBuf;

/// New limits: a file of `linux.resources`, or single ones by option.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    pub id: String,
    /// `-` is standard input.
    pub resources: Option<PathBuf>,
    /// A path in `linux.resources` and its value as JSON.
    pub single: Vec<(&'static str, serde_json::Value)>,
    /// `linux.intelRdt.l3CacheSchema` and `memBwSchema`.
    pub l3_cache_schema: Option<String>,
    pub memory_bandwidth_schema: Option<String>,
}

const NUMBERS: [(&str, &str); 10] = [
    ("--cpu-share", "cpu/shares"),
    ("--cpu-shares", "cpu/shares"),
    ("--cpu-quota", "cpu/quota"),
    ("--cpu-period", "cpu/period"),
    ("--cpu-burst", "cpu/burst"),
    ("--cpu-idle", "cpu/idle"),
    ("--cpu-rt-period", "cpu/realtimePeriod"),
    ("--cpu-rt-runtime", "cpu/realtimeRuntime"),
    ("--pids-limit", "pids/limit"),
    ("--blkio-weight", "blockIO/weight"),
];

/// With a unit, if one likes: `--memory 64M`.
const SIZES: [(&str, &str); 5] = [
    ("--memory", "memory/limit"),
    ("--memory-reservation", "memory/reservation"),
    ("--memory-swap", "memory/swap"),
    ("--kernel-memory", "memory/kernel"),
    ("--kernel-memory-tcp", "memory/kernelTCP"),
];

const TEXTS: [(&str, &str); 2] = [("--cpuset-cpus", "cpu/cpus"), ("--cpuset-mems", "cpu/mems")];

pub(super) fn update(words: &mut Words) -> Result<Update, UsageError> {
    let mut wish = Update::default();
    let find = |table: &[(&str, &'static str)], name: &str| {
        table.iter().find(|(known, _)| *known == name).map(|(_, path)| *path)
    };
    let plain = words.options(|words, name, inline| {
        if let Some(path) = find(&NUMBERS, name) {
            let number: i64 = words.number(name, inline)?;
            wish.single.push((path, number.into()));
        } else if let Some(path) = find(&SIZES, name) {
            let text = words.value(name, inline)?;
            let Some(bytes) = bytes(&text) else {
                return words.fail(format!("{name}: {text:?} is not a number of bytes"));
            };
            wish.single.push((path, bytes.into()));
        } else if let Some(path) = find(&TEXTS, name) {
            wish.single.push((path, words.value(name, inline)?.into()));
        } else {
            match name {
                "--resources" | "-r" => wish.resources = Some(words.value(name, inline)?.into()),
                "--l3-cache-schema" => wish.l3_cache_schema = Some(words.value(name, inline)?),
                "--mem-bw-schema" => wish.memory_bandwidth_schema = Some(words.value(name, inline)?),
                _ => return words.unknown(name),
            }
        }
        Ok(())
    })?;
    wish.id = words.one(plain)?;
    let single = !wish.single.is_empty() || wish.l3_cache_schema.is_some() || wish.memory_bandwidth_schema.is_some();
    if wish.resources.is_some() == single {
        return words.fail("limits by options or by --resources, one of both");
    }
    Ok(wish)
}

/// `-1`, `1048576`, `64k`, `1.5GiB`: units of 1024, as other runtimes read them.
fn bytes(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(number);
    }
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let shift = match bare.chars().last()? {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        'p' => 50,
        digit if digit.is_ascii_digit() => 0,
        _ => return None,
    };
    let digits = bare.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let scale = 10_i64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = if fraction.is_empty() { 0 } else { i128::from(fraction.parse::<i64>().ok()?) };
    let number = i128::from(whole.parse::<i64>().ok()?) * i128::from(scale) + part;
    i64::try_from((number << shift) / i128::from(scale)).ok()
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn a_size_may_have_a_unit() {
        let cases = [
            ("-1", Some(-1)),
            ("1024", Some(1024)),
            ("64k", Some(65_536)),
            ("64M", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("1.5g", Some(3 << 29)),
            ("12b", Some(12)),
            ("", None),
            ("k", None),
            ("1.2.3k", None),
            ("9999999999p", None),
            ("10x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }
}
