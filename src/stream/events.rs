//! What is told of an item, in the words of the wire.

use super::batch::PART_BYTES;
use super::queue::Item;
use crate::resource::Identity;
use crate::scrub;
use crate::wire::v1;

fn identity_of(identity: &Identity) -> v1::ObjectIdentity {
    v1::ObjectIdentity {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
        uid: identity.uid.clone(),
        resource_version: identity.resource_version.0,
    }
}

/// The events that carry `item`: one, or the parts of a large object.
pub(super) fn events_of(item: Item) -> Vec<v1::Event> {
    use v1::event::Event as E;
    let event = match item {
        Item::Upsert(object) if object.bytes.as_bytes().len() > PART_BYTES => {
            return parts_of(&object);
        }
        Item::Upsert(object) => E::Upsert(v1::Upsert {
            identity: Some(identity_of(&object.identity)),
            version_at: object.version_at,
            version_length: object.version_length,
            object: object.bytes.into_bytes(),
            opaque: false,
        }),
        Item::Opaque(identity) => E::Upsert(v1::Upsert {
            identity: Some(identity_of(&identity)),
            opaque: true,
            ..v1::Upsert::default()
        }),
        Item::Touch(identity) => E::Touch(v1::Touch {
            identity: Some(identity_of(&identity)),
        }),
        Item::Delete(identity) => E::Delete(v1::Delete {
            identity: Some(identity_of(&identity)),
        }),
        Item::Bookmark(version) => E::Bookmark(v1::Bookmark {
            resource_version: version.0,
        }),
        Item::SnapshotBegin => E::SnapshotBegin(v1::SnapshotBegin {}),
        Item::SnapshotEnd(version) => E::SnapshotEnd(v1::SnapshotEnd {
            resource_version: version.0,
        }),
        Item::Status(condition, message) => E::Status(v1::StreamStatus {
            condition: condition.into(),
            message,
        }),
    };
    vec![v1::Event { event: Some(event) }]
}

fn parts_of(object: &scrub::Object) -> Vec<v1::Event> {
    let bytes = object.bytes.clone().into_bytes();
    let count = bytes.len().div_ceil(PART_BYTES);
    (0..count)
        .map(|part| {
            let from = part * PART_BYTES;
            let until = (from + PART_BYTES).min(bytes.len());
            let part = v1::ObjectPart {
                identity: Some(identity_of(&object.identity)),
                version_at: object.version_at,
                version_length: object.version_length,
                last: part + 1 == count,
                bytes: bytes.slice(from..until),
            };
            v1::Event {
                event: Some(v1::event::Event::Part(part)),
            }
        })
        .collect()
}
