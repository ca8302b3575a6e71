//! As much OpenAPI as kubectl needs before it writes.
//!
//! kubectl 1.22 and 1.26 fetch the v2 document, as protobuf, and give up without it; newer ones
//! look in the v3 document of the group for the `fieldValidation` parameter of PATCH, and let the
//! server validate when they find it. Merge schemas of built-in kinds are compiled into kubectl.

use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::{self, Body};
use super::discovery::groups;
use super::port::{Account, Kind};
use super::query::{essence, media_types};
use super::status::{Failure, json_response, respond};
use crate::resource::Gvr;

/// The media type of the v2 document. Clients ask for it with an `@` that is not allowed in an
/// answer.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers an OpenAPI path; `None` if `path` is not one.
pub(super) fn answer(account: &Account, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let rest = path.strip_prefix("/openapi/")?;
    Some(match rest {
        "v2" => second(headers),
        "v3" => json_response(StatusCode::OK, index(account).to_string()),
        _ => {
            let document = rest
                .strip_prefix("v3/")
                .and_then(|root| document(account, root));
            match document {
                Some(document) => json_response(StatusCode::OK, document.to_string()),
                None => Failure::unknown_path().response(),
            }
        }
    })
}

fn second(headers: &HeaderMap) -> Response<Body> {
    let mut asked = media_types(headers).map(essence);
    if asked.any(|kind| kind.ends_with("+protobuf")) {
        return respond(StatusCode::OK, V2_PROTOBUF, body::whole(second_protobuf()));
    }
    let document = json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1" },
        "paths": {},
    });
    json_response(StatusCode::OK, document.to_string())
}

/// `openapi.v2.Document` with `swagger` (1) and `info` (2: `title` 1, `version` 2), the fields that
/// gnostic's `OpenAPIv2.proto` gives those numbers.
fn second_protobuf() -> Vec<u8> {
    const STRING_1: u8 = 0x0a;
    const STRING_2: u8 = 0x12;
    let field = |tag: u8, bytes: &[u8]| {
        // All fields are shorter than 128 bytes, so that their length is one byte.
        let length = u8::try_from(bytes.len()).unwrap_or(0);
        [&[tag, length], bytes].concat()
    };
    let info = [field(STRING_1, b"Kubernetes"), field(STRING_2, b"v1")].concat();
    [field(STRING_1, b"2.0"), field(STRING_2, &info)].concat()
}

/// Path of a group's version as OpenAPI v3 writes it: `api/v1`, `apis/apps/v1`.
fn root(gvr: &Gvr) -> String {
    gvr.root().trim_start_matches('/').to_owned()
}

fn index(account: &Account) -> Value {
    let kinds = groups(account).into_iter().flat_map(|group| group.versions);
    let paths: Map<String, Value> = kinds
        .filter_map(|(_, kinds)| kinds.first().map(|kind| root(&kind.resource.gvr)))
        .map(|root| {
            let url = json!({ "serverRelativeURL": format!("/openapi/v3/{root}") });
            (root, url)
        })
        .collect();
    json!({ "paths": paths })
}

fn document(account: &Account, wanted: &str) -> Option<Value> {
    let mut paths = Map::new();
    let of_root = |kind: &&Kind| root(&kind.resource.gvr) == wanted;
    for kind in account.discovery.iter().filter(of_root) {
        let kind = &kind.resource;
        let namespace = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("{}{namespace}/{}", kind.gvr.root(), kind.gvr.resource);
        let operation = |action: &str| {
            json!({
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": {
                    "group": kind.gvr.group,
                    "version": kind.gvr.version,
                    "kind": kind.kind,
                },
                "parameters": [
                    parameter("dryRun"),
                    parameter("fieldManager"),
                    parameter("fieldValidation"),
                ],
                "responses": { "200": { "description": "OK" } },
            })
        };
        let object = json!({ "patch": operation("patch"), "put": operation("put") });
        paths.insert(collection.clone() + "/{name}", object);
        paths.insert(collection, json!({ "post": operation("post") }));
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1" },
        "paths": paths,
        "components": { "schemas": {} },
    }))
}

fn parameter(name: &str) -> Value {
    json!({
        "name": name,
        "in": "query",
        "schema": { "type": "string", "uniqueItems": true },
    })
}
