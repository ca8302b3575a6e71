//! Objects, watch events and lists of feeds.

use super::*;
use crate::resource::{Identity, ResourceVersion};

const SECRET: &str = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db","namespace":"shop","uid":"u-1","resourceVersion":"4711","managedFields":[{"manager":"x"}]},"data":{"password":"cGxhbnRlZC12YWx1ZS0x"},"type":"Opaque"}"#;

fn identity() -> Identity {
    Identity {
        namespace: "shop".into(),
        name: "db".into(),
        uid: "u-1".into(),
        resource_version: ResourceVersion(4711),
    }
}

#[test]
fn a_masked_secret_keeps_its_keys_and_loses_its_values() {
    let filter = secrets();
    assert!(filter.masks());
    let object = filter.object(SECRET.as_bytes()).unwrap();
    let expected = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db","namespace":"shop","uid":"u-1","resourceVersion":"4711"},"data":{"password":"c29ydGllLmRldi9zZWNyZXQtbWFza2VkOnYx"},"type":"Opaque"}"#;
    assert_eq!(
        std::str::from_utf8(object.bytes.as_bytes()).unwrap(),
        expected
    );
    assert_eq!(object.identity, identity());
    let trail = filter.trail();
    assert_eq!(
        (trail.objects, trail.values_masked, trail.fields_dropped),
        (1, 1, 1)
    );
    assert_eq!(trail.bytes_in, SECRET.len() as u64);
    assert_eq!(trail.bytes_out, expected.len() as u64);
}

#[test]
fn the_place_of_the_version_is_that_in_the_output() {
    let early = SECRET.replace("\"name\"", "\"managedFields\":[1,2,3],\"name\"");
    let object = secrets().object(early.as_bytes()).unwrap();
    let start = object.version_at as usize;
    let digits = &object.bytes.as_bytes()[start..start + object.version_length as usize];
    assert_eq!(digits, b"4711");
}

#[test]
fn the_hash_ignores_the_version_and_nothing_else() {
    let filter = secrets();
    let hash = |text: String| filter.object(text.as_bytes()).unwrap().content_hash;
    let first = hash(SECRET.into());
    assert_eq!(first, hash(SECRET.replace("4711", "4712000")));
    assert_eq!(first, hash(SECRET.replace("cGxhbnRlZC12YWx1ZS0x", "eA==")));
    assert_ne!(first, hash(SECRET.replace("Opaque", "Opaqu4")));
    let other_key = secrets().object(SECRET.as_bytes()).unwrap().content_hash;
    assert_ne!(first, other_key);
}

#[test]
fn each_watch_event_is_understood() {
    let filter = secrets();
    let event = |kind: &str, object: &str| {
        let line = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
        filter.watch_event(line.as_bytes())
    };
    for kind in ["ADDED", "MODIFIED"] {
        let WatchEvent::Upsert(object) = event(kind, SECRET).unwrap() else {
            panic!("{kind} is no upsert");
        };
        assert_eq!(object, filter.object(SECRET.as_bytes()).unwrap());
    }
    assert_eq!(event("DELETED", SECRET), Ok(WatchEvent::Delete(identity())));
    let bookmark = r#"{"kind":"Secret","metadata":{"resourceVersion":"12","creationTimestamp":null,"annotations":{"k8s.io/initial-events-end":"true"}}}"#;
    let expected = WatchEvent::Bookmark {
        version: ResourceVersion(12),
        initial_events_end: true,
    };
    assert_eq!(event("BOOKMARK", bookmark), Ok(expected));
    let gone = r#"{"kind":"Status","reason":"Expired","code":410,"message":"planted-value-1"}"#;
    let expected = WatchEvent::Error {
        code: 410,
        reason: "Expired".into(),
    };
    assert_eq!(event("ERROR", gone), Ok(expected));
    let strange = r#"{"kind":"Status","reason":"planted-value-1","code":500}"#;
    let expected = WatchEvent::Error {
        code: 500,
        reason: "Unknown".into(),
    };
    assert_eq!(event("ERROR", strange), Ok(expected));
    assert_eq!(event("RENAMED", SECRET).unwrap_err().label, "shape");
}

#[test]
fn the_type_may_follow_the_object() {
    let line = format!("{{\"object\":{SECRET},\"type\":\"ADDED\"}}");
    let WatchEvent::Upsert(object) = secrets().watch_event(line.as_bytes()).unwrap() else {
        panic!("no upsert");
    };
    assert!(!leaks(object.bytes.as_bytes()));
    assert_eq!(object.identity, identity());
}

