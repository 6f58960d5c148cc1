//! A message bus, as far as it takes to talk to systemd: method calls, their replies, and signals.
//!
//! Written by hand, because what is needed is small: a handful of calls over a socket of the host with
//! arguments of eight types. A library for all of D-Bus brings an async runtime, and would more than
//! double a program that is copied into memory at every start (D-Bus Specification, "Message Protocol").

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("connecting to systemd over {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the message bus refuses us: {0}")]
    Authentication(String),
    #[error("talking to systemd")]
    Talk(#[source] io::Error),
    #[error("{0} of the message bus cannot be read")]
    Malformed(&'static str),
    #[error("systemd's {method}: {message} ({name})")]
    Refused { method: &'static str, name: String, message: String },
}

/// An argument of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    Text(String),
    Flag(bool),
    Number(u64),
    Numbers32(Vec<u32>),
    Bytes(Vec<u8>),
    /// A path and a number each: `a(st)`.
    PathsAndNumbers(Vec<(String, u64)>),
    /// Names, each with a value of any type: `a(sv)`.
    Properties(Vec<(String, Argument)>),
    /// None of `a(sa(sv))`.
    NoUnits,
}

/// The bus, which a reply is waited for on.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: Vec<Message>,
}

/// What came from the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    kind: u8,
    reply_to: Option<u32>,
    pub member: String,
    error: String,
    body: Vec<u8>,
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
}

const DAEMON: Target =
    Target { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Much less than the specification's 128 MiB: what we ask for has short answers.
const LONGEST: usize = 1 << 20;
/// A job of systemd's may take a while on a host that is busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Bus {
    /// Connects to the system's bus; where none is there, to systemd itself, which speaks the same language on
    /// a socket for root alone.
    pub fn system() -> Result<Self, BusError> {
        let given = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok();
        let given = given.as_deref().and_then(|address| address.strip_prefix("unix:path="));
        let path = given.map_or("/run/dbus/system_bus_socket", |path| path.split([',', ';']).next().unwrap_or(path));
        match Self::connect(Path::new(path)) {
            Ok(mut bus) => {
                bus.call(DAEMON, "Hello", &[])?;
                Ok(bus)
            }
            Err(BusError::Connect { .. }) => Self::connect(Path::new("/run/systemd/private")),
            Err(error) => Err(error),
        }
    }

    fn connect(path: &Path) -> Result<Self, BusError> {
        let failed = |source| BusError::Connect { path: path.to_owned(), source };
        let mut stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_WITHIN)).map_err(failed)?;
        authenticate(&mut stream)?;
        Ok(Self { stream, serial: 0, signals: Vec::new() })
    }

    /// Asks for signals to be sent here.
    pub fn listen(&mut self, rule: &str) -> Result<(), BusError> {
        match self.call(DAEMON, "AddMatch", &[Argument::Text(rule.to_owned())]) {
            // systemd itself is no bus, and sends its signals to everybody.
            Err(BusError::Refused { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Calls a method and waits for its reply.
    pub fn call(&mut self, target: Target, method: &'static str, arguments: &[Argument]) -> Result<Message, BusError> {
        self.serial += 1;
        let serial = self.serial;
        let message = marshal(serial, target, method, arguments);
        self.stream.write_all(&message).map_err(BusError::Talk)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                SIGNAL => self.signals.push(message),
                RETURN if message.reply_to == Some(serial) => return Ok(message),
                ERROR if message.reply_to == Some(serial) => {
                    let text = message.texts().unwrap_or_default().into_iter().next().unwrap_or_default();
                    return Err(BusError::Refused { method, name: message.error, message: text });
                }
                _ => {}
            }
        }
    }

    /// The next signal, whether it has come already or not.
    pub fn signal(&mut self) -> Result<Message, BusError> {
        if !self.signals.is_empty() {
            return Ok(self.signals.remove(0));
        }
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> Result<Message, BusError> {
        let mut start = [0; 16];
        self.stream.read_exact(&mut start).map_err(BusError::Talk)?;
        let length = length_of(&start)?;
        let mut whole = start.to_vec();
        whole.resize(length, 0);
        self.stream.read_exact(&mut whole[16..]).map_err(BusError::Talk)?;
        unmarshal(&whole)
    }
}

/// As the user that we are, which the kernel tells the other side (SASL EXTERNAL).
fn authenticate(stream: &mut UnixStream) -> Result<(), BusError> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let name: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {name}\r\n").as_bytes()).map_err(BusError::Talk)?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(BusError::Talk)?;
        line.push(byte[0]);
        if line.len() > 1024 {
            return Err(BusError::Malformed("the answer"));
        }
    }
    if !line.starts_with(b"OK ") {
        return Err(BusError::Authentication(String::from_utf8_lossy(&line).trim().to_owned()));
    }
    stream.write_all(b"BEGIN\r\n").map_err(BusError::Talk)
}

