//! For comparison: a secret fetched with the SDK of AWS as its documentation has it.
//!
//! Where it is and who it is comes from the environment. It says what it has come to, and waits for a
//! line there, so that its memory can be looked through.

use std::error::Error;
use std::io::stdin;

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::Client;

/// How often the secret is fetched.
const FETCHES: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
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

/// Says where it is, and waits for a line.
fn waits(point: &str) -> Result<(), Box<dyn Error>> {
    println!("{point}");
    stdin().read_line(&mut String::new())?;
    Ok(())
}