#[test]
fn partial_metadata_is_an_object_like_any_other() {
    let partial = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"db","uid":"u","resourceVersion":"1","annotations":{"a":"planted-value-1"}}}"#;
    let object = secrets().object(partial.as_bytes()).unwrap();
    assert_eq!(
        parse(object.bytes.as_bytes())["metadata"]["annotations"],
        serde_json::json!({})
    );
    let unmasked = pods().object(partial.as_bytes()).unwrap();
    assert_eq!(unmasked.bytes.as_bytes(), partial.as_bytes());
}

#[test]
fn a_refused_object_tells_who_it_was() {
    let broken = SECRET.replace(":\"Opaque\"}", ":Opaque}");
    let refused = secrets().object(broken.as_bytes()).unwrap_err();
    assert_eq!(
        (refused.label, refused.identity),
        ("syntax", Some(identity()))
    );
    let line = format!("{{\"type\":\"DELETED\",\"object\":{broken}}}");
    let refused = secrets().watch_event(line.as_bytes()).unwrap_err();
    assert!(refused.deleted);
    assert_eq!(refused.identity, Some(identity()));
}

/// Everything a scanner finds in `text`, given `step` bytes at a time.
fn scan(text: &[u8], step: usize) -> Result<(Vec<String>, ListEnd), Refused> {
    let mut scanner = ListScanner::new();
    let mut buffer = crate::secret::Buffer::new(1 << 20);
    let (mut items, mut end) = (Vec::new(), None);
    for piece in text.chunks(step) {
        assert!(buffer.push(piece));
        loop {
            let filled = buffer.filled();
            let consume = match scanner.step(filled)? {
                ListStep::More => break,
                ListStep::Item { at, consume } => {
                    items.push(String::from_utf8_lossy(&filled[at]).into_owned());
                    consume
                }
                ListStep::End { list, consume } => {
                    end = Some(list);
                    consume
                }
                ListStep::Progress { consume }
                | ListStep::ItemsBegin { consume }
                | ListStep::Member { consume, .. } => consume,
            };
            buffer.consume(consume);
        }
    }
    end.map(|end| (items, end))
        .ok_or_else(|| Flaw::Truncated.into())
}

#[test]
fn a_list_is_taken_apart_however_it_arrives() {
    let metadata = r#""metadata":{"resourceVersion":"99","continue":"n\u0065xt"}"#;
    let items = r#""it\u0065ms" : [ {"a":"]}"} , {"b":[{}]} ]"#;
    let expected = ListEnd {
        resource_version: Some(ResourceVersion(99)),
        continue_token: Some("next".into()),
    };
    for text in [
        format!(r#"{{"kind":"SecretList","apiVersion":"v1",{metadata},{items}}}"#),
        format!(" {{ {items} , {metadata}, \"x\": 12 }}\n"),
    ] {
        for step in 1..text.len() {
            let (found, end) = scan(text.as_bytes(), step).unwrap();
            assert_eq!(found, [r#"{"a":"]}"}"#, r#"{"b":[{}]}"#], "{step}");
            assert_eq!(end, expected);
        }
    }
    let empty = scan(br#"{"items":null,"metadata":{"resourceVersion":""}}"#, 7).unwrap();
    assert_eq!(empty, (Vec::new(), ListEnd::default()));
}

#[test]
fn what_is_not_one_list_is_refused() {
    for text in [
        "[]",
        "{\"items\":[{},]}",
        "{\"items\":[,{}]}",
        "{\"items\":[{} {}]}",
        "{\"items\":[1]}",
        "{\"items\":[{}],}",
        "{\"items\":[],\"items\":[]}",
        "{\"items\":{}}",
        "{\"metadata\":{},\"metadata\":{}}",
        "{\"metadata\":{\"resourceVersion\":\"1x\"}}",
        "{\"items\":[]} x",
        "{\"items\":[]}{}",
        "{\"kind\" \"x\"}",
        "{\"kind\":nope}",
        "{\"items\":[{}]",
        "{,}",
    ] {
        assert!(scan(text.as_bytes(), 3).is_err(), "{text}");
        assert!(scan(text.as_bytes(), 100).is_err(), "{text}");
    }
}
