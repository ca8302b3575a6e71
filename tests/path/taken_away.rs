//! An account that the hub takes away while its agent attaches its feed, and what else the link carries.

use std::sync::{Arc, Mutex, PoisonError};

use sortie::tasks::Tasks;
use sortie::wire::v1;
use sortie::wire::v1::feed_down::Message as Down;
use sortie::wire::v1::session_server::Session;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::support::between::{self, Between};
use crate::support::double::{Double, Settings};
use crate::support::eventually::{eventually, eventually_async};
use crate::support::fake::Fake;
use crate::support::sortie::http_get;
use crate::support::stand::{self, Plan, account_yaml};

/// The account that is taken away, and given back.
const AWAY: &str = "away";

/// The one beside it.
const STAYS: &str = "stays";

#[tokio::test]
async fn a_feed_that_the_hub_does_not_accept_ends_by_itself() {
    let hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &[STAYS, AWAY]).await;
    let mut session = agent.hello(1).await.unwrap();
    session.offer(STAYS, "uid-1").await;
    let _feed = session.feed(STAYS, "uid-1", Vec::new()).await;
    let (first, _feed) = session.attach(AWAY, "uid-2", Vec::new()).await;
    assert!(
        matches!(&first, Down::Fenced(fenced) if fenced.reason.contains("not accepted")),
        "{first:?}"
    );
    let decision = session.offer(AWAY, "uid-2").await;
    assert_eq!(decision.admission(), v1::Admission::Accepted);
}

#[tokio::test]
async fn a_feed_that_makes_no_sense_ends_by_itself_and_its_account_counts_as_away() {
    let hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &[STAYS]).await;
    let mut session = agent.hello(1).await.unwrap();
    session.offer(STAYS, "uid-1").await;
    let attach = v1::Attach {
        session: session.id.clone(),
        account: STAYS.to_owned(),
        generation: 1,
        cluster_uid: "uid-1".to_owned(),
        policy_digest: vec![1; 32].into(),
        streams: Vec::new(),
    };
    let message = Some(v1::feed_up::Message::Attach(attach));
    let twice = [
        v1::FeedUp {
            message: message.clone(),
        },
        v1::FeedUp { message },
    ];
    let open = tokio_stream::iter(twice).chain(tokio_stream::pending());
    let mut down = session.client.feed(open).await.unwrap().into_inner();
    let first = down.message().await.unwrap().unwrap();
    assert!(
        matches!(first.message, Some(Down::Attached(_))),
        "{first:?}"
    );
    let refused = down.message().await.unwrap_err();
    assert!(refused.message().contains("a second attach"), "{refused}");
    let metrics = hub.address("metrics").await;
    eventually_async("nobody feeds the account", async || {
        let text = http_get(metrics, "/metrics").await?;
        let away = format!("sortie_hub_account_connected{{account=\"{STAYS}\"}} 0");
        text.contains(&away).then_some(())
    })
    .await;
    // The link goes on.
    let decision = session.offer(STAYS, "uid-1").await;
    assert_eq!(decision.admission(), v1::Admission::Accepted);
}

#[tokio::test]
async fn an_account_that_is_taken_away_and_given_back_is_fed_again_on_the_same_link() {
    for fenced in [Fenced::BeforeTheDecisions, Fenced::BehindThem] {
        let fickle = Fickle::new(fenced);
        let hub = stand::hub("24h").await;
        let state = hub.folder().join("state");
        let each = fickle.clone();
        let between = Between::start(&state, move || std::future::ready(each.clone())).await;
        let double = Double::start(Settings::default());
        let kubeconfig = double.write_kubeconfig();
        let plan = Plan {
            accounts: vec![STAYS.to_owned(), AWAY.to_owned()],
            accounts_yaml: [STAYS, AWAY]
                .map(|account| account_yaml(account, &kubeconfig, ""))
                .concat(),
            engines_yaml: String::new(),
            agent_ttl: "24h",
        };
        let way = format!("hub: {{ data: \"{}\" }}\n", between.address);
        let mut agent = stand::agent_with(&[], &hub, "lab", &plan, &way).await;
        // The one beside it may come later: each is offered when its own cluster has answered.
        eventually("the account is fed again, and the one beside it", || {
            (fickle.attached(AWAY) == 2 && fickle.attached(STAYS) > 0).then_some(())
        })
        .await;
        assert_eq!(
            (fickle.attached(STAYS), fickle.links()),
            (1, 1),
            "{fenced:?}"
        );
        assert_eq!(agent.stop().await, 0);
    }
}

