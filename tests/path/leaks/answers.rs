//! What an engine may answer that is of no use, with planted values wherever one could stand.

use serde_json::{Value, json};
use sortie::entropy;

use super::fault::Reply;
use crate::support::scan::Needles;

/// The mount of every read: a key-value store of version 2.
pub(super) const MOUNT: &str =
    r#"{"data":{"path":"kv/","type":"kv","options":{"version":"2"},"uuid":"u"}}"#;

/// Values that may not be told.
pub(super) struct Planted {
    /// What answers hold.
    pub(super) payload: String,
    /// What a login is made with.
    pub(super) login: String,
}

impl Planted {
    pub(super) fn draw() -> Self {
        let entropy = entropy::system();
        let draw = || hex::encode(entropy::bytes::<24>(&*entropy));
        Self {
            payload: draw(),
            login: draw(),
        }
    }

    pub(super) fn needles(&self) -> Needles {
        Needles::new(&[self.payload.as_bytes(), self.login.as_bytes()])
    }
}

/// The answer to a read, with these fields.
pub(super) fn secret(fields: &Value) -> String {
    json!({
        "request_id": "r",
        "lease_id": "",
        "lease_duration": 0,
        "renewable": false,
        "data": {
            "data": fields,
            "metadata": {
                "created_time": "t", "deletion_time": "", "destroyed": false, "version": 1,
                "custom_metadata": null,
            },
        },
    })
    .to_string()
}

/// Answers to a read.
pub(super) fn of_reads(planted: &Planted) -> Vec<Reply> {
    let value = planted.payload.as_str();
    let mut replies = refusals(value);
    replies.extend(mangled(value, &secret(&json!({"kubeconfig": value}))));
    let fields = [
        json!(value),
        json!([value]),
        json!({"kubeconfig": 7, "other": value}),
        json!({"kubeconfig": [value]}),
        json!({"kubeconfig": {"token": value}}),
        json!({"kubeconfig": null, "other": value}),
        json!({"kubeconfig": true, value: value}),
        json!({"other": value}),
        json!({value: value}),
        json!({}),
        json!({"kubeconfig": ""}),
        json!({"kubeconfig": value}),
    ];
    replies.extend(
        fields
            .iter()
            .map(|fields| Reply::json(200, &secret(fields))),
    );
    replies.push(Reply::json(200, &json!({"data": value}).to_string()));
    replies.push(Reply::json(
        200,
        &json!({"data": {"data": {"kubeconfig": value}}}).to_string(),
    ));
    replies
}

/// Answers to a login.
pub(super) fn of_logins(planted: &Planted) -> Vec<Reply> {
    let value = planted.payload.as_str();
    // At most 64 engines: some of the statuses, all that is mangled.
    let mut replies: Vec<Reply> = refusals(value).into_iter().step_by(5).collect();
    let auth = |auth: Value| json!({"request_id": "r", "auth": auth}).to_string();
    let good = json!({"client_token": value, "accessor": "a", "policies": [],
        "token_policies": [], "metadata": null, "lease_duration": 60, "renewable": true,
        "entity_id": "", "token_type": "service", "orphan": true});
    replies.extend(mangled(value, &auth(good.clone())));
    let changed = |key: &str, to: Value| {
        let mut changed = good.clone();
        changed[key] = to;
        Reply::json(200, &auth(changed))
    };
    replies.extend([
        changed("client_token", json!([value])),
        changed("client_token", json!(format!("{value} {value}"))),
        changed("client_token", json!(format!("{value}\r\nx: y"))),
        changed("client_token", json!(format!("{value}é"))),
        changed("lease_duration", json!(value)),
        changed("renewable", json!(value)),
        changed("policies", json!(value)),
        Reply::json(200, &auth(Value::Null)),
        Reply::json(200, &auth(json!(value))),
    ]);
    replies
}

/// Refusals with every status, told in several ways.
fn refusals(value: &str) -> Vec<Reply> {
    const STATUSES: [u16; 20] = [
        400, 401, 403, 404, 405, 409, 412, 418, 422, 429, 472, 473, 500, 501, 502, 503, 504, 507,
        508, 599,
    ];
    let bodies = [
        json!({"errors": [format!("planted {value}")]}).to_string(),
        json!({"errors": value, "data": {"data": {"kubeconfig": value}}}).to_string(),
        format!("{{\"errors\": [\"{value}"),
        String::new(),
    ];
    let mut replies = Vec::new();
    for status in STATUSES {
        replies.extend(bodies.iter().map(|body| Reply::json(status, body)));
        let page = format!("<html><title>{value}</title><body>{value}</body></html>");
        replies.push(Reply::of(status, "content-type: text/html\r\n", &page));
    }
    replies
}

/// A good body sent wrongly, and what is no answer at all.
fn mangled(value: &str, good: &str) -> Vec<Reply> {
    let ok = |headers: &str, body: &str| Reply::of(200, headers, body);
    let bytes = |text: String| Reply::Bytes(text.into_bytes());
    let location = format!("location: https://127.0.0.1:1/{value}\r\n");
    let (before, _) = good.split_once(value).expect("it holds it");
    let half = &format!("{before}{value}");
    let head = "HTTP/1.1 200 OK\r\n";
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    let mut replies: Vec<Reply> = [301, 302, 303, 307, 308]
        .map(|status| Reply::of(status, &location, good))
        .into();
    replies.extend([
        ok("", half),
        ok("", &format!("{good}{value}")),
        ok("", &format!("[{good}]")),
        ok("", &format!("\"{value}\"")),
        ok("", &format!("<html>{value}</html>")),
        ok("", "null"),
        ok("", ""),
        ok("", &good.replace('{', "{{")),
        ok("", &format!("{}{value}", "[".repeat(10_000))),
        ok("content-encoding: gzip\r\n", good),
        ok(
            "content-encoding: planted\r\n",
            half.trim_start_matches('{'),
        ),
        Reply::of(204, "", ""),
        Reply::of(206, "content-range: bytes 0-9/99\r\n", half),
        bytes(format!("{head}content-length: 100000\r\n\r\n{good}")),
        bytes(format!("{head}content-length: {value}\r\n\r\n{good}")),
        bytes(format!("{head}{chunked}{value}\r\n{good}")),
        bytes(format!("{head}{chunked}5\r\n{good}")),
        bytes(format!("{head}{value}\r\n\r\n{good}")),
        bytes(format!("{head}x-{value}: \u{1}{value}\r\n\r\n{good}")),
        bytes(format!("{head}x: {}\r\n\r\n{good}", value.repeat(20_000))),
        bytes(format!("HTTP/9.9 200 {value}\r\n\r\n{good}")),
        bytes(format!("{value}\r\n\r\n")),
        bytes(String::new()),
        Reply::Hang(format!("{head}content-length: 100000\r\n\r\n{half}").into_bytes()),
        Reply::Hang(Vec::new()),
        Reply::Endless(
            format!("{head}\r\n{half}").into_bytes(),
            value.repeat(1_000).into_bytes(),
        ),
        Reply::Endless(
            head.as_bytes().to_vec(),
            format!("x: {value}\r\n").into_bytes(),
        ),
    ]);
    replies
}
