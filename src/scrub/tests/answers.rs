//! Answers of tunnelled operations: every shape, in pieces of every size.

use serde_json::json;

use super::*;

const LIST: &str = "/api/v1/namespaces/shop/secrets";
const ONE: &str = "/api/v1/namespaces/shop/secrets/db";
const MASK: &str = "sortie.dev/secret-masked:v1";

fn filtered(path: &str, status: u16, body: &Value) -> Value {
    let text = body.to_string();
    let whole = answer(path, status, text.as_bytes(), text.len()).unwrap();
    for step in [1, 2, 7, 100] {
        assert_eq!(
            answer(path, status, text.as_bytes(), step).unwrap(),
            whole,
            "{step}"
        );
    }
    assert!(!leaks(&whole));
    parse(&whole)
}

fn table(columns: &[&str], cells: &Value) -> Value {
    let columns: Vec<Value> = columns.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": "1" },
        "columnDefinitions": columns,
        "rows": [{ "cells": cells, "conditions": [PLANTED], "object": {
            "kind": "PartialObjectMetadata",
            "metadata": { "name": "db", "annotations": { "a": PLANTED } },
        }}],
    })
}

#[test]
fn answers_about_other_kinds_pass_byte_for_byte() {
    let target = Target::parse("GET", "/api/v1/namespaces/shop/pods/web/log").unwrap();
    let text = b"not json \xff\x00 at all";
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/vnd.kubernetes.protobuf"),
    ] {
        let mut filter = AnswerFilter::new(rules(), &target, 200, content_type).unwrap();
        let mut out = Vec::new();
        filter.push(text, &mut out).unwrap();
        filter.finish().unwrap();
        assert_eq!(out.first().unwrap().as_bytes(), text);
    }
}

#[test]
fn a_masked_kind_answers_in_json_or_not_at_all() {
    let target = Target::parse("GET", ONE).unwrap();
    let make = |content_type| AnswerFilter::new(rules(), &target, 200, content_type);
    assert!(make(Some("application/json")).is_ok());
    assert!(make(Some("Application/JSON; charset=utf-8")).is_ok());
    for other in [
        "application/vnd.kubernetes.protobuf",
        "text/plain",
        "application/yaml",
        "",
    ] {
        assert_eq!(make(Some(other)).unwrap_err(), Unfilterable, "{other}");
    }
    assert!(answer(ONE, 404, b"404 page not found: planted-value-1", 8).is_err());
}

#[test]
fn an_object_keeps_its_managed_fields_as_keys() {
    let secret = json!({
        "kind": "Secret", "data": { "a": PLANTED }, "metadata": { "name": "db", "managedFields": [{
            "manager": "kubectl", "fieldsV1": { "f:data": { ".": {}, "f:a": PLANTED }, "v:1": {} },
        }]},
    });
    let answered = filtered(ONE, 200, &secret);
    assert_eq!(
        answered["metadata"]["managedFields"],
        json!([{ "manager": "kubectl", "fieldsV1": { "f:data": { ".": {}, "f:a": {} } } }])
    );
}

#[test]
fn a_list_is_filtered_item_by_item() {
    let item = json!({ "metadata": { "name": "db" }, "data": { "a": PLANTED }, "x": PLANTED });
    let list = json!({
        "kind": "SecretList", "apiVersion": "v1", "note": PLANTED, "zzz": PLANTED,
        "metadata": { "resourceVersion": "7", "continue": "next", "note": PLANTED },
        "items": [item, item],
    });
    let answered = filtered(LIST, 200, &list);
    let masked = json!({
        "metadata": { "name": "db" },
        "data": { "a": "c29ydGllLmRldi9zZWNyZXQtbWFza2VkOnYx" },
    });
    let expected = json!({
        "kind": "SecretList", "apiVersion": "v1",
        "metadata": { "resourceVersion": "7", "continue": "next" },
        "items": [masked, masked],
    });
    assert_eq!(answered, expected);
    let empty = json!({ "items": [], "metadata": {} });
    assert_eq!(filtered(LIST, 200, &empty), empty);
}

#[test]
fn a_list_without_items_may_say_null_and_may_be_cut_there() {
    let list = json!({ "kind": "SecretList", "apiVersion": "v1", "items": null, "metadata": {} });
    let expected = json!({ "kind": "SecretList", "apiVersion": "v1", "metadata": {} });
    assert_eq!(filtered(LIST, 200, &list), expected);
}

