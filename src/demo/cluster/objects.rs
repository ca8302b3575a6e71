//! Writes: what the API server fills in, checks and merges before an object is kept.

use std::sync::Arc;

use serde_json::Value;

use super::fields::{
    check_precondition, check_type, decode_string_data, drop_nulls, edit_metadata,
    keep_other_parts, managed_fields, next_generation, remove_field, same_content, text,
};
use super::kinds::{Kind, find};
use super::patch;
use super::refusal::Refusal;
use super::store::{Key, Store};
use crate::clock::{self, SharedClock};
use crate::entropy::{self, SharedEntropy};

/// Largest object, in bytes of JSON (etcd's default request limit).
const OBJECT_BYTES: usize = 1536 * 1024;

/// Kubernetes' alphabet for generated names: no vowels, nothing that looks alike.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How a patch body is meant, from its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchForm {
    Apply,
    Json,
    Merge,
    Strategic,
}

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status of kinds that have a status subresource.
    Main,
    /// The status alone.
    Status,
    /// Everything: the cluster's own controllers.
    All,
}

/// How a write is to be done.
#[derive(Clone, Debug)]
pub(super) struct Write<'a> {
    pub(super) part: Part,
    pub(super) dry_run: bool,
    /// The field manager to note.
    pub(super) manager: &'a str,
}

/// The cluster's writes.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) store: Arc<Store>,
    pub(super) clock: SharedClock,
    pub(super) entropy: SharedEntropy,
}

impl Objects {
    /// A random version 4 UUID.
    pub(super) fn uuid(&self) -> String {
        let mut bytes: [u8; 16] = entropy::bytes(&*self.entropy);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = hex::encode(bytes);
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        let tail = (part(16, 20), part(20, 32));
        format!(
            "{}-{}-{}-{}-{}",
            part(0, 8),
            part(8, 12),
            part(12, 16),
            tail.0,
            tail.1
        )
    }

