//! Who may feed an account, what its batches do, and where its streams go on.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use v1::event::Event as E;

use super::super::store::StreamCheckpoint;
use super::super::stored::parse_stream_key;
use super::*;
use crate::resource::Scope;
use crate::{clock, entropy, limits};

const INSTANCE: [u8; 16] = [1; 16];

fn account() -> Account {
    let (clock, entropy) = (clock::system(), entropy::system());
    Account::new("shop", "00", Surface::default(), clock, entropy)
}

fn owner(generation: u64) -> Owner {
    Owner {
        agent: "a".into(),
        instance: INSTANCE,
        generation,
    }
}

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

fn key() -> StreamKey {
    StreamKey {
        gvr: pods(),
        scope: Scope::Cluster,
    }
}

/// The stream of pods, number 1, that can be sent from `first` of `epoch` on.
fn offer(epoch: u64, first: u64) -> v1::Attach {
    let (group, version, resource) = (String::new(), "v1".into(), "pods".into());
    let scope = v1::scope::Scope::Cluster(v1::WholeCluster {});
    let stream = v1::StreamState {
        stream: 1,
        resource: Some(v1::Gvr {
            group,
            version,
            resource,
        }),
        kind: "Pod".into(),
        scope: Some(v1::Scope { scope: Some(scope) }),
        epoch,
        first_sequence: first,
        ..v1::StreamState::default()
    };
    v1::Attach {
        cluster_uid: "cluster-1".into(),
        policy_digest: Bytes::from_static(b"rules-1"),
        streams: vec![stream],
        ..v1::Attach::default()
    }
}

/// Attaches and tells where the stream goes on.
fn attach(account: &Account, generation: u64, offer: &v1::Attach) -> v1::StreamResume {
    let resumes = account.attach(owner(generation), offer).unwrap();
    assert_eq!(resumes.len(), 1);
    resumes.into_iter().next().unwrap()
}

#[test]
fn a_refused_offer_leaves_the_account_to_the_next() {
    let account = account();
    let mut without_resource = offer(0, 1);
    without_resource.streams[0].resource = None;
    account.attach(owner(1), &without_resource).unwrap_err();
    assert!(account.owner().is_none());
    let mut too_many = offer(0, 1);
    too_many.streams = vec![too_many.streams[0].clone(); limits::STREAMS_PER_ACCOUNT + 1];
    account.attach(owner(1), &too_many).unwrap_err();
    assert!(account.owner().is_none());
}

fn identity(name: &str, version: u64) -> v1::ObjectIdentity {
    v1::ObjectIdentity {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        resource_version: version,
    }
}

fn json(version: u64) -> (Bytes, u32, u32) {
    let before = r#"{"metadata":{"resourceVersion":""#;
    let json = format!("{before}{version}\"}}}}");
    let length = version.to_string().len();
    (
        json.into(),
        u32::try_from(before.len()).unwrap(),
        u32::try_from(length).unwrap(),
    )
}

fn upsert(name: &str, version: u64) -> E {
    let (object, version_at, version_length) = json(version);
    E::Upsert(v1::Upsert {
        identity: Some(identity(name, version)),
        object,
        version_at,
        version_length,
        opaque: false,
    })
}

fn begin() -> E {
    E::SnapshotBegin(v1::SnapshotBegin {})
}

fn end(resource_version: u64) -> E {
    E::SnapshotEnd(v1::SnapshotEnd { resource_version })
}

fn batch(epoch: u64, first_sequence: u64, events: Vec<E>) -> v1::Batch {
    let event = |event| v1::Event { event: Some(event) };
    let events: Vec<v1::Event> = events.into_iter().map(event).collect();
    let count = u32::try_from(events.len()).unwrap();
    let payload = v1::Events { events }.encode_to_vec();
    v1::Batch {
        stream: 1,
        epoch,
        first_sequence,
        count,
        compression: v1::Compression::None.into(),
        inflated_bytes: u32::try_from(payload.len()).unwrap(),
        payload: payload.into(),
        ..v1::Batch::default()
    }
}

