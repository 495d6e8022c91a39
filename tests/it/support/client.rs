//! A blocking Redis client that shows what is on the wire.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net;

use super::reply::Reader;
pub(crate) use super::reply::Value;

/// Longest wait for a connection or for more bytes of a reply.
const TIMEOUT: Duration = Duration::from_secs(20);

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

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    received: Reader,
}

impl Client {
    /// Connects to a port of this machine.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::over(TcpStream::connect_timeout(&address, TIMEOUT)?)
    }

    /// Connects to `host:port`.
    pub(crate) fn connect_to(address: &str) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
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
        Ok(Self { stream, received: Reader::default() })
    }

    /// Sets the longest wait for more bytes.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("not zero");
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

    /// Takes so many bytes of replies away unread, and what has come with them.
    pub(crate) fn skip(&mut self, bytes: usize) -> io::Result<()> {
        let mut chunk = vec![0; 256 << 10];
        let mut skipped = 0;
        while skipped < bytes {
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => skipped += read,
            }
        }
        Ok(())
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closed, `InvalidData` for bytes that are no RESP, timeouts.
    pub(crate) fn read(&mut self) -> io::Result<Value> {
        let invalid = |wrong| io::Error::new(io::ErrorKind::InvalidData, wrong);
        loop {
            if let Some(found) = self.received.next_reply().map_err(invalid)? {
                return Ok(found);
            }
            let mut chunk = [0; 16 << 10];
            let length = self.stream.read(&mut chunk)?;
            if length == 0 {
                let within = if self.received.is_empty() { "" } else { " within a reply" };
                let text = format!("closed by the server{within}");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            self.received.feed(&chunk[..length]);
        }
    }

    /// True when the server closed the connection and nothing is left to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.read().is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
        })
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
