//! Secrets, which nobody sees through the hub, and which are kept whole all the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Scene;
use crate::support::testbed::Testbed;

const TWO_KEYS: &str = "
apiVersion: v1
kind: Secret
metadata: { name: s, labels: { a: one } }
stringData: { user: root, password: hunter2 }
";

const CHANGED: &str = "
apiVersion: v1
kind: Secret
metadata: { name: s, labels: { a: two } }
stringData: { user: admin, password: hunter2 }
";

const ONE_KEY: &str = "
apiVersion: v1
kind: Secret
metadata: { name: s }
stringData: { user: admin }
";

pub(super) const DATA_TWO_KEYS: &str = "apiVersion: v1\nkind: Secret\nmetadata: { name: d }\n\
data: { user: cm9vdA==, password: aHVudGVyMg== }\n";
pub(super) const DATA_ONE_KEY: &str =
    "apiVersion: v1\nkind: Secret\nmetadata: { name: d }\ndata: { user: YWRtaW4= }\n";

impl Scene {
    /// The object as the cluster has it.
    async fn secret(&self, name: &str) -> Value {
        let namespace = &self.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        self.api.get(&path).await
    }

    /// The keys and decoded values that the cluster has.
    async fn values(&self, name: &str) -> Vec<(String, String)> {
        let secret = self.secret(name).await;
        let data = secret.get("data").and_then(Value::as_object);
        let data = data.into_iter().flatten();
        data.map(|(key, value)| {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default());
            let value = String::from_utf8(bytes.unwrap_or_default());
            (key.clone(), value.unwrap_or_default())
        })
        .collect()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[tokio::test]
async fn a_secret_is_created_changed_and_loses_a_key_by_client_side_apply() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    let told = scene.ok("apply -f -", DATA_TWO_KEYS).await;
    assert_eq!(told, "secret/d created\n");
    let both = pairs(&[("password", "hunter2"), ("user", "root")]);
    assert_eq!(scene.values("d").await, both);
    let told = scene.ok("apply -f -", DATA_ONE_KEY).await;
    assert_eq!(told, "secret/d configured\n");
    assert_eq!(scene.values("d").await, pairs(&[("user", "admin")]));
    // What was applied last is kept whole at the cluster, and masked in what is shown.
    let live = scene.secret("d").await;
    let last = &live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(
        last.as_str().is_some_and(|text| text.contains("YWRtaW4=")),
        "{live}"
    );
    let shown = scene.ok("get secret d -o yaml", "").await;
    assert!(!shown.contains("YWRtaW4="), "{shown}");

    scene.ok("apply -f -", TWO_KEYS).await;
    scene.ok("apply -f -", CHANGED).await;
    let both = pairs(&[("password", "hunter2"), ("user", "admin")]);
    assert_eq!(scene.values("s").await, both);
}

#[tokio::test]
async fn what_is_done_to_a_secret_through_the_hub_is_what_is_done_directly() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    scene
        .writes_alike(&[
            ("apply -f -", DATA_TWO_KEYS),
            ("apply -f -", DATA_ONE_KEY),
            ("apply -f -", DATA_TWO_KEYS),
            ("apply --server-side -f -", DATA_TWO_KEYS),
            ("apply --server-side -f -", DATA_ONE_KEY),
            ("apply -f -", DATA_TWO_KEYS),
            ("apply -f -", TWO_KEYS),
            ("apply -f -", CHANGED),
            ("apply -f -", ONE_KEY),
            ("label secret d stage=one", ""),
            ("annotate secret d moniker.spinnaker.io/application=x", ""),
            ("patch secret d -p '{\"data\":{\"user\":null}}'", ""),
            (
                "patch secret d --type merge -p '{\"stringData\":{\"more\":\"x\"}}'",
                "",
            ),
            ("replace -f -", ONE_KEY),
            ("create -f -", ONE_KEY),
            ("get secret", ""),
            ("delete secret d s", ""),
            ("get secret", ""),
        ])
        .await;
}

#[tokio::test]
async fn a_secret_that_is_applied_again_is_called_configured_and_stays_what_it_was() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    scene.ok("apply -f -", DATA_TWO_KEYS).await;
    let before = scene.secret("d").await;
    // Against a mask kubectl cannot tell that nothing has changed; the cluster can.
    let told = scene.ok("apply -f -", DATA_TWO_KEYS).await;
    assert_eq!(told, "secret/d configured\n");
    assert_eq!(scene.secret("d").await, before);
}

