//! Clients that mean no good, or are merely broken.

use super::super::process::{Place, instance, open_files, wait_until};
use crate::keeper::{Event, Fault};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::OwnedFd;

fn raw(place: &Place) -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(place.path().join("keeper.sock")).unwrap()).unwrap();
    socket
}

fn send(socket: &OwnedFd, bytes: &[u8]) {
    rustix::net::send(socket, bytes, SendFlags::NOSIGNAL).unwrap();
}

fn answer(socket: &OwnedFd) -> String {
    let mut buffer = [0; 4096];
    let (_, length) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
#[ignore = "needs root"]
fn nonsense_ends_its_connection_and_no_other() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    place.start(&agent, &id, "exec sleep 1000").unwrap();

    for nonsense in [&b"p{{{"[..], b"x", b"m", b"p", &[b'p'; 9000], b"p{\"id\":-1}"] {
        let socket = raw(&place);
        send(&socket, nonsense);
        assert_eq!(answer(&socket), "", "the keeper hangs up on {nonsense:?}");
    }

    assert_eq!(agent.client.list().unwrap().len(), 1);
    agent.client.signal(&id, libc::SIGKILL).unwrap();
    agent.exit_of(&id);
}

#[test]
#[ignore = "needs root"]
fn an_unknown_request_is_refused_by_its_number() {
    let place = Place::new();
    let keeper = place.keeper();
    let _agent = keeper.connect();
    let socket = raw(&place);

    send(&socket, br#"p{"id":1,"body":"list"}"#);
    let early = answer(&socket);
    send(&socket, br#"p{"id":2,"body":{"hello":{"oldest":7,"newest":9}}}"#);
    let strange = answer(&socket);
    send(&socket, br#"p{"id":3,"body":{"hello":{"oldest":1,"newest":9,"new":true}},"more":1}"#);
    let welcome = answer(&socket);
    send(&socket, br#"p{"id":4,"body":{"dance":{}}}"#);
    let unknown = answer(&socket);

    assert!(early.contains("first message must be hello"), "{early}");
    assert!(strange.contains("speaks versions 1 to 1"), "{strange}");
    assert!(welcome.contains(r#""welcome":{"version":1}"#), "{welcome}");
    assert!(unknown.contains(r#""id":4"#) && unknown.contains("dance"), "{unknown}");
}

#[test]
#[ignore = "needs root"]
fn an_agent_that_reads_nothing_is_cut_off_and_holds_nobody_up() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    let deaf = raw(&place);
    send(&deaf, br#"p{"id":1,"body":{"hello":{"oldest":1,"newest":1}}}"#);
    rustix::io::ioctl_fionbio(&deaf, true).unwrap();

    // Answers that nobody reads fill the socket, then the queue.
    let cut_off =
        (0..1_000_000).any(|_| match rustix::net::send(&deaf, br#"p{"id":2,"body":"list"}"#, SendFlags::NOSIGNAL) {
            Ok(_) => false,
            Err(rustix::io::Errno::AGAIN) => {
                std::thread::yield_now();
                false
            }
            Err(_) => true,
        });

    assert!(cut_off);
    place.start(&agent, &id, "exit 0").unwrap();
    agent.exit_of(&id);
}

#[test]
#[ignore = "needs root"]
fn a_second_agent_hears_the_same() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let (first, second) = (keeper.connect(), keeper.connect());

    place.start(&first, &id, "exit 5").unwrap();

    assert_eq!(first.exit_of(&id), second.exit_of(&id));
}

#[test]
#[ignore = "needs root"]
fn a_keeper_that_dies_fails_the_calls_that_wait() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    place.start(&agent, &id, "exit 0").unwrap();

    keeper.kill();
    agent.event(|event| matches!(event, Event::Lost).then_some(()));
    let error = agent.client.list().unwrap_err();

    assert!(error.is_transient() && error.fault() != Some(Fault::Other));
    assert_eq!(error.to_string(), "the connection to the keeper was lost");
}

/// What a client may do that is broken, killed in the middle, or means harm.
fn misbehave(place: &Place, what: u64) {
    let socket = raw(place);
    let hello = br#"p{"id":1,"body":{"hello":{"oldest":1,"newest":1}}}"#;
    let memory = rustix::fs::memfd_create("loose", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    // The keeper may hang up at any time; sending into that is no failure of the test.
    let say = |bytes: &[u8]| {
        let _ = rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL);
    };
    let give = |bytes: &[u8], count: usize| {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};
        let many = vec![std::os::fd::AsFd::as_fd(&memory); count];
        let mut space = vec![std::mem::MaybeUninit::uninit(); 4096];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        let _ = sendmsg(&socket, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
    };
    match what % 9 {
        0 => {}
        // Cut off in the middle.
        1 => say(&hello[..20]),
        2 => say(&[b'p'; 9000]),
        3 => give(b"m", 1),
        4 => give(hello, 200),
        5 => {
            say(hello);
            give(br#"p{"id":2,"body":{"exec":{"instance":"test_keeper.1","terminal":false}}}"#, 3);
        }
        // Asks and does not wait for the answers.
        6 => {
            say(hello);
            (0..100).for_each(|_| say(br#"p{"id":3,"body":"list"}"#));
        }
        // Sends what nobody asked for, with descriptors.
        7 => {
            say(hello);
            (0..20).for_each(|_| give(br#"p{"id":4,"body":"ping"}"#, 4));
        }
        _ => {
            say(hello);
            say(br#"p{"id":5,"body":{"start":{"instance":"test_keeper.2"}}}"#);
            say(&[0, 255, 1, 2]);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_storm_of_broken_clients_leaves_the_keeper_as_it_was() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    place.start(&agent, &id, "exec sleep 1000").unwrap();
    let before = open_files(keeper.pid());

    std::thread::scope(|scope| {
        for storm in 0..4 {
            let place = &place;
            scope.spawn(move || (0..300).for_each(|number| misbehave(place, storm + number)));
        }
    });

    // Those that have gone are noticed one after the other.
    wait_until(|| agent.client.stats().unwrap().connections == 1);
    assert_eq!(open_files(keeper.pid()), before);
    let handles = agent.client.list().unwrap();
    assert_eq!(handles.iter().map(|handle| &handle.instance).collect::<Vec<_>>(), [&id]);
    agent.client.signal(&id, libc::SIGKILL).unwrap();
    assert_eq!(agent.exit_of(&id).signal, Some(libc::SIGKILL));
}
