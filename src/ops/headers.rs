//! Which headers pass, each way.

use crate::wire::v1;

/// Request headers that an API server needs; credentials and impersonation are ours alone.
const UP: [&str; 5] = [
    "content-type",
    "accept",
    "kubectl-command",
    "kubectl-session",
    "user-agent",
];

/// Answer headers that a client needs.
const DOWN: [&str; 4] = ["content-type", "warning", "retry-after", "audit-id"];

const ACCEPT: &str = "accept";

/// Picks the headers that pass to the API server. Answers about masked kinds are asked for as
/// JSON, since nothing else can be filtered.
pub(super) fn to_api(headers: &[v1::HttpHeader], masked: bool) -> Vec<(String, String)> {
    let mut picked: Vec<(String, String)> = headers
        .iter()
        .filter(|header| UP.contains(&header.name.as_str()))
        .map(|header| (header.name.clone(), header.value.clone()))
        .collect();
    if masked {
        let wanted = picked
            .iter()
            .find(|(name, _)| name == ACCEPT)
            .map(|(_, value)| json(value));
        picked.retain(|(name, _)| name != ACCEPT);
        picked.push((ACCEPT.to_owned(), wanted.unwrap_or_else(|| json(""))));
    }
    picked
}

/// The JSON alternatives of an `Accept` header.
fn json(accept: &str) -> String {
    let alternatives = accept.split(',').map(str::trim);
    let json: Vec<&str> = alternatives
        .filter(|range| {
            range
                .split(';')
                .next()
                .is_some_and(|t| t.trim() == "application/json")
        })
        .collect();
    if json.is_empty() {
        "application/json".to_owned()
    } else {
        json.join(",")
    }
}

/// The value of a request header.
pub(super) fn value<'a>(headers: &'a [v1::HttpHeader], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|header| header.name == name)
        .map(|header| header.value.as_str())
}

/// Picks the headers that pass to the client.
pub(super) fn to_client(headers: &http::HeaderMap, masked: bool) -> Vec<v1::HttpHeader> {
    let picked = headers.iter().filter(|(name, _)| {
        // A warning may quote what it warns of.
        DOWN.contains(&name.as_str()) && !(masked && name.as_str() == "warning")
    });
    picked
        .filter_map(|(name, value)| {
            let value = value.to_str().ok()?.to_owned();
            Some(v1::HttpHeader {
                name: name.as_str().to_owned(),
                value,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> v1::HttpHeader {
        v1::HttpHeader {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn credentials_and_impersonation_do_not_pass() {
        let headers = [
            header("authorization", "Bearer x"),
            header("impersonate-user", "admin"),
            header("x-remote-user", "admin"),
            header("accept", "application/json"),
        ];
        let passed = to_api(&headers, false);
        assert_eq!(
            passed,
            [("accept".to_owned(), "application/json".to_owned())]
        );
    }

    #[test]
    fn masked_kinds_are_asked_for_as_json() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let accept = |accept: &str| to_api(&[header("accept", accept)], true).remove(0).1;
        assert_eq!(accept(&format!("{table}, application/yaml")), table);
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf, */*"),
            "application/json"
        );
        assert_eq!(to_api(&[], true).remove(0).1, "application/json");
    }
}
