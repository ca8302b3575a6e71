//! What is refused, and in which words.

use std::fs;

use super::Scene;
use super::writes::WEB;
use crate::support::kubectl::Kubectl;
use crate::support::testbed::Testbed;

#[tokio::test]
async fn what_goes_past_the_hub_is_refused_with_a_sentence() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    scene.ok("create -f -", WEB).await;
    scene.ok("rollout status deployment/web", "").await;
    let tunnels = "exec, attach, port-forward and proxy are not available through Sortie";
    for (line, sentence) in [
        ("exec -n {ns} deployment/web -- true", tunnels),
        ("attach deployment/web", tunnels),
        ("port-forward deployment/web :80", tunnels),
        ("get pods --as=system:admin", "impersonation (`impersonate-user`) is not available through Sortie"),
        ("get pods --as=a --as-group=b", "is not available through Sortie"),
    ] {
        let ran = scene.through(line, "").await;
        assert_eq!(ran.code, Some(1), "{line}: {ran:?}");
        assert!(ran.stderr.contains(sentence), "{line}: {ran:?}");
    }
}

#[tokio::test]
async fn an_unknown_account_is_answered_with_the_command_that_lists_them() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    let known = scene.stand.kubeconfig("lab", "lost").await;
    let text = fs::read_to_string(&known).unwrap();
    let (before, after) = text.split_once("/accounts/").unwrap();
    let rest = after.trim_start_matches(|letter: char| letter.is_ascii_hexdigit());
    let lost = known.with_file_name("lost.kubeconfig");
    fs::write(&lost, format!("{before}/accounts/0123456789abcdef{rest}")).unwrap();
    let kubectl = Kubectl::pinned(33, &lost);
    for line in [vec!["get", "pods"], vec!["version"], vec!["get", "--raw", "/api"]] {
        let ran = kubectl.run(&line).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("sortie get accounts"), "{line:?}: {ran:?}");
    }
}

#[tokio::test]
async fn top_without_metrics_fails_as_it_does_directly() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    let normal = super::normal::exact;
    scene.reads_alike(&["top pods", "top nodes"], normal).await;
}

#[tokio::test]
async fn explain_says_that_it_has_no_schema() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    let ran = scene.through("explain deployment", "").await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
}