/// Applies a batch of connection `generation`; the sequence that is acknowledged.
fn applied(account: &Account, generation: u64, batch: &v1::Batch) -> u64 {
    match account.apply(&owner(generation), batch) {
        Outcome::Acknowledge(ack) => ack.applied,
        other => panic!("{other:?}"),
    }
}

fn has(account: &Account, name: &str) -> bool {
    account.view.get(&pods(), "shop", name).is_some()
}

/// An account of connection 1 with the pod `p`, at sequence 3; and its epoch.
fn fed() -> (Account, u64) {
    let account = account();
    let epoch = attach(&account, 1, &offer(0, 0)).epoch;
    let whole = batch(epoch, 1, vec![begin(), upsert("p", 10), end(10)]);
    assert_eq!(applied(&account, 1, &whole), 3);
    (account, epoch)
}

#[test]
fn a_new_stream_starts_with_a_snapshot_in_an_epoch_of_the_hub() {
    let resume = attach(&account(), 1, &offer(7, 1));
    assert_ne!(resume.epoch, 7);
    assert_ne!(resume.epoch, 0);
    assert_eq!((resume.applied, resume.resource_version), (0, 0));
}

#[test]
fn the_next_connection_goes_on_after_what_was_applied() {
    let (account, epoch) = fed();
    let resume = attach(&account, 2, &offer(epoch, 2));
    assert_eq!((resume.epoch, resume.applied), (epoch, 3));
    assert_eq!(
        applied(&account, 2, &batch(epoch, 4, vec![upsert("q", 11)])),
        4
    );
    assert!(has(&account, "p") && has(&account, "q"));
}

#[test]
fn an_agent_that_cannot_go_on_resumes_from_the_version_that_is_known() {
    let (account, epoch) = fed();
    for offered in [offer(epoch, 5), offer(epoch + 2, 1), offer(0, 0)] {
        let resume = attach(&account, 2, &offered);
        assert_ne!(resume.epoch, epoch);
        assert_eq!((resume.applied, resume.resource_version), (0, 10));
        assert!(has(&account, "p"));
    }
}

#[test]
fn an_older_connection_and_another_instance_may_not_attach() {
    let (account, epoch) = fed();
    attach(&account, 2, &offer(epoch, 4));
    let other = Owner {
        instance: [2; 16],
        ..owner(9)
    };
    let stranger = Owner {
        agent: "b".into(),
        ..owner(9)
    };
    for refused in [owner(1), other.clone(), stranger] {
        let refused = account.attach(refused, &offer(epoch, 4));
        assert!(matches!(refused, Err(Refusal::Fenced(_))));
    }
    assert_eq!(account.owner(), Some(owner(2)));
    assert!(!account.release("a", [2; 16]));
    assert!(account.release("a", INSTANCE));
    assert!(account.attach(other, &offer(0, 0)).is_ok());
}

#[test]
fn a_batch_of_a_fenced_connection_changes_nothing() {
    let (account, epoch) = fed();
    attach(&account, 2, &offer(epoch, 4));
    let late = batch(epoch, 4, vec![upsert("late", 11)]);
    assert!(matches!(account.apply(&owner(1), &late), Outcome::Fenced));
    assert!(!has(&account, "late"));
    assert_eq!(account.counts().fenced, 1);
    let streams = account.change_streams(&owner(1), &v1::Streams::default());
    assert!(matches!(streams, Err(Refusal::Fenced(_))));
}

#[test]
fn a_gap_sends_the_agent_back_and_a_duplicate_is_acknowledged() {
    let (account, epoch) = fed();
    let gap = account.apply(&owner(1), &batch(epoch, 5, vec![upsert("q", 12)]));
    assert!(matches!(
        gap,
        Outcome::Resume(v1::StreamResume { applied: 3, .. })
    ));
    assert!(!has(&account, "q"));
    let again = batch(epoch, 1, vec![begin(), upsert("p", 10), end(10)]);
    assert_eq!(applied(&account, 1, &again), 3);
    let overlap = batch(epoch, 3, vec![end(10), upsert("q", 11)]);
    assert_eq!(applied(&account, 1, &overlap), 4);
    let counts = account.counts();
    assert_eq!((counts.applied, counts.skipped), (4, 4));
}

