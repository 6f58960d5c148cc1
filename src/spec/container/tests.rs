use super::*;
use proptest::prelude::*;

#[test]
fn a_user_is_a_number_or_a_name_and_nothing_between() {
    for text in ["0", "1000", "65535", "1000:1000", "nobody", "www-data:adm", "_apt"] {
        assert_eq!(text.parse::<User>().unwrap().to_string(), text);
    }
    for text in [
        "",
        ":",
        "1000:",
        ":1000",
        "-1",
        "65536",
        "1000:65536",
        "99999999999",
        "1x",
        "a b",
        "a:b:c",
        "a/b",
        "+1",
        "0x1",
    ] {
        assert!(text.parse::<User>().is_err(), "{text:?}");
    }
    assert_eq!("007".parse::<User>().unwrap().user, IdSpec::Id(7));
}

#[test]
fn signals_have_their_numbers() {
    let cases = [
        ("TERM", 15),
        ("SIGKILL", 9),
        ("HUP", 1),
        ("SYS", 31),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX", 64),
        ("RTMAX-14", 50),
    ];
    for (text, number) in cases {
        assert_eq!(Signal::try_from(text.to_owned()).unwrap().number(), number, "{text}");
    }
    for text in ["", "SIG", "15", "term", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+", "SIGSIGTERM", "RTMIN+300"] {
        assert!(Signal::try_from(text.to_owned()).is_err(), "{text:?}");
    }
}

fn capability(text: &str) -> Capability {
    Capability::try_from(text.to_owned()).unwrap()
}

#[test]
fn capabilities_are_dropped_before_they_are_added() {
    let bind = Capabilities { drop: [capability("ALL")].into(), add: [capability("cap_net_bind_service")].into() };
    let none = Capabilities { drop: [capability("all")].into(), add: BTreeSet::new() };
    let less = Capabilities { drop: [capability("CHOWN")].into(), add: BTreeSet::new() };

    assert_eq!(bind.mask(), 1 << 10);
    assert_eq!(none.mask(), 0);
    assert_eq!(less.mask(), Capabilities::DEFAULT & !1);
    assert_eq!(capability("ALL").mask(), (1 << 41) - 1);
    assert_eq!(capability("CHECKPOINT_RESTORE").mask(), 1 << 40);
    let message = Capability::try_from("NET_ADMINN".to_owned()).unwrap_err().to_string();
    assert_eq!(message, "\"NET_ADMINN\" is not a capability of capabilities(7) (did you mean NET_ADMIN?)");
}

#[test]
fn a_seccomp_profile_is_one_of_three_things() {
    for text in ["default", "unconfined", "file:/etc/profile.json"] {
        assert_eq!(String::from(Seccomp::try_from(text.to_owned()).unwrap()), text);
    }
    for text in ["", "none", "file:profile.json", "/etc/profile.json"] {
        assert!(Seccomp::try_from(text.to_owned()).is_err(), "{text:?}");
    }
}

#[test]
fn a_mount_is_exactly_one_thing() {
    let path: AbsolutePath = "/data".parse().unwrap();
    let mount =
        |host: Option<&AbsolutePath>, tmpfs| Mount { path: path.clone(), host: host.cloned(), tmpfs, read_only: false };

    assert_eq!(mount(Some(&path), None).source(), Some(MountSource::Host(&path)));
    assert_eq!(mount(None, Some(Bytes(1))).source(), Some(MountSource::Tmpfs(Bytes(1))));
    assert_eq!(mount(None, None).source(), None);
    assert_eq!(mount(Some(&path), Some(Bytes(1))).source(), None);
}

#[test]
fn a_container_survives_the_database() {
    let text = r#"{"image": "host:/", "command": ["sleep"], "env": {"A": "b"}, "user": "1000:adm"}"#;
    let container: Container = serde_json::from_str(text).unwrap();

    let again: Container = serde_json::from_str(&serde_json::to_string(&container).unwrap()).unwrap();

    assert_eq!(again, container);
    assert!(container.security.user_namespace && container.security.no_new_privileges);
}

proptest! {
    #[test]
    fn any_text_is_a_user_or_an_error(text in "[a-z0-9:_.-]{0,20}|\\PC{0,8}") {
        if let Ok(user) = text.parse::<User>() {
            prop_assert_eq!(user.to_string().parse::<User>().unwrap(), user);
        }
    }
}
