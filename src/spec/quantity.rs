//! Quantities: integers with a unit. No floating point anywhere.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;

/// A number of bytes: `512Mi`, `2G`, `65536`. Binary suffixes `Ki Mi Gi Ti Pi`, decimal ones
/// `k M G T P`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Thousandths of a CPU: `1.5`, `200m`, `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MilliCpu(pub u32);

/// A relative share, 1 to 10000, 100 when not given (cgroup v2 `cpu.weight`, `io.weight`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct Weight(#[schemars(range(min = 1, max = 10_000))] u16);

/// A positive count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct Count(#[schemars(range(min = 1))] u64);

/// A list of CPUs or memory nodes in the kernel's own spelling: `0-3,6` (cpuset(7), "List format").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$"))]
pub struct CpuSet(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    #[error("{0:?} is not a number of bytes: write 512Mi, 2Gi, 1G or 65536")]
    Bytes(String),
    #[error("{0:?} is not a number of CPUs: write 2, 1.5 or 200m")]
    Cpu(String),
    #[error("{0} is below 0: write what it may have, or leave the field out for no limit")]
    Negative(String),
    #[error("{0:?} is too large")]
    TooLarge(String),
    #[error("a weight is 1 to 10000, not {0}")]
    Weight(i64),
    #[error("it has to be at least 1, not {0}")]
    Count(i64),
    #[error("with less than 10m CPUs it would never run: write at least 10m, or leave the field out for no limit")]
    NoCpu,
    #[error("{0:?} is not a list of CPUs: write 0-3,6")]
    CpuSet(String),
}

