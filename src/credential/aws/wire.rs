//! What the libraries of AWS speak through: our transport behind their trait.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{Request, Response, Uri};
use thiserror::Error;

use super::Settings;
use crate::credential::fetch::Failure;
use crate::credential::transport::{self, is_untrusted};

/// Time that one request may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where a container is given its credentials, without TLS: ECS, and EKS pod identity.
const CONTAINER: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Where an EC2 instance is.
const INSTANCE: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];

/// The way to AWS.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    ca_file: Option<PathBuf>,
    instance_metadata: bool,
    deadline: Duration,
}

/// A request that got no answer, as the libraries pass it through.
#[derive(Debug, Error)]
#[error("the request got no answer")]
pub(super) struct Unanswered(pub(super) Failure);

impl Wire {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            ca_file: settings.ca_file.clone(),
            instance_metadata: settings.instance_metadata,
            deadline: DEADLINE,
        }
    }

    /// Sends a request and reads the whole answer; its body is wiped when it is dropped.
    pub(super) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, Failure> {
        let client = self.client(request.uri()).await?;
        let request = reqwest::Request::try_from(request)
            .map_err(|_error| Failure::unavailable("the request could not be made"))?;
        let mut response = client.execute(request).await.map_err(unreached)?;
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        let body = transport::body(response).await?;
        *answer.body_mut() = Bytes::from_owner(body);
        Ok(answer)
    }

    pub(super) async fn client(&self, uri: &Uri) -> Result<reqwest::Client, Failure> {
        match uri.scheme_str() {
            Some("https") => {
                transport::client_as(None, self.ca_file.as_deref(), self.deadline).await
            }
            _ if self.is_of_this_machine(uri) => transport::link_local_client(self.deadline),
            _ => Err(Failure::local(
                "credentials are taken without TLS from the machine itself only; look at \
                 AWS_CONTAINER_CREDENTIALS_FULL_URI",
            )),
        }
    }

    fn is_of_this_machine(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let Ok(address) = bare.parse::<IpAddr>() else {
            return false;
        };
        let is_of = |list: &[&str]| list.iter().any(|known| known.parse() == Ok(address));
        address.is_loopback() || is_of(&CONTAINER) || (self.instance_metadata && is_of(&INSTANCE))
    }

    async fn carry(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let unmade = Failure::unavailable("the request could not be made");
        let Ok(request) = request.try_into_http1x() else {
            return Err(unmade);
        };
        let (parts, body) = request.into_parts();
        let body = body.bytes().ok_or(unmade)?.to_vec();
        let answer = self.send(Request::from_parts(parts, body)).await?;
        HttpResponse::try_from(answer.map(SdkBody::from))
            .map_err(|_error| Failure::corrupt("its answer has unreadable headers"))
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let wire = self.clone();
        HttpConnectorFuture::new(async move {
            let carried = wire.carry(request).await;
            carried.map_err(|failure| ConnectorError::other(Unanswered(failure).into(), None))
        })
    }
}

impl HttpClient for Wire {
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form of `map_err`")]
fn unreached(error: reqwest::Error) -> Failure {
    if is_untrusted(&error) {
        return Failure::unavailable(
            "its certificate is not one of the configured `ca-file`, or of the system",
        );
    }
    if error.is_timeout() {
        return Failure::unavailable("it did not answer in time");
    }
    Failure::unavailable("it cannot be reached; look at `endpoint`, `region` and the network")
}
