//! The gRPC services of the two agent listeners, as tonic routes.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::Core;
use super::peer::Peer;
use super::queue::Answers;
use crate::limits;
use crate::wire::v1;
use crate::wire::v1::enrolment_server::EnrolmentServer;
use crate::wire::v1::identity_server::IdentityServer;
use crate::wire::v1::session_server::SessionServer;

/// What agents with a certificate may call.
pub(super) fn data(core: Arc<Core>) -> Routes {
    let session =
        SessionServer::new(Data(Arc::clone(&core))).max_decoding_message_size(limits::OBJECT_BYTES);
    let identity = IdentityServer::new(Data(core)).max_decoding_message_size(64 * 1024);
    Routes::new(session).add_service(identity)
}

/// What agents without a certificate may call.
pub(super) fn enrol(core: Arc<Core>) -> Routes {
    Routes::new(EnrolmentServer::new(Door(core)).max_decoding_message_size(64 * 1024))
}

/// The first message of a stream, an `expected` one; none if the stream has ended.
///
/// # Errors
/// It did not come in time, or the stream broke.
pub(super) async fn first_message<T>(
    up: &mut Streaming<T>,
    expected: &str,
) -> Result<Option<T>, Status> {
    let first = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, up.message()).await;
    first.map_err(|_elapsed| Status::deadline_exceeded(format!("no {expected} within 5 s")))?
}

#[derive(Clone, Debug)]
struct Data(Arc<Core>);

#[derive(Clone, Debug)]
struct Door(Arc<Core>);

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    peer.ok_or_else(|| Status::unauthenticated("the connection has no verified peer"))
}

#[tonic::async_trait]
impl v1::session_server::Session for Data {
    type ControlStream = Answers<v1::HubControl>;
    type FeedStream = Answers<v1::FeedDown>;
    type OperationStream = ReceiverStream<Result<v1::OperationDown, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentControl>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        self.0.control(peer(&request)?, request.into_inner()).await
    }

    async fn feed(
        &self,
        request: Request<Streaming<v1::FeedUp>>,
    ) -> Result<Response<Self::FeedStream>, Status> {
        self.0.feed(peer(&request)?, request.into_inner()).await
    }

    async fn operation(
        &self,
        request: Request<Streaming<v1::OperationUp>>,
    ) -> Result<Response<Self::OperationStream>, Status> {
        self.0
            .operation(peer(&request)?, request.into_inner())
            .await
    }
}

#[tonic::async_trait]
impl v1::identity_server::Identity for Data {
    type WatchTrustStream = Pin<Box<dyn Stream<Item = Result<v1::TrustUpdate, Status>> + Send>>;

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        self.0
            .renew(peer(&request)?, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn watch_trust(
        &self,
        request: Request<v1::WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        let peer = peer(&request)?;
        self.0.session_of(&peer, &request.into_inner().session)?;
        // The roots do not change while a hub runs; the stream stays open for when they do.
        let now = tokio_stream::once(Ok(self.0.issuer.roots().to_wire()));
        let later = tokio_stream::pending();
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::chain(
            now, later,
        ))))
    }
}

#[tonic::async_trait]
impl v1::enrolment_server::Enrolment for Door {
    async fn begin(
        &self,
        request: Request<v1::BeginRequest>,
    ) -> Result<Response<v1::BeginResponse>, Status> {
        let channel = super::enrolment::channel(&request)?;
        self.0
            .begin(&channel, &request.into_inner())
            .map(Response::new)
    }

    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let channel = super::enrolment::channel(&request)?;
        self.0
            .enrol(&channel, request.into_inner())
            .await
            .map(Response::new)
    }
}