/// `-1` is how other tools write "no limit".
fn is_negative(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

impl std::str::FromStr for Bytes {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        if is_negative(text) {
            return Err(InvalidQuantity::Negative(text.to_owned()));
        }
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let factor: u64 = match unit {
            "" => 1,
            "k" => 1000,
            "M" => 1000_u64.pow(2),
            "G" => 1000_u64.pow(3),
            "T" => 1000_u64.pow(4),
            "P" => 1000_u64.pow(5),
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            "Pi" => 1 << 50,
            _ => return Err(InvalidQuantity::Bytes(text.to_owned())),
        };
        if digits.is_empty() {
            return Err(InvalidQuantity::Bytes(text.to_owned()));
        }
        // The kernel keeps limits as signed 64-bit numbers of bytes.
        let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        match bytes {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Self(bytes)),
            _ => Err(InvalidQuantity::TooLarge(text.to_owned())),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for MilliCpu {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        if is_negative(text) {
            return Err(InvalidQuantity::Negative(text.to_owned()));
        }
        let bad = || InvalidQuantity::Cpu(text.to_owned());
        let whole = |digits: &str| -> Result<u64, InvalidQuantity> {
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            digits.parse().map_err(|_| InvalidQuantity::TooLarge(text.to_owned()))
        };
        let milli = if let Some(digits) = text.strip_suffix('m') {
            whole(digits)?
        } else if let Some((cpus, fraction)) = text.split_once('.') {
            if fraction.len() > 3 {
                return Err(bad());
            }
            whole(cpus)?.saturating_mul(1000).saturating_add(whole(&format!("{fraction:0<3}"))?)
        } else {
            whole(text)?.saturating_mul(1000)
        };
        match u32::try_from(milli) {
            Ok(0) => Err(InvalidQuantity::NoCpu),
            // The kernel's least quota is 1 ms; at a period of 100 ms that is 10m (cpu.max).
            Ok(milli) if milli < 10 => Err(InvalidQuantity::NoCpu),
            Ok(milli) if milli <= 10_000_000 => Ok(Self(milli)),
            _ => Err(InvalidQuantity::TooLarge(text.to_owned())),
        }
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

impl Weight {
    pub const DEFAULT: Self = Self(100);

    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Weight {
    type Error = InvalidQuantity;

    fn try_from(number: i64) -> Result<Self, InvalidQuantity> {
        match u16::try_from(number) {
            Ok(weight @ 1..=10_000) => Ok(Self(weight)),
            _ => Err(InvalidQuantity::Weight(number)),
        }
    }
}

impl Count {
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<i64> for Count {
    type Error = InvalidQuantity;

    fn try_from(number: i64) -> Result<Self, InvalidQuantity> {
        match u64::try_from(number) {
            Ok(count) if count > 0 => Ok(Self(count)),
            _ => Err(InvalidQuantity::Count(number)),
        }
    }
}

impl TryFrom<String> for CpuSet {
    type Error = InvalidQuantity;

    fn try_from(text: String) -> Result<Self, InvalidQuantity> {
        let bound =
            |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
        let range = |part: &str| match part.split_once('-') {
            None => bound(part).is_some(),
            Some((low, high)) => matches!((bound(low), bound(high)), (Some(low), Some(high)) if low <= high),
        };
        if text.split(',').all(range) { Ok(Self(text)) } else { Err(InvalidQuantity::CpuSet(text)) }
    }
}

impl CpuSet {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The members, in order.
    pub fn members(&self) -> std::collections::BTreeSet<u16> {
        self.0
            .split(',')
            .flat_map(|part| {
                let (low, high) = part.split_once('-').unwrap_or((part, part));
                let bound = |digits: &str| digits.parse::<u16>().expect("checked when made");
                bound(low)..=bound(high)
            })
            .collect()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.0
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A YAML scalar that is a number or the text of one.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 512Mi, 1.5 or 200")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_u128<E: de::Error>(self, number: u128) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_i128<E: de::Error>(self, number: i128) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

macro_rules! scalar_text {
    ($($type:ty, $name:literal, $pattern:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Scalar::deserialize(deserializer)?.0.parse().map_err(de::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"anyOf": [{"type": "string", "pattern": $pattern}, {"type": "number", "minimum": 0}]})
            }
        }
    )*};
}

scalar_text! {
    Bytes, "Bytes", "^[0-9]+(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";
    MilliCpu, "MilliCpu", "^([0-9]+m|[0-9]+(\\.[0-9]{1,3})?)$";
}

macro_rules! scalar_number {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::try_from(i64::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    )*};
}

scalar_number!(Weight, Count);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_read_in_both_kinds_of_unit() {
        let cases: [(&str, Option<u64>); 17] = [
            ("0", Some(0)),
            ("65536", Some(65_536)),
            ("512Mi", Some(512 << 20)),
            ("1Gi", Some(1 << 30)),
            ("2G", Some(2_000_000_000)),
            ("10k", Some(10_000)),
            ("7Pi", Some(7 << 50)),
            ("9223372036854775807", Some(i64::MAX.unsigned_abs())),
            ("9223372036854775808", None),
            ("8192Pi", None),
            ("99999999999999999999999", None),
            ("", None),
            ("Mi", None),
            ("512mi", None),
            ("512MB", None),
            ("1.5Gi", None),
            ("-1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Bytes>().ok().map(|bytes| bytes.0), expected, "{text:?}");
        }
    }

    #[test]
    fn cpus_are_read_as_thousandths() {
        let cases: [(&str, Option<u32>); 16] = [
            ("2", Some(2000)),
            ("1.5", Some(1500)),
            ("0.25", Some(250)),
            ("0.125", Some(125)),
            ("200m", Some(200)),
            ("10m", Some(10)),
            ("10000", Some(10_000_000)),
            ("0", None),
            ("0m", None),
            ("9m", None),
            ("0.0001", None),
            ("10001", None),
            ("-1", None),
            (".5", None),
            ("1.m", None),
            ("all", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<MilliCpu>().ok().map(|cpu| cpu.0), expected, "{text:?}");
        }
    }

    #[test]
    fn a_limit_below_zero_says_what_to_do_instead() {
        let message = "-1".parse::<Bytes>().unwrap_err().to_string();

        assert_eq!(message, "-1 is below 0: write what it may have, or leave the field out for no limit");
    }

    #[test]
    fn a_cpu_set_is_in_the_spelling_of_the_kernel() {
        for text in ["0", "0-3", "0-3,6", "5,1,2-2"] {
            assert_eq!(CpuSet::try_from(text.to_owned()).unwrap().as_str(), text);
        }
        for text in ["", ",", "0,", "3-1", "-1", "0-", "a", "0 1", "0-1-2", "70000", "+1"] {
            assert!(CpuSet::try_from(text.to_owned()).is_err(), "{text:?}");
        }
        let members: Vec<u16> = CpuSet::try_from("6,0-2,1".to_owned()).unwrap().members().into_iter().collect();
        assert_eq!(members, [0, 1, 2, 6]);
    }

    proptest! {
        #[test]
        fn bytes_are_read_as_they_are_written(bytes in 0..=i64::MAX.unsigned_abs(), shift in 0..60_u32) {
            let bytes = Bytes(bytes >> shift << shift);

            prop_assert_eq!(bytes.to_string().parse::<Bytes>().unwrap(), bytes);
        }

        #[test]
        fn cpus_are_read_as_they_are_written(milli in 10..=10_000_000_u32) {
            let cpu = MilliCpu(milli);

            prop_assert_eq!(cpu.to_string().parse::<MilliCpu>().unwrap(), cpu);
        }

        #[test]
        fn any_text_is_a_quantity_or_an_error(text in "[-+0-9.eEkKmMGiPT ]{0,24}|\\PC{0,8}") {
            if let Ok(bytes) = text.parse::<Bytes>() {
                prop_assert!(i64::try_from(bytes.0).is_ok());
            }
            if let Ok(cpu) = text.parse::<MilliCpu>() {
                prop_assert!((10..=10_000_000).contains(&cpu.0));
            }
        }
    }
}
