//! The listener: on real sockets, in real time, with bounded waits.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{life::life, open, state};
use crate::{
    http::{Access, Options, State, serve},
    journal::Journal,
};

const DUE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    journal: Arc<dyn Journal>,
    state: Arc<State>,
    stop: CancellationToken,
    serving: JoinSet<io::Result<()>>,
    _directory: TempDir,
}

impl Server {
    async fn start(adjust: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(Access::Loopback);
        adjust(&mut options);
        let directory = tempfile::tempdir().unwrap();
        let journal = open(&directory).await;
        let state = state(journal.clone(), &directory, options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, state.clone(), stop.clone()));
        Self { address, journal, state, stop, serving, _directory: directory }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything that the server says to this until it closes.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        // The server may close before it has read all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        read_to_end(&mut stream).await
    }

    async fn is_well(&self) -> bool {
        self.exchange("GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    }

    async fn stream(&self, path: &str) -> TcpStream {
        let mut stream = self.connect().await;
        ask(&mut stream, path).await;
        stream
    }

    /// Returns once fewer than so many connections are open.
    async fn closes(&self, count: i64) {
        while self.state.metrics.counts().0 >= count {
            tokio::task::yield_now().await;
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        timeout(DUE, self.serving.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = timeout(DUE, stream.read_to_end(&mut text)).await.expect("the server closes");
    String::from_utf8_lossy(&text).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut part = [0; 4096];
    let mut searched = 0;
    while !text[searched..].contains(end) {
        searched = text.len().saturating_sub(end.len());
        let count =
            timeout(DUE, stream.read(&mut part)).await.unwrap_or_else(|_| panic!("{end} is due after {text}")).unwrap();
        assert!(count > 0, "the server closed after {text}");
        text.push_str(&String::from_utf8_lossy(&part[..count]));
    }
    text
}

#[tokio::test]
async fn huge_headers_are_refused_in_words_and_monstrous_ones_bare() {
    let server = Server::start(|_| {}).await;
    let request = |size: usize| {
        format!(
            "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-padding: {}\r\n\r\n",
            "x".repeat(size)
        )
    };
    assert!(server.exchange(&request(15 << 10)).await.starts_with("HTTP/1.1 200"));
    let huge = server.exchange(&request(20 << 10)).await;
    assert!(huge.starts_with("HTTP/1.1 431") && huge.contains("urn:podherald:problem:headers-too-large"), "{huge}");
    let monstrous = server.exchange(&request(200 << 10)).await;
    assert!(monstrous.starts_with("HTTP/1.1 431") && !monstrous.contains("problem"), "{monstrous}");
    assert!(server.is_well().await);
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let server = Server::start(|options| options.header_timeout = Duration::from_millis(200)).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: loc").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(server.is_well().await);
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let server = Server::start(|options| options.max_connections = 2).await;
    let mut first = server.stream("/events").await;
    let mut second = server.stream("/events").await;
    read_until(&mut first, "snapshot").await;
    read_until(&mut second, "snapshot").await;
    let refused = server.exchange("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too-many-connections"), "{refused}");
    drop(first);
    timeout(DUE, async { while !server.is_well().await {} }).await.expect("a place is free again");
    server.stop().await;
}

#[tokio::test]
async fn probes_answer_while_all_streams_are_taken() {
    let server = Server::start(|options| {
        (options.max_streams, options.max_connections) = (2, 3);
        options.header_timeout = 3 * DUE;
    })
    .await;
    let mut first = server.stream("/events").await;
    let mut second = server.stream("/executions/e1/events").await;
    read_until(&mut first, "snapshot").await;
    read_until(&mut second, "retry: ").await;
    for path in ["/events", "/executions/e1/events", "/executions/e1/output", "/executions/e1?wait=60s"] {
        let accept = if path.contains("wait") { "application/json" } else { "text/event-stream" };
        // Refused and sent away: it would otherwise keep the last connection.
        let refused =
            server.exchange(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n")).await;
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("problem:too-many-streams"), "{refused}");
        assert!(refused.contains("\r\nretry-after: 5\r\n"), "{refused}");
        timeout(DUE, server.closes(3)).await.expect("its connection is free again");
    }
    for path in ["/readyz", "/livez", "/metrics", "/events"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = server.exchange(&request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        timeout(DUE, server.closes(3)).await.expect("its connection is free again");
    }
    drop(first);
    timeout(DUE, server.closes(2)).await.expect("its seat is free again");
    let mut third = server.stream("/events").await;
    read_until(&mut third, "snapshot").await;
    server.stop().await;
}

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let server = Server::start(|_| {}).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        read_until(&mut stream, "\"ok\"}").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn events_reach_the_socket_as_they_happen() {
    let server = Server::start(|_| {}).await;
    let mut stream = server.stream("/executions/e1/events").await;
    read_until(&mut stream, "retry: ").await;
    let mut pod = life("e1");
    server.journal.append(vec![pod.running()]).await.unwrap();
    read_until(&mut stream, "\"execution_running\"").await;
    server.journal.append(vec![pod.failed()]).await.unwrap();
    // The end of the stream is the end of the chunked body.
    read_until(&mut stream, "event: end").await;
    server.stop().await;
}

// T122
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_and_costs_no_memory() {
    let server = Server::start(|options| options.write_timeout = Duration::from_millis(300)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    ask(&mut stream, "/events").await;
    read_until(&mut stream, "snapshot").await;
    let mut pod = life("e1");
    let text = "x".repeat(60_000);
    let began = Instant::now();
    // More than any socket buffers.
    let mut count = 0;
    while server.state.metrics.counts().0 > 0 {
        assert!(began.elapsed() < DUE, "still connected after {count} events");
        count += 1;
        let mut next = life(&format!("e{count}"));
        server.journal.append(vec![next.completed(&text)]).await.unwrap();
    }
    server.journal.append(vec![pod.running()]).await.unwrap();
    assert!(server.is_well().await);
    server.stop().await;
}

// T122: half-open, and nothing is blocked yet.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_acknowledges_nothing_is_cut_before_its_buffer_is_full() {
    let server = Server::start(|options| options.write_timeout = Duration::from_millis(500)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    ask(&mut stream, "/events").await;
    read_until(&mut stream, "snapshot").await;
    // More than the client's buffer, less than the server's.
    server.journal.append(vec![life("e1").completed(&"x".repeat(30_000))]).await.unwrap();
    timeout(DUE, server.closes(1)).await.expect("the connection is cut");
    server.stop().await;
}

#[tokio::test]
async fn a_slow_client_gets_everything() {
    // It takes nothing while the journal fills, which takes long on a busy machine.
    let server = Server::start(|options| options.write_timeout = 10 * DUE).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    ask(&mut stream, "/executions/e1/events").await;
    read_until(&mut stream, "retry: ").await;
    let mut pod = life("e1");
    for _ in 0..40 {
        let changes = (0..500).map(|_| pod.amended()).collect();
        server.journal.append(changes).await.unwrap();
    }
    server.journal.append(vec![pod.failed()]).await.unwrap();
    let text = read_until(&mut stream, "event: end").await;
    assert_eq!(text.matches("\"event_type\":\"execution_amended\"").count(), 20_000);
    assert!(server.state.metrics.counts().2 > 0, "the test must make it lag");
    server.stop().await;
}

// T124
#[tokio::test]
async fn the_server_stops_in_time_with_many_open_streams() {
    let server = Server::start(|_| {}).await;
    let mut streams = Vec::new();
    for n in 0..200 {
        streams.push(server.stream(if n % 2 == 0 { "/events" } else { "/executions/e1/events" }).await);
    }
    for stream in &mut streams {
        read_until(stream, "retry: ").await;
    }
    let address = server.address;
    let readiness = server.state.readiness.clone();
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(readiness.is_draining());
    for stream in &mut streams {
        let rest = read_to_end(stream).await;
        assert!(rest.ends_with("0\r\n\r\n"), "each body is finished: {rest:?}");
    }
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let server = Server::start(|_| {}).await;
    let mut stream = server.stream("/executions/e1/events").await;
    read_until(&mut stream, "retry: ").await;
    assert_eq!(server.state.metrics.counts(), (1, 1, 0));
    drop(stream);
    timeout(DUE, async {
        while server.state.metrics.counts() != (0, 0, 0) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the connection and its stream are dropped");
    server.stop().await;
}
