//! Selectors.

use super::*;

#[test]
fn selectors_are_read_as_the_api_server_reads_them() {
    let object = |labels: &str| {
        let json = format!(r#"{{"metadata":{{"labels":{labels},"resourceVersion":"5"}}}}"#);
        let at = u32::try_from(json.find('5').unwrap()).unwrap();
        let identity = identity("a", "1", 5);
        Object::new(&pods(), "Pod", identity, json.into(), at, 1, false)
    };
    let web = object(r#"{"tier":"web","t":"rs","example.com/x":""}"#);
    let bare = object("{}");
    for (text, selects_web, selects_bare) in [
        ("", true, true),
        ("t = rs", true, false),
        ("t==rs", true, false),
        (" t = rs , tier=web ", true, false),
        ("t!=rs", false, true),
        ("tier in (web, db)", true, false),
        ("tier in (web,db),t notin (x)", true, false),
        ("tier notin (web,db)", false, true),
        ("tier", true, false),
        ("!tier", false, true),
        ("! tier", false, true),
        ("example.com/x=", true, false),
        ("nope = x", false, false),
    ] {
        let selector = Selector::parse(&pods(), text, "").unwrap();
        assert_eq!(selector.matches(&web), selects_web, "{text} on web");
        assert_eq!(selector.matches(&bare), selects_bare, "{text} on bare");
    }
    for text in [
        "=", "a b", "a in x", "a in (x", "a in x)", "a (x)", "a,,b", "a=b=c", "a=b c",
    ] {
        assert!(Selector::parse(&pods(), text, "").is_err(), "{text}");
    }
    let fields = |text: &str| Selector::parse(&pods(), "", text);
    assert!(fields("metadata.name = a").unwrap().matches(&bare));
    assert!(!fields("metadata.name!=a").unwrap().matches(&bare));
    assert!(
        fields("metadata.namespace==shop,status.phase=")
            .unwrap()
            .matches(&bare)
    );
    let unsupported = fields("involvedObject.name=x").unwrap_err();
    assert_eq!(
        unsupported.to_string(),
        "field label not supported: involvedObject.name"
    );
}

proptest! {
    #[test]
    fn reading_a_selector_never_panics(text in ".{0,40}") {
        let _either_way = Selector::parse(&pods(), &text, &text);
    }
}
