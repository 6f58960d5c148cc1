//! Which names in a source's directory are manifests.

/// Why a file or link with this name is not read; `None` for one that is.
pub fn ignored(name: &str) -> Option<&'static str> {
    if name.starts_with('.') {
        return Some("its name begins with a dot");
    }
    if name.starts_with('#') || name.ends_with(['~', '#']) || name == "4913" {
        return Some("an editor's temporary file");
    }
    const TEMPORARY: [&str; 5] = [".swp", ".swo", ".swx", ".tmp", "___jb_tmp___"];
    const LEFTOVER: [&str; 6] = [".bak", ".orig", ".rej", ".rpmnew", ".rpmsave", ".old"];
    if TEMPORARY.iter().any(|end| name.ends_with(end)) {
        return Some("a temporary file");
    }
    if LEFTOVER.iter().any(|end| name.ends_with(end)) || name.contains(".dpkg-") {
        return Some("a copy that an editor, a merge or a package left");
    }
    if [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end) && name.len() > end.len()) {
        return None;
    }
    Some("its name does not end with .yaml, .yml or .json")
}

/// Why a directory with this name is not entered.
pub fn ignored_directory(name: &str) -> Option<&'static str> {
    name.starts_with('.').then_some("its name begins with a dot")
}

/// The file beside a directory of this name whose drop-ins are in there.
pub(super) fn changed_by(directory: &str) -> Option<&str> {
    directory.strip_suffix(".d").filter(|file| ignored(file).is_none())
}

/// The file that the one at `path` may be a drop-in of, and its name among them.
pub(super) fn as_drop_in(path: &str) -> Option<(&str, &str)> {
    let mut start = 0;
    for part in path.split_inclusive('/') {
        let end = start + part.len();
        if let Some(file) = part.strip_suffix('/').and_then(changed_by) {
            return Some((&path[..start + file.len()], &path[end..]));
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_read_and_the_rest_is_not() {
        for name in ["web.yaml", "a.yml", "x.json", "with space.yaml", "UPPER.yaml", "web.bak.yaml"] {
            assert_eq!(ignored(name), None, "{name}");
        }
        for name in [
            ".hidden.yaml",
            "web.yaml~",
            "#web.yaml#",
            ".#web.yaml",
            ".web.yaml.swp",
            "web.yaml.swo",
            "4913",
            "web.yaml___jb_tmp___",
            "web.yaml.bak",
            "web.yaml.orig",
            "web.yaml.rej",
            "web.yaml.dpkg-new",
            "web.yaml.dpkg-old",
            "web.yaml.rpmnew",
            "web.yaml.rpmsave",
            "web.yaml.tmp",
            "README.md",
            "yaml",
            ".yaml",
            "web.yaml.8Fq2xK",
        ] {
            assert!(ignored(name).is_some(), "{name}");
        }
        for name in ["..data", "..2026_11_24", ".git"] {
            assert!(ignored_directory(name).is_some(), "{name}");
        }
        assert_eq!(ignored_directory("team-a"), None);
    }

    #[test]
    fn a_directory_of_drop_ins_is_named_after_its_file() {
        for (directory, file) in [("web.yaml.d", "web.yaml"), ("a.yml.d", "a.yml"), ("x.json.d", "x.json")] {
            assert_eq!(changed_by(directory), Some(file));
        }
        for directory in ["conf.d", "web.d", "web.yaml", ".web.yaml.d", ".yaml.d", "web.yaml.dd"] {
            assert_eq!(changed_by(directory), None, "{directory}");
        }
        assert_eq!(as_drop_in("team/web.yaml.d/10.yaml"), Some(("team/web.yaml", "10.yaml")));
        assert_eq!(as_drop_in("web.yaml.d/more/10.yaml"), Some(("web.yaml", "more/10.yaml")));
        for path in ["web.yaml", "team/web.yaml", "conf.d/web.yaml"] {
            assert_eq!(as_drop_in(path), None, "{path}");
        }
    }
}
