use super::*;

const BASE: &str = "{image: 'host:/', command: [run], env: {TOKEN: old}, resources: {memory: {limit: 512Mi}}}";

fn object(yaml: &str) -> Object {
    Object {
        id: "Container/default/web".to_owned().try_into().unwrap(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        spec: serde_yaml::from_str(yaml).unwrap(),
    }
}

/// `BASE` with some top-level fields of `spec` replaced.
fn with(fields: &str) -> Object {
    let mut spec: serde_yaml::Mapping = serde_yaml::from_str(BASE).unwrap();
    spec.extend(serde_yaml::from_str::<serde_yaml::Mapping>(fields).unwrap());
    object(&serde_yaml::to_string(&spec).unwrap())
}

#[test]
fn every_field_has_the_class_that_the_rules_give_it() {
    let cases = [
        ("{desiredState: stopped}", Class::None, "spec.desiredState"),
        ("{health: {liveness: {exec: [x]}}}", Class::None, "spec.health.liveness"),
        ("{health: {startup: {tcp: {port: 1}}}}", Class::None, "spec.health.startup"),
        ("{health: {readiness: {tcp: {port: 1}}}}", Class::None, "spec.health.readiness"),
        ("{restart: {policy: never}}", Class::None, "spec.restart.policy"),
        ("{restart: {backoff: {min: 3s, max: 5m}}}", Class::None, "spec.restart.backoff.min"),
        ("{stop: {grace: 3s}}", Class::None, "spec.stop.grace"),
        ("{stop: {signal: INT}}", Class::None, "spec.stop.signal"),
        ("{logs: {files: 2}}", Class::None, "spec.logs.files"),
        ("{deletionPolicy: Confirm}", Class::None, "spec.deletionPolicy"),
        ("{resources: {memory: {limit: 1Gi}}}", Class::Live, "spec.resources.memory.limit"),
        ("{resources: {memory: {limit: 512Mi}, cpu: {limit: 2}}}", Class::Live, "spec.resources.cpu.limit"),
        ("{resources: {memory: {limit: 512Mi}, cpu: {cpuset: '0-1'}}}", Class::Live, "spec.resources.cpu.cpuset"),
        ("{resources: {memory: {limit: 512Mi}, pids: {limit: 9}}}", Class::Live, "spec.resources.pids.limit"),
        ("{resources: {memory: {limit: 512Mi}, io: {weight: 9}}}", Class::Live, "spec.resources.io.weight"),
        ("{resources: {memory: {limit: 512Mi}, hugepages: {2Mi: 4Mi}}}", Class::Live, "spec.resources.hugepages.2Mi"),
        ("{command: [other]}", Class::Restart, "spec.command"),
        ("{args: [-v]}", Class::Restart, "spec.args"),
        ("{init: true}", Class::Restart, "spec.init"),
        ("{env: {TOKEN: new}}", Class::Restart, "spec.env.TOKEN"),
        ("{workingDir: /tmp}", Class::Restart, "spec.workingDir"),
        ("{user: 1000}", Class::Restart, "spec.user"),
        ("{hostname: h}", Class::Restart, "spec.hostname"),
        ("{mounts: [{path: /t, tmpfs: 1Mi}]}", Class::Restart, "spec.mounts"),
        ("{security: {capabilities: {drop: [ALL]}}}", Class::Restart, "spec.security.capabilities.drop"),
        ("{security: {seccomp: unconfined}}", Class::Restart, "spec.security.seccomp"),
        ("{security: {noNewPrivileges: false}}", Class::Restart, "spec.security.noNewPrivileges"),
        ("{security: {readOnlyRoot: true}}", Class::Restart, "spec.security.readOnlyRoot"),
        ("{security: {userNamespace: false}}", Class::Recreate, "spec.security.userNamespace"),
        ("{network: host}", Class::Recreate, "spec.network"),
        ("{image: 'rootfs:/srv/x'}", Class::Recreate, "spec.image"),
    ];
    for (fields, class, field) in cases {
        let changes = between_objects(&object(BASE), &with(fields));
        assert_eq!(changes.len(), 1, "{fields}: {changes:?}");
        assert_eq!((changes[0].field.as_str(), changes[0].class), (field, class), "{fields}");
        assert_eq!(class_between(&object(BASE), &with(fields)), class, "{fields}");
        assert!(table().iter().any(|row| field.starts_with(row.field)), "{field} has a row");
    }
}

#[test]
fn the_value_of_an_environment_variable_is_never_told() {
    let changes = between_objects(&object(BASE), &with("{env: {TOKEN: hunter2, MORE: hunter3}}"));

    let told = format!("{changes:?} {} {}", changes[0], changes[1]);
    assert!(!told.contains("hunter") && !told.contains("old\""), "{told}");
    assert!(told.contains("env.TOKEN changed"), "{told}");
}

#[test]
fn a_change_reads_as_a_person_would_say_it() {
    let changes = between_objects(&object(BASE), &with("{resources: {memory: {limit: 1Gi}}}"));

    assert_eq!(changes[0].to_string(), "memory.limit 512Mi → 1Gi");
}

#[test]
fn labels_change_one_by_one() {
    let mut new = object(BASE);
    new.labels.insert("app".into(), "web".into());

    let changes = between_objects(&object(BASE), &new);

    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].to_string(), "labels.app set to web");
    assert_eq!(changes[0].class, Class::None);
}
