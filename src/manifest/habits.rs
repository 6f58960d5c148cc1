//! What people write who know another tool, and what comes close to a word.

/// A field of another tool, or one in another place, and what to write here.
const HABITS: &[(&str, &str)] = &[
    ("allowPrivilegeEscalation", "`security: {noNewPrivileges: true}`"),
    ("blkio_config", "`resources: {io: {limits: [{path: /, writeBps: 10M}]}}`"),
    ("cap_add", "`security: {capabilities: {add: […]}}`"),
    ("cap_drop", "`security: {capabilities: {drop: [ALL]}}`"),
    ("cgroup_parent", "nothing: the agent places it"),
    ("cmd", "`command`"),
    ("container_name", "`metadata: {name: …}`"),
    ("containerName", "`metadata: {name: …}`"),
    ("containers", "one document for each container, with its fields directly under `spec`"),
    ("cpus", "`resources: {cpu: {limit: 1.5}}`"),
    ("cpu_shares", "`resources: {cpu: {weight: 200}}`"),
    ("cpuset_cpus", "`resources: {cpu: {cpuset: 0-3}}`"),
    ("deploy", "`resources` directly under `spec`"),
    ("entrypoint", "`command`"),
    ("environment", "`env`"),
    ("grace_period", "`stop: {grace: 10s}`"),
    ("hostNetwork", "`network: host`"),
    ("hostPath", "`host`"),
    ("limits", "a limit with each resource: `memory: {limit: 512Mi}`, `cpu: {limit: 1.5}`"),
    ("medium", "`tmpfs: 64Mi`"),
    ("mem_limit", "`resources: {memory: {limit: 512Mi}}`"),
    ("memswap_limit", "`resources: {memory: {swap: 0}}`"),
    ("mountPath", "`path`"),
    ("network_mode", "`network`"),
    ("pids_limit", "`resources: {pids: {limit: 512}}`"),
    ("pidsLimit", "`resources: {pids: {limit: 512}}`"),
    ("privileged", "the capabilities that it needs: `security: {capabilities: {add: […]}}`"),
    ("readOnlyRootFilesystem", "`security: {readOnlyRoot: true}`"),
    ("requests", "`weight` of `cpu` and `min` or `low` of `memory`"),
    ("reservations", "`weight` of `cpu` and `min` or `low` of `memory`"),
    ("restartPolicy", "`restart: {policy: always}`"),
    ("runAsGroup", "`user: 1000:1000` under `spec`"),
    ("runAsNonRoot", "`user` under `spec`"),
    ("runAsUser", "`user` under `spec`"),
    ("seccompProfile", "`security: {seccomp: default}`"),
    ("securityContext", "`security`"),
    ("security_opt", "`security`"),
    ("services", "one document for each container, with its fields under `spec`"),
    ("sizeLimit", "`tmpfs: 64Mi`"),
    ("source", "`host`"),
    ("stop_grace_period", "`stop: {grace: 10s}`"),
    ("stop_signal", "`stop: {signal: TERM}`"),
    ("target", "`path`"),
    ("terminationGracePeriodSeconds", "`stop: {grace: 30s}`"),
    ("userns_mode", "`security: {userNamespace: false}`"),
    ("volumeMounts", "`mounts`"),
    ("volumes", "`mounts: [{host: /srv/data, path: /data}]`"),
];

/// What to write instead of a field that is known from elsewhere.
pub(super) fn instead(field: &str) -> Option<&'static str> {
    let folded = fold(field);
    HABITS.iter().find(|(name, _)| fold(name) == folded).map(|(_, write)| *write)
}

/// The word that was probably meant: the same but for case and separators, else the one with the
/// fewest changes to it, if those are few for its length.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    let most = (folded.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (distance(&folded, &fold(name)), name))
        .filter(|(changes, name)| *changes <= most && *changes < name.chars().count())
        .min_by_key(|(changes, _)| *changes)
        .map(|(_, name)| name)
}

/// Without case and separators: `read_only_root` and `readOnlyRoot` are one.
pub(super) fn fold(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-')).take(64).flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours from `a` to `b` (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_word() {
        let known = ["memory", "cpu", "pids", "io", "readOnlyRoot", "image"];
        let cases = [
            ("memroy", Some("memory")),
            ("memor", Some("memory")),
            ("Memory", Some("memory")),
            ("read_only_root", Some("readOnlyRoot")),
            ("imgae", Some("image")),
            ("cpus", Some("cpu")),
            ("x", None),
            ("", None),
            ("bandwidth", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn distance_counts_a_swap_as_one() {
        assert_eq!(distance("memroy", "memory"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
