//! The few things that are asked for our own sake.

use serde::Deserialize;

use super::{ApiAnswer, ApiRequest, Cluster, ClusterError};
use crate::secret::Buffer;

/// Largest answer to `/version` and to the read of one namespace, in bytes.
const SMALL_BYTES: usize = 1024 * 1024;

impl Cluster {
    /// The API server's `/version`, as JSON.
    ///
    /// # Errors
    /// No answer, or another status than 200.
    pub async fn version(&self) -> Result<Vec<u8>, ClusterError> {
        self.get("/version", "application/json", SMALL_BYTES).await
    }

    /// What identifies the cluster: the uid of its namespace `kube-system`, which is made once.
    ///
    /// # Errors
    /// No answer, or another status than 200.
    pub async fn uid(&self) -> Result<String, ClusterError> {
        #[derive(Deserialize)]
        struct Named {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        struct Metadata {
            uid: String,
        }
        let path = "/api/v1/namespaces/kube-system";
        let bytes = self.get(path, "application/json", SMALL_BYTES).await?;
        let named: Named = parse(&bytes)?;
        Ok(named.metadata.uid)
    }

    /// Asks for `/api`, which needs a credential that is accepted and no more rights than that.
    ///
    /// # Errors
    /// [`ClusterError::Unauthorized`] if it is not; everything that keeps an answer away.
    pub async fn probe(&self) -> Result<(), ClusterError> {
        self.get("/api", "application/json", SMALL_BYTES)
            .await
            .map(drop)
    }

    /// The body of a GET that must be answered with 200.
    pub(super) async fn get(
        &self,
        path: &'static str,
        accept: &str,
        max: usize,
    ) -> Result<Vec<u8>, ClusterError> {
        let answer = self
            .send(ApiRequest::get(path).header("accept", accept))
            .await?;
        collect(answer, path, max).await
    }
}

/// The whole body of an answer that must be 200. Not for what holds secrets: it is not wiped.
pub(super) async fn collect(
    mut answer: ApiAnswer,
    what: &'static str,
    max: usize,
) -> Result<Vec<u8>, ClusterError> {
    match answer.status {
        200 => {}
        401 => return Err(ClusterError::Unauthorized),
        403 => return Err(ClusterError::Forbidden(what)),
        status => return Err(ClusterError::Status { what, status }),
    }
    let mut buffer = Buffer::new(max + 1);
    while answer.body.read(&mut buffer).await? > 0 {
        if buffer.len() > max {
            return Err(ClusterError::TooLarge { what, max });
        }
    }
    Ok(buffer.filled().to_vec())
}

/// Reads JSON; its error would quote the answer, so it is dropped.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ClusterError> {
    serde_json::from_slice(bytes)
        .map_err(|_error| ClusterError::Protocol("answered with JSON of another shape"))
}