#[test]
fn a_batch_of_another_epoch_is_let_go() {
    let (account, epoch) = fed();
    let old = batch(epoch + 2, 4, vec![upsert("q", 11)]);
    assert_eq!(applied(&account, 1, &old), 0);
    assert!(!has(&account, "q"));
}

#[test]
fn other_rules_purge_what_was_filtered_by_the_old_ones() {
    let (account, epoch) = fed();
    let changed = v1::Attach {
        policy_digest: Bytes::from_static(b"rules-2"),
        ..offer(epoch, 4)
    };
    let resume = attach(&account, 2, &changed);
    assert_ne!(resume.epoch, epoch);
    assert_eq!((resume.applied, resume.resource_version), (0, 0));
    assert!(!has(&account, "p"));
    assert!(!account.view.complete(&key()));
}

#[test]
fn another_cluster_is_refused_and_changes_nothing() {
    let (account, epoch) = fed();
    let moved = v1::Attach {
        cluster_uid: "cluster-2".into(),
        ..offer(epoch, 4)
    };
    let refused = account.attach(owner(2), &moved);
    assert!(matches!(refused, Err(Refusal::ClusterChanged)));
    assert!(has(&account, "p"));
    assert_eq!(account.owner(), Some(owner(1)));
    assert_eq!(account.provenance().0, "cluster-1");
}

#[test]
fn a_stream_that_is_no_longer_offered_takes_its_objects_along() {
    let (account, epoch) = fed();
    let nothing = v1::Attach {
        streams: Vec::new(),
        ..offer(epoch, 4)
    };
    assert!(account.attach(owner(2), &nothing).unwrap().is_empty());
    assert!(!has(&account, "p"));
}

#[test]
fn a_snapshot_goes_on_over_another_connection() {
    let (account, epoch) = fed();
    let half = batch(epoch, 4, vec![begin(), upsert("q", 20)]);
    assert_eq!(applied(&account, 1, &half), 5);
    attach(&account, 2, &offer(epoch, 4));
    assert!(has(&account, "p") && !has(&account, "q"));
    assert_eq!(applied(&account, 2, &batch(epoch, 6, vec![end(21)])), 6);
    assert!(!has(&account, "p") && has(&account, "q"));
}

/// Events of the next epoch would otherwise wait for ever for the end of a snapshot that nobody
/// sends any more.
#[test]
fn a_snapshot_under_way_ends_with_its_epoch() {
    let (account, epoch) = fed();
    let half = batch(epoch, 4, vec![begin(), upsert("half", 20)]);
    assert_eq!(applied(&account, 1, &half), 5);
    let resume = attach(&account, 2, &offer(0, 0));
    assert_eq!(resume.resource_version, 10);
    let next = batch(resume.epoch, 1, vec![upsert("q", 21)]);
    assert_eq!(applied(&account, 2, &next), 1);
    assert!(has(&account, "p") && has(&account, "q") && !has(&account, "half"));
}

#[test]
fn a_large_object_is_put_together_from_its_parts() {
    let (account, epoch) = fed();
    let (object, version_at, version_length) = json(11);
    let part = |bytes: Bytes, last| {
        E::Part(v1::ObjectPart {
            identity: Some(identity("large", 11)),
            version_at,
            version_length,
            last,
            bytes,
        })
    };
    let first = batch(epoch, 4, vec![part(object.slice(..9), false)]);
    assert_eq!(applied(&account, 1, &first), 4);
    assert!(!has(&account, "large"));
    attach(&account, 2, &offer(epoch, 4));
    let last = batch(epoch, 5, vec![part(object.slice(9..), true)]);
    assert_eq!(applied(&account, 2, &last), 5);
    let found = account.view.get(&pods(), "shop", "large").unwrap();
    assert!(found.json().ends_with(object.split_at(1).1));
}

