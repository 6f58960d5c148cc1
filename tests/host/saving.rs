//! The ways in which programs save a file, with the programs themselves.

use crate::fixture::{Host, sleeper};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What a shell runs: `$F` is the manifest, `$N` a file with its next text on another file system, `$M` the
/// number that changes in it, `$D` an empty directory beside the manifests'.
const WAYS: [(&str, &str); 31] = [
    ("vim", r#"vim -u NONE -N -n -es "$F" -c "%s/limit: [0-9]*Mi/limit: ${M}Mi/" -c wq"#),
    (
        "vim, a new file for each save",
        r#"vim -u NONE -N -n -es "$F" -c 'set wb bkc=no' -c "%s/limit: [0-9]*Mi/limit: ${M}Mi/" -c wq"#,
    ),
    (
        "vim, over the file",
        r#"vim -u NONE -N -n -es "$F" -c 'set wb bkc=yes' -c "%s/limit: [0-9]*Mi/limit: ${M}Mi/" -c wq"#,
    ),
    ("vim, with a backup", r#"vim -u NONE -N -n -es "$F" -c 'set bk' -c "%s/limit: [0-9]*Mi/limit: ${M}Mi/" -c wq"#),
    ("vim, with a swap file", r#"vim -u NONE -N -es "$F" -c "%s/limit: [0-9]*Mi/limit: ${M}Mi/" -c wq"#),
    ("ed", r#"printf '1,$d\n0r %s\nw\nq\n' "$N" | ed -s "$F""#),
    ("sed -i", r#"sed -i "s/limit: [0-9]*Mi/limit: ${M}Mi/" "$F""#),
    ("sed -i.bak", r#"sed -i.bak "s/limit: [0-9]*Mi/limit: ${M}Mi/" "$F""#),
    ("perl -pi", r#"perl -pi -e "s/limit: [0-9]*Mi/limit: ${M}Mi/" "$F""#),
    ("cp", r#"cp "$N" "$F""#),
    ("cp that keeps old times", r#"touch -d '2 days ago' "$N"; cp -p "$N" "$F""#),
    ("cp that removes first", r#"cp --remove-destination "$N" "$F""#),
    ("mv from another file system", r#"mv "$N" "$F""#),
    ("mv of an old file", r#"touch -d '2 days ago' "$N"; cp -p "$N" "$D/n"; mv "$D/n" "$F""#),
    ("install", r#"install -m 0644 "$N" "$F""#),
    ("rsync", r#"rsync -I "$N" "$F""#),
    ("rsync --inplace", r#"rsync -I --inplace "$N" "$F""#),
    ("rsync of an old file", r#"touch -d '2 days ago' "$N"; rsync -t "$N" "$F""#),
    (
        "tar x",
        r#"cp "$N" "$D/web.yaml"; touch -d '3 days ago' "$D/web.yaml"; tar cf "$D/t" -C "$D" web.yaml; tar xf "$D/t" -C "${F%/*}""#,
    ),
    (
        "git checkout",
        r#"cd "$D"; git init -q .; git config user.email t; git config user.name t; cp "$F" web.yaml; git add web.yaml; git commit -qm 1
           cp "$N" web.yaml; git commit -qam 2; git --work-tree="${F%/*}" checkout -qf HEAD -- web.yaml"#,
    ),
    ("patch", r#"diff "$F" "$N" > "$D/p" || true; patch -s "$F" "$D/p""#),
    ("a byte at a time", r#"dd if="$N" of="$F" bs=1 status=none"#),
    ("tee", r#"tee "$F" < "$N" > /dev/null"#),
    ("a shell's >", r#"cat "$N" > "$F""#),
    ("emptied, then appended to", r#": > "$F"; head -c 40 "$N" >> "$F"; tail -c +41 "$N" >> "$F""#),
    ("removed, a while later made anew", r#"rm "$F"; perl -e 'select undef, undef, undef, 0.4'; cat "$N" > "$F""#),
    ("a link that is swapped", r#"cp "$N" "${F%/*}/.text-$M"; ln -s ".text-$M" "$D/l"; mv -T "$D/l" "$F""#),
    ("a link's target that is replaced", r#"cp "$N" "$D/n"; mv "$D/n" "$(readlink -f "$F")""#),
    ("a hard link", r#"cp "$N" "$D/n"; ln -f "$D/n" "$F""#),
    ("moved away and copied back", r#"mv "$F" "$F.orig"; cp "$N" "$F"; rm "$F.orig""#),
    ("written slowly", r#"{ head -c 60 "$N"; perl -e 'select undef, undef, undef, 0.3'; tail -c +61 "$N"; } > "$F""#),
];

fn text(memory: usize) -> String {
    sleeper("web", &format!("  resources: {{memory: {{limit: {memory}Mi}}}}\n"))
}

#[test]
#[ignore = "needs root"]
fn every_way_of_saving_is_one_change_and_no_restart() {
    let host = Host::up();
    let file = host.manifests.join("web.yaml");
    fs::write(&file, text(64)).unwrap();
    let pid = host.pid("web");
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let next = other.path().join("next.yaml");
    let beside = host.dir.join("beside");

    for (number, (way, script)) in WAYS.into_iter().enumerate() {
        let memory = 65 + number;
        let generation = host.running("web")["status"]["generations"]["running"].as_u64().unwrap();
        fs::write(&next, text(memory)).unwrap();
        fs::create_dir(&beside).unwrap();

        save(script, &file, &next, &beside, memory);

        let wanted = format!("{memory}Mi");
        let item = host.wait("web", &format!("{way}: saved"), |item| {
            item["status"]["resources"]["actuated"]["memory"]["limit"] == wanted.as_str()
                && item["status"]["sync"] == "synced"
        });
        host.ok(["reconcile"]);
        assert_eq!(item["status"]["generations"]["running"], generation + 1, "{way}");
        assert_eq!(host.pid("web"), pid, "{way}");
        let limit = host.control("default_web", ["memory.max", "memory.limit_in_bytes"]);
        assert_eq!(limit, (memory << 20).to_string(), "{way}");
        fs::remove_dir_all(&beside).unwrap();
    }

    let events = host.ok(["events", "-o", "json"]);
    let warnings: Vec<&str> = events.lines().filter(|line| line.contains("\"Warning\"")).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
}

fn save(script: &str, file: &Path, next: &Path, beside: &Path, memory: usize) {
    let output = Command::new("sh")
        .args(["-euc", script])
        .env("F", file)
        .env("N", next)
        .env("D", beside)
        .env("M", memory.to_string())
        .env("HOME", beside)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}