#[test]
fn items_leave_before_the_list_has_ended() {
    let target = Target::parse("GET", LIST).unwrap();
    let mut filter = AnswerFilter::new(rules(), &target, 200, None).unwrap();
    let mut out = Vec::new();
    filter
        .push(br#"{"items":[{"data":{"a":"b"}},{"data""#, &mut out)
        .unwrap();
    let so_far: usize = out.iter().map(|piece| piece.as_bytes().len()).sum();
    assert!(so_far > 20);
    assert_eq!(filter.finish().unwrap_err().label, "truncated");
}

#[test]
fn cells_of_unknown_columns_are_masked() {
    let known = table(
        &["Name", "Type", "Data", "Age"],
        &json!(["db", "Opaque", 1, "3d"]),
    );
    let answered = filtered(LIST, 200, &known);
    assert_eq!(
        answered["rows"][0]["cells"],
        json!(["db", "Opaque", 1, "3d"])
    );
    assert_eq!(
        answered["rows"][0]["object"]["metadata"],
        json!({ "name": "db", "annotations": {} })
    );
    let unknown = table(
        &["Name", "Value", "Age"],
        &json!(["db", PLANTED, [PLANTED], PLANTED]),
    );
    let answered = filtered(LIST, 200, &unknown);
    assert_eq!(
        answered["rows"][0]["cells"],
        json!(["db", MASK, MASK, MASK])
    );
}

#[test]
fn a_watch_of_tables_remembers_its_columns() {
    let first = table(&["Name", "Value"], &json!(["db", PLANTED]));
    let mut second = first.clone();
    second["columnDefinitions"] = Value::Null;
    let lines = format!(
        "{}\n{}\n",
        json!({ "type": "ADDED", "object": first }),
        json!({ "type": "MODIFIED", "object": second })
    );
    for step in [1, 50, 10_000] {
        let path = format!("{LIST}?watch=true");
        let answered = answer(&path, 200, lines.as_bytes(), step).unwrap();
        assert!(!leaks(&answered));
        for line in std::str::from_utf8(&answered).unwrap().lines() {
            assert_eq!(
                parse(line.as_bytes())["object"]["rows"][0]["cells"],
                json!(["db", MASK])
            );
        }
    }
}

#[test]
fn a_status_says_what_failed_without_quoting_it() {
    let status = |reason: &str, message: &str| {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
            "message": message, "code": 422, "data": { "a": PLANTED },
            "details": { "name": "db", "kind": "secrets", "note": PLANTED, "causes": [
                { "reason": "FieldValueInvalid", "message": message, "field": "data[a]" },
            ]},
        });
        filtered(ONE, 422, &body)
    };
    let invalid = status("Invalid", "data[a]: Invalid value: \"planted-value-1\"");
    assert_eq!(
        invalid["message"],
        "the API server answered Invalid for `db`; fields: data[a] (its text is withheld, since it may quote masked values)"
    );
    assert_eq!(
        invalid["details"]["causes"],
        json!([{ "reason": "FieldValueInvalid", "field": "data[a]" }])
    );
    let missing = status("NotFound", "secrets \"db\" not found");
    assert_eq!(missing["message"], "secrets \"db\" not found");
    let denied = status(
        "Forbidden",
        "webhook \"w\" denied the request: planted-value-1",
    );
    assert_eq!(
        denied["message"],
        "webhook \"w\" denied the request (its text is withheld)"
    );
    let by_policy = status(
        "Forbidden",
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: planted-value-1",
    );
    assert_eq!(
        by_policy["message"],
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request (its text is withheld)"
    );
    let strange = status(PLANTED, PLANTED);
    assert_eq!(strange["reason"], "Unknown");
}

#[test]
fn what_a_webhook_says_besides_its_message_is_withheld() {
    for reason in ["Forbidden", "Conflict", "Invalid", "TooManyRequests"] {
        let body = json!({
            "kind": "Status", "status": "Failure", "reason": reason, "code": 403,
            "message": "admission webhook \"w\" denied the request without explanation",
            "details": {
                "name": PLANTED, "kind": PLANTED, "group": PLANTED, "uid": PLANTED,
                "retryAfterSeconds": 7,
                "causes": [{
                    "reason": "FieldManagerConflict", "message": PLANTED, "field": PLANTED,
                }],
            },
        });
        let withheld = filtered(ONE, 403, &body);
        assert_eq!(
            withheld["details"],
            json!({ "retryAfterSeconds": 7 }),
            "{reason}"
        );
    }
}

#[test]
fn only_the_owners_of_conflicting_fields_are_told_of_causes() {
    let conflict = |reason: &str, message: &str| {
        let body = json!({
            "kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409,
            "message": "Apply failed with 1 conflict: conflict with \"helm\": .data.a",
            "details": { "causes": [{ "reason": reason, "message": message, "field": ".data.a" }] },
        });
        filtered(ONE, 409, &body)["details"]["causes"].clone()
    };
    let owner = "conflict with \"helm\" using v1";
    assert_eq!(
        conflict("FieldManagerConflict", owner),
        json!([{ "reason": "FieldManagerConflict", "message": owner, "field": ".data.a" }])
    );
    assert_eq!(
        conflict("FieldValueInvalid", PLANTED),
        json!([{ "reason": "FieldValueInvalid", "field": ".data.a" }])
    );
}

#[test]
fn a_watch_event_of_an_error_is_filtered_like_a_status() {
    let line = json!({ "type": "ERROR", "object": {
        "kind": "Status", "reason": "InternalError", "message": PLANTED, "code": 500,
    }});
    let answered = filtered(&format!("{LIST}?watch=1"), 200, &line);
    assert_eq!(answered["object"]["reason"], "InternalError");
}

#[test]
fn an_answer_without_a_body_is_complete() {
    assert_eq!(answer(ONE, 204, b"", 1).unwrap(), b"");
}
