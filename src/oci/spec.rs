//! `spec`: a `config.json` to begin with.

use super::OciError;
use super::config::TEMPLATE;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

pub(super) fn spec(bundle: &Path, rootless: bool) -> Result<(), OciError> {
    let path = bundle.join("config.json");
    let failed = |source| OciError::Io { what: format!("writing {}", path.display()), source };
    let mut template = serde_json::from_str(TEMPLATE).map_err(|error| failed(error.into()))?;
    if rootless {
        template = for_user(template, rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    }
    if rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|is| is.f_type != CGROUP2_SUPER_MAGIC) {
        template = for_v1(template);
    }
    let text = format!("{template:#}\n");
    // One that is there is somebody's work.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// statfs(2).
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// In v1 hierarchies a container sees the host's paths, as other runtimes have it: its limits are in
/// as many directories, and who looks for them wants their names.
fn for_v1(mut config: Value) -> Value {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    }
    config
}

/// What works for a user who is not root and has no ids but his own.
fn for_user(mut config: Value, uid: u32, gid: u32) -> Value {
    let linux = &mut config["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    // Limits take cgroups of one's own.
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        for mount in mounts {
            // No other id than his own is mapped.
            if let Some(options) = mount["options"].as_array_mut() {
                options
                    .retain(|option| !option.as_str().is_some_and(|o| o.starts_with("gid=") || o.starts_with("uid=")));
            }
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_a_user_namespace_and_nothing_that_takes_root() {
        let config = for_user(serde_json::from_str(TEMPLATE).unwrap(), 1000, 100);

        assert_eq!(config["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
        assert_eq!(config["linux"]["gidMappings"], json!([{"containerID": 0, "hostID": 100, "size": 1}]));
        assert!(config["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "user"})));
        assert!(config["linux"].get("resources").is_none());
        assert!(!config.to_string().contains("gid=5"));
    }
}