#[test]
fn an_object_beyond_the_limit_ends_the_feed() {
    let (account, epoch) = fed();
    let part = |sequence| {
        let event = E::Part(v1::ObjectPart {
            bytes: vec![b' '; 60_000].into(),
            ..v1::ObjectPart::default()
        });
        batch(epoch, sequence, vec![event])
    };
    let most = 4 + limits::OBJECT_BYTES as u64 / 60_000;
    for sequence in 4..most {
        assert_eq!(applied(&account, 1, &part(sequence)), sequence);
    }
    let broken = account.apply(&owner(1), &part(most));
    assert!(matches!(broken, Outcome::Broken(_)));
}

#[test]
fn a_kind_that_may_not_be_listed_is_absent_until_it_may() {
    let (account, epoch) = fed();
    let absent = E::Status(v1::StreamStatus {
        condition: v1::StreamCondition::Absent.into(),
        ..v1::StreamStatus::default()
    });
    applied(&account, 1, &batch(epoch, 4, vec![absent]));
    assert!(account.surface.borrow().absent.contains(&pods()));
    applied(&account, 1, &batch(epoch, 5, vec![begin(), end(20)]));
    assert!(account.surface.borrow().absent.is_empty());
}

fn status(condition: v1::StreamCondition) -> E {
    E::Status(v1::StreamStatus {
        condition: condition.into(),
        ..v1::StreamStatus::default()
    })
}

#[test]
fn one_namespace_that_may_not_be_listed_hides_the_kind_in_no_other() {
    let account = account();
    let mut two = offer(0, 1);
    let of = |number: u32, namespace: &str| {
        let mut stream = two.streams[0].clone();
        stream.stream = number;
        let scope = v1::scope::Scope::Namespace(namespace.to_owned());
        stream.scope = Some(v1::Scope { scope: Some(scope) });
        stream
    };
    two.streams = vec![of(1, "bank"), of(2, "shop")];
    let resumes = account.attach(owner(1), &two).unwrap();
    let tell = |stream: usize, condition| {
        let mut batch = batch(resumes[stream].epoch, 1, vec![status(condition)]);
        batch.stream = resumes[stream].stream;
        applied(&account, 1, &batch);
        account.surface.borrow().absent.contains(&pods())
    };
    assert!(!tell(0, v1::StreamCondition::Absent), "the other is read");
    assert!(!tell(1, v1::StreamCondition::Live));
    let mut gone = two.clone();
    gone.streams.pop();
    account.attach(owner(2), &gone).unwrap();
    assert!(
        account.surface.borrow().absent.contains(&pods()),
        "it was the only one that is read"
    );
    gone.streams.pop();
    account.attach(owner(3), &gone).unwrap();
    assert!(account.surface.borrow().absent.is_empty());
}

#[test]
fn a_kind_that_was_absent_is_there_once_it_is_live_without_a_snapshot() {
    let (account, epoch) = fed();
    applied(
        &account,
        1,
        &batch(epoch, 4, vec![status(v1::StreamCondition::Absent)]),
    );
    assert!(account.surface.borrow().absent.contains(&pods()));
    applied(
        &account,
        1,
        &batch(epoch, 5, vec![status(v1::StreamCondition::Live)]),
    );
    assert!(account.surface.borrow().absent.is_empty());
}

#[test]
fn two_streams_of_one_number_and_an_identity_without_end_are_refused() {
    let account = account();
    let mut twice = offer(0, 1);
    twice.streams.push(twice.streams[0].clone());
    account.attach(owner(1), &twice).unwrap_err();
    let (account, epoch) = fed();
    let endless = upsert(&"n".repeat(limits::IDENTITY_BYTES + 1), 20);
    let broken = account.apply(&owner(1), &batch(epoch, 4, vec![endless]));
    assert!(matches!(broken, Outcome::Broken(_)));
}

/// The account as another process would find it in the store.
fn restarted(stored: &[StreamCheckpoint]) -> Account {
    let account = account();
    account.set_provenance("cluster-1", b"rules-1");
    for stream in stored {
        let (_, key) = parse_stream_key(&stream.key).unwrap();
        let objects = stream.objects.iter().cloned();
        let objects: Vec<_> = objects.filter_map(|(name, v)| Some((name, v?))).collect();
        account.restore(&key, stream.cursor.as_ref().unwrap(), &objects);
    }
    account
}

