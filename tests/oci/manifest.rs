//! A manifest's container by its `config.json`.

use crate::fixture::{Answer, Bundle};
use serde_json::json;
use std::fs;
use std::process::Command;

fn plim(words: &[&str]) -> Answer {
    Command::new(env!("CARGO_BIN_EXE_plim")).args(["oci", "spec"]).args(words).output().unwrap().into()
}

/// A bundle whose configuration is that of the manifest.
fn bundle_of(manifest: impl Fn(&Bundle) -> String) -> Bundle {
    let mut bundle = Bundle::new("true");
    let file = bundle.path("manifest.yaml");
    fs::write(&file, manifest(&bundle)).unwrap();
    let dir = bundle.path("");
    let answer = plim(&["--from-manifest", file.to_str().unwrap(), "--bundle", dir.to_str().unwrap(), "web"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    bundle.config = serde_json::from_str(&answer.out).unwrap();
    bundle
}

const SCRIPT: &str = "hostname; id -u; echo $WHO $container; pwd; cut -f2 /proc/self/uid_map | tr -s ' ' | cut -d' ' -f4; \
    touch /var/made; stat -c '%u %a' /var/made; touch /usr/made 2>&1 | grep -o 'Read-only.*'; ls /sys/class/net; \
    grep -E '^(NoNewPrivs|Seccomp|CapAmb):' /proc/self/status; cat /proc/acpi 2>&1; stat -f -c %T /scratch";

#[test]
#[ignore = "needs root"]
fn the_config_of_a_manifests_container_runs_as_it_says() {
    let manifest = |bundle: &Bundle, image: &str| {
        let usr = if image == "host:/" { "" } else { "\n    - {path: /usr, host: /usr, readOnly: true}" };
        let root = bundle.path("rootfs");
        let image = image.replace("ROOT", root.to_str().unwrap());
        fs::create_dir_all(root.join("var")).unwrap();
        format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: other}}\nspec: {{image: host:/, command: [a]}}\n---\n\
             apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: web}}\nspec:\n  image: {image}\n  \
             command: [/bin/sh, -c, {}]\n  env: {{WHO: me}}\n  workingDir: /tmp\n  hostname: box\n  \
             resources: {{memory: {{limit: 64Mi}}, cpu: {{limit: 200m, weight: 50}}, pids: {{limit: 32}}}}\n  mounts:\n    \
             - {{path: /scratch, tmpfs: 1Mi}}{usr}\n",
            json!(SCRIPT),
        )
    };
    for image in ["rootfs:ROOT", "host:/"] {
        let bundle = bundle_of(|bundle| manifest(bundle, image));

        let answer = bundle.run();

        let base = bundle.config["linux"]["uidMappings"][0]["hostID"].as_u64().unwrap();
        assert!(base >= 0x1000_0000);
        let lines: Vec<&str> = answer.out.lines().collect();
        assert_eq!(lines.get(..4), Some(&["box", "0", "me plimsoll", "/tmp"][..]), "{image}: {answer:?}");
        for expected in ["0 644", "Read-only file system", "lo", "NoNewPrivs:\t1", "Seccomp:\t2", "tmpfs"] {
            assert!(lines.contains(&expected), "{image}: {expected}: {answer:?}");
        }
        let resources = &bundle.config["linux"]["resources"];
        assert_eq!(resources["memory"], json!({"limit": 64 << 20}));
        assert_eq!(resources["cpu"], json!({"quota": 20_000, "period": 100_000, "shares": resources["cpu"]["shares"]}));
        assert_eq!(resources["pids"], json!({"limit": 32}));
        assert!(bundle.is_gone());
    }
}

#[test]
fn a_manifest_is_read_by_plim_and_its_mistakes_are_told() {
    let bundle = Bundle::new("true");
    let file = bundle.path("manifest.yaml");
    let name = file.to_str().unwrap();
    let one = |name: &str, rest: &str| {
        format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec: {{image: host:/, command: [a]{rest}}}\n---\n"
        )
    };

    fs::write(&file, one("a", "") + &one("b", "")).unwrap();
    let several = plim(&["--from-manifest", name]);
    assert!(several.code == Some(1) && several.err.ends_with("name one container; there are: a, b"), "{several:?}");
    let none = plim(&["--from-manifest", name, "c"]);
    assert!(none.code == Some(1) && none.err.ends_with("no container is called c; there are: a, b"), "{none:?}");

    fs::write(&file, one("a", ", frob: 1")).unwrap();
    let wrong = plim(&["--from-manifest", name]);
    assert!(wrong.code == Some(1) && wrong.err.contains("manifest.yaml:4:"), "{wrong:?}");

    let small = bundle.call(&["spec", "--from-manifest", name]);
    assert!(small.code == Some(1) && small.err.contains("this program reads no manifests"), "{small:?}");
}

#[test]
#[ignore = "needs root"]
fn what_a_config_has_no_word_for_is_refused() {
    let bundle = Bundle::new("true");
    let file = bundle.path("manifest.yaml");
    let root = bundle.path("rootfs");
    let text = format!(
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: a}}\nspec: {{image: \"rootfs:{}\", command: [a], init: true}}\n",
        root.display()
    );
    fs::write(&file, text).unwrap();

    let answer = plim(&["--from-manifest", file.to_str().unwrap(), "--bundle", bundle.path("").to_str().unwrap()]);

    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("spec.init: a config.json has no words for it"), "{answer:?}");
}
