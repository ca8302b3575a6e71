//! Accounts whose kubeconfigs lie in a folder, swapped as a kubelet swaps a volume, or stand in the
//! reference itself.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::engine_k8s::{kubeconfig, streams};
use crate::support::eventually::eventually_async;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

/// Replaces the content of a volume: a new folder, and one link that is renamed.
fn swap(root: &Path, generation: u32, files: &[(&str, &str)]) {
    let folder = format!("..2026_11_22_{generation}");
    fs::create_dir(root.join(&folder)).unwrap();
    for (name, text) in files {
        fs::write(root.join(&folder).join(name), text).unwrap();
        if fs::symlink_metadata(root.join(name)).is_err() {
            symlink(format!("..data/{name}"), root.join(name)).unwrap();
        }
    }
    let old = fs::read_link(root.join("..data")).ok();
    symlink(&folder, root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(root.join(old)).unwrap();
    }
}

#[tokio::test]
async fn accounts_stream_from_a_mounted_folder_and_follow_its_swaps() {
    let cluster = Testbed::shared().await.cluster();
    let text = kubeconfig(cluster, &cluster.token);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    swap(root, 1, &[("shop", &text), ("prod-eu", &text)]);
    let plan = Plan {
        accounts: ["shop", "k-shop", "k-prod-eu", "k-prod-us"]
            .map(str::to_owned)
            .to_vec(),
        accounts_yaml: "  - name: shop\n    credential: { secret: \"sec+file://vol/shop\" }\n  \
                        - name: k-*\n    credential: { secret: \"sec+file://vol/#*\" }\n"
            .to_owned(),
        engines_yaml: format!(
            "  vol: {{ engine: file, root: {}, refresh: 1s }}\n",
            root.display()
        ),
        agent_ttl: "24h",
    };
    let stand = Stand::joining(plan).await;
    for account in ["shop", "k-shop", "k-prod-eu"] {
        stand.wait(account, "ACTIVE").await;
    }
    let namespace = cluster.api().namespace("folder").await;
    streams(&stand, &cluster.api(), &namespace, "shop").await;
    // Half a file: what was in use stays, and the reason is told.
    let torn = text.split_at(text.len() / 2).0;
    swap(
        root,
        2,
        &[("shop", torn), ("prod-eu", &text), ("prod-us", &text)],
    );
    stand.wait("k-prod-us", "ACTIVE").await;
    eventually_async("the torn file is told", async || {
        let row = stand.account("shop").await;
        assert_eq!(row["state"], "ACTIVE", "{row}");
        (row["reason"] == "KubeconfigInvalid").then_some(())
    })
    .await;
    swap(root, 3, &[("shop", &text), ("prod-us", &text)]);
    fs::remove_file(root.join("prod-eu")).unwrap();
    stand.wait("k-prod-eu", "STALE").await;
    eventually_async("the whole file is taken", async || {
        (stand.account("shop").await["reason"] == "").then_some(())
    })
    .await;
    stand.agent.log().assert_without(&[cluster.token.as_str()]);
}

#[tokio::test]
async fn a_value_in_the_reference_is_a_kubeconfig_and_is_never_shown() {
    let cluster = Testbed::shared().await.cluster();
    let text = kubeconfig(cluster, &cluster.token);
    let encoded: String = text
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let plan = Plan {
        accounts: vec!["shop".to_owned()],
        accounts_yaml: format!(
            "  - name: shop\n    credential: {{ secret: \"sec+noop://test/{encoded}\" }}\n"
        ),
        engines_yaml: "  test: { engine: noop }\n".to_owned(),
        agent_ttl: "24h",
    };
    let stand = Stand::start(plan).await;
    let namespace = cluster.api().namespace("noop").await;
    streams(&stand, &cluster.api(), &namespace, "shop").await;
    let row = stand.account("shop").await.to_string();
    assert!(
        !row.contains(&cluster.token) && !row.contains("certificate-authority"),
        "{row}"
    );
    let planted = [cluster.token.as_str(), "certificate-authority-data"];
    stand.agent.log().assert_without(&planted);
    stand.hub.log().assert_without(&planted);
}
