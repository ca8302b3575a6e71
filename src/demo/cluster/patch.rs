//! The patch forms of the Kubernetes API: merge, strategic merge, JSON patch.
//!
//! Sources: RFC 7386, RFC 6902, RFC 6901; Kubernetes API conventions, "Strategic Merge Patch".

use serde_json::{Map, Value};

/// Operations one JSON patch may hold (kube-apiserver's own bound).
const OPERATIONS: usize = 10_000;

/// Lists that strategic merge patch merges by a key; all others are replaced.
const MERGED_LISTS: [(&str, &str); 6] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "containerPort"),
];

/// Applies a JSON merge patch (RFC 7386).
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    let mut fields = take_fields(target);
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
    *target = Value::Object(fields);
}

/// Applies a strategic merge patch: a merge patch that merges the lists it knows by their key.
///
/// `$patch: delete` removes a list's item, `$patch: replace` replaces a map or list; other
/// directives (`$setElementOrder`, `$retainKeys`) only concern order and are left out.
pub(super) fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    let mut fields = take_fields(target);
    if directive(patch) == Some("replace") {
        fields.clear();
    }
    for (key, change) in changes.iter().filter(|(key, _)| !key.starts_with('$')) {
        let list_key = MERGED_LISTS.iter().find(|(list, _)| list == key);
        match (change, list_key) {
            (Value::Null, _) => {
                fields.remove(key);
            }
            (Value::Array(items), Some((_, by))) if mergeable(items, by) => {
                let list = fields.entry(key.clone()).or_insert(Value::Null);
                merge_list(list, items, by);
            }
            _ => strategic(fields.entry(key.clone()).or_insert(Value::Null), change),
        }
    }
    *target = Value::Object(fields);
}

fn directive(patch: &Value) -> Option<&str> {
    patch.get("$patch").and_then(Value::as_str)
}

/// A service's ports, say, have no `containerPort`: such a list is replaced.
fn mergeable(items: &[Value], by: &str) -> bool {
    items
        .iter()
        .all(|item| item.get(by).is_some() || directive(item) == Some("replace"))
}

fn merge_list(target: &mut Value, items: &[Value], by: &str) {
    let mut list = match target.take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    if items.iter().any(|item| directive(item) == Some("replace")) {
        list.clear();
    }
    for item in items.iter().filter(|item| item.get(by).is_some()) {
        let same = |candidate: &Value| candidate.get(by) == item.get(by);
        if directive(item) == Some("delete") {
            list.retain(|candidate| !same(candidate));
        } else if let Some(found) = list.iter_mut().find(|candidate| same(candidate)) {
            strategic(found, item);
        } else {
            let mut fresh = Value::Null;
            strategic(&mut fresh, item);
            list.push(fresh);
        }
    }
    *target = Value::Array(list);
}

/// The fields of `value`, which is left null; none if it is no object.
fn take_fields(value: &mut Value) -> Map<String, Value> {
    match value.take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Why a JSON patch could not be applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JsonPatchError {
    /// Not a list of operations, or an operation lacks what it needs.
    #[error("the patch is not a list of operations with op, path and value")]
    Malformed,
    /// A path leads nowhere.
    #[error("the path `{path}` does not exist")]
    NoSuchPath { path: String },
    /// A `test` did not hold.
    #[error("testing the value at `{path}` failed")]
    TestFailed { path: String },
}

/// Applies a JSON patch (RFC 6902); on error `target` may be partly changed.
pub(super) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), JsonPatchError> {
    let operations = patch.as_array().ok_or(JsonPatchError::Malformed)?;
    if operations.len() > OPERATIONS {
        return Err(JsonPatchError::Malformed);
    }
    for operation in operations {
        let text = |key: &str| {
            operation
                .get(key)
                .and_then(Value::as_str)
                .ok_or(JsonPatchError::Malformed)
        };
        let value = || operation.get("value").ok_or(JsonPatchError::Malformed);
        let path = text("path")?;
        match text("op")? {
            "add" => add(target, path, value()?.clone())?,
            "remove" => drop(remove(target, path)?),
            "replace" => *at(target, path)? = value()?.clone(),
            "copy" => {
                let copied = at(target, text("from")?)?.clone();
                add(target, path, copied)?;
            }
            "move" => {
                let moved = remove(target, text("from")?)?;
                add(target, path, moved)?;
            }
            "test" => {
                if at(target, path)? != value()? {
                    return Err(JsonPatchError::TestFailed { path: path.into() });
                }
            }
            _ => return Err(JsonPatchError::Malformed),
        }
    }
    Ok(())
}

