//! A disk that is really full: a small tmpfs under the journal. Needs root, as the real node does.

use std::{path::Path, process::Command, sync::Arc};

use podherald::journal::{Change, Error, EventQuery, Journal, Options, Sqlite};
use podherald_core::{
    event::{Draft, Metadata, Payload, Slot, event_id},
    evidence::Evidence,
};
use serde_json::json;

struct Disk(tempfile::TempDir);

impl Disk {
    fn mounted(options: &str) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        mount(&["-t", "tmpfs", "-o", options, "tmpfs"], disk.0.path());
        disk
    }

    fn resize(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], self.0.path());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, for a failed test still has files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn mount(options: &[&str], path: &Path) {
    let output = Command::new("mount").args(options).arg(path).output().unwrap();
    assert!(output.status.success(), "mount needs root: {}", String::from_utf8_lossy(&output.stderr));
}

fn change(n: u64) -> Change {
    let id = format!("e{n}");
    let evidence: Evidence = serde_json::from_value(json!({
        "uid": id, "namespace": "lab", "name": id, "execution_id": id, "attempt_key": id, "attempt": 1, "labels": {},
        "first_seen": "2026-02-10T12:00:00Z", "last_seen": "2026-02-10T12:00:00Z", "restart_policy": "Never",
        "phase": "Failed", "state": "terminated", "restart_count": 0, "emitted": {}
    }))
    .unwrap();
    let message = Some("x".repeat(4000));
    let draft = Draft {
        event_id: event_id(&id, &id, Slot::PodTerminated),
        execution_id: id.clone(),
        attempt: 1,
        timestamp: evidence.first_seen,
        synthesized: false,
        metadata: Metadata { service_name: "pod-monitor".to_owned(), ..Metadata::default() },
        payload: Payload::PodTerminated { pod_name: id, exit_code: Some(1), reason: None, message },
    };
    Change { evidence: Arc::new(evidence), events: [draft].into() }
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing_and_writing_goes_on_once_there_is_room() {
    let disk = Disk::mounted("size=2m");
    let options = Options { path: disk.0.path().join("journal.db"), ..Options::default() };
    let journal = Sqlite::open(options.clone()).await.unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match journal.append(vec![change(acknowledged)]).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > 20, "{acknowledged}");
    assert!(matches!(&error, Error::Full(text) if text.contains("disk")), "{error}");
    assert!(!journal.health().writable);
    let all = EventQuery { after: 0, limit: 10_000 };
    assert_eq!(journal.events(all.clone()).await.unwrap().len() as u64, acknowledged);
    assert!(journal.execution(format!("e{acknowledged}")).await.unwrap().is_none());

    disk.resize("64m");
    journal.append(vec![change(acknowledged)]).await.unwrap();
    assert!(journal.health().writable);
    journal.close().await;
    let journal = Sqlite::open(options).await.unwrap();
    assert_eq!(journal.events(all).await.unwrap().len() as u64, acknowledged + 1);
    journal.close().await;
}
