//! What dies in the middle of something: of a certificate on its way, of a first sync.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::returns::keep_addresses;
use crate::support::capture::Entry;
use crate::support::double::{Double, Settings};
use crate::support::eventually::{eventually, within};
use crate::support::facade::Facade;
use crate::support::relay::{Link, Relay, Silence};
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan};

/// Lifetime of the agents' certificates, of which about half passes before the next is asked for.
const TTL: &str = "20s";
const NEXT: Duration = Duration::from_secs(20);

/// Objects of a first sync, the way that they take, and how much of it has passed at the blow.
const OBJECTS: usize = 3_000;
const WAY: u64 = 100_000;
const PART: u64 = 50_000;

/// For how long a first sync may take once the way is free.
const SYNCED: Duration = Duration::from_secs(30);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Agent,
    Hub,
}

/// A hub, and an agent that keeps its identity and reaches it over a relay.
struct Lab {
    hub: Sortie,
    agent: Sortie,
    relay: Relay,
    _cluster: Double,
    _state: TempDir,
}

impl Lab {
    async fn start(objects: usize, link: Link) -> Self {
        let cluster = Double::start(Settings {
            objects: vec![("services", objects)],
            ..Settings::default()
        });
        let plan = Plan {
            agent_ttl: TTL,
            ..Plan::one("shop", &cluster.write_kubeconfig(), "")
        };
        let hub = stand::hub(plan.agent_ttl).await;
        keep_addresses(&hub).await;
        let relay = Relay::shaped(hub.address("data").await, link);
        let state = tempfile::tempdir().expect("a folder");
        let more = format!(
            "state-dir: {}\nhub: {{ data: \"{}\" }}\n",
            state.path().join("identity").display(),
            relay.address()
        );
        let agent = stand::agent_with(&[], &hub, "lab", &plan, &more).await;
        Self {
            hub,
            agent,
            relay,
            _cluster: cluster,
            _state: state,
        }
    }

    /// Kills one and starts it again.
    async fn strike(&mut self, victim: Victim) {
        let server = match victim {
            Victim::Agent => &mut self.agent,
            Victim::Hub => &mut self.hub,
        };
        server.kill().await;
        self.relay.cut();
        self.relay.silence(Silence::None);
        server.start_again();
        if victim == Victim::Hub {
            self.hub.ready().await;
        }
    }

    async fn wait(&self, state: &str) {
        stand::wait(&self.hub, &self.agent, "shop", state).await;
    }

    /// How often the running hub has admitted an `action`.
    fn admitted(&self, action: &str) -> usize {
        let admitted = |entry: &Entry| {
            entry.text("action") == Some(action) && entry.text("outcome") == Some("allowed")
        };
        self.hub.log().entries().filter(admitted).count()
    }
}

/// A certificate is issued whose answer does not reach its agent; then one of both is killed.
async fn amid_a_rotation(victim: Victim) {
    let mut lab = Lab::start(3, Link::default()).await;
    lab.wait("ACTIVE").await;
    let before = lab.admitted("renew");
    lab.relay.silence(Silence::Down);
    within(NEXT, "the next certificate is on its way", async || {
        (lab.admitted("renew") > before).then_some(())
    })
    .await;
    assert!(lab.agent.log().find("certificate rotated").is_none());
    lab.strike(victim).await;
    let started = Instant::now();
    lab.wait("ACTIVE").await;
    println!("{victim:?}: ACTIVE {:?} after its start", started.elapsed());
    assert!(started.elapsed() <= stand::BACK);
    let before = lab.admitted("renew");
    within(NEXT, "certificates go on to be replaced", async || {
        (lab.admitted("renew") > before).then_some(())
    })
    .await;
    eventually("the agent has taken one of them", || {
        lab.agent.log().find("certificate rotated")
    })
    .await;
    // The token of the first start is spent: whoever comes back does so with what it has kept.
    let joins = match victim {
        Victim::Agent => 1,
        Victim::Hub => 0, // since the hub was started again
    };
    assert_eq!(lab.admitted("enrol"), joins);
}

#[tokio::test]
async fn an_agent_killed_while_its_next_certificate_is_on_its_way_comes_back_with_the_one_before() {
    amid_a_rotation(Victim::Agent).await;
}

#[tokio::test]
async fn a_hub_killed_while_a_certificate_is_on_its_way_issues_the_next_one() {
    amid_a_rotation(Victim::Hub).await;
}

/// One of both is killed when a part of a first sync has arrived.
async fn amid_a_first_sync(victim: Victim) {
    let link = Link {
        up: Some(WAY),
        ..Link::default()
    };
    let mut lab = Lab::start(OBJECTS, link).await;
    eventually("a part has arrived", || {
        (lab.relay.passed().0 >= PART).then_some(())
    })
    .await;
    lab.strike(victim).await;
    lab.relay.link(Link::default());
    lab.wait("ACTIVE").await;
    let facade = Facade::of(&stand::kubeconfig(&lab.hub, "shop", "visitor").await);
    within(SYNCED, "every object is there", async || {
        let list = facade.try_get("/api/v1/services").await?;
        (list["items"].as_array()?.len() == OBJECTS).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_killed_amid_its_first_sync_does_it_again() {
    amid_a_first_sync(Victim::Agent).await;
}

#[tokio::test]
async fn a_hub_killed_amid_a_first_sync_has_everything_in_the_end() {
    amid_a_first_sync(Victim::Hub).await;
}
