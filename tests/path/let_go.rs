//! A hub that welcomes an agent, and ends its link at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sortie::wire::v1;
use sortie::wire::v1::session_server::Session;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::support::between::{self, Between};
use crate::support::double::{Double, Settings};
use crate::support::eventually::eventually;
use crate::support::stand::{self, Plan};

/// Links that are opened until the test is over.
const LINKS: usize = 8;

/// The least time in which they are: each pause is a tenth at least of 0.2, 0.4, 0.8, 1.6, 3.2, 5
/// and 5 s. Pauses that did not grow would come to 0.8 s.
const LEAST: Duration = Duration::from_millis(1620);

/// Welcomes, and says no more.
#[derive(Clone, Debug, Default)]
struct LettingGo(Arc<Mutex<Vec<Instant>>>);

impl LettingGo {
    /// When it was dialled.
    fn dialled(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Session for LettingGo {
    type ControlStream = between::Down<v1::HubControl>;
    type FeedStream = between::Down<v1::FeedDown>;
    type OperationStream = between::Down<v1::OperationDown>;

    async fn control(
        &self,
        _request: Request<Streaming<v1::AgentControl>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        self.dialled().push(Instant::now());
        let once = tokio_stream::once(Ok(between::welcome()));
        Ok(Response::new(Box::pin(once)))
    }

    async fn feed(
        &self,
        _request: Request<Streaming<v1::FeedUp>>,
    ) -> Result<Response<Self::FeedStream>, Status> {
        Err(Status::unimplemented("no feeds here"))
    }

    async fn operation(
        &self,
        _request: Request<Streaming<v1::OperationUp>>,
    ) -> Result<Response<Self::OperationStream>, Status> {
        Err(Status::unimplemented("no operations here"))
    }
}

#[tokio::test]
async fn an_agent_whose_links_end_at_once_dials_ever_later() {
    let hub = stand::hub("24h").await;
    let letting_go = LettingGo::default();
    let each = letting_go.clone();
    let state = hub.folder().join("state");
    let between = Between::start(&state, move || std::future::ready(each.clone())).await;
    let double = Double::start(Settings::default());
    let plan = Plan::one("lab", &double.write_kubeconfig(), "");
    let way = format!("hub: {{ data: \"{}\" }}\n", between.address);
    let mut agent = stand::agent_with(&[], &hub, "lab", &plan, &way).await;
    let dialled = eventually("each link is opened", || {
        let dialled = letting_go.dialled().clone();
        (dialled.len() >= LINKS).then_some(dialled)
    })
    .await;
    let took = dialled[LINKS - 1] - dialled[0];
    println!("{LINKS} links in {took:?}");
    assert!(took >= LEAST, "{took:?}");
    assert_eq!(agent.stop().await, 0, "{:?}", agent.log());
}
