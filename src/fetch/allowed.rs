//! The text of an `allowed_signers` file (ssh-keygen(1), "ALLOWED SIGNERS").

use crate::spec::Timestamp;
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

/// What git signs in (gitformat-signature(5)).
pub(super) const NAMESPACE: &str = "git";

/// Who may sign, from when and until when.
#[derive(Debug, Clone, Default)]
pub struct AllowedSigners {
    signers: Vec<Signer>,
}

#[derive(Debug, Clone)]
struct Signer {
    principals: String,
    key: KeyData,
    /// Patterns; any namespace when there are none.
    namespaces: Vec<String>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct SignerProblem {
    /// From 1.
    pub line: usize,
    pub reason: String,
}

impl AllowedSigners {
    /// Reads the whole text: a line that is not understood may be the one that somebody relies on.
    pub fn parse(text: &str) -> Result<Self, SignerProblem> {
        let mut signers = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signer = signer(line).map_err(|reason| SignerProblem { line: index + 1, reason })?;
            signers.push(signer);
        }
        Ok(Self { signers })
    }

    pub fn is_empty(&self) -> bool {
        self.signers.is_empty()
    }

    /// Whose key it is, when it was allowed to sign for git at that time.
    ///
    /// # Errors
    /// Why nobody's, as the end of a sentence about the key.
    pub(super) fn of(&self, key: &KeyData, at: Timestamp) -> Result<&str, String> {
        let mut why = "is of nobody who may sign".to_owned();
        for signer in self.signers.iter().filter(|signer| signer.key == *key) {
            let who = &signer.principals;
            if !signer.namespaces.is_empty() && !signer.namespaces.iter().any(|pattern| matches(pattern, NAMESPACE)) {
                why = format!("is {who}'s and may not sign for git");
            } else if let Some(after) = signer.after.filter(|after| at < *after) {
                why = format!("is {who}'s and valid from {after} on, and this was made at {at}");
            } else if let Some(before) = signer.before.filter(|before| at >= *before) {
                why = format!("is {who}'s and was valid until {before}, and this was made at {at}");
            } else {
                return Ok(who);
            }
        }
        Err(why)
    }
}

fn signer(line: &str) -> Result<Signer, String> {
    let (principals, rest) = word(line)?;
    let mut signer = Signer {
        principals: principals.replace('"', ""),
        key: KeyData::Ed25519(ssh_key::public::Ed25519PublicKey([0; 32])),
        namespaces: Vec::new(),
        after: None,
        before: None,
    };
    let (first, after_first) = word(rest)?;
    let key = match first.parse::<ssh_key::Algorithm>() {
        Ok(_) => rest,
        Err(_) => {
            options(first, &mut signer)?;
            after_first
        }
    };
    let key = PublicKey::from_openssh(key).map_err(|error| format!("its public key: {error}"))?;
    signer.key = key.key_data().clone();
    if matches!(signer.key, KeyData::Rsa(_) | KeyData::Dsa(_)) {
        return Err(format!("keys of the type {} are not verified here: use ed25519 or ecdsa", signer.key.algorithm()));
    }
    Ok(signer)
}

fn options(text: &str, signer: &mut Signer) -> Result<(), String> {
    for option in split(text, ',') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = value.trim_matches('"');
        match name.to_ascii_lowercase().as_str() {
            "namespaces" => signer.namespaces = value.split(',').map(str::to_owned).collect(),
            "valid-after" => signer.after = Some(time(value)?),
            "valid-before" => signer.before = Some(time(value)?),
            "cert-authority" => return Err("certificates are not verified here: name the keys themselves".to_owned()),
            name => return Err(format!("unknown option {name:?}, or unknown type of key")),
        }
    }
    Ok(())
}

