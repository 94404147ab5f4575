//! Whom to hold and whom to let go, and by which patch.

#![allow(clippy::unwrap_used)]

use jiff::SignedDuration;
use podherald_core::{
    evidence::{Deletion, Evidence, Gone},
    hold::{FINALIZER, Hold, Marks, OUTCOME_ANNOTATION, Wish, is_overdue, patch, wish},
    mapper::{Observation, Policy, begin, observe},
    pod::Pod,
};
use serde_json::{Value, json};
use uuid::Uuid;

const ID: Uuid = Uuid::from_u128(7);

fn pod(is_held: bool, version: u64) -> Pod {
    Pod {
        namespace: "n".to_owned(),
        name: "a".to_owned(),
        uid: "u".to_owned(),
        is_held,
        version: Some(version),
        ..Pod::default()
    }
}

fn evidence(hold: Hold) -> Evidence {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    Evidence { hold, ..begin(&pod(false, 1), "e", 1, &Policy::default(), now) }
}

fn deletion() -> Deletion {
    let seen_at = "2026-01-01T00:00:00Z".parse().unwrap();
    Deletion { seen_at, while_running: true, grace_seconds: None }
}

#[test]
fn a_pod_is_held_while_its_end_may_be_lost_and_let_go_once_it_is_told() {
    let free = || evidence(Hold::Free);
    let held = || evidence(Hold::Held);
    let gone = Some(Gone { at: free().first_seen, deleted: true });
    let untold = podherald_core_draft();
    for (what, evidence, wanted, unwanted) in [
        ("new", free(), Some(Wish::Hold), None),
        ("being deleted", Evidence { deletion: Some(deletion()), ..free() }, None, None),
        ("told already", Evidence { terminal: Some(ID), ..free() }, None, None),
        ("of another namespace", Evidence { conflict: true, ..free() }, None, None),
        ("let go", evidence(Hold::LetGo), None, None),
        ("unheld", evidence(Hold::Unheld), None, None),
        ("held", held(), None, None),
        ("held and told", Evidence { terminal: Some(ID), ..held() }, Some(Wish::Release(ID)), Some(Wish::Release(ID))),
        ("held and kept back", Evidence { terminal: Some(ID), untold, ..held() }, None, None),
        ("held and gone", Evidence { terminal: Some(ID), gone, ..held() }, None, None),
        ("held of another namespace", Evidence { conflict: true, ..held() }, Some(Wish::Abandon), Some(Wish::Abandon)),
        (
            "held for too long",
            Evidence { result_unproven: Some(free().first_seen), ..held() },
            Some(Wish::Abandon),
            Some(Wish::Abandon),
        ),
    ] {
        assert_eq!((wish(&evidence, true), wish(&evidence, false)), (wanted, unwanted), "{what}");
    }
}

/// Something that the leader has not told yet.
fn podherald_core_draft() -> Vec<podherald_core::event::Draft> {
    let mut evidence = evidence(Hold::Held);
    let now = evidence.first_seen;
    let gone = Observation::Gone { deleted: true };
    observe(&mut evidence, gone, &Policy::default(), now).events
}

#[test]
fn only_a_held_pod_that_somebody_has_deleted_is_ever_overdue() {
    let hour = SignedDuration::from_hours(1);
    let late = "2026-01-01T01:00:00Z".parse().unwrap();
    let early = "2026-01-01T00:59:59Z".parse().unwrap();
    let held = Evidence { deletion: Some(deletion()), ..evidence(Hold::Held) };
    assert!(is_overdue(&held, hour, late) && !is_overdue(&held, hour, early));
    assert!(!is_overdue(&evidence(Hold::Held), hour, late));
    assert!(!is_overdue(&Evidence { hold: Hold::LetGo, ..held.clone() }, hour, late));
    assert!(!is_overdue(&Evidence { result_unproven: Some(early), ..held }, hour, late), "once is enough");
}

#[test]
fn how_a_pod_stands_follows_the_newest_look_and_no_late_one() {
    let policy = Policy { hold: true, ..Policy::default() };
    let mut evidence = evidence(Hold::Free);
    let now = evidence.first_seen;
    for (pod, expected) in [
        (pod(true, 5), Hold::Held),
        (pod(false, 4), Hold::Held),
        (pod(false, 6), Hold::LetGo),
        (Pod { deletion: Some(now), ..pod(false, 7) }, Hold::LetGo),
    ] {
        observe(&mut evidence, Observation::Seen(&pod), &policy, now);
        assert_eq!(evidence.hold, expected, "{pod:?}");
    }
}

#[test]
fn a_patch_names_all_that_it_goes_by_and_leaves_the_rest_alone() {
    let other = "example.com/other".to_owned();
    let ours = FINALIZER.to_owned();
    let both = [other, ours];
    let marks = Marks { uid: "u", version: "5", finalizers: None, is_annotated: true, is_deleted: false };
    let test = |path: &str, value: &str| json!({"op": "test", "path": path, "value": value});
    let (uid, version) = (test("/metadata/uid", "u"), test("/metadata/resourceVersion", "5"));
    let outcome = json!({"op": "add", "path": "/metadata/annotations/podherald.dev~1outcome", "value": ID.to_string()});
    let taken_off = |at: usize| {
        let path = format!("/metadata/finalizers/{at}");
        [test(&path, FINALIZER), json!({"op": "remove", "path": path})]
    };
    let release = Wish::Release(ID);
    let bare = Marks { finalizers: Some(&both[1..]), is_annotated: false, ..marks };
    for (wish, marks, expected) in [
        (
            Wish::Hold,
            marks,
            Some(vec![&uid, &version, &json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})]),
        ),
        (
            Wish::Hold,
            Marks { finalizers: Some(&both[..1]), ..marks },
            Some(vec![&uid, &json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})]),
        ),
        (Wish::Hold, Marks { finalizers: Some(&both), ..marks }, None),
        (Wish::Hold, Marks { is_deleted: true, ..marks }, None),
        (release, marks, None),
        (release, Marks { finalizers: Some(&both[..1]), ..marks }, None),
        (
            release,
            Marks { finalizers: Some(&both), is_deleted: true, ..marks },
            Some([&uid].into_iter().chain(&taken_off(1)).chain([&outcome]).collect()),
        ),
        (
            release,
            bare,
            Some(
                [&uid, &version]
                    .into_iter()
                    .chain(&taken_off(0))
                    .chain([&json!({"op": "add", "path": "/metadata/annotations", "value": {}}), &outcome])
                    .collect(),
            ),
        ),
        (Wish::Abandon, bare, Some([&uid].into_iter().chain(&taken_off(0)).collect())),
    ] {
        let expected = expected.map(|all| all.into_iter().cloned().collect::<Vec<Value>>());
        assert_eq!(patch(wish, &marks), expected, "{wish:?} {marks:?}");
    }
    assert_eq!(OUTCOME_ANNOTATION, "podherald.dev/outcome");
}