#[test]
fn after_a_restart_a_stream_goes_on_where_the_store_has_it() {
    let (account, epoch) = fed();
    let (stored, _) = account.changes();
    let account = restarted(&stored);
    assert!(has(&account, "p"));
    // What was told last counts, not when its agent came.
    let away = account.surface.borrow().away_since.unwrap();
    assert!(away.elapsed().unwrap() < std::time::Duration::from_mins(1));
    let resume = attach(&account, 1, &offer(epoch, 1));
    assert_eq!((resume.epoch, resume.applied), (epoch, 3));
}

#[test]
fn a_snapshot_that_was_not_whole_is_sent_again_after_a_restart() {
    let (account, epoch) = fed();
    let half = batch(epoch, 4, vec![begin(), upsert("q", 20)]);
    assert_eq!(applied(&account, 1, &half), 5);
    let (stored, _) = account.changes();
    let account = restarted(&stored);
    let resume = attach(&account, 1, &offer(epoch, 4));
    assert_eq!((resume.epoch, resume.applied), (epoch, 3));
}

/// What happens on the way of the events 1 to `LAST`.
#[derive(Clone, Debug)]
enum Step {
    /// Connection `generation` sends `count` events from `first` on.
    Send {
        generation: u64,
        first: u64,
        count: u64,
    },
    /// The newer connection attaches and can still send from `back` before the last applied on.
    Attach { back: u64 },
}

const LAST: u64 = 40;

/// Begin, end, then a pod of its own for each event.
fn event(sequence: u64) -> E {
    match sequence {
        1 => begin(),
        2 => end(100),
        _ => upsert(&format!("pod-{sequence}"), 100 + sequence),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let send = (1u64..=2, 1..=LAST, 1u64..9).prop_map(|(generation, first, count)| {
        let count = count.min(LAST + 1 - first);
        Step::Send {
            generation,
            first,
            count,
        }
    });
    let attach = (0u64..5).prop_map(|back| Step::Attach { back });
    prop::collection::vec(prop_oneof![12 => send, 1 => attach], 1..120)
}

proptest! {
    /// Batches that are cut anywhere, sent again from anywhere, over two connections of which the
    /// older one is fenced: each event is applied once, and none is lost.
    #[test]
    fn every_event_is_applied_once_over_two_connections(steps in steps()) {
        let account = account();
        let epoch = attach(&account, 1, &offer(0, 0)).epoch;
        let (mut done, mut newest) = (0, 1);
        let send = |generation: u64, first: u64, count: u64| {
            let events = (first..first + count).map(event).collect();
            account.apply(&owner(generation), &batch(epoch, first, events))
        };
        for step in steps {
            match step {
                Step::Attach { back } => {
                    newest = 2;
                    let first = (done + 1_u64).saturating_sub(back);
                    let resume = attach(&account, newest, &offer(epoch, first));
                    prop_assert_eq!((resume.epoch, resume.applied), (epoch, done));
                }
                Step::Send { generation, first, count } => {
                    match send(generation, first, count) {
                        Outcome::Fenced => prop_assert_ne!(generation, newest),
                        Outcome::Resume(resume) => {
                            prop_assert!(first > done + 1);
                            prop_assert_eq!(resume.applied, done);
                        }
                        Outcome::Acknowledge(ack) => {
                            prop_assert_eq!(generation, newest);
                            done = done.max(first + count - 1);
                            prop_assert_eq!(ack.applied, done);
                        }
                        Outcome::Broken(why) => prop_assert!(false, "{}", why),
                    }
                }
            }
            prop_assert_eq!(account.counts().applied, done);
        }
        if done < LAST {
            prop_assert!(matches!(send(newest, done + 1, LAST - done), Outcome::Acknowledge(_)));
        }
        prop_assert_eq!(account.counts().applied, LAST);
        prop_assert_eq!(account.view.totals().ignored, 0);
        for sequence in 3..=LAST {
            let name = format!("pod-{sequence}");
            prop_assert!(has(&account, &name), "{} is lost", name);
        }
    }
}