impl Argument {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Flag(_) => "b",
            Self::Number(_) => "t",
            Self::Numbers32(_) => "au",
            Self::Bytes(_) => "ay",
            Self::PathsAndNumbers(_) => "a(st)",
            Self::Properties(_) => "a(sv)",
            Self::NoUnits => "a(sa(sv))",
        }
    }
}

/// Bytes as the protocol lays them out, little end first.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn word(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn long(&mut self, number: u64) {
        self.align(8);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.word(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array: its length is that of the elements alone, without what aligns the first one.
    fn array(&mut self, align: usize, fill: impl FnOnce(&mut Self)) {
        self.word(0);
        let at = self.0.len() - 4;
        self.align(align);
        let from = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - from).unwrap_or(u32::MAX);
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn argument(&mut self, argument: &Argument) {
        match argument {
            Argument::Text(text) => self.text(text),
            Argument::Flag(flag) => self.word(u32::from(*flag)),
            Argument::Number(number) => self.long(*number),
            Argument::Numbers32(numbers) => {
                self.array(4, |writer| numbers.iter().for_each(|number| writer.word(*number)))
            }
            Argument::Bytes(bytes) => self.array(1, |writer| writer.0.extend(bytes)),
            Argument::PathsAndNumbers(pairs) => self.array(8, |writer| {
                for (path, number) in pairs {
                    writer.align(8);
                    writer.text(path);
                    writer.long(*number);
                }
            }),
            Argument::Properties(properties) => self.array(8, |writer| {
                for (name, value) in properties {
                    writer.align(8);
                    writer.text(name);
                    writer.signature(value.signature());
                    writer.argument(value);
                }
            }),
            Argument::NoUnits => self.array(8, |_| {}),
        }
    }
}

const PATH_FIELD: u8 = 1;
const INTERFACE_FIELD: u8 = 2;
const MEMBER_FIELD: u8 = 3;
const ERROR_FIELD: u8 = 4;
const REPLY_FIELD: u8 = 5;
const DESTINATION_FIELD: u8 = 6;
const SIGNATURE_FIELD: u8 = 8;

fn marshal(serial: u32, target: Target, method: &str, arguments: &[Argument]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.argument(argument));
    let mut message = Writer(vec![b'l', CALL, 0, 1]);
    message.word(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    message.word(serial);
    message.array(8, |writer| {
        let texts = [
            (PATH_FIELD, "o", target.path),
            (INTERFACE_FIELD, "s", target.interface),
            (MEMBER_FIELD, "s", method),
            (DESTINATION_FIELD, "s", target.destination),
        ];
        for (field, signature, text) in texts {
            writer.align(8);
            writer.0.push(field);
            writer.signature(signature);
            writer.text(text);
        }
        if !arguments.is_empty() {
            writer.align(8);
            writer.0.push(SIGNATURE_FIELD);
            writer.signature("g");
            writer.signature(&arguments.iter().map(Argument::signature).collect::<String>());
        }
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// How long a message is that begins so.
fn length_of(start: &[u8; 16]) -> Result<usize, BusError> {
    let malformed = BusError::Malformed("a message");
    // Its sender chooses the order of bytes, and ours is the only one on this machine.
    if start[0] != b'l' || start[3] != 1 {
        return Err(malformed);
    }
    let number = |at: usize| {
        let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
        usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (body, fields) = (number(4), number(12));
    if body > LONGEST || fields > LONGEST {
        return Err(malformed);
    }
    Ok((16 + fields).next_multiple_of(8) + body)
}

/// Reads what a [`Writer`] at the other end has written.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn ended(&mut self, length: usize) -> Option<String> {
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.byte()? == 0).then_some(text)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.word()?).ok()?;
        self.ended(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.ended(length.into())
    }
}

fn unmarshal(whole: &[u8]) -> Result<Message, BusError> {
    parse(whole).ok_or(BusError::Malformed("a message"))
}

fn parse(whole: &[u8]) -> Option<Message> {
    let mut reader = Reader { bytes: whole, at: 1 };
    let kind = reader.byte()?;
    reader.at = 12;
    let end = usize::try_from(reader.word()?).ok()?.checked_add(reader.at)?;
    let mut message = Message { kind, reply_to: None, member: String::new(), error: String::new(), body: Vec::new() };
    while reader.at < end {
        reader.align(8);
        let field = reader.byte()?;
        match (field, reader.signature()?.as_str()) {
            (REPLY_FIELD, "u") => message.reply_to = Some(reader.word()?),
            (MEMBER_FIELD, "s") => message.member = reader.text()?,
            (ERROR_FIELD, "s") => message.error = reader.text()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.word()?),
            _ => return None,
        }
    }
    reader.align(8);
    message.body = whole.get(reader.at..)?.to_vec();
    Some(message)
}

