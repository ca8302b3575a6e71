//! What is told, in which order, and how much waits.

use futures_util::FutureExt as _;

use super::*;

fn identity(uid: u64, version: u64) -> Identity {
    Identity {
        namespace: "shop".into(),
        name: format!("pod-{uid}"),
        uid: uid.to_string(),
        resource_version: ResourceVersion(version),
    }
}

fn filter() -> scrub::Filter {
    let rules = crate::policy::load().unwrap();
    let pods = crate::resource::Gvr::new("", "v1", "pods");
    scrub::Filter::feed(rules.scrub, pods, "Pod", std::hash::RandomState::new())
}

fn started() -> Queue {
    let queue = Queue::default();
    queue.start(1, 7);
    queue
}

fn push(queue: &Queue, item: Item) {
    assert!(matches!(queue.try_push(1, 7, item), Pushed::Taken { .. }));
}

fn told(batch: &v1::Batch) -> Vec<(String, u64)> {
    use v1::event::Event as E;
    let told = |event: v1::Event| {
        let (what, identity) = match event.event.unwrap() {
            E::Touch(touch) => ("touch", touch.identity),
            E::Delete(delete) => ("delete", delete.identity),
            E::Upsert(upsert) => ("upsert", upsert.identity),
            E::Bookmark(bookmark) => return ("bookmark".into(), bookmark.resource_version),
            _ => return ("other".into(), 0),
        };
        let identity = identity.unwrap();
        (
            format!("{what} {}", identity.uid),
            identity.resource_version,
        )
    };
    batch::open(batch).unwrap().into_iter().map(told).collect()
}

#[test]
fn an_object_that_changes_while_unsent_is_told_once_and_last() {
    let queue = started();
    push(&queue, Item::Touch(identity(1, 10)));
    push(&queue, Item::Touch(identity(2, 11)));
    push(&queue, Item::Touch(identity(1, 12)));
    push(&queue, Item::Delete(identity(2, 13)));
    let batch = queue.next_batch(1, 1).unwrap();
    assert_eq!(
        told(&batch),
        [("touch 1".into(), 12), ("delete 2".into(), 13)]
    );
    assert_eq!(
        (batch.first_sequence, batch.count, batch.coalesced),
        (1, 2, 2)
    );
    assert_eq!(queue.pending_bytes(), 0);
}

#[test]
fn bytes_are_counted_by_what_is_held_not_by_what_was_said() {
    let json =
        br#"{"metadata":{"name":"pod-1","namespace":"shop","uid":"1","resourceVersion":"10"}}"#;
    let queue = started();
    push(&queue, Item::Upsert(filter().object(json).unwrap()));
    let held = queue.pending_bytes();
    push(&queue, Item::Touch(identity(1, 11)));
    assert_eq!(queue.pending_bytes(), held, "the object is told still");
    push(&queue, Item::Delete(identity(1, 12)));
    assert_eq!(queue.pending_bytes(), 160);
    let batch = queue.next_batch(1, 1).unwrap();
    assert_eq!(told(&batch), [("delete 1".into(), 12)]);
    assert_eq!(queue.pending_bytes(), 0);
}

#[test]
fn names_longer_than_usual_count() {
    let queue = started();
    let name = "n".repeat(1_000);
    push(
        &queue,
        Item::Touch(Identity {
            name,
            ..identity(1, 10)
        }),
    );
    assert!(queue.pending_bytes() > 1_000);
    assert!(queue.next_batch(1, 1).is_some());
    assert_eq!(queue.pending_bytes(), 0);
}

#[test]
fn an_object_named_by_a_snapshot_stays_inside_it() {
    let queue = started();
    push(&queue, Item::SnapshotBegin);
    push(&queue, Item::Touch(identity(1, 10)));
    push(&queue, Item::SnapshotEnd(ResourceVersion(10)));
    push(&queue, Item::Touch(identity(1, 11)));
    let batch = queue.next_batch(1, 1).unwrap();
    assert_eq!(
        told(&batch),
        [
            ("other".into(), 0),
            ("touch 1".into(), 10),
            ("other".into(), 0),
            ("touch 1".into(), 11)
        ]
    );
}

#[test]
fn a_snapshot_is_told_in_whole_batches() {
    let queue = started();
    push(&queue, Item::SnapshotBegin);
    push(&queue, Item::Touch(identity(1, 10)));
    assert!(queue.busy().is_empty() && queue.next_batch(1, 1).is_none());
    for uid in 2..=PACK_BYTES as u64 / 160 {
        push(&queue, Item::Touch(identity(uid, 10)));
    }
    assert_eq!(queue.busy(), [1]);
    let whole = queue.next_batch(1, 1).unwrap();
    queue.acknowledge(1, 7, last_sequence(&whole));
    push(&queue, Item::Touch(identity(1_000, 10)));
    push(&queue, Item::SnapshotEnd(ResourceVersion(10)));
    assert_eq!(queue.busy(), [1]);
    assert!(queue.next_batch(1, last_sequence(&whole) + 1).is_some());
}

