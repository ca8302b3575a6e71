//! Fields that the API server owns: what it checks, keeps and fills in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::objects::Part;
use super::refusal::Refusal;
use super::store::Key;

/// The text at `pointer`, or empty.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub(super) fn take_fields(object: &mut Value) -> Map<String, Value> {
    match object.take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

pub(super) fn remove_field(object: &mut Value, name: &str) -> Option<Value> {
    object
        .as_object_mut()
        .and_then(|fields| fields.remove(name))
}

/// Runs `edit` on the metadata of `object`, which becomes an object with metadata if it is none.
pub(super) fn edit_metadata(object: &mut Value, edit: impl FnOnce(&mut Map<String, Value>)) {
    let mut fields = take_fields(object);
    let mut metadata = fields.remove("metadata").unwrap_or_default();
    let mut inside = take_fields(&mut metadata);
    edit(&mut inside);
    fields.insert("metadata".into(), Value::Object(inside));
    *object = Value::Object(fields);
}

/// Bodies may leave `kind` and `apiVersion` out, but not say another one.
pub(super) fn check_type(kind: &Kind, object: &Value) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request("the body is not an object"));
    }
    let (said, version) = (text(object, "/kind"), text(object, "/apiVersion"));
    if (!said.is_empty() && said != kind.name)
        || (!version.is_empty() && version != kind.api_version())
    {
        let why = format!("{version} {said} does not match the resource on the URL");
        return Err(Refusal::bad_request(why));
    }
    Ok(())
}

pub(super) fn check_precondition(
    kind: &Kind,
    key: &Key,
    before: &Value,
    object: &Value,
) -> Result<(), Refusal> {
    for (field, why) in [
        (
            "/metadata/resourceVersion",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        ("/metadata/uid", "the UID does not match the UID in record"),
    ] {
        let said = text(object, field);
        if !said.is_empty() && said != text(before, field) {
            return Err(Refusal::conflict(kind, &key.name, why));
        }
    }
    Ok(())
}

/// A write of one part leaves the other as it was.
pub(super) fn keep_other_parts(kind: &Kind, before: &Value, object: &mut Value, part: Part) {
    match part {
        Part::All => {}
        Part::Main if !kind.has("status") => {}
        Part::Main => {
            remove_field(object, "status");
            if let (Some(fields), Some(status)) = (object.as_object_mut(), before.get("status")) {
                fields.insert("status".into(), status.clone());
            }
        }
        Part::Status => {
            let status = remove_field(object, "status");
            *object = before.clone();
            if let (Some(fields), Some(status)) = (object.as_object_mut(), status) {
                fields.insert("status".into(), status);
            }
        }
    }
}

/// Whether a write would change nothing: such a write gets no new version.
pub(super) fn same_content(before: &Value, after: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        edit_metadata(&mut object, |metadata| {
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
        });
        object
    };
    bare(before) == bare(after)
}

/// The generation counts changes of the spec.
pub(super) fn next_generation(before: Option<&Value>, object: &Value) -> Option<u64> {
    let spec = object.get("spec")?;
    let Some(before) = before else {
        return Some(1);
    };
    let current = before
        .pointer("/metadata/generation")
        .and_then(Value::as_u64);
    let current = current.unwrap_or(1);
    Some(current + u64::from(before.get("spec") != Some(spec)))
}

/// The API server keeps no nulls: a typed field that is null is a field that is not set.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A Secret's `stringData` is written as text and kept in `data`.
pub(super) fn decode_string_data(kind: &Kind, object: &mut Value) {
    if kind.name != "Secret" {
        return;
    }
    let mut fields = take_fields(object);
    let mut plain = fields.remove("stringData").unwrap_or_default();
    let plain = take_fields(&mut plain);
    let mut data = take_fields(&mut fields.remove("data").unwrap_or_default());
    for (key, value) in plain {
        let encoded = BASE64.encode(value.as_str().unwrap_or_default());
        data.insert(key, encoded.into());
    }
    if !data.is_empty() {
        fields.insert("data".into(), Value::Object(data));
    }
    fields.entry("type").or_insert_with(|| "Opaque".into());
    *object = Value::Object(fields);
}

/// A plausible block, so that there is something to drop from feeds.
pub(super) fn managed_fields(kind: &Kind, manager: &str, now: &str) -> Value {
    json!([{
        "manager": manager, "operation": "Update", "apiVersion": kind.api_version(), "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {
                "f:annotations": {".": {}}, "f:labels": {".": {}, "f:app": {}},
                "f:ownerReferences": {".": {}},
            },
            "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:metadata": {
                "f:labels": {".": {}, "f:app": {}}}}},
            "f:data": {".": {}},
        },
    }])
}
