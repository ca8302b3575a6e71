//! What is stored, copied and refused.

use super::*;

fn stream(key: &str, objects: &[(&str, Option<&str>)], purge: bool) -> StreamCheckpoint {
    let objects = objects
        .iter()
        .map(|(key, value)| {
            (
                (*key).to_owned(),
                value.map(|value| value.as_bytes().to_vec()),
            )
        })
        .collect();
    StreamCheckpoint {
        key: key.to_owned(),
        cursor: Some(b"cursor".to_vec()),
        objects,
        purge,
    }
}

#[test]
fn what_was_checkpointed_is_found_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store
        .checkpoint(&[stream(
            "a/pods",
            &[("x", Some("1")), ("y", Some("2"))],
            false,
        )])
        .unwrap();
    store
        .checkpoint(&[stream("a/pods", &[("x", None)], false)])
        .unwrap();
    store
        .checkpoint(&[stream("a/podsets", &[("z", Some("3"))], false)])
        .unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(
        store.objects("a/pods").unwrap(),
        [("y".to_owned(), b"2".to_vec())]
    );
    assert_eq!(store.cursors().unwrap().len(), 2);
    store
        .checkpoint(&[stream("a/pods", &[("n", Some("4"))], true)])
        .unwrap();
    assert_eq!(
        store.objects("a/pods").unwrap(),
        [("n".to_owned(), b"4".to_vec())]
    );
    assert_eq!(store.objects("a/podsets").unwrap().len(), 1);
}

#[test]
fn a_copy_is_what_was_stored_when_it_began_and_opens_as_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    // More than one piece.
    let value = "v".repeat(COPY_BYTES / 3);
    let objects = ["a", "b", "c", "d"].map(|key| (key, Some(value.as_str())));
    let pods = stream("a/pods", &objects, false);
    store.checkpoint(&[pods]).unwrap();
    let registry = [("client/me".to_owned(), Some(b"{}".to_vec()))];
    store.write_registry(&registry).unwrap();
    let elsewhere = folder.path().join("copy");
    std::fs::create_dir(&elsewhere).unwrap();
    store.copy_to(&elsewhere.join(FILE), 1_800_000_000).unwrap();
    let later = stream("a/pods", &[("e", Some("5"))], false);
    store.checkpoint(&[later]).unwrap();
    let copy = Store::open(&elsewhere).unwrap();
    assert_eq!(copy.objects("a/pods").unwrap().len(), 4);
    assert_eq!(
        copy.registry().unwrap(),
        [("client/me".to_owned(), b"{}".to_vec())]
    );
    assert_eq!(copy.cursors().unwrap(), store.cursors().unwrap());
    // Whoever uses a copy is told once of when it is.
    assert_eq!(copy.copied(), Some(1_800_000_000));
    drop((copy, store));
    for used in [elsewhere.as_path(), folder.path()] {
        assert_eq!(Store::open(used).unwrap().copied(), None);
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store
        .with(|database| {
            let transaction = database.begin_write().unwrap();
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert("format", FORMAT + 1).unwrap();
            drop(meta);
            transaction.commit().map_err(access("write to"))
        })
        .unwrap();
    drop(store);
    for _ in 0..2 {
        let refused = Store::open(folder.path()).unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found, .. } if found == FORMAT + 1));
    }
}