impl Message {
    /// The texts and paths that the body begins with.
    fn texts(&self) -> Option<Vec<String>> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let mut texts = Vec::new();
        while reader.at < self.body.len() {
            let Some(text) = reader.text() else { break };
            texts.push(text);
        }
        Some(texts)
    }

    /// The body as one path or text.
    pub fn text(&self) -> Result<String, BusError> {
        let first = self.texts().and_then(|texts| texts.into_iter().next());
        first.ok_or(BusError::Malformed("a reply"))
    }

    /// The body as a number and three texts: `uoss`.
    pub fn number_and_texts(&self) -> Result<(u32, [String; 3]), BusError> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let mut read = || Some((reader.word()?, [reader.text()?, reader.text()?, reader.text()?]));
        read().ok_or(BusError::Malformed("a signal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MANAGER: Target = Target { destination: "a.b", path: "/a", interface: "a.b.C" };

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let bytes = marshal(7, MANAGER, "Go", &[Argument::Text("x".to_owned()), Argument::Flag(true)]);

        let expected: &[u8] = &[
            b'l', 1, 0, 1, 12, 0, 0, 0, 7, 0, 0, 0, 69, 0, 0,
            0, // length of the body, serial, length of the fields
            1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'a', 0, 0, 0, 0, 0, 0, // path
            2, 1, b's', 0, 5, 0, 0, 0, b'a', b'.', b'b', b'.', b'C', 0, 0, 0, // interface
            3, 1, b's', 0, 2, 0, 0, 0, b'G', b'o', 0, 0, 0, 0, 0, 0, // member
            6, 1, b's', 0, 3, 0, 0, 0, b'a', b'.', b'b', 0, 0, 0, 0, 0, // destination
            8, 1, b'g', 0, 2, b's', b'b', 0, // signature
        ];
        let mut expected = expected.to_vec();
        let fields = u32::try_from(expected.len() - 16).unwrap();
        expected[12..16].copy_from_slice(&fields.to_le_bytes());
        expected.extend([1, 0, 0, 0, b'x', 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes, expected);
        assert_eq!(length_of(bytes[..16].try_into().unwrap()).unwrap(), bytes.len());
    }

    #[test]
    fn arrays_have_the_length_of_their_elements_alone() {
        let mut writer = Writer::default();
        writer.word(9);
        writer.argument(&Argument::Properties(vec![("Delegate".to_owned(), Argument::Flag(true))]));

        let expected = [
            9, 0, 0, 0, 20, 0, 0, 0, 8, 0, 0, 0, b'D', b'e', b'l', b'e', b'g', b'a', b't', b'e', 0, 1, b'b', 0, 1, 0,
            0, 0,
        ];
        assert_eq!(writer.0, expected);
        let mut empty = Writer::default();
        empty.argument(&Argument::NoUnits);
        assert_eq!(empty.0, [0; 8]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = marshal(3, MANAGER, "JobRemoved", &[Argument::Text("/job/1".to_owned())]);
        bytes[1] = SIGNAL;

        let message = unmarshal(&bytes).unwrap();

        assert_eq!(
            (message.kind, message.member.as_str(), message.text().unwrap().as_str()),
            (SIGNAL, "JobRemoved", "/job/1")
        );
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_fall(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut whole = marshal(3, MANAGER, "JobRemoved", &[Argument::Text("x".to_owned())]);
            for (at, byte) in bytes.iter().enumerate().filter(|(at, _)| at % 3 == 0) {
                if let Some(place) = whole.get_mut(at) {
                    *place ^= byte;
                }
            }
            if let Ok(message) = unmarshal(&whole) {
                let _ = (message.text(), message.number_and_texts());
            }
            let _ = unmarshal(&bytes);
        }
    }
}
