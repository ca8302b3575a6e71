//! One stream of an account as it is received.

use bytes::BytesMut;

use crate::limits;
use crate::resource::{Identity, ResourceVersion};
use crate::stream::Receiver;
use crate::view::{SnapshotEnd, StreamKey, View};
use crate::wire::v1;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) receiver: Receiver,
    /// Last sequence before the snapshot that is being received.
    pub(super) before_snapshot: Option<u64>,
    /// Last sequence before the object that is being put together, and its bytes.
    pub(super) parts: Option<(u64, BytesMut)>,
    /// The agent may not read it.
    pub(super) absent: bool,
}

impl Lane {
    pub(super) const fn new(receiver: Receiver) -> Self {
        Self {
            receiver,
            absent: false,
            before_snapshot: None,
            parts: None,
        }
    }

    /// Last sequence whose effect is in the view.
    pub(super) fn settled(&self) -> u64 {
        let parts = self.parts.as_ref().map(|(before, _)| *before);
        let pending = self.before_snapshot.into_iter().chain(parts).min();
        pending.unwrap_or(self.receiver.applied)
    }

    /// Applies the event behind sequence `before`; true if it completed a snapshot.
    ///
    /// # Errors
    /// What no well-behaved agent tells, in a sentence.
    pub(super) fn event(
        &mut self,
        view: &View,
        key: &StreamKey,
        event: v1::event::Event,
        before: u64,
    ) -> Result<bool, String> {
        use v1::event::Event as E;
        match event {
            E::Upsert(upsert) => {
                let identity = identity_of(upsert.identity)?;
                let (at, length) = (upsert.version_at, upsert.version_length);
                view.upsert(key, identity, upsert.object, at, length, upsert.opaque);
            }
            E::Part(part) => {
                let (begun, mut object) = self.parts.take().unwrap_or((before, BytesMut::new()));
                if object.len() + part.bytes.len() > limits::OBJECT_BYTES {
                    return Err("an object over 4 MiB".into());
                }
                object.extend_from_slice(&part.bytes);
                if part.last {
                    let identity = identity_of(part.identity)?;
                    let (at, length) = (part.version_at, part.version_length);
                    view.upsert(key, identity, object.freeze(), at, length, false);
                } else {
                    self.parts = Some((begun, object));
                }
            }
            E::Touch(touch) => {
                view.touch(key, &identity_of(touch.identity)?);
            }
            E::Delete(delete) => {
                view.delete(key, &identity_of(delete.identity)?);
            }
            E::Bookmark(bookmark) => {
                view.bookmark(key, ResourceVersion(bookmark.resource_version));
            }
            E::SnapshotBegin(_) => {
                self.before_snapshot.get_or_insert(before);
                view.snapshot_begin(key);
            }
            E::SnapshotEnd(end) => {
                let ended = view.snapshot_end(key, ResourceVersion(end.resource_version));
                self.before_snapshot = None;
                if matches!(ended, SnapshotEnd::NotBegun) {
                    return Err("a snapshot ended that had not begun".into());
                }
                self.absent = false;
                return Ok(true);
            }
            E::Status(status) => match status.condition() {
                v1::StreamCondition::Absent => self.absent = true,
                v1::StreamCondition::Interrupted => view.interrupted(key),
                v1::StreamCondition::Live => {
                    self.absent = false;
                    view.resumed(key);
                }
                v1::StreamCondition::Unspecified => {}
            },
        }
        Ok(false)
    }
}

fn identity_of(identity: Option<v1::ObjectIdentity>) -> Result<Identity, String> {
    let identity = identity.ok_or("an event without identity")?;
    let parts = [&identity.namespace, &identity.name, &identity.uid];
    if parts.iter().any(|part| part.len() > limits::IDENTITY_BYTES) {
        return Err("an identity that no object can have".to_owned());
    }
    Ok(Identity {
        namespace: identity.namespace,
        name: identity.name,
        uid: identity.uid,
        resource_version: ResourceVersion(identity.resource_version),
    })
}
