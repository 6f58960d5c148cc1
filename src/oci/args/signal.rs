//! Signals by number and by name.

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3`; 0 only asks whether there is a process.
pub(super) fn number(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let within = |number: i32| (0..=RTMAX).contains(&number).then_some(number);
    if let Ok(number) = text.parse::<i32>() {
        return within(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(position) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(position + 1).ok();
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    match (name, name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        ("POLL", ..) => Some(29),
        ("IOT", ..) => Some(6),
        (_, Some(rest), _) => offset(rest).filter(|n| (0..=30).contains(n)).and_then(|n| within(RTMIN + n)),
        (_, _, Some(rest)) => offset(rest).filter(|n| (-30..=0).contains(n)).and_then(|n| within(RTMAX + n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_have_numbers_and_names() {
        let cases = [
            ("9", Some(9)),
            ("kill", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", Some(0)),
            ("-1", None),
            ("65", None),
            ("FOO", None),
        ];
        for (text, expected) in cases {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
