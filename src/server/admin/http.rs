//! The door itself: one request per connection, bounded in time, size and number.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::hosts::Hosts;
use super::limits::{
    CONNECTION_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, LOG_INTERVAL, WALK_TIMEOUT,
};
use super::pages::{self, Page, walks_all_keys};
use super::visits::{Asked, Visits};
use crate::server::house::House;
use crate::server::listener;
use crate::stdx::log_limit::LogLimit;

/// Serves operators until the node stops.
pub(in crate::server) async fn accept(
    listener: TcpListener,
    house: Arc<House>,
    hosts: Arc<Hosts>,
    mut visits: Visits,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&house) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (house, hosts) = (Arc::clone(&house), Arc::clone(&hosts));
                let asked = Asked::default();
                let serving = tokio::spawn(serve(stream, house, hosts, asked.clone()));
                visits.add(serving.abort_handle(), asked);
            }
            Err(error) => listener::pause(&error).await,
        }
    }
}

async fn stopped(house: &House) {
    house.entered().await.stopped().await;
}

async fn serve(stream: TcpStream, house: Arc<House>, hosts: Arc<Hosts>, asked: Asked) {
    let walks = Arc::new(AtomicBool::new(false));
    let service_walks = Arc::clone(&walks);
    let service = service_fn(move |request: Request<Incoming>| {
        asked.note();
        service_walks.store(walks_all_keys(request.uri()), Ordering::Relaxed);
        answer(request, Arc::clone(&house), Arc::clone(&hosts))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut served = tokio::time::timeout(CONNECTION_TIMEOUT, &mut connection).await;
    if served.is_err() && walks.load(Ordering::Relaxed) {
        served = tokio::time::timeout(WALK_TIMEOUT, connection).await;
    }
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}

/// The body of a request is never read: GET has none.
async fn answer(
    request: Request<Incoming>,
    house: Arc<House>,
    hosts: Arc<Hosts>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // Whether the node lives and serves may be asked under any name: it says nothing of what is stored.
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    if !is_probe && !is_meant(request.headers(), &hosts) {
        static REFUSALS: LogLimit = LogLimit::every(LOG_INTERVAL);
        if let Some(suppressed) = REFUSALS.permit() {
            let host = request.headers().get(HOST);
            tracing::warn!(?host, suppressed, "refused an admin request: see admin-hosts");
        }
        let text = "the Host header names no host that is known here; admin-hosts says which are\n";
        return Ok(respond(Page::text(StatusCode::MISDIRECTED_REQUEST, text)));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let page = Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
        let mut response = respond(page);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let uri = request.uri();
    Ok(respond(pages::page(&house, uri.path(), uri.query().unwrap_or("")).await))
}

/// Whether each Host header says a name that is answered. There may be none: every browser sends one.
fn is_meant(headers: &HeaderMap, hosts: &Hosts) -> bool {
    let mut names = headers.get_all(HOST).iter();
    names.all(|host| host.to_str().is_ok_and(|host| hosts.allow(host)))
}

fn respond(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::super::limits::CONNECTIONS_MAX;
    use super::*;
    use crate::node::testing::TestNode;

    /// A door of the node, and where it is.
    async fn open(test: &TestNode) -> (JoinHandle<()>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let house = House::of(Arc::clone(&test.started.node));
        let hosts = Hosts::of(&test.started.node.config().options());
        (
            tokio::spawn(accept(
                listener,
                Arc::new(house),
                Arc::new(hosts),
                Visits::new(CONNECTIONS_MAX),
            )),
            address,
        )
    }

    /// Sends `request` to a fresh door and returns all it answers.
    async fn exchange(request: &[u8]) -> String {
        let test = TestNode::start(&[]).await;
        let (door, address) = open(&test).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut reply = Vec::new();
        let reading = stream.read_to_end(&mut reply);
        // A door that refuses in the middle of a request may reset the connection: what came counts.
        let _read = tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap();
        test.started.node.stop();
        door.await.unwrap();
        String::from_utf8(reply).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_request_is_answered_and_the_connection_closed() {
        let reply = exchange(b"GET /healthz HTTP/1.1\r\nHost: localhost:9100\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(reply.ends_with("\r\n\r\nok\n"), "{reply}");
    }

    /// Faults, row D7: `/healthz` waited for five seconds.
    #[tokio::test(flavor = "current_thread")]
    async fn silent_connections_delay_nobody() {
        let test = TestNode::start(&[]).await;
        let (door, address) = open(&test).await;
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        let reading = stream.read_to_string(&mut reply);
        let _read = tokio::time::timeout(HEAD_TIMEOUT / 2, reading).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        let closed = silent[0].read(&mut [0]).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "the oldest gave way");
        test.started.node.stop();
        door.await.unwrap();
    }

    /// Faults, row D3: the name of a page whose owner lets it resolve to this address.
    #[tokio::test(flavor = "current_thread")]
    async fn a_name_of_somebody_else_is_refused() {
        for hosts in ["Host: evil.example.com\r\n", "Host: localhost\r\nHost: evil.example.com\r\n"]
        {
            let request = format!("GET /api/topology HTTP/1.1\r\n{hosts}\r\n");
            let reply = exchange(request.as_bytes()).await;
            assert!(reply.starts_with("HTTP/1.1 421 "), "{reply}");
            assert!(!reply.contains("cluster"), "{reply}");
        }
        let reply = exchange(b"GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.0 200 "), "{reply}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn other_methods_are_refused() {
        let reply =
            exchange(b"POST /healthz HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 405 "), "{reply}");
        assert!(reply.to_lowercase().contains("allow: get, head"), "{reply}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_no_http_or_too_long_is_refused() {
        let garbage = exchange(b"\x16\x03\x01 hello\r\n\r\n").await;
        assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
        let reply = exchange(long.as_bytes()).await;
        assert!(!reply.contains("200 OK"), "{reply}");
    }
}
