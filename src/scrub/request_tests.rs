//! Tests of the check of request bodies.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::*;
use crate::policy::load;
use crate::resource::Gvr;
use crate::scrub::{RestoreError, restore_last_applied};

const SECRET: &str = "/api/v1/namespaces/shop/secrets/db";
const POD: &str = "/api/v1/namespaces/shop/pods/web";
const MASK: &str = "sortie.dev/secret-masked:v1";
const JSON: Option<&str> = Some("application/json");
const APPLY: Option<&str> = Some("application/apply-patch+yaml");
const MANAGER: &str = "force=true&fieldManager=kubectl-last-applied";

fn check(path: &str, content_type: Option<&str>, body: &str) -> Result<RequestPlan, BodyRefused> {
    check_with(path, "", content_type, body)
}

fn check_with(
    path: &str,
    query: &str,
    content_type: Option<&str>,
    body: &str,
) -> Result<RequestPlan, BodyRefused> {
    check_request(
        &rules(),
        &target(path),
        query,
        content_type,
        body.as_bytes(),
    )
}

fn rules() -> Arc<ScrubRules> {
    load().unwrap().scrub
}

fn target(path: &str) -> Target {
    Target::parse("PATCH", path).unwrap()
}

fn refused_at(result: &Result<RequestPlan, BodyRefused>) -> Option<&str> {
    match result {
        Err(BodyRefused::MaskedContent { field_path }) => Some(field_path),
        Ok(_) | Err(_) => None,
    }
}

