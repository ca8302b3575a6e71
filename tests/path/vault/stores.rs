//! What is fetched from which store.

use super::*;
use crate::support::eventually::eventually_async;

#[tokio::test]
async fn a_store_of_version_2_gives_its_newest_version_or_the_one_asked_for() {
    let bench = Bench::start().await;
    let vault = bench.with_token(&["reader"]).await;
    let first = fetch(&vault, &shop()).await;
    assert_eq!(
        (text(&first).as_str(), first.lease.is_some()),
        ("planted-value", false)
    );
    assert!(begins(first.version.as_deref(), "1@"), "{first:?}");
    bench
        .bao
        .put("kv", "shop", &json!({"kubeconfig": "second", "other": "x"}))
        .await;
    let second = fetch(&vault, &shop()).await;
    assert_eq!(text(&second), "second");
    assert!(begins(second.version.as_deref(), "2@"), "{second:?}");
    let pinned = fetch(&vault, &versioned("kv", "shop", Some(1))).await;
    assert_eq!(text(&pinned), "planted-value");
    let mut keys = vault.keys(&shop()).await.unwrap();
    keys.sort();
    assert_eq!(keys, ["kubeconfig", "other"]);
    vault.probe().await.unwrap();
}

#[tokio::test]
async fn a_version_is_compared_by_the_metadata_alone() {
    let bench = Bench::start().await;
    let vault = bench.with_token(&["reader"]).await;
    let is_current = async |reference: &Reference, version: &str| {
        vault.is_current(reference, version).await.unwrap()
    };
    let first = fetch(&vault, &shop()).await.version.unwrap();
    assert_eq!(is_current(&shop(), &first).await, Some(true));
    bench
        .bao
        .put("kv", "shop", &json!({"kubeconfig": "second"}))
        .await;
    assert_eq!(is_current(&shop(), &first).await, Some(false));
    let second = vault.version(&shop()).await.unwrap().unwrap();
    assert!(begins(Some(&second), "2@"), "{second}");
    assert_eq!(is_current(&shop(), &second).await, Some(true));
    let pinned = versioned("kv", "shop", Some(1));
    assert_eq!(is_current(&pinned, &first).await, Some(true));
    bench
        .bao
        .write("kv/destroy/shop", &json!({"versions": [1]}))
        .await;
    assert_eq!(is_current(&pinned, &first).await, Some(false));
    let gone = vault.version(&pinned).await.unwrap_err();
    assert_eq!(gone.kind, FetchErrorKind::NotFound);
}

#[tokio::test]
async fn metadata_that_may_not_be_read_tells_nothing_until_the_next_login() {
    let bench = Bench::start().await;
    let narrow = r#"path "kv/data/*" { capabilities = ["read"] }"#;
    bench.bao.policy("narrow", narrow).await;
    let vault = bench.with_token(&["narrow"]).await;
    let first = fetch(&vault, &shop()).await.version.unwrap();
    assert_eq!(vault.is_current(&shop(), &first).await, Ok(None));
    // Remembered: what the policy says now does not matter.
    bench.bao.policy("narrow", READ_ALL).await;
    assert_eq!(vault.is_current(&shop(), &first).await, Ok(None));
    let again = bench.with_token(&["narrow"]).await;
    assert_eq!(again.is_current(&shop(), &first).await, Ok(Some(true)));
}

/// A secret that is removed with all its versions and written anew begins with 1 again.
#[tokio::test]
async fn a_secret_that_was_written_anew_is_another_version() {
    let bench = Bench::start().await;
    let vault = bench.with_token(&["reader"]).await;
    let first = fetch(&vault, &shop()).await.version.unwrap();
    let removed = bench
        .bao
        .ask(Method::DELETE, "kv/metadata/shop", &Value::Null)
        .await;
    assert!(removed.status.is_success(), "{removed:?}");
    let fields = json!({"kubeconfig": "another"});
    assert_eq!(bench.bao.put("kv", "shop", &fields).await, 1);
    assert_eq!(vault.is_current(&shop(), &first).await, Ok(Some(false)));
}

#[tokio::test]
async fn a_version_that_the_store_will_delete_is_there_until_then() {
    let bench = Bench::start().await;
    let rule = json!({"delete_version_after": "1h"});
    bench.bao.write("kv/metadata/shop", &rule).await;
    let fields = json!({"kubeconfig": "second"});
    bench.bao.put("kv", "shop", &fields).await;
    let vault = bench.with_token(&["reader"]).await;
    let fetched = fetch(&vault, &shop()).await;
    assert!(fetched.gone_at.is_some(), "{fetched:?}");
    assert_eq!(vault.version(&shop()).await.unwrap(), fetched.version);
    let version = fetched.version.unwrap();
    assert_eq!(vault.is_current(&shop(), &version).await, Ok(Some(true)));
}