    /// Creates `object` in `namespace`.
    pub(super) fn create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        mut object: Value,
        write: &Write<'_>,
    ) -> Result<Arc<Value>, Refusal> {
        check_type(kind, &object)?;
        let name = self.choose_name(kind, &object)?;
        self.check_namespace(kind, namespace, &name)?;
        if write.part == Part::Main && kind.has("status") {
            remove_field(&mut object, "status");
        }
        let key = Key::new(kind, namespace, &name);
        let made = self.store.change(&key, write.dry_run, |before, version| {
            if before.is_some() {
                return Err(Refusal::already_exists(kind, &name));
            }
            if !text(&object, "/metadata/resourceVersion").is_empty() {
                let why = "resourceVersion should not be set on objects to be created";
                return Err(Refusal::bad_request(why));
            }
            edit_metadata(&mut object, |metadata| {
                metadata.insert("uid".into(), self.uuid().into());
                let created = clock::rfc3339(self.clock.now());
                metadata.insert("creationTimestamp".into(), created.into());
            });
            self.finish(kind, &key, object, None, version, write)
                .map(Some)
        })?;
        made.ok_or_else(|| Refusal::not_found(kind, &name))
    }

    /// Replaces an object; the resourceVersion in `object`, if any, must be the current one.
    pub(super) fn update(
        &self,
        kind: &'static Kind,
        key: &Key,
        object: Value,
        write: &Write<'_>,
    ) -> Result<Arc<Value>, Refusal> {
        check_type(kind, &object)?;
        if text(&object, "/metadata/name") != key.name {
            let why = "the name of the object does not match the name on the URL";
            return Err(Refusal::bad_request(why));
        }
        self.revise(kind, key, write, |_| Ok(object))
    }

    /// Patches an object; an apply patch creates what is missing.
    pub(super) fn patch(
        &self,
        kind: &'static Kind,
        key: &Key,
        form: PatchForm,
        body: Value,
        write: &Write<'_>,
    ) -> Result<Arc<Value>, Refusal> {
        let missing = self.store.get(key).is_none();
        if form == PatchForm::Apply && missing && write.part == Part::Main {
            let mut object = body;
            edit_metadata(&mut object, |metadata| {
                metadata.insert("name".into(), key.name.as_str().into());
            });
            return self.create(kind, &key.namespace, object, write);
        }
        self.revise(kind, key, write, |current| {
            let mut object = current.clone();
            apply_patch(kind, &key.name, &mut object, form, &body)?;
            Ok(object)
        })
    }

    /// Changes an existing object with `edit`.
    pub(super) fn revise(
        &self,
        kind: &'static Kind,
        key: &Key,
        write: &Write<'_>,
        edit: impl FnOnce(&Value) -> Result<Value, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let changed = self.store.change(key, write.dry_run, |before, version| {
            let before = before.ok_or_else(|| Refusal::not_found(kind, &key.name))?;
            let mut object = edit(before)?;
            check_type(kind, &object)?;
            check_precondition(kind, key, before, &object)?;
            keep_other_parts(kind, before, &mut object, write.part);
            let after = self.finish(kind, key, object, Some(before), version, write)?;
            Ok((!same_content(before, &after)).then_some(after))
        })?;
        changed.ok_or_else(|| Refusal::not_found(kind, &key.name))
    }

    /// Deletes an object, what it owns (unless `orphan`), and what is in it if it is a namespace.
    pub(super) fn delete(
        &self,
        kind: &'static Kind,
        key: &Key,
        uid: Option<&str>,
        orphan: bool,
    ) -> Result<Arc<Value>, Refusal> {
        let removed = self.store.remove(key, |object| match uid {
            Some(wanted) if wanted != text(object, "/metadata/uid") => {
                let why = "the UID in the precondition does not match the UID in record";
                Err(Refusal::conflict(kind, &key.name, why))
            }
            _ => Ok(()),
        })?;
        let removed = removed.ok_or_else(|| Refusal::not_found(kind, &key.name))?;
        if kind.name == "Namespace" {
            for inside in self.store.keys(&key.name, |_, _| true) {
                self.store.remove(&inside, |_| Ok(()))?;
            }
        }
        if !orphan {
            self.delete_owned(key, text(&removed, "/metadata/uid"))?;
        }
        Ok(removed)
    }

    /// Deletes what `owner` owns, and what that owns.
    fn delete_owned(&self, key: &Key, owner: &str) -> Result<(), Refusal> {
        let mut owners = vec![owner.to_owned()];
        while let Some(owner) = owners.pop() {
            let owned = |_: &Key, object: &Value| {
                let references = object.pointer("/metadata/ownerReferences");
                let mut references = references.and_then(Value::as_array).into_iter().flatten();
                references.any(|reference| text(reference, "/uid") == owner)
            };
            for dependent in self.store.keys(&key.namespace, owned) {
                if let Some(gone) = self.store.remove(&dependent, |_| Ok(()))? {
                    owners.push(text(&gone, "/metadata/uid").to_owned());
                }
            }
        }
        Ok(())
    }

    fn choose_name(&self, kind: &Kind, object: &Value) -> Result<String, Refusal> {
        let prefix = text(object, "/metadata/generateName").to_owned();
        let name = text(object, "/metadata/name");
        if !name.is_empty() {
            if name.len() > 253 || name.contains(['/', '%']) {
                return Err(Refusal::invalid(kind, name, "metadata.name: Invalid value"));
            }
            return Ok(name.to_owned());
        }
        if prefix.is_empty() {
            let why = "metadata.name: Required value: name or generateName is required";
            return Err(Refusal::invalid(kind, "", why));
        }
        let drawn: [u8; 5] = entropy::bytes(&*self.entropy);
        let letters = drawn
            .iter()
            .filter_map(|byte| ALPHABET.get(usize::from(*byte) % 27));
        let name: String = prefix
            .chars()
            .chain(letters.map(|byte| char::from(*byte)))
            .collect();
        Ok(name)
    }

    fn check_namespace(&self, kind: &Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
        if !kind.namespaced {
            return Ok(());
        }
        let Some(namespaces) = find("", "v1", "namespaces") else {
            return Ok(());
        };
        if namespace.is_empty() {
            return Err(Refusal::invalid(
                kind,
                name,
                "metadata.namespace: Required value",
            ));
        }
        let key = Key::new(namespaces, "", namespace);
        match self.store.get(&key) {
            Some(_) => Ok(()),
            None => Err(Refusal::not_found(namespaces, namespace)),
        }
    }

    /// Fills in what the server owns.
    fn finish(
        &self,
        kind: &'static Kind,
        key: &Key,
        mut object: Value,
        before: Option<&Value>,
        version: u64,
        write: &Write<'_>,
    ) -> Result<Value, Refusal> {
        decode_string_data(kind, &mut object);
        drop_nulls(&mut object);
        let generation = next_generation(before, &object);
        let now = clock::rfc3339(self.clock.now());
        edit_metadata(&mut object, |metadata| {
            metadata.insert("name".into(), key.name.as_str().into());
            if kind.namespaced {
                metadata.insert("namespace".into(), key.namespace.as_str().into());
            }
            if let Some(before) = before {
                for owned in ["uid", "creationTimestamp"] {
                    let kept = before.pointer(&format!("/metadata/{owned}"));
                    metadata.insert(owned.into(), kept.cloned().unwrap_or_default());
                }
            }
            if let Some(generation) = generation {
                metadata.insert("generation".into(), generation.into());
            }
            metadata.insert("resourceVersion".into(), version.to_string().into());
            let managed = managed_fields(kind, write.manager, &now);
            metadata.insert("managedFields".into(), managed);
        });
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".into(), kind.api_version().into());
            fields.insert("kind".into(), kind.name.into());
        }
        let size = serde_json::to_vec(&object).map_or(usize::MAX, |bytes| bytes.len());
        if size > OBJECT_BYTES {
            return Err(Refusal::too_large(OBJECT_BYTES));
        }
        Ok(object)
    }
}

/// Applies a patch body to `object`.
pub(super) fn apply_patch(
    kind: &Kind,
    name: &str,
    object: &mut Value,
    form: PatchForm,
    body: &Value,
) -> Result<(), Refusal> {
    match form {
        PatchForm::Merge => patch::merge(object, body),
        PatchForm::Apply | PatchForm::Strategic => patch::strategic(object, body),
        PatchForm::Json => patch::json_patch(object, body)
            .map_err(|error| Refusal::invalid(kind, name, &error.to_string()))?,
    }
    Ok(())
}
