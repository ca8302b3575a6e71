//! Takes from output what differs between two runs, and nothing else.

use serde_json::Value;

/// Text as it is.
pub(super) fn exact(text: &str) -> String {
    text.to_owned()
}

/// Text without ages, times, uids, temporary files and progress, and with single blanks, because
/// ages move columns.
pub(super) fn text(text: &str) -> String {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().map(word).collect();
        words.join(" ")
    };
    let is_progress = |line: &&str| line.starts_with("Waiting for ");
    let lines = text.lines().filter(|line| !is_progress(line));
    let lines: Vec<String> = lines.map(line).collect();
    lines.join("\n")
}

fn word(word: &str) -> &str {
    if is_age(word) {
        "AGE"
    } else if is_uid(word.trim_matches('"')) {
        "UID"
    } else if is_time(word.trim_matches('"')) || word.starts_with("/tmp/") {
        "TIME"
    } else {
        word
    }
}

/// `5s`, `2m3s`, `4d`.
fn is_age(word: &str) -> bool {
    let is_unit = |letter: char| "smhdy".contains(letter);
    word.starts_with(|letter: char| letter.is_ascii_digit())
        && word.ends_with(is_unit)
        && word
            .chars()
            .all(|letter| letter.is_ascii_digit() || is_unit(letter))
}

/// `2026-01-31T10:00:00Z`, or a part of it.
fn is_time(word: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_digit() || "-:.+TZ".contains(letter);
    word.len() >= 5
        && word.starts_with(|letter: char| letter.is_ascii_digit() || letter == '+')
        && word.chars().all(is_part)
        && word.chars().filter(char::is_ascii_digit).count() >= 4
}

fn is_uid(word: &str) -> bool {
    word.len() == 36 && word.chars().filter(|letter| *letter == '-').count() == 4
}

/// A list of objects without what a server gives each: identity, times, state.
pub(super) fn objects(json: &str) -> Value {
    let mut value: Value = serde_json::from_str(json).unwrap_or_default();
    strip(&mut value);
    value
}

const GIVEN: [&str; 13] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "time",
    "status",
    "clusterIP",
    "clusterIPs",
    "deployment.kubernetes.io/revision",
    "kubectl.kubernetes.io/restartedAt",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "finalizers",
    "deletionTimestamp",
];

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|key, _| !GIVEN.contains(&key.as_str()));
            if let Some(Value::Array(managers)) = members.get_mut("managedFields") {
                // Controllers come when they come.
                managers.retain(|entry| {
                    let name = entry.get("manager").and_then(Value::as_str);
                    name.is_some_and(|name| name.starts_with("kubectl"))
                });
                // A server orders them by seconds first, and those of two runs differ.
                managers.sort_by_cached_key(|entry| {
                    ["manager", "operation", "fieldsV1"]
                        .map(|of| entry.get(of).map(Value::to_string))
                });
            }
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