#[test]
fn the_mask_is_refused_with_the_path_of_its_field() {
    let encoded = STANDARD.encode(MASK);
    let inner = format!(r#"{{\"data\":{{\"a\":\"{encoded}\"}}}}"#);
    for (body, path) in [
        (format!(r#"{{"data":{{"a":"{encoded}"}}}}"#), "data.a"),
        (
            format!(r#"{{"stringData":{{"a.b":"x{MASK}y"}}}}"#),
            "stringData[\"a.b\"]",
        ),
        (
            format!(r#"{{"spec":{{"env":[{{"value":1}},{{"value":"{MASK}"}}]}}}}"#),
            "spec.env[1].value",
        ),
        (
            format!(r#"{{"metadata":{{"annotations":{{"a/b":"{inner}"}}}}}}"#),
            "metadata.annotations[\"a/b\"]",
        ),
        (
            format!(r#"{{"a":{{"{MASK}":1}}}}"#),
            &format!("a[\"{MASK}\"]"),
        ),
        (
            r#"{"a":"sortie.d\u0065v\/secret-masked:v1"}"#.to_owned(),
            "a",
        ),
    ] {
        for target in [SECRET, POD] {
            assert_eq!(
                refused_at(&check(target, JSON, &body)),
                Some(path),
                "{body}"
            );
            assert_eq!(
                refused_at(&check(target, APPLY, &body)),
                Some(path),
                "{body}"
            );
            assert_eq!(
                refused_at(&check(target, None, &body)),
                Some(path),
                "{body}"
            );
        }
    }
}

#[test]
fn yaml_is_searched_by_its_decoded_scalars() {
    let plain = format!(
        "metadata:\n  name: a\ndata:\n  a: {}\n",
        STANDARD.encode(MASK)
    );
    assert_eq!(refused_at(&check(SECRET, APPLY, &plain)), Some("data.a"));
    let escaped = "stringData:\n  a: \"\\x73ortie.dev/secret-masked:v1\"\n";
    assert_eq!(
        refused_at(&check(SECRET, Some("application/yaml"), escaped)),
        Some("stringData.a")
    );
    let folded = "stringData:\n  a: \"sortie.dev/\\\n    secret-masked:v1\"\n";
    assert_eq!(refused_at(&check(POD, APPLY, folded)), Some("stringData.a"));
    let good = "stringData:\n  a: b\n";
    assert_eq!(check(SECRET, APPLY, good), Ok(RequestPlan::SendOn));
}

#[test]
fn what_cannot_be_looked_into_is_refused_for_masked_kinds() {
    let protobuf = Some("application/vnd.kubernetes.protobuf");
    assert_eq!(
        check(SECRET, protobuf, "k8s"),
        Err(BodyRefused::UnsupportedMediaType)
    );
    assert_eq!(check(POD, protobuf, "k8s"), Ok(RequestPlan::SendOn));
    let body = format!("k8s\x01{MASK}\x02");
    assert_eq!(refused_at(&check(POD, protobuf, &body)), Some("body"));
    for body in ["{", "{}{}", "nope", "{\"a\":\"\\ud800\"}"] {
        assert_eq!(
            check(SECRET, JSON, body),
            Err(BodyRefused::Malformed),
            "{body}"
        );
    }
    assert_eq!(check(SECRET, JSON, ""), Ok(RequestPlan::SendOn));
}

#[test]
fn a_json_patch_may_not_read_what_is_masked() {
    let patch = Some("application/json-patch+json");
    let copy = r#"[{"op":"copy","from":"/data/a","path":"/metadata/labels/a"}]"#;
    let refused = BodyRefused::PatchTouchesMasked {
        pointer: "/data/a".into(),
    };
    assert_eq!(check(SECRET, patch, copy), Err(refused));
    assert_eq!(check(POD, patch, copy), Ok(RequestPlan::SendOn));
    let add = format!(r#"[{{"op":"add","path":"/data/a","value":"{MASK}"}}]"#);
    assert_eq!(refused_at(&check(SECRET, patch, &add)), Some("[0].value"));
    assert_eq!(check(SECRET, patch, "{}"), Err(BodyRefused::Malformed));
}

#[test]
fn the_last_applied_annotation_is_restored_from_the_live_object() {
    let masked = format!(r#"{{\"data\":{{\"a\":\"{}\"}}}}"#, STANDARD.encode(MASK));
    let body = |more: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{masked}"}},"name":"db","namespace":"shop"}}{more}}}"#
        )
    };
    let alone = body("");
    assert_eq!(
        check_with(SECRET, MANAGER, APPLY, &alone),
        Ok(RequestPlan::RestoreLastApplied)
    );
    for (path, query, content_type, body) in [
        (SECRET, "fieldManager=kubectl", APPLY, &alone),
        (POD, MANAGER, APPLY, &alone),
        (SECRET, MANAGER, JSON, &alone),
        (SECRET, MANAGER, APPLY, &body(r#","data":{}"#)),
    ] {
        assert!(refused_at(&check_with(path, query, content_type, body)).is_some());
    }
    let rules = rules();
    let secrets = Gvr::new("", "v1", "secrets");
    let live = r#"{"metadata":{"annotations":{"x":"y","kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"a\":\"cmVhbA==\"}}\n"}},"data":{}}"#;
    let restored =
        restore_last_applied(&rules, &secrets, alone.as_bytes(), live.as_bytes()).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the test compares what was restored"
    )]
    let restored = std::str::from_utf8(restored.expose_secret()).unwrap();
    assert_eq!(
        restored,
        alone.replace(&masked, r#"{\"data\":{\"a\":\"cmVhbA==\"}}\n"#)
    );
    let bare = restore_last_applied(&rules, &secrets, alone.as_bytes(), b"{\"metadata\":{}}");
    assert_eq!(bare.unwrap_err(), RestoreError::NotThere);
    let other = restore_last_applied(&rules, &secrets, b"{}", live.as_bytes());
    assert_eq!(other.unwrap_err(), RestoreError::NotThatPatch);
}

proptest! {
    #[test]
    fn no_body_makes_it_fail_otherwise(body in "[\\[\\]{}:,\"a1\\\\u -]{0,40}", index in 0usize..5) {
        let types = ["application/json", "application/json-patch+json", "application/yaml", "application/apply-patch+yaml", "x/y"];
        for path in [SECRET, POD] {
            let result = check(path, types.get(index).copied(), &body);
            prop_assert!(refused_at(&result).is_none(), "{:?}", result);
        }
    }
}
