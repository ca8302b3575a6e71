//! Input that tries to get a value past the filter.

use super::*;

const METADATA: &str = r#""metadata":{"name":"a","uid":"u","resourceVersion":"1"}"#;

fn filtered(members: &str) -> String {
    let text = format!("{{{METADATA},{members}}}");
    let object = secrets().object(text.as_bytes()).unwrap();
    String::from_utf8(object.bytes.as_bytes().to_vec()).unwrap()
}

#[test]
fn no_spelling_of_a_field_gets_a_value_through() {
    for members in [
        r#""d\u0061ta":{"k":"planted-value-1"}"#,
        r#""\u0064\u0061\u0074\u0061":{"k":"planted-value-1"}"#,
        r#""data":{"k":{"data":"planted-value-1"}}"#,
        r#""data":{"k":["planted-value-1",{"a":"planted-value-1"}]}"#,
        r#""data":"planted-value-1""#,
        r#""data":["planted-value-1"]"#,
        r#""data":{"a":"x"},"data":{"k":"planted-value-1"}"#,
        r#""data":null,"stringData":{"k":"planted-value-1"}"#,
        r#""Data":{"k":"planted-value-1"}"#,
        r#""binaryData":{"k":"planted-value-1"}"#,
        r#""type":{"k":"planted-value-1"}"#,
        r#""kind":["planted-value-1"]"#,
        r#""kind":"Pod","spec":{"a":"planted-value-1"}"#,
        r#""items":[{"data":{"k":"planted-value-1"}}]"#,
        r#""message":"planted-value-1","kind":"Status""#,
    ] {
        let passed = filtered(members);
        assert!(!leaks(passed.as_bytes()), "{members}\n{passed}");
        let _valid: Value = parse(passed.as_bytes());
    }
}

