//! Clients that mean no good, or are merely broken.

use super::super::process::{Place, instance};
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
