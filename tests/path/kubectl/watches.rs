//! `kubectl get --watch`, both ways at the same time.

use serde_json::Value;

use super::{Scene, words};
use crate::support::kubectl::{Kubectl, Running};
use crate::support::testbed::Testbed;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: w }\n\
spec: { ports: [{ port: 80 }] }\n";
const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: w }\ndata: { a: b }\n";
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: { name: w }\nstringData: { a: b }\n";

/// A watch that prints events as JSON.
struct Events(Running);

impl Events {
    fn of(kubectl: &Kubectl, line: &str) -> Self {
        Self(kubectl.start(&words(line)))
    }

    /// The next event about the object `w`.
    async fn next(&mut self) -> Value {
        loop {
            let text = self.0.line().await.unwrap_or_default();
            let event: Value = serde_json::from_str(&text).unwrap_or_default();
            assert!(event.is_object(), "the watch has ended: {text}");
            if event.pointer("/object/metadata/name") == Some(&"w".into()) {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn a_watch_shows_what_is_added_modified_and_deleted_meanwhile() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    for (kind, manifest) in [
        ("service", SERVICE),
        ("configmap", CONFIG),
        ("secret", SECRET),
    ] {
        let namespace = &scene.namespace;
        let line = format!("get {kind} -w --output-watch-events -o json -n {namespace}");
        let mut hub = Events::of(&scene.hub, &line);
        let mut direct = Events::of(&scene.direct, &line);
        let steps = [
            ("create -f -".to_owned(), "ADDED"),
            (
                format!("annotate {kind} w moniker.spinnaker.io/application=x"),
                "MODIFIED",
            ),
            (format!("delete {kind} w"), "DELETED"),
        ];
        for (step, wanted) in steps {
            scene.ok(&step, manifest).await;
            let (seen, expected) = (hub.next().await, direct.next().await);
            assert_eq!(seen["type"], wanted, "{kind}");
            assert_eq!(plain(seen), plain(expected), "{kind}");
        }
    }
}

/// An event without managed fields, which feeds leave out, and without a Secret's values.
fn plain(mut event: Value) -> Value {
    if let Some(Value::Object(metadata)) = event.pointer_mut("/object/metadata") {
        metadata.remove("managedFields");
    }
    if event.pointer("/object/kind") == Some(&"Secret".into())
        && let Some(value) = event.pointer_mut("/object/data/a")
    {
        *value = "masked".into();
    }
    event
}

#[tokio::test]
async fn a_watch_of_names_and_of_one_object_goes_on_through_the_hub() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    let namespace = &scene.namespace;
    scene.ok("create -f -", SERVICE).await;
    let mut names = scene
        .hub
        .start(&words(&format!("get service -w -o name -n {namespace}")));
    assert_eq!(names.line().await.as_deref(), Some("service/w"));
    let mut table = scene.hub.start(&words(&format!(
        "get service w -w --no-headers -n {namespace}"
    )));
    let row = table.line().await.unwrap_or_default();
    assert!(row.starts_with("w "), "{row}");
    scene.ok("label service w a=b", "").await;
    assert_eq!(names.line().await.as_deref(), Some("service/w"));
    let row = table.line().await.unwrap_or_default();
    assert!(row.starts_with("w "), "{row}");
}