/// When a feed is fenced, as the agent sees it.
#[derive(Clone, Copy, Debug)]
enum Fenced {
    BeforeTheDecisions,
    BehindThem,
}

/// A hub that takes an account away when its feed is attached for the first time, and gives it back
/// at once.
#[derive(Clone, Debug)]
struct Fickle {
    fenced: Fenced,
    tasks: Tasks,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Where decisions go; one per link.
    controls: Vec<mpsc::Sender<Result<v1::HubControl, Status>>>,
    /// The account of each feed.
    attached: Vec<String>,
}

impl Fickle {
    fn new(fenced: Fenced) -> Self {
        let (tasks, seen) = (Tasks::new(), Arc::default());
        Self {
            fenced,
            tasks,
            seen,
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attached(&self, account: &str) -> usize {
        let seen = self.seen();
        let of_account = seen.attached.iter().filter(|name| *name == account);
        of_account.count()
    }

    fn links(&self) -> usize {
        self.seen().controls.len()
    }

    /// Takes the account away, and gives it back.
    fn decide_twice(&self) {
        for admission in [v1::Admission::Suspended, v1::Admission::Accepted] {
            let control = self.seen().controls[0].clone();
            control.try_send(Ok(decisions(admission))).unwrap();
        }
    }
}

/// Everything is accepted, but the one account has this.
fn decisions(away: v1::Admission) -> v1::HubControl {
    let of = |name: &str, admission: v1::Admission| v1::AccountDecision {
        name: name.to_owned(),
        admission: admission.into(),
        ..v1::AccountDecision::default()
    };
    let accounts = vec![of(STAYS, v1::Admission::Accepted), of(AWAY, away)];
    let message = v1::hub_control::Message::Accounts(v1::AccountDecisions { accounts });
    v1::HubControl {
        message: Some(message),
    }
}

#[tonic::async_trait]
impl Session for Fickle {
    type ControlStream = between::Down<v1::HubControl>;
    type FeedStream = between::Down<v1::FeedDown>;
    type OperationStream = between::Down<v1::OperationDown>;

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentControl>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (down, receiver) = mpsc::channel(16);
        self.seen().controls.push(down.clone());
        let mut up = request.into_inner();
        self.tasks.spawn("control", |_stop| async move {
            use v1::agent_control::Message as M;
            while let Ok(Some(said)) = up.message().await {
                let answer = match said.message {
                    Some(M::Hello(_)) => between::welcome(),
                    Some(M::Accounts(_)) => decisions(v1::Admission::Accepted),
                    _ => continue,
                };
                down.send(Ok(answer)).await.expect("the agent listens");
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn feed(
        &self,
        request: Request<Streaming<v1::FeedUp>>,
    ) -> Result<Response<Self::FeedStream>, Status> {
        let mut up = request.into_inner();
        let attach = between::attach_of(&mut up).await?;
        self.seen().attached.push(attach.account.clone());
        let (down, receiver) = mpsc::channel(16);
        let say = |message| {
            let message = Some(message);
            down.try_send(Ok(v1::FeedDown { message })).unwrap();
        };
        let fenced = Down::Fenced(v1::Fenced::default());
        match (
            attach.account == AWAY && self.attached(AWAY) == 1,
            self.fenced,
        ) {
            (false, _) => say(Down::Attached(v1::Attached::default())),
            (true, Fenced::BeforeTheDecisions) => {
                say(fenced);
                self.decide_twice();
            }
            (true, Fenced::BehindThem) => {
                self.decide_twice();
                say(fenced);
            }
        }
        self.tasks.spawn("feed", |stop| async move {
            let reading = async { while let Ok(Some(_)) = up.message().await {} };
            let _ended = stop.run_until_cancelled(reading).await;
            drop(down);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn operation(
        &self,
        _request: Request<Streaming<v1::OperationUp>>,
    ) -> Result<Response<Self::OperationStream>, Status> {
        Err(Status::unimplemented("no operations here"))
    }
}
