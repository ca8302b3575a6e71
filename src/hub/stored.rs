//! How the store writes an account down: keys, cursors and objects.

use serde::{Deserialize, Serialize};

use crate::resource::{Gvr, Identity, ResourceVersion, Scope};
use crate::view::{Object, StreamKey};

/// Where a stream stands. Stored with the objects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) kind: String,
    pub(super) epoch: u64,
    pub(super) applied: u64,
    pub(super) version: u64,
    pub(super) complete: bool,
    /// When this was written, in seconds since the Unix epoch.
    pub(super) at: u64,
}

/// `account/group/version/resource/scope`; the scope `*` is the whole cluster.
pub(super) fn stream_key(account: &str, key: &StreamKey) -> String {
    let gvr = &key.gvr;
    format!(
        "{account}/{}/{}/{}/{}",
        gvr.group, gvr.version, gvr.resource, key.scope
    )
}

/// Reads what [`stream_key`] wrote: account and stream.
pub(super) fn parse_stream_key(text: &str) -> Option<(&str, StreamKey)> {
    let mut parts = text.split('/');
    let (account, group, version) = (parts.next()?, parts.next()?, parts.next()?);
    let (resource, scope) = (parts.next()?, parts.next()?);
    let scope = match scope {
        "*" => Scope::Cluster,
        namespace => Scope::Namespace(namespace.to_owned()),
    };
    Some((
        account,
        StreamKey {
            gvr: Gvr::new(group, version, resource),
            scope,
        },
    ))
}

/// `namespace/name`; cluster-scoped objects have no namespace.
pub(super) fn object_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// version, place of its digits, opaque, length of uid, uid, JSON.
pub(super) fn store_object(object: &Object) -> Vec<u8> {
    let identity = object.identity();
    let (at, length) = object.version_place();
    let json = object.json();
    let mut value = Vec::with_capacity(19 + identity.uid.len() + json.len());
    value.extend(identity.resource_version.0.to_le_bytes());
    value.extend(at.to_le_bytes());
    value.extend(length.to_le_bytes());
    value.push(u8::from(object.is_opaque()));
    let uid_length = u16::try_from(identity.uid.len()).unwrap_or(u16::MAX);
    value.extend(uid_length.to_le_bytes());
    value.extend(identity.uid.as_bytes().iter().take(uid_length.into()));
    value.extend_from_slice(&json);
    value
}

/// Reads what [`store_object`] wrote under `name`, an [`object_key`].
pub(super) fn load_object(key: &StreamKey, kind: &str, name: &str, value: &[u8]) -> Option<Object> {
    let (version, rest) = value.split_first_chunk::<8>()?;
    let (at, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (opaque, rest) = rest.split_first_chunk::<1>()?;
    let (uid_length, rest) = rest.split_first_chunk::<2>()?;
    let (uid, json) = rest.split_at_checked(u16::from_le_bytes(*uid_length).into())?;
    let (namespace, name) = name.split_once('/')?;
    let identity = Identity {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: String::from_utf8(uid.to_vec()).ok()?,
        resource_version: ResourceVersion(u64::from_le_bytes(*version)),
    };
    Some(Object::new(
        &key.gvr,
        kind,
        identity,
        json.to_vec().into(),
        u32::from_le_bytes(*at),
        u32::from_le_bytes(*length),
        *opaque == [1],
    ))
}
