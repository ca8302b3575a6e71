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
        (
            "get pods --as=system:admin",
            "impersonation (`impersonate-user`) is not available through Sortie",
        ),
        (
            "get pods --as=a --as-group=b",
            "is not available through Sortie",
        ),
    ] {
        let ran = scene.through(line, "").await;
        assert_eq!(ran.code, Some(1), "{line}: {ran:?}");
        assert!(ran.stderr.contains(sentence), "{line}: {ran:?}");
    }
}

#[tokio::test]
async fn an_unknown_account_is_answered_with_the_command_that_lists_them() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    // kubectl takes a raw path as it stands, without the path of the server's address.
    let kubeconfig = scene.stand.kubeconfig("lab", "lost").await;
    let text = fs::read_to_string(&kubeconfig).unwrap();
    let (_, after) = text.split_once("/accounts/").unwrap();
    let is_digit = |letter: char| letter.is_ascii_hexdigit();
    let id: String = after
        .chars()
        .take_while(|letter| is_digit(*letter))
        .collect();
    let known = scene
        .ok(&format!("get --raw /accounts/{id}/version"), "")
        .await;
    assert!(known.contains("gitVersion"), "{known}");
    let ran = scene
        .through("get --raw /accounts/0123456789abcdef/version", "")
        .await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let sentence = "(NotFound): no such account; `sortie get accounts` lists them";
    assert!(ran.stderr.contains(sentence), "{ran:?}");

    // Of what answers its discovery kubectl shows only that it was not found.
    let lost = kubeconfig.with_file_name("lost.kubeconfig");
    fs::write(&lost, text.replace(&id, "0123456789abcdef")).unwrap();
    let ran = Kubectl::pinned(33, &lost).run(&["get", "pods"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("(NotFound)"), "{ran:?}");
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
    let head = "GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n\n";
    assert_eq!(ran.stdout, head);
    assert!(
        ran.stderr.contains("not found in OpenAPI schema"),
        "{ran:?}"
    );
}
