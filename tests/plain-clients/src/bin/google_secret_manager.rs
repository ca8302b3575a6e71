//! A secret fetched with Google's client of Secret Manager as its documentation has it.

use google_cloud_secretmanager_v1::client::SecretManagerService;
use plain_clients::{FETCHES, Outcome, url, waits};

#[tokio::main]
async fn main() -> Outcome {
    let builder = SecretManagerService::builder().with_endpoint(url()?);
    let client = builder.build().await?;
    let name = "projects/lab-project/secrets/shop/versions/latest";
    let mut held = None;
    for _ in 0..FETCHES {
        held = Some(client.access_secret_version().set_name(name).send().await?);
    }
    waits("held")?;
    drop(held);
    waits("dropped")?;
    drop(client);
    waits("closed")
}