fn no_such(path: &str) -> JsonPatchError {
    JsonPatchError::NoSuchPath { path: path.into() }
}

fn at<'a>(target: &'a mut Value, path: &str) -> Result<&'a mut Value, JsonPatchError> {
    target.pointer_mut(path).ok_or_else(|| no_such(path))
}

/// Splits `path` into its parent and the unescaped last token.
fn parent(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), JsonPatchError> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = parent(path).ok_or_else(|| no_such(path))?;
    match at(target, parent)? {
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) => {
            let index = if last == "-" {
                items.len()
            } else {
                index(&last).ok_or_else(|| no_such(path))?
            };
            if index > items.len() {
                return Err(no_such(path));
            }
            items.insert(index, value);
        }
        _ => return Err(no_such(path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, JsonPatchError> {
    let (parent, last) = parent(path).ok_or_else(|| no_such(path))?;
    match at(target, parent)? {
        Value::Object(fields) => fields.remove(&last).ok_or_else(|| no_such(path)),
        Value::Array(items) => match index(&last) {
            Some(index) if index < items.len() => Ok(items.remove(index)),
            _ => Err(no_such(path)),
        },
        _ => Err(no_such(path)),
    }
}

/// An array index has no sign and no leading zero (RFC 6901 §4).
fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with('0');
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    (plain && digits).then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_removes_with_null_and_replaces_lists() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(
            &mut target,
            &json!({"a": {"b": null, "d": {"e": null}}, "l": [3]}),
        );
        assert_eq!(target, json!({"a": {"c": 2, "d": {}}, "l": [3]}));
    }

    #[test]
    fn a_strategic_patch_merges_containers_by_name() {
        let mut target = json!({"containers": [
            {"name": "web", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"name": "log", "image": "log:1"},
        ]});
        let patch = json!({
            "$setElementOrder/containers": [{"name": "web"}],
            "containers": [
                {"name": "web", "image": "web:2", "ports": [{"containerPort": 443}]},
                {"name": "log", "$patch": "delete"},
                {"name": "new", "env": [{"name": "A", "value": "1"}]},
            ],
        });
        strategic(&mut target, &patch);
        assert_eq!(
            target,
            json!({"containers": [
                {"name": "web", "image": "web:2", "ports":
                    [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 443}]},
                {"name": "new", "env": [{"name": "A", "value": "1"}]},
            ]})
        );
    }

    proptest! {
        #[test]
        fn a_json_patch_leads_somewhere_or_is_refused(path in "[/a-c0-9~-]{0,12}", op in 0_usize..6) {
            let op = ["add", "remove", "replace", "move", "copy", "test"][op];
            let patch = json!([{"op": op, "path": path, "from": "/a", "value": 1}]);
            let mut target = json!({"a": [1, {"b": 2}], "c": "text"});
            let before = target.clone();
            if json_patch(&mut target, &patch).is_ok() && op == "add" {
                prop_assert!(target != before || path.is_empty());
            }
        }
    }

    #[test]
    fn a_json_patch_knows_all_six_operations() {
        let mut target = json!({"a": [1, 3], "x~/y": {"z": 1}});
        let patch = json!([
            {"op": "test", "path": "/a/1", "value": 3},
            {"op": "add", "path": "/a/1", "value": 2},
            {"op": "add", "path": "/a/-", "value": 4},
            {"op": "replace", "path": "/x~0~1y/z", "value": 9},
            {"op": "copy", "from": "/x~0~1y", "path": "/copy"},
            {"op": "move", "from": "/copy/z", "path": "/moved"},
            {"op": "remove", "path": "/a/0"},
        ]);
        json_patch(&mut target, &patch).expect("applies");
        let expected = json!({"a": [2, 3, 4], "x~/y": {"z": 9}, "copy": {}, "moved": 9});
        assert_eq!(target, expected);
    }

    #[test]
    fn a_json_patch_that_does_not_fit_is_refused() {
        for patch in [
            json!({}),
            json!([{"op": "remove", "path": "/nope"}]),
            json!([{"op": "add", "path": "/a/01", "value": 1}]),
            json!([{"op": "add", "path": "/a/9", "value": 1}]),
            json!([{"op": "test", "path": "/a/0", "value": 2}]),
            json!([{"op": "fly", "path": "/a"}]),
            json!([{"op": "add", "path": "/a"}]),
        ] {
            assert!(
                json_patch(&mut json!({"a": [1]}), &patch).is_err(),
                "{patch}"
            );
        }
    }
}
