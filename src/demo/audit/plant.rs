//! Secrets with known values in a namespace of their own on a real cluster.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Method;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::endpoint::{Endpoint, ReadError};
use super::reader::{Reader, expect_ok};
use crate::demo::canary::Canary;
use crate::entropy::{self, SharedEntropy};
use crate::fault::Chain;
use crate::retry::Backoff;
use crate::tasks::Tasks;

/// Secrets that a demonstration plants.
pub const SECRETS: usize = 200;

/// Attempts to remove the namespace before it is left behind, with a warning that names it.
const REMOVALS: u32 = 8;

/// A planted namespace. It is removed by [`Plant::remove`], when this is dropped, and when the
/// tasks are stopped.
#[derive(Debug)]
pub struct Plant {
    namespace: String,
    canaries: Vec<Canary>,
    marker: [u8; 16],
    /// Paths of Secrets, and the values they are to get.
    later: Vec<(String, [u8; 32])>,
    reader: Reader,
    finish: DropGuard,
    removed: oneshot::Receiver<bool>,
}

impl Plant {
    /// Creates the namespace and `secrets` Secrets in it ([`SECRETS`] in a demonstration).
    ///
    /// Whatever happens after the first request, the namespace is removed: the task that does it
    /// runs before anything is created.
    pub async fn start(
        endpoint: &Endpoint,
        secrets: usize,
        entropy: &SharedEntropy,
        tasks: &Tasks,
    ) -> Result<Self, ReadError> {
        let suffix = hex::encode(entropy::bytes::<5>(&**entropy));
        let namespace = format!("sortie-demo-{suffix}");
        // Connections of its own: those of `tasks` are cut at the stop, when this one begins.
        let reader = Reader::new(endpoint, &Tasks::new())?;
        let finish = CancellationToken::new();
        let (done, removed) = oneshot::channel();
        let removal = Removal {
            reader: reader.clone(),
            namespace: namespace.clone(),
            backoff: Backoff::new(
                Duration::from_millis(100),
                Duration::from_secs(2),
                entropy.clone(),
            ),
        };
        let finished = finish.clone();
        tasks.spawn("demo-plant", |stop| async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = finished.cancelled() => {}
            }
            // Nobody may be waiting any more.
            let _told = done.send(removal.run().await);
        });
        let mut plant = Self {
            namespace,
            canaries: Vec::new(),
            marker: marker(&suffix, entropy),
            later: Vec::new(),
            reader: reader.clone(),
            finish: finish.drop_guard(),
            removed,
        };
        plant.create(&reader, secrets, entropy).await?;
        Ok(plant)
    }

    async fn create(
        &mut self,
        reader: &Reader,
        secrets: usize,
        entropy: &SharedEntropy,
    ) -> Result<(), ReadError> {
        let namespace = &self.namespace;
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"app": "sortie-demo"}},
        });
        post(reader, "/api/v1/namespaces", &body).await?;
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        let marker = String::from_utf8_lossy(&self.marker).into_owned();
        for number in 0..secrets {
            let value: [u8; 32] = entropy::bytes(&**entropy);
            let name = format!("planted-{number}");
            let body = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": name, "labels": {"marker": marker}}, "data": {"value": BASE64.encode(value)},
            });
            self.canaries.push(Canary {
                place: format!("{namespace}/{name}/value"),
                value: value.to_vec(),
            });
            post(reader, &path, &body).await?;
            let later: [u8; 32] = entropy::bytes(&**entropy);
            self.canaries.push(Canary {
                place: format!("{namespace}/{name}/value, later"),
                value: later.to_vec(),
            });
            self.later.push((format!("{path}/{name}"), later));
        }
        Ok(())
    }

    /// The namespace's name.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Gives one Secret its later value; nothing once all have theirs.
    pub async fn change(&mut self) -> Result<(), ReadError> {
        let Some((path, value)) = self.later.pop() else {
            return Ok(());
        };
        let body = json!({"data": {"value": BASE64.encode(value)}});
        let (kind, method) = ("application/merge-patch+json", Method::PATCH);
        self.reader
            .send(method, &path, Some((kind, &body)))
            .await
            .map(drop)
    }

    /// Plain bytes that every planted Secret shows as a label.
    pub const fn marker(&self) -> [u8; 16] {
        self.marker
    }

    /// The planted values.
    pub fn canaries(&self) -> &[Canary] {
        &self.canaries
    }

    /// Removes the namespace; false if that could not be done.
    pub async fn remove(self) -> bool {
        drop(self.finish);
        self.removed.await.unwrap_or(false)
    }
}

async fn post(reader: &Reader, path: &str, body: &serde_json::Value) -> Result<(), ReadError> {
    let answer = reader
        .send(Method::POST, path, Some(("application/json", body)))
        .await?;
    expect_ok(&Method::POST, path, answer).map(drop)
}

struct Removal {
    reader: Reader,
    namespace: String,
    backoff: Backoff,
}

impl Removal {
    async fn run(mut self) -> bool {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        let mut absent = false;
        for _ in 0..REMOVALS {
            match self.reader.send(Method::DELETE, &path, None).await {
                // 409: it is being removed already.
                Ok(answer) if matches!(answer.status, 200..300 | 409) => return true,
                // Never created, or its creation is still under way: asked once more.
                Ok(answer) if answer.status == 404 && absent => return true,
                Ok(answer) if answer.status == 404 => absent = true,
                Ok(answer) => tracing::debug!(status = answer.status, "removal was refused"),
                Err(error) => tracing::debug!(error = %Chain(&error), "removal failed"),
            }
            // This runs at the stop: it has no other stop to listen to.
            self.backoff.wait(&CancellationToken::new()).await;
        }
        tracing::warn!(namespace = %self.namespace, "planted namespace could not be removed");
        false
    }
}

/// Sixteen letters and digits that occur nowhere else.
fn marker(suffix: &str, entropy: &SharedEntropy) -> [u8; 16] {
    let drawn = format!("m{}{suffix}", hex::encode(entropy::bytes::<4>(&**entropy)));
    let mut marker = [b'm'; 16];
    for (to, from) in marker.iter_mut().zip(drawn.bytes()) {
        *to = from;
    }
    marker
}