/// `YYYYMMDD[HHMM[SS]][Z]`. Without the `Z` too it is in UTC: a host's time zone should not decide who may sign.
fn time(text: &str) -> Result<Timestamp, String> {
    let unreadable = || format!("{text:?} is not a time: write YYYYMMDDHHMMZ");
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return Err(unreadable());
    }
    let filled = format!("{digits:0<14}");
    let part = |from: usize, to: usize| &filled[from..to];
    let (date, clock) = ([part(0, 4), part(4, 6), part(6, 8)], [part(8, 10), part(10, 12), part(12, 14)]);
    format!("{}T{}Z", date.join("-"), clock.join(":")).try_into().map_err(|_| unreadable())
}

/// The first word of a text and the rest; a quoted part may hold blanks.
fn word(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return Ok((&text[..at], text[at..].trim_start())),
            _ => {}
        }
    }
    Err("it ends too early: PRINCIPALS [OPTIONS] TYPE KEY".to_owned())
}

fn split(text: &str, by: char) -> Vec<&str> {
    let (mut parts, mut from, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c == '"' {
            quoted = !quoted;
        } else if c == by && !quoted {
            parts.push(&text[from..at]);
            from = at + c.len_utf8();
        }
    }
    parts.push(&text[from..]);
    parts
}

/// `*` is anything, `?` one character (ssh_config(5), "PATTERNS").
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(&pattern[1..], &text[at..])),
        Some(c) => text.chars().next().is_some_and(|first| {
            (c == '?' || c == first) && matches(&pattern[c.len_utf8()..], &text[first.len_utf8()..])
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7XjKPUTpFxBMT2e/rOOzLcPDWFPnQ9kT3kTqzC5kCO";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

    fn key(text: &str) -> KeyData {
        PublicKey::from_openssh(text).unwrap().key_data().clone()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_key_is_of_whom_the_file_says() {
        let text = format!("# staff\n\nann@example.org,\"bob b\" {ONE} a comment\n");
        let allowed = AllowedSigners::parse(&text).unwrap();

        assert_eq!(allowed.of(&key(ONE), at("2026-01-01T00:00:00Z")), Ok("ann@example.org,bob b"));
        assert!(allowed.of(&key(TWO), at("2026-01-01T00:00:00Z")).unwrap_err().contains("nobody"));
    }

    #[test]
    fn a_key_is_valid_from_and_until_when_the_file_says() {
        let text = format!("ann valid-after=\"20260101\",valid-before=\"202602011230Z\" {ONE}");
        let allowed = AllowedSigners::parse(&text).unwrap();

        assert!(allowed.of(&key(ONE), at("2025-12-31T23:59:59Z")).unwrap_err().contains("valid from"));
        assert_eq!(allowed.of(&key(ONE), at("2026-01-01T00:00:00Z")), Ok("ann"));
        assert_eq!(allowed.of(&key(ONE), at("2026-02-01T12:29:59Z")), Ok("ann"));
        assert!(allowed.of(&key(ONE), at("2026-02-01T12:30:00Z")).unwrap_err().contains("valid until"));
    }

    #[test]
    fn a_key_for_other_things_signs_nothing_here() {
        for (namespaces, good) in [("git", true), ("file,git", true), ("g*", true), ("file", false), ("gi", false)] {
            let allowed = AllowedSigners::parse(&format!("ann namespaces=\"{namespaces}\" {ONE}")).unwrap();

            assert_eq!(allowed.of(&key(ONE), at("2026-01-01T00:00:00Z")).is_ok(), good, "{namespaces}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (line, reason) in [
            ("ann", "ends too early"),
            ("ann ssh-ed25519", "ends too early"),
            ("ann ssh-ed25519 AAAA", "public key"),
            (&format!("* cert-authority {ONE}"), "certificates"),
            (&format!("ann valid-after=\"soon\" {ONE}"), "not a time"),
            (&format!("ann valid-after=\"20261301\" {ONE}"), "not a time"),
            (&format!("ann colour=\"red\" {ONE}"), "unknown option"),
        ] {
            let problem = AllowedSigners::parse(&format!("# first\n{line}\n")).unwrap_err();

            assert_eq!(problem.line, 2);
            assert!(problem.reason.contains(reason), "{line}: {problem}");
        }
    }
}
