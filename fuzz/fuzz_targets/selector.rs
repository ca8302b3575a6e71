//! Label and field selectors, over objects that may have the labels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::resource::{Gvr, Identity, ResourceVersion};
use sortie::view::{Object, Selector};

fuzz_target!(|text: &str| {
    let (labels, fields) = text.split_once('\n').unwrap_or((text, ""));
    let pods = Gvr::new("", "v1", "pods");
    let Ok(selector) = Selector::parse(&pods, labels, fields) else {
        return;
    };
    let identity = Identity {
        namespace: "shop".into(),
        name: "web-1".into(),
        uid: "u".into(),
        resource_version: ResourceVersion(7),
    };
    let json = r#"{"metadata":{"resourceVersion":"7","labels":{"app":"web","tier":""}}}"#;
    let object = Object::new(&pods, "Pod", identity, json.into(), 32, 1, false);
    let selected = selector.matches(&object);
    // Blanks around everything change nothing.
    let again = Selector::parse(&pods, &format!(" {labels} "), &format!(" {fields} "));
    assert_eq!(again.map(|again| again.matches(&object)), Ok(selected));
});
