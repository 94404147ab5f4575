//! Killed in the middle of commits, for real: a child of this very program writes, and is killed.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use futures::future::join_all;
use podherald_core::{event::Event, execution::Execution};
use tempfile::TempDir;

use super::open_in;
use crate::journal::{EventQuery, ExecutionQuery, Journal as _, fixture::Pod};

const DIRECTORY: &str = "PODHERALD_TEST_JOURNAL_DIRECTORY";
const WRITERS: usize = 16;

/// The child: lives of pods, several at a time, and a line for each that is acknowledged.
#[tokio::test]
#[ignore = "the child of the test below"]
#[expect(clippy::disallowed_methods, reason = "this is how the parent tells it")]
async fn writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let journal = open_in(dir).await;
    let writer = |writer: usize| {
        let journal = journal.clone();
        async move {
            for n in 0.. {
                let id = format!("{writer}-{n}");
                for change in Pod::new(&id, &id, 1).life(0) {
                    journal.append(vec![change]).await.unwrap();
                }
                writeln!(std::io::stdout(), "acknowledged {id}").unwrap();
            }
        }
    };
    join_all((0..WRITERS).map(writer)).await;
}

#[tokio::test]
async fn killed_in_mid_commit_loses_nothing_acknowledged() {
    for lines in [1, 40, 300] {
        let dir = TempDir::new().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::sqlite::tests::crash::writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut said = said.filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned()));
        let mut acknowledged: Vec<String> = said.by_ref().take(lines).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(said);
        assert!(acknowledged.len() >= lines);

        let journal = open_in(&dir).await;
        for id in &acknowledged {
            assert_eq!(journal.execution_events(id.clone(), 0, 10).await.unwrap().len(), 5, "{id}");
        }
        let mut folded = BTreeMap::<String, Execution>::new();
        for record in journal.events(EventQuery { after: 0, limit: 1_000_000 }).await.unwrap() {
            let event: Event = serde_json::from_slice(&record.bytes).unwrap();
            let fold = folded.entry(event.execution_id.clone()).or_insert_with(|| Execution::new(&event.execution_id));
            assert_eq!(event.seq, fold.as_of.0.get(&event.source).copied().unwrap_or(0) + 1);
            fold.apply(&event);
        }
        for listed in
            journal.executions(ExecutionQuery { limit: 1_000_000, ..ExecutionQuery::default() }).await.unwrap()
        {
            let Execution { execution_id, status, as_of, .. } = listed.execution;
            let fold = folded.remove(&execution_id).unwrap_or_default();
            assert_eq!((status, as_of), (fold.status, fold.as_of), "{execution_id}");
        }
        assert!(folded.is_empty(), "events without their execution");
        journal.close().await;
    }
}
