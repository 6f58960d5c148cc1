//! Which URLs and references are taken for what they are.

use super::order::Reference;
use gix::bstr::BStr;
use gix::url::Scheme;

/// Whether something may be fetched from there. `verified` says that every revision is signed.
///
/// # Errors
/// What is wrong with the URL, for a person.
pub fn check_url(text: &str, verified: bool) -> Result<(), String> {
    let url = gix::Url::from_bytes(BStr::new(text)).map_err(|error| format!("{text:?} is no URL: {error}"))?;
    if url.password().is_some() {
        // Not repeated here: it would be in the log.
        return Err("there is a password in the URL: put it into a file, and name that in `login`".to_owned());
    }
    match &url.scheme {
        Scheme::Https | Scheme::Ssh => Ok(()),
        Scheme::File if text.starts_with("file:///") => Ok(()),
        Scheme::File => Err(format!("{text:?} is no URL: write file:///PATH for a directory of this host")),
        Scheme::Http if verified || url.host().is_some_and(is_loopback) => Ok(()),
        Scheme::Http => Err(format!(
            "whoever is between this host and the server could change what comes from {text}: use https, or `verify`"
        )),
        other => Err(format!("{} is not spoken here: use https, ssh or file", other.as_str())),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl Reference {
    /// # Errors
    /// When there can be no such reference (git-check-ref-format(1)).
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Head | Self::Semver(_) => Ok(()),
            Self::Branch(name) | Self::Tag(name) => {
                let full = format!("refs/heads/{name}");
                match gix::refs::FullName::try_from(full.as_str()) {
                    Ok(_) if !name.contains('*') => Ok(()),
                    Ok(_) | Err(_) => Err(format!("{name:?} cannot be the name of a branch or tag")),
                }
            }
            Self::Commit(id) => match gix::ObjectId::from_hex(id.as_bytes()) {
                Ok(_) => Ok(()),
                Err(_) => Err(format!("{id:?} is not a commit: write all of its 40 digits")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_what_nobody_vouches_for_are_refused() {
        for (url, verified, reason) in [
            ("https://git.example.org/fleet.git", false, None),
            ("ssh://git@git.example.org:2222/fleet.git", false, None),
            ("git@git.example.org:fleet.git", false, None),
            ("file:///srv/git/fleet.git", false, None),
            ("http://127.0.0.1:3000/fleet.git", false, None),
            ("http://[::1]:3000/fleet.git", false, None),
            ("http://git.example.org/fleet.git", true, None),
            ("http://git.example.org/fleet.git", false, Some("could change")),
            ("https://ann:secret@git.example.org/fleet.git", false, Some("password")),
            ("git://git.example.org/fleet.git", false, Some("git is not spoken")),
            ("ext::sh -c true", false, Some("")),
            ("/srv/git/fleet.git", false, Some("file:///")),
            ("", false, Some("no URL")),
        ] {
            match (check_url(url, verified), reason) {
                (Ok(()), None) => {}
                (Err(said), Some(reason)) => {
                    assert!(said.contains(reason) && !said.contains("secret"), "{url}: {said}");
                }
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_reference_that_cannot_be_is_refused() {
        for (reference, good) in [
            (Reference::Branch("main".to_owned()), true),
            (Reference::Branch("feature/a-b".to_owned()), true),
            (Reference::Branch("a..b".to_owned()), false),
            (Reference::Branch("*".to_owned()), false),
            (Reference::Tag("v1 0".to_owned()), false),
            (Reference::Tag(String::new()), false),
            (Reference::Commit("0123".to_owned()), false),
            (Reference::Commit("0123456789abcdef0123456789abcdef01234567".to_owned()), true),
        ] {
            assert_eq!(reference.check().is_ok(), good, "{reference:?}");
        }
    }
}
