//! A blocking Redis client that shows what is on the wire; replies are understood by the redis-protocol crate.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis_protocol::{resp2, resp3};
use rustix::net;

/// Longest wait for a connection or for more bytes of a reply.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A reply in either protocol.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(crate) enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Double(f64),
    Boolean(bool),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    /// In the order of its keys.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// The status `OK`.
    pub(crate) fn ok() -> Self {
        Self::Simple("OK".into())
    }

    /// A string.
    pub(crate) fn bulk(text: impl AsRef<[u8]>) -> Self {
        Self::Bulk(text.as_ref().to_vec())
    }

    /// The text of an error.
    pub(crate) fn error(&self) -> Option<&str> {
        if let Self::Error(text) = self { Some(text) } else { None }
    }

    /// The elements of an array.
    #[track_caller]
    pub(crate) fn array(&self) -> &[Value] {
        if let Self::Array(items) = self { items } else { panic!("{self:?} is no array") }
    }

    /// The number.
    #[track_caller]
    pub(crate) fn integer(&self) -> i64 {
        if let Self::Integer(number) = self { *number } else { panic!("{self:?} is no integer") }
    }

    /// A string or status as text.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Simple(text) => text.clone(),
            other => panic!("{other:?} is no string"),
        }
    }
}

impl From<resp2::types::BytesFrame> for Value {
    fn from(frame: resp2::types::BytesFrame) -> Self {
        use resp2::types::BytesFrame;
        match frame {
            BytesFrame::SimpleString(text) => Self::Simple(lossy(&text)),
            BytesFrame::Error(text) => Self::Error(text.to_string()),
            BytesFrame::Integer(number) => Self::Integer(number),
            BytesFrame::BulkString(bytes) => Self::Bulk(bytes.to_vec()),
            BytesFrame::Null => Self::Null,
            BytesFrame::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
        }
    }
}

impl From<resp3::types::BytesFrame> for Value {
    fn from(frame: resp3::types::BytesFrame) -> Self {
        use resp3::types::BytesFrame;
        match frame {
            BytesFrame::SimpleString { data, .. } => Self::Simple(lossy(&data)),
            BytesFrame::SimpleError { data, .. } => Self::Error(data.to_string()),
            BytesFrame::BlobError { data, .. } => Self::Error(lossy(&data)),
            BytesFrame::Number { data, .. } => Self::Integer(data),
            BytesFrame::Double { data, .. } => Self::Double(data),
            BytesFrame::Boolean { data, .. } => Self::Boolean(data),
            BytesFrame::BlobString { data, .. }
            | BytesFrame::VerbatimString { data, .. }
            | BytesFrame::BigNumber { data, .. }
            | BytesFrame::ChunkedString(data) => Self::Bulk(data.to_vec()),
            BytesFrame::Null => Self::Null,
            BytesFrame::Array { data, .. } | BytesFrame::Push { data, .. } => {
                Self::Array(data.into_iter().map(Self::from).collect())
            }
            BytesFrame::Set { data, .. } => Self::Array(sorted(data.into_iter().map(Self::from))),
            BytesFrame::Map { data, .. } => {
                Self::Map(sorted(data.into_iter().map(|(k, v)| (k.into(), v.into()))))
            }
            BytesFrame::Hello { .. } => panic!("a server does not say HELLO"),
        }
    }
}

fn lossy(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sorted<T: PartialOrd>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    items
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Resp2,
    Resp3,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    received: BytesMut,
    protocol: Protocol,
}

impl Client {
    /// Connects to a port of this machine.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::over(TcpStream::connect_timeout(&address, TIMEOUT)?)
    }

    /// The same from another address of this machine.
    pub(crate) fn connect_from(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None)?;
        net::bind(&socket, &SocketAddr::from((address, 0)))?;
        net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, received: BytesMut::new(), protocol: Protocol::Resp2 })
    }

    /// Sets the longest wait for more bytes.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("not zero");
    }

    /// Changes to RESP3 and returns what HELLO said.
    pub(crate) fn hello3(&mut self) -> Value {
        self.protocol = Protocol::Resp3;
        self.cmd(&["HELLO", "3"])
    }

    /// Sends one command and reads its reply.
    ///
    /// # Panics
    /// When the connection fails; see [`Client::try_cmd`].
    #[track_caller]
    pub(crate) fn cmd<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> Value {
        match self.try_cmd(argv) {
            Ok(value) => value,
            Err(error) => panic!("{}: {error}", shown(argv)),
        }
    }

    /// Sends one command and reads its reply.
    pub(crate) fn try_cmd<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> io::Result<Value> {
        self.send(argv)?;
        self.read()
    }

    /// Sends a command typed on one line with plain words, and reads its reply.
    #[track_caller]
    pub(crate) fn line(&mut self, line: &str) -> Value {
        self.cmd(&line.split(' ').collect::<Vec<_>>())
    }

    /// Sends one command.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> io::Result<()> {
        self.send_raw(&request(argv))
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closed, `InvalidData` for bytes that are no RESP, timeouts.
    pub(crate) fn read(&mut self) -> io::Result<Value> {
        Ok(self.read_raw()?.0)
    }

    /// Reads one reply and its bytes.
    pub(crate) fn read_raw(&mut self) -> io::Result<(Value, Bytes)> {
        loop {
            if let Some(found) = self.decode()? {
                return Ok(found);
            }
            let mut chunk = [0; 16 << 10];
            let length = self.stream.read(&mut chunk)?;
            if length == 0 {
                let rest = self.received.len();
                let text = format!("closed by the server with {rest} bytes of a reply");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            self.received.extend_from_slice(&chunk[..length]);
        }
    }

    /// True when the server closed the connection and nothing is left to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.read().is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
        })
    }

    fn decode(&mut self) -> io::Result<Option<(Value, Bytes)>> {
        if self.received.is_empty() {
            return Ok(None);
        }
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{error:?}"));
        match self.protocol {
            Protocol::Resp2 => {
                let found = resp2::decode::decode_bytes_mut(&mut self.received).map_err(invalid)?;
                Ok(found.map(|(frame, _, raw)| (frame.into(), raw)))
            }
            Protocol::Resp3 => {
                let found = resp3::decode::complete::decode_bytes_mut(&mut self.received)
                    .map_err(invalid)?;
                Ok(found.map(|(frame, _, raw)| (frame.into(), raw)))
            }
        }
    }
}

/// A command as clients send it: an array of strings.
pub(crate) fn request<A: AsRef<[u8]>>(argv: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", argv.len()).into_bytes();
    for arg in argv {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn shown<A: AsRef<[u8]>>(argv: &[A]) -> String {
    let words: Vec<_> = argv.iter().map(|arg| String::from_utf8_lossy(arg.as_ref())).collect();
    words.join(" ").chars().take(80).collect()
}
