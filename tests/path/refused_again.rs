//! A hub that certifies an agent, and then refuses each certificate that it has given.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sortie::wire::v1;
use sortie::wire::v1::session_server::Session;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::support::between::{self, Between};
use crate::support::eventually::eventually;
use crate::support::fake;
use crate::support::pod::{add_cluster, agent_of_pod, pod_of, token_of};
use crate::support::stand::{self, Plan};
use crate::support::testbed::Testbed;

/// Certificates that are shown until the test is over.
const SHOWN: usize = 7;

/// The least time in which they are shown: the n-th pause is a tenth of 200 ms · 2ⁿ at least.
const LEAST: Duration = Duration::from_millis(20 * ((1 << (SHOWN - 1)) - 1));

/// Takes no certificate.
#[derive(Clone, Debug, Default)]
struct Refusing(Arc<Mutex<Vec<Instant>>>);

impl Refusing {
    /// When it was asked.
    fn asked(&self) -> Vec<Instant> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[tonic::async_trait]
impl Session for Refusing {
    type ControlStream = between::Down<v1::HubControl>;
    type FeedStream = between::Down<v1::FeedDown>;
    type OperationStream = between::Down<v1::OperationDown>;

    async fn control(
        &self,
        _request: Request<Streaming<v1::AgentControl>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(Instant::now());
        Err(Status::unauthenticated("not with this certificate"))
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
async fn an_agent_whose_new_certificates_are_refused_joins_again_ever_later() {
    let here = Testbed::shared().await.cluster();
    let api = here.api();
    let namespace = api.namespace("refused").await;
    let pod = pod_of(&api, &namespace, "sortie").await;
    let hub = stand::hub("24h").await;
    let join = fake::join(&hub, "unused", &[]).await;
    add_cluster(&hub, &api, "here", &format!("{namespace}/sortie"), "lab").await;
    let refusing = Refusing::default();
    let each = refusing.clone();
    let state = hub.folder().join("state");
    let between = Between::start(&state, move || std::future::ready(each.clone())).await;
    let audience = "spiffe://test.sortie.example/hub";
    let token = token_of(&api, &pod, audience, true).await;
    let plan = Plan::one("lab", &here.kubeconfig, "");
    let mut agent = agent_of_pod(&between.address.to_string(), &join, &token, &plan);
    let asked = eventually("each certificate is refused", || {
        let asked = refusing.asked();
        (asked.len() >= SHOWN).then_some(asked)
    })
    .await;
    let took = asked[SHOWN - 1] - asked[0];
    println!("{SHOWN} certificates in {took:?}");
    assert!(took >= LEAST, "{took:?}");
    assert_eq!(agent.stop().await, 0, "{:?}", agent.log());
}
