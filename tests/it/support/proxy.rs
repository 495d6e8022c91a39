//! A TCP proxy between two nodes that can be cut, fall silent, or be slow.
//!
//! A silent link keeps what it was given and delivers it when the link comes back, as a network with TCP's
//! retransmissions does: old messages arrive late, which is the harder case.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::ports::Port;

/// How a link behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Bytes pass at once.
    Open,
    /// Every connection is closed, new ones too.
    Cut,
    /// Connections stay, nothing passes until the link is open again.
    Silent,
    /// Every piece that is read waits this long.
    Slow(Duration),
    /// The proxy ends.
    Closed,
}

#[derive(Debug)]
struct State {
    link: Link,
    connections: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    target: u16,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Waits while the link is silent; false when the connection must end.
    fn may_pass(&self) -> bool {
        let mut state = self.state();
        while state.link == Link::Silent {
            state = self.changed.wait(state).expect("no holder panics");
        }
        match state.link {
            Link::Open | Link::Silent => true,
            Link::Cut | Link::Closed => false,
            Link::Slow(delay) => {
                drop(state);
                thread::sleep(delay);
                true
            }
        }
    }
}

/// One directed link: whoever connects here reaches the target.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: Port,
    shared: Arc<Shared>,
}

impl Proxy {
    /// An open link to `target` on this machine.
    pub(crate) fn start(target: u16) -> Self {
        let port = Port::reserve();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).expect("a reserved port");
        let state = Mutex::new(State { link: Link::Open, connections: Vec::new() });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), target });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { port, shared }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Changes the link's behaviour, also for open connections.
    pub(crate) fn set(&self, link: Link) {
        let mut state = self.shared.state();
        state.link = link;
        if matches!(link, Link::Cut | Link::Closed) {
            for connection in state.connections.drain(..) {
                shut(&connection);
            }
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Link::Closed);
        // The accepting thread looks at the link after each connection: this one ends it.
        drop(TcpStream::connect(("127.0.0.1", self.port())));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming().flatten() {
        let link = shared.state().link;
        match link {
            Link::Closed => return,
            Link::Cut => continue,
            Link::Open | Link::Silent | Link::Slow(_) => {}
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", shared.target)) else { continue };
        let pair = || Ok::<_, std::io::Error>((near.try_clone()?, far.try_clone()?));
        let (Ok(forward), Ok(backward), Ok(kept)) = (pair(), pair(), pair()) else { continue };
        for stream in [&near, &far] {
            stream.set_nodelay(true).expect("an open socket");
        }
        {
            let mut state = shared.state();
            if matches!(state.link, Link::Cut | Link::Closed) {
                shut(&near);
                shut(&far);
                continue;
            }
            state.connections.extend([kept.0, kept.1]);
        }
        let (there, back) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || pump(&there, forward.0, forward.1));
        thread::spawn(move || pump(&back, backward.1, backward.0));
    }
}

/// Carries bytes one way until either side or the link ends.
fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if !shared.may_pass() || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The end of a connection is news too, and must not pass a silent link.
    let _may_pass = shared.may_pass();
    shut(&from);
    shut(&to);
}

fn shut(stream: &TcpStream) {
    // An error means that it is closed already.
    drop(stream.shutdown(Shutdown::Both));
}

#[test]
fn a_link_can_be_cut_and_fall_silent() {
    use super::client::Client;

    let target = Port::reserve();
    let listener = TcpListener::bind(("127.0.0.1", target.number())).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read(&mut byte).is_ok_and(|length| length > 0) {
                    stream.write_all(b"+ECHO\r\n").unwrap();
                }
            });
        }
    });
    let proxy = Proxy::start(target.number());
    let mut client = Client::connect(proxy.port()).unwrap();
    client.send_raw(b"x").unwrap();
    assert_eq!(client.read().unwrap().text(), "ECHO");

    proxy.set(Link::Silent);
    client.send_raw(b"x").unwrap();
    client.set_timeout(Duration::from_millis(100));
    assert!(client.read().is_err(), "nothing passes a silent link");
    client.set_timeout(Duration::from_secs(5));
    proxy.set(Link::Open);
    assert_eq!(client.read().unwrap().text(), "ECHO", "and nothing is lost on it");

    proxy.set(Link::Slow(Duration::from_millis(50)));
    let start = super::now_us();
    client.send_raw(b"x").unwrap();
    assert_eq!(client.read().unwrap().text(), "ECHO");
    assert!(super::now_us() - start >= 100_000, "both ways wait");

    proxy.set(Link::Cut);
    assert!(client.is_closed());
    assert!(Client::connect(proxy.port()).is_ok_and(|mut client| client.is_closed()));
    proxy.set(Link::Open);
    let mut client = Client::connect(proxy.port()).unwrap();
    client.send_raw(b"x").unwrap();
    assert_eq!(client.read().unwrap().text(), "ECHO");
}
