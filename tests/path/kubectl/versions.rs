//! The oldest and the newest kubectl that are promised.

use super::Scene;
use super::secrets::{DATA_ONE_KEY, DATA_TWO_KEYS};
use super::writes::WEB;
use crate::support::testbed::Testbed;

#[tokio::test]
async fn kubectl_1_22_works_through_the_hub() {
    core(22).await;
}

#[tokio::test]
async fn kubectl_1_36_works_through_the_hub() {
    core(36).await;
}

async fn core(minor: u32) {
    let scene = Scene::with(Testbed::shared().await.cluster(), minor).await;
    scene
        .writes_alike(&[
            ("apply -f -", WEB),
            ("apply -f -", &WEB.replace("web:1", "web:2")),
            ("get deployment web -o name", ""),
            ("get deployment,service -o name", ""),
            ("rollout status deployment/web", ""),
            ("scale deployment/web --replicas=2", ""),
            ("rollout status deployment/web", ""),
            ("rollout undo deployment/web", ""),
            ("rollout status deployment/web", ""),
            ("rollout history deployment/web", ""),
            ("apply -f -", DATA_TWO_KEYS),
            ("apply -f -", DATA_ONE_KEY),
            ("delete secret d", ""),
            ("delete deployment web", ""),
            ("get deployment", ""),
            ("get deployment web", ""),
        ])
        .await;
}
