//! Requests that the client library does not have.

use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError as HttpError;
use serde::Deserialize;
use serde_json::json;

/// Which store serves a path: `GET sys/internal/ui/mounts/PATH`.
pub(super) struct MountRequest {
    /// The path, mount included.
    pub(super) path: String,
}

/// What is told about a mount.
#[derive(Deserialize)]
pub(super) struct MountResponse {
    /// Where it is mounted, with a `/` at its end.
    pub(super) path: String,
    /// What it is, such as `kv`.
    #[serde(rename = "type")]
    pub(super) engine: String,
    /// How it is set up.
    pub(super) options: Option<MountOptions>,
}

/// How a store is set up.
#[derive(Deserialize)]
pub(super) struct MountOptions {
    /// Of a key-value store: `1` or `2`.
    pub(super) version: Option<String>,
}

impl Endpoint for MountRequest {
    type Response = MountResponse;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("sys/internal/ui/mounts/{}", self.path)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

/// Gives a lease back: `PUT sys/leases/revoke`.
pub(super) struct RevokeLeaseRequest {
    /// Which.
    pub(super) lease_id: String,
}

impl Endpoint for RevokeLeaseRequest {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        "sys/leases/revoke".to_owned()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, HttpError> {
        let body = json!({ "lease_id": self.lease_id });
        Ok(Some(body.to_string().into_bytes()))
    }
}

/// Logs in with the certificate of the connection: `POST auth/MOUNT/login`.
///
/// The library's own writes the role as `cert_name`, which no engine reads.
pub(super) struct CertificateLoginRequest {
    /// Where the method is mounted.
    pub(super) mount: String,
    /// The role to ask for; otherwise the first that fits.
    pub(super) role: Option<String>,
}

impl Endpoint for CertificateLoginRequest {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("auth/{}/login", self.mount)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, HttpError> {
        let body = self.role.as_ref().map(|role| json!({ "name": role }));
        Ok(body.map(|body| body.to_string().into_bytes()))
    }
}