#[tokio::test]
async fn a_secret_goes_from_client_side_to_server_side_apply_and_then_loses_a_key() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    scene.ok("apply -f -", DATA_TWO_KEYS).await;
    scene.ok("apply --server-side -f -", DATA_TWO_KEYS).await;
    let both = pairs(&[("password", "hunter2"), ("user", "root")]);
    assert_eq!(scene.values("d").await, both);
    scene.ok("apply --server-side -f -", DATA_ONE_KEY).await;
    assert_eq!(scene.values("d").await, pairs(&[("user", "admin")]));
    // Back again: nothing masked has reached the cluster on the way.
    scene.ok("apply -f -", DATA_TWO_KEYS).await;
    assert_eq!(scene.values("d").await, both);
    scene.ok("apply -f -", DATA_ONE_KEY).await;
    assert_eq!(scene.values("d").await, pairs(&[("user", "admin")]));
    let live = scene.secret("d").await.to_string();
    assert!(
        !live.contains("c29ydGllLmRldi") && !live.contains("secret-masked"),
        "{live}"
    );
}

#[tokio::test]
async fn a_secret_is_patched_labelled_replaced_and_deleted_through_the_hub() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    scene.ok("create -f -", TWO_KEYS).await;
    let both = pairs(&[("password", "hunter2"), ("user", "root")]);
    assert_eq!(scene.values("s").await, both);
    scene.ok("label secret s stage=one", "").await;
    scene.ok("annotate secret s note=one", "").await;
    assert_eq!(scene.values("s").await, both);
    scene
        .ok(
            "patch secret s -p '{\"stringData\":{\"user\":\"eve\"}}'",
            "",
        )
        .await;
    let changed = pairs(&[("password", "hunter2"), ("user", "eve")]);
    assert_eq!(scene.values("s").await, changed);
    let remove = "patch secret s --type json -p '[{\"op\":\"remove\",\"path\":\"/data/user\"}]'";
    scene.ok(remove, "").await;
    assert_eq!(scene.values("s").await, pairs(&[("password", "hunter2")]));
    scene.ok("replace -f -", ONE_KEY).await;
    assert_eq!(scene.values("s").await, pairs(&[("user", "admin")]));
    scene.ok("diff -f -", ONE_KEY).await;
    scene.ok("delete secret s", "").await;
    assert_eq!(scene.ok("get secret -o name", "").await, "");
}

#[tokio::test]
async fn a_masked_value_that_is_written_back_is_refused_with_its_field() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    scene.ok("create -f -", TWO_KEYS).await;
    let shown = scene.ok("get secret s -o yaml", "").await;
    let server_side = "apply --server-side --force-conflicts -f -";
    // Client-side apply sends what is applied in an annotation as well, and first.
    let annotation = "metadata.annotations[\"kubectl.kubernetes.io/last-applied-configuration\"]";
    for (line, field) in [
        ("replace -f -", "data.password"),
        (server_side, "data.password"),
        ("apply -f -", annotation),
    ] {
        let ran = scene.through(line, &shown).await;
        assert_eq!(ran.code, Some(1), "{line}: {ran:?}");
        let sentence = format!("The request is invalid: {field}: refused by the agent");
        assert!(ran.stderr.contains(&sentence), "{line}: {ran:?}");
    }
    let copied = "patch secret s --type json -p \
        '[{\"op\":\"copy\",\"from\":\"/data/password\",\"path\":\"/metadata/labels/x\"}]'";
    let ran = scene.through(copied, "").await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("/data/password"), "{ran:?}");
    let both = pairs(&[("password", "hunter2"), ("user", "root")]);
    assert_eq!(scene.values("s").await, both);
}

#[tokio::test]
async fn create_secret_is_refused_as_protobuf_and_works_the_documented_way() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    let line = "create secret generic p --from-literal=k=v";
    let ran = scene.through(line, "").await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("kubectl apply"), "{ran:?}");
    let yaml = scene
        .ok(&format!("{line} --dry-run=client -o yaml"), "")
        .await;
    scene.ok("apply -f -", &yaml).await;
    assert_eq!(scene.values("p").await, pairs(&[("k", "v")]));
}