/// Whether a tag begins with the number of its version.
fn begins(version: Option<&str>, number: &str) -> bool {
    version.is_some_and(|version| version.starts_with(number))
}

#[tokio::test]
async fn a_version_that_is_gone_says_how_it_went() {
    let bench = Bench::start().await;
    let vault = bench.with_token(&["reader"]).await;
    fetch(&vault, &shop()).await;
    let gone = async |part: &str, reference: &Reference| {
        let failure = refused(&vault, reference).await;
        assert_eq!(failure.kind, FetchErrorKind::NotFound);
        assert!(failure.hint.contains(part), "{failure:?}");
    };
    bench
        .bao
        .write("kv/delete/shop", &json!({"versions": [1]}))
        .await;
    gone("deleted", &shop()).await;
    bench
        .bao
        .write("kv/destroy/shop", &json!({"versions": [1]}))
        .await;
    gone("destroyed", &shop()).await;
    gone("look at the mount", &versioned("kv", "shop", Some(9))).await;
    gone("look at the mount", &reference("kv", "lost")).await;
}

#[tokio::test]
async fn a_store_of_version_1_is_found_out_also_where_its_mount_has_a_slash() {
    let bench = Bench::start().await;
    for mount in ["plain", "team/kv"] {
        let store = json!({"type": "kv", "options": {"version": "1"}});
        bench
            .bao
            .write(&format!("sys/mounts/{mount}"), &store)
            .await;
        let fields = json!({"kubeconfig": mount});
        bench.bao.write(&format!("{mount}/a/b"), &fields).await;
    }
    let policy = r#"path "plain/*" { capabilities = ["read"] }
        path "team/kv/a/b" { capabilities = ["read"] }"#;
    bench.bao.policy("plain", policy).await;
    let vault = bench.with_token(&["plain"]).await;
    let plain = fetch(&vault, &reference("plain", "a/b")).await;
    assert_eq!((text(&plain).as_str(), plain.version), ("plain", None));
    // A reference takes the first segment for the mount.
    let nested = fetch(&vault, &reference("team", "kv/a/b")).await;
    assert_eq!(
        (text(&nested).as_str(), nested.lease.is_some()),
        ("team/kv", false)
    );
    let keys = vault.keys(&reference("team", "kv/a/b")).await;
    assert_eq!(keys, Ok(vec!["kubeconfig".to_owned()]));
    assert_eq!(
        vault.is_current(&reference("plain", "a/b"), "1").await,
        Ok(None)
    );
    let pinned = versioned("plain", "a/b", Some(1));
    let failure = refused(&vault, &pinned).await;
    assert!(failure.hint.contains("keeps no versions"), "{failure:?}");
    let failure = refused(&vault, &reference("plain", "lost")).await;
    assert_eq!(failure.kind, FetchErrorKind::NotFound);
}

#[tokio::test]
async fn a_store_that_becomes_versioned_is_found_again() {
    let bench = Bench::start().await;
    let store = json!({"type": "kv", "options": {"version": "1"}});
    bench.bao.write("sys/mounts/old", &store).await;
    bench
        .bao
        .write("old/shop", &json!({"kubeconfig": "before"}))
        .await;
    let policy = r#"path "old/*" { capabilities = ["read"] }"#;
    bench.bao.policy("old", policy).await;
    let vault = bench.with_token(&["old"]).await;
    let old = reference("old", "shop");
    assert_eq!(text(&fetch(&vault, &old).await), "before");
    bench
        .bao
        .write("sys/mounts/old/tune", &json!({"options": {"version": "2"}}))
        .await;
    let found = eventually_async("the upgraded store is read", async || {
        vault
            .fetch(&old)
            .await
            .ok()
            .filter(|got| got.version.is_some())
    })
    .await;
    assert_eq!(text(&found), "before");
}

#[tokio::test]
async fn a_namespace_of_the_engine_is_spoken_to() {
    let bench = Bench::start().await;
    bench.bao.write("sys/namespaces/team", &json!({})).await;
    let store = json!({"type": "kv", "options": {"version": "1"}});
    bench.bao.write("team/sys/mounts/inner", &store).await;
    bench
        .bao
        .write("team/inner/shop", &json!({"kubeconfig": "of the team"}))
        .await;
    let root = bench.file("root", bench.bao.root_token());
    let mut settings = bench.settings(AuthMethod::TokenFile(root));
    let inner = reference("inner", "shop");
    let outside = Vault::new(settings.clone(), OwnCertificate::default());
    let failure = refused(&outside, &inner).await;
    assert_eq!(failure.kind, FetchErrorKind::NotFound);
    settings.namespace = Some("team".to_owned());
    let vault = Vault::new(settings, OwnCertificate::default());
    assert_eq!(text(&fetch(&vault, &inner).await), "of the team");
    vault.probe().await.unwrap();
}
