//! A secret fetched with the SDK of AWS as its documentation has it.

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::Client;
use plain_clients::{FETCHES, Outcome, waits};

#[tokio::main]
async fn main() -> Outcome {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let client = Client::new(&config);
    let mut held = None;
    for _ in 0..FETCHES {
        held = Some(client.get_secret_value().secret_id("shop").send().await?);
    }
    waits("held")?;
    drop(held);
    waits("dropped")?;
    drop((client, config));
    waits("closed")
}
