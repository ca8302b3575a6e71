//! A Secret read with the crate `kube` as its documentation has it.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use plain_clients::{FETCHES, Outcome, waits};

#[tokio::main]
async fn main() -> Outcome {
    let client = Client::try_default().await?;
    let secrets: Api<Secret> = Api::default_namespaced(client);
    let mut held = None;
    for _ in 0..FETCHES {
        held = Some(secrets.get("shop").await?);
    }
    waits("held")?;
    drop(held);
    waits("dropped")?;
    drop(secrets);
    waits("closed")
}
