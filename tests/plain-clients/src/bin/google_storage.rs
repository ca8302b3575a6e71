//! An object fetched with Google's client of Cloud Storage as its documentation has it.

use google_cloud_auth::credentials::Builder;
use google_cloud_storage::client::Storage;
use plain_clients::{FETCHES, Outcome, url, waits};

/// All that it needs, and all that the double of Cloud Storage admits.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

#[tokio::main]
async fn main() -> Outcome {
    let credentials = Builder::default().with_scopes([SCOPE]).build()?;
    let builder = Storage::builder()
        .with_endpoint(url()?)
        .with_credentials(credentials);
    let client = builder.build().await?;
    let mut held = None;
    for _ in 0..FETCHES {
        held = Some(read(&client).await?);
    }
    waits("held")?;
    drop(held);
    waits("dropped")?;
    drop(client);
    waits("closed")
}

/// The object, put together as the documentation has it.
async fn read(client: &Storage) -> Outcome<Vec<u8>> {
    let object = client.read_object("projects/_/buckets/bucket", "shop");
    let mut reader = object.send().await?;
    let mut contents = Vec::new();
    while let Some(chunk) = reader.next().await.transpose()? {
        contents.extend_from_slice(&chunk);
    }
    Ok(contents)
}
