//! Numbers as a person reads them.

use crate::spec::{Bytes, Span, Timestamp};

/// How long ago: `8s`, `5m`, `3h`, `12d`.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    span(now.since(at))
}

/// A length of time in its largest unit that leaves at least two of it.
pub fn span(span: Span) -> String {
    // Rounded up: what happens in 200 ms does not happen in 0s.
    let seconds = span.0.div_ceil(1000);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// At most three digits and a unit: `212Mi`, `1.4Gi`.
pub fn bytes(bytes: Bytes) -> String {
    for (shift, unit) in [(50_u32, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        let one = 1_u64 << shift;
        if bytes.0 >= one {
            let tenths = u128::from(bytes.0) * 10 / u128::from(one);
            return match (tenths / 10, tenths % 10) {
                (whole @ 0..10, tenth @ 1..) => format!("{whole}.{tenth}{unit}"),
                (whole, _) => format!("{whole}{unit}"),
            };
        }
    }
    bytes.0.to_string()
}

/// Thousandths of a CPU as CPUs: `1.5`, `0.25`, `2`.
pub fn cpus(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Thousandths of a CPU in use, always with two decimals: `0.31`.
pub fn cpus_used(milli: u64) -> String {
    let hundredths = (milli + 5) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// A part of a whole in five cells.
pub fn bar(part: u64, whole: u64) -> String {
    const CELLS: u128 = 5;
    let filled = match whole {
        0 => 0,
        whole => ((u128::from(part) * CELLS * 2 + u128::from(whole)) / (u128::from(whole) * 2)).min(CELLS),
    };
    (0..CELLS).map(|cell| if cell < filled { '▓' } else { '░' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_like_numbers() {
        let now = Timestamp(400 * 86_400_000);
        let ago = |seconds: u64| age(Timestamp(now.0 - seconds * 1000), now);
        assert_eq!([ago(0), ago(119), ago(120), ago(7200), ago(3 * 86_400)], ["0s", "119s", "2m", "2h", "3d"]);
        assert_eq!(span(Span(200)), "1s");
        assert_eq!(bytes(Bytes(212 << 20)), "212Mi");
        assert_eq!(bytes(Bytes(1_503_238_553)), "1.3Gi");
        assert_eq!(bytes(Bytes(8 << 30)), "8Gi");
        assert_eq!(bytes(Bytes(0)), "0");
        assert_eq!(bytes(Bytes(u64::MAX)), "16383Pi");
        assert_eq!([cpus(1500), cpus(200), cpus(2000), cpus(10)], ["1.5", "0.2", "2", "0.01"]);
        assert_eq!([cpus_used(310), cpus_used(4), cpus_used(5), cpus_used(3799)], ["0.31", "0.00", "0.01", "3.80"]);
    }

    #[test]
    fn a_bar_is_as_full_as_its_part() {
        assert_eq!(
            [bar(0, 10), bar(41, 100), bar(7, 10), bar(10, 10), bar(20, 10), bar(1, 0)],
            ["░░░░░", "▓▓░░░", "▓▓▓▓░", "▓▓▓▓▓", "▓▓▓▓▓", "░░░░░"]
        );
    }
}