#[test]
fn snapshots_are_not_held_back_once_the_queue_is_full() {
    let (queue, streams) = (Queue::default(), limits::PENDING_BYTES / PACK_BYTES + 2);
    let mut full = false;
    for stream in 1..=u32::try_from(streams).unwrap() {
        queue.start(stream, 7);
        let objects = (2..PACK_BYTES as u64 / 160).map(|uid| Item::Touch(identity(uid, 10)));
        for item in std::iter::once(Item::SnapshotBegin).chain(objects) {
            full |= matches!(queue.try_push(stream, 7, item), Pushed::Full(_));
        }
        assert_eq!(queue.busy().is_empty(), !full);
    }
    assert!(full && queue.next_batch(1, 1).is_some());
}

#[test]
fn a_numbered_batch_never_changes_and_is_kept_until_acknowledged() {
    let queue = started();
    push(&queue, Item::Touch(identity(1, 10)));
    let first = queue.next_batch(1, 1).unwrap();
    push(&queue, Item::Touch(identity(1, 11)));
    assert_eq!(queue.next_batch(1, 1).unwrap(), first);
    let second = queue.next_batch(1, 2).unwrap();
    assert_eq!(second.first_sequence, 2);
    queue.acknowledge(1, 7, 1);
    queue.acknowledge(1, 6, 2);
    assert_eq!(queue.position(1), (7, 2));
    queue.acknowledge(1, 7, 2);
    assert_eq!(queue.position(1), (7, 3));
    assert!(queue.next_batch(1, 3).is_none());
}

#[test]
fn a_new_epoch_forgets_everything() {
    let queue = started();
    push(&queue, Item::Touch(identity(1, 10)));
    queue.start(1, 8);
    assert_eq!(queue.pending_bytes(), 0);
    let refused = queue.try_push(1, 7, Item::Touch(identity(1, 11)));
    assert!(matches!(refused, Pushed::OtherEpoch));
    assert!(queue.next_batch(1, 1).is_none());
}

#[tokio::test]
async fn a_full_queue_makes_its_reader_wait_and_loses_nothing() {
    let queue = Arc::new(started());
    let many = limits::PENDING_BYTES as u64 / 160 + 100;
    let writer = Arc::clone(&queue);
    let writing = async move {
        for uid in 0..many {
            writer
                .push(1, 7, Item::Touch(identity(uid, uid + 1)))
                .await
                .unwrap();
        }
    };
    let reading = async {
        let (mut cursor, mut seen) = (1, 0);
        while seen < many {
            assert!(queue.pending_bytes() <= limits::PENDING_BYTES + 160);
            while let Some(batch) = queue.next_batch(1, cursor) {
                cursor = last_sequence(&batch) + 1;
                seen += u64::from(batch.count);
                queue.acknowledge(1, 7, cursor - 1);
            }
            tokio::task::yield_now().await;
        }
        seen
    };
    let ((), seen) = tokio::join!(writing, reading);
    assert_eq!(seen, many);
}

/// An upsert of about this size.
fn large(uid: u64, bytes: usize) -> Item {
    let filler = "x".repeat(bytes);
    let text = format!(
        r#"{{"metadata":{{"name":"a","uid":"{uid}","resourceVersion":"1","annotations":{{"a":"{filler}"}}}}}}"#
    );
    Item::Upsert(filter().object(text.as_bytes()).unwrap())
}

#[tokio::test]
async fn the_queues_of_an_agent_share_its_quota_and_each_keeps_a_part() {
    let quota = Arc::new(Quota::default());
    let queue = || {
        let queue = Queue::new(Arc::clone(&quota));
        queue.start(1, 7);
        queue
    };
    let unread: Vec<Queue> = (0..limits::PENDING_BYTES_PER_AGENT / limits::PENDING_BYTES)
        .map(|_| queue())
        .collect();
    for queue in &unread {
        push(queue, large(1, limits::PENDING_BYTES - 1024));
    }
    let late = queue();
    push(&late, large(1, limits::PENDING_BYTES_SHARE / 2));
    let waiting = late.push(1, 7, large(2, limits::PENDING_BYTES_SHARE));
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    // What another account does not hold any more is for all.
    unread[0].remove(1);
    waiting.await.unwrap();
}

#[test]
fn what_is_sent_while_more_comes_leaves_the_quota_as_it_was() {
    let quota = Arc::new(Quota::default());
    let queue = Queue::new(Arc::clone(&quota));
    queue.start(1, 7);
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let (reader, left) = (&queue, &quota);
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let mut next = 1;
            while ended.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                while let Some(batch) = reader.next_batch(1, next) {
                    // Less than nothing would be no room at all.
                    assert!(left.has_room(limits::PENDING_BYTES_SHARE, 1), "at {next}");
                    next = last_sequence(&batch) + 1;
                    reader.acknowledge(1, 7, next - 1);
                }
            }
        });
        for uid in 0..5_000 {
            push(&queue, large(uid, 200));
        }
        drop(done);
    });
}