#[test]
fn an_object_cannot_be_two_objects() {
    let twice = |member: &str| {
        format!(r#"{{"metadata":{{"name":"a","uid":"u","resourceVersion":"1",{member}}}}}"#)
    };
    for text in [
        twice(r#""name":"b""#),
        twice(r#""n\u0061me":"b""#),
        twice(r#""uid":"v""#),
        twice(r#""resourceVersion":"2""#),
        twice(r#""namespace":"a","namespace":"b""#),
        format!(r"{{{METADATA},{METADATA}}}"),
        format!(r#"{{{METADATA},"met\u0061data":{{}}}}"#),
    ] {
        for filter in [secrets(), pods()] {
            assert_eq!(
                filter.object(text.as_bytes()).unwrap_err().label,
                "duplicate",
                "{text}"
            );
        }
    }
    for line in [
        format!(r#"{{"type":"ADDED","type":"DELETED","object":{{{METADATA}}}}}"#),
        format!(r#"{{"type":"ADDED","object":{{{METADATA}}},"object":{{{METADATA}}}}}"#),
        format!(r#"{{"object":{{{METADATA}}},"object":{{{METADATA}}},"type":"ADDED"}}"#),
    ] {
        assert_eq!(
            secrets().watch_event(line.as_bytes()).unwrap_err().label,
            "duplicate"
        );
    }
}

#[test]
fn an_object_has_to_say_who_it_is() {
    for (metadata, label) in [
        (r"{}", "identity"),
        (r#"{"name":"a","resourceVersion":"1"}"#, "identity"),
        (r#"{"name":"","uid":"u","resourceVersion":"1"}"#, "identity"),
        (
            r#"{"name":["a"],"uid":"u","resourceVersion":"1"}"#,
            "identity",
        ),
        (
            r#"{"name":null,"uid":"u","resourceVersion":"1"}"#,
            "identity",
        ),
        (r#"{"name":"a","uid":"u"}"#, "version"),
        (
            r#"{"name":"a","uid":"u","resourceVersion":"1x"}"#,
            "version",
        ),
        (
            r#"{"name":"a","uid":"u","resourceVersion":"\u0031"}"#,
            "version",
        ),
        (
            r#"{"name":"a","uid":"u","resourceVersion":"99999999999999999999999"}"#,
            "version",
        ),
        ("[]", "shape"),
    ] {
        let text = format!(r#"{{"metadata":{metadata}}}"#);
        assert_eq!(
            secrets().object(text.as_bytes()).unwrap_err().label,
            label,
            "{metadata}"
        );
        assert_eq!(
            pods().object(text.as_bytes()).unwrap_err().label,
            label,
            "{metadata}"
        );
    }
}

#[test]
fn a_text_that_ends_anywhere_too_early_is_refused() {
    let text = format!(
        r#"{{{METADATA},"data":{{"a":"cGxhbnRlZC12YWx1ZS0x","\u0062":-1.5e3}},"type":"Opaque"}}"#
    );
    let line = format!(r#"{{"type":"ADDED","object":{text}}}"#);
    assert!(secrets().object(text.as_bytes()).is_ok());
    for end in 0..text.len() {
        assert!(secrets().object(&text.as_bytes()[..end]).is_err(), "{end}");
        assert!(pods().object(&text.as_bytes()[..end]).is_err(), "{end}");
        assert!(answer("/api/v1/secrets", 200, &text.as_bytes()[..end], 9).is_err() || end == 0);
    }
    for end in 0..line.len() {
        assert!(
            secrets().watch_event(&line.as_bytes()[..end]).is_err(),
            "{end}"
        );
    }
}

#[test]
fn what_is_not_strict_json_is_refused() {
    let good = format!(r#"{{{METADATA},"data":{{"a":"b"}}}}"#);
    let deep = format!(r#"{{{METADATA},"data":{{"a":{}}}}}"#, "[".repeat(100_000));
    let mut foreign = good.clone().into_bytes();
    foreign[good.len() - 4] = 0xFF;
    for (text, label) in [
        (format!("{good}x").into_bytes(), "syntax"),
        (format!("{good}{good}").into_bytes(), "syntax"),
        (good.replace("\"b\"", "\"\\ud800\"").into_bytes(), "syntax"),
        (good.replace("\"b\"", "\"\n\"").into_bytes(), "syntax"),
        (good.replace("\"b\"", "01").into_bytes(), "syntax"),
        (good.replace("\"b\"", "undefined").into_bytes(), "syntax"),
        (good.replace(":{\"a\"", ":{'a'").into_bytes(), "syntax"),
        (deep.into_bytes(), "depth"),
        (foreign, "utf8"),
    ] {
        assert_eq!(secrets().object(&text).unwrap_err().label, label);
        assert_eq!(pods().object(&text).unwrap_err().label, label);
    }
    let huge = good.replace(
        "\"b\"",
        &format!("-{}e+{}", "9".repeat(5000), "9".repeat(5000)),
    );
    assert!(secrets().object(huge.as_bytes()).is_ok());
}

#[test]
fn the_last_applied_annotation_is_opened_once() {
    let wrap = |text: &str| {
        let annotation = serde_json::json!({ LAST_APPLIED: text });
        let text = format!(
            r#"{{"metadata":{{"name":"a","uid":"u","resourceVersion":"1","annotations":{annotation}}}}}"#
        );
        let object = secrets().object(text.as_bytes()).unwrap();
        parse(object.bytes.as_bytes())["metadata"]["annotations"].clone()
    };
    let kept =
        wrap("{\"kind\":\"Secret\",\"d\\u0061ta\":{\"a\":\"planted-value-1\",\"b\":null}}\n");
    let inner: Value = serde_json::from_str(kept[LAST_APPLIED].as_str().unwrap()).unwrap();
    assert_eq!(inner["data"]["a"], "c29ydGllLmRldi9zZWNyZXQtbWFza2VkOnYx");
    assert_eq!(inner["data"]["b"], inner["data"]["a"]);
    for dropped in [
        "",
        "planted-value-1",
        "[]",
        "{\"data\":{}",
        "{}{}",
        "{\"a\":\"\\ud800\"}",
    ] {
        assert_eq!(wrap(dropped), serde_json::json!({}), "{dropped}");
    }
}
