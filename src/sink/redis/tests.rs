//! The sink against far sides that answer what they are told to. Real servers are in tests/real.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use podherald_core::evaluation::Message;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Options, Redis, Url, entry};
use crate::{
    config::RedisUrl,
    journal::{
        self, EventQuery, Journal, Sqlite,
        fixture::{Pod, at},
    },
    sink::{Item, Sink, conformance::record},
};

/// What is answered to a command; nothing for no answer at all.
type Answer = fn(&str) -> Option<&'static str>;

/// A server on loopback that answers so, until it is dropped.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answer));
            }
        });
        Self { address, _tasks: tasks }
    }
}

/// Commands come whole in these tests: each begins with `*`, and its name is the second line after.
async fn serve(mut stream: TcpStream, answer: Answer) {
    let mut buffer = [0; 65_536];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let commands = text.split("\r\n*").map(|command| command.split("\r\n").nth(2).unwrap_or_default());
        for command in commands {
            let Some(answer) = answer(command) else { continue };
            if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn journal() -> (Arc<Sqlite>, TempDir) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.db");
    (Sqlite::open(journal::Options { path, ..journal::Options::default() }).await.unwrap(), dir)
}

fn options(url: &str) -> Options {
    let url = RedisUrl::parse(url).unwrap_or_else(|| panic!("{url} is no URL"));
    Options { timeout: Duration::from_millis(500), ..Options::new(Url::Given(url)) }
}

/// What both calls say; they must say the same.
async fn trouble(options: Options) -> String {
    let (journal, _dir) = journal().await;
    let sink = Redis::new(options, journal);
    let said = sink.deliver(&[record(1, "x")]).await.unwrap_err().to_string();
    assert_eq!(sink.deliver(&[record(1, "x")]).await.unwrap_err().to_string(), said, "and again");
    said
}

#[tokio::test]
async fn every_kind_of_trouble_names_the_setting_and_what_would_be_right() {
    let pong_then: [(Answer, &str); 6] = [
        (|command| Some(if command == "PING" { "+PONG\r\n" } else { "-MOVED 1 10.0.0.1:6379\r\n" }), "Redis Cluster"),
        (
            |command| {
                Some(if command == "PING" { "+PONG\r\n" } else { "-READONLY You can't write against a replica.\r\n" })
            },
            "it is a replica; the URL must name the primary",
        ),
        (
            |command| Some(if command == "PING" { "+PONG\r\n" } else { "-OOM command not allowed\r\n" }),
            "it is full; raise its maxmemory",
        ),
        (
            |command| Some(if command == "PING" { "+PONG\r\n" } else { "-NOPERM this user has no permissions\r\n" }),
            "its user may not do what is needed; the ACL rule is `+ping",
        ),
        (|command| Some(if command == "PING" { "+PONG\r\n" } else { "-ERR something new\r\n" }), "it refuses ("),
        (|command| (command == "PING").then_some("+PONG\r\n"), "no answer within redis.timeout, 500ms"),
    ];
    let at_once: [(Answer, &str); 6] = [
        (|_| Some("HTTP/1.1 400 Bad Request\r\n\r\n"), "what answers there is no Redis"),
        (|_| Some("-NOAUTH Authentication required.\r\n"), "it asks for a password; the URL must be redis://USER:"),
        (|_| Some("-LOADING Redis is loading the dataset in memory\r\n"), "it is loading its data ("),
        (|_| Some(""), "the connection was cut"),
        (|_| None, "no answer within redis.timeout, 500ms; is that a Redis, and reachable?"),
        (|_| Some("-DENIED Redis is running in protected mode\r\n"), "it refuses ("),
    ];
    for (answer, expected) in pong_then.into_iter().chain(at_once) {
        let server = Server::start(answer).await;
        let said = trouble(options(&format!("redis://{}", server.address))).await;
        let name = format!("redis.url = redis://{}: ", server.address);
        assert!(said.starts_with(&name) && said.contains(expected), "{expected}: {said}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let said = trouble(options(&format!("redis://{nobody}"))).await;
    assert!(said.contains("it cannot be reached; is it running there? (Connection refused"), "{said}");
    let plain = Server::start(|_| Some("HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    let said = trouble(options(&format!("rediss://{}", plain.address))).await;
    assert!(said.contains("it cannot be reached ("), "{said}");
}

#[tokio::test]
async fn a_password_is_never_told_even_if_the_server_repeats_it() {
    let answers: [(Answer, &str); 2] = [
        (|_| Some("-ERR unknown command 'AUTH', with args beginning with: 'app' 's@crt'\r\n"), "refuses"),
        (
            |command| Some(if command == "AUTH" { "+OK\r\n" } else { "-ERR what is s@crt or s%40crt?\r\n" }),
            "what is *** or ***",
        ),
    ];
    for (answer, expected) in answers {
        let server = Server::start(answer).await;
        let said = trouble(options(&format!("redis://app:s%40crt@{}", server.address))).await;
        assert!(said.starts_with("redis.url = redis://app:***@127.0.0.1"), "{said}");
        assert!(said.contains(expected) && !said.contains("crt"), "{said}");
    }
}

#[tokio::test]
async fn the_file_with_the_url_is_read_for_each_connection_and_never_told() {
    let (journal, dir) = journal().await;
    let file = dir.path().join("url");
    let options = Options { url: Url::File(file.clone()), ..options("redis://localhost") };
    let missing = crate::wording::of(&options.examine().await.unwrap_err());
    assert!(missing.starts_with("redis.url_file ") && missing.contains("cannot be read"), "{missing}");
    fs::write(&file, "app:s3cret@localhost").unwrap();
    let wrong = options.examine().await.unwrap_err().to_string();
    assert!(wrong.starts_with("redis.url_file ") && !wrong.contains("s3cret"), "{wrong}");

    let server = Server::start(|command| Some(if command == "PING" { "+PONG\r\n" } else { "+OK\r\n" })).await;
    let sink = Redis::new(options.clone(), journal);
    assert_eq!(sink.check().await.unwrap_err().to_string(), wrong);
    fs::write(&file, format!(" redis://{}\n", server.address)).unwrap();
    options.examine().await.unwrap();
    sink.check().await.unwrap();
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_named() {
    let (_journal, dir) = journal().await;
    let options = Options { ca_file: Some(dir.path().join("ca.pem")), ..options("rediss://localhost") };
    let said = options.examine().await.unwrap_err().to_string();
    assert!(said.starts_with("redis.ca_file ") && said.contains("cannot be read"), "{said}");
}

#[tokio::test]
async fn an_end_is_told_with_the_time_since_the_start_of_its_own_attempt() {
    let (journal, _dir) = journal().await;
    let (mut first, mut second) = (Pod::new("e", "u1", 1), Pod::new("e", "u2", 2));
    journal.append(vec![first.start(at(0)), second.start(at(100)), second.end(at(107), 0, "out")]).await.unwrap();
    journal.append(vec![first.end(at(120), 1, "")]).await.unwrap();
    let records = journal.events(EventQuery { after: 0, limit: 10 }).await.unwrap();
    let mut told = Vec::new();
    for record in &records {
        let entry = entry::of(&Item::Event(record.clone()), 1 << 20, &*journal).await.unwrap().unwrap();
        assert_eq!((&*entry.stream, &entry.event), ("evaluation:events:e", &record.bytes));
        told.extend(entry.message);
    }
    let brief = |Message { channel, body }: &Message| {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        (*channel, body["duration_seconds"].as_f64())
    };
    assert_eq!(
        told.iter().map(brief).collect::<Vec<_>>(),
        [
            ("evaluation:running", None),
            ("evaluation:running", None),
            ("evaluation:completed", Some(7.0)),
            ("evaluation:failed", Some(120.0))
        ]
    );
}
