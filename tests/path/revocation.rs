//! Revoking: how soon the socket is closed, what stays out, and what lets in again.

use std::time::Duration;

use serde_json::Value;
use sortie::hub::admin::{Banned, Request};
use sortie::identity::KeyPair;
use sortie::identity::client::EnrolError;
use sortie::tasks::Tasks;
use tokio::time::Instant;

use super::returns::keep_addresses;
use crate::support::eventually::{bounded, eventually};
use crate::support::fake::{self, Fake};
use crate::support::load;
use crate::support::sortie::Sortie;
use crate::support::stand;

fn revoke(name: &str) -> Request {
    Request::Revoke {
        role: Banned::Agent,
        name: name.to_owned(),
    }
}

#[tokio::test]
async fn two_hundred_revoked_agents_lose_their_sockets_within_a_quarter_of_a_second() {
    const AGENTS: usize = 200;
    const BAR: Duration = Duration::from_millis(250);
    let _turn = load::turn().await;
    let hub = stand::hub("24h").await;
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let name = format!("agent-{number}");
        let agent = Fake::enrol(&hub, &name, &[]).await;
        agents.push((name, agent.hello(1).await.unwrap(), agent));
    }
    let mut took = Vec::new();
    for (name, session, _agent) in &agents {
        assert!(
            session.connection.reason().is_none(),
            "{name} was closed before"
        );
        let (start, request) = (Instant::now(), revoke(name));
        let closed = async {
            bounded("the socket is closed", session.connection.closed()).await;
            start.elapsed()
        };
        let (elapsed, _answer) = tokio::join!(closed, fake::ask(&hub, &request));
        took.push(elapsed);
    }
    took.sort_unstable();
    let (p50, p99) = (took[AGENTS / 2 - 1], took[AGENTS * 99 / 100 - 1]);
    let longest = took[AGENTS - 1];
    eprintln!(
        "revoke to socket closed, {AGENTS} agents: p50 {p50:?}, p99 {p99:?}, max {longest:?}"
    );
    assert!(p99 <= BAR, "{p99:?}");
}

#[tokio::test]
async fn a_revoked_agent_stays_out_over_a_restart_of_the_hub_until_it_is_restored() {
    let mut hub = stand::hub("24h").await;
    keep_addresses(&hub).await;
    let agent = Fake::enrol(&hub, "lab", &["lab"]).await;
    let other = Fake::enrol(&hub, "other", &["other"]).await;
    let session = agent.hello(1).await.unwrap();
    let beside = other.hello(2).await.unwrap();
    stand::ok(hub.command(&["revoke", "agent", "lab"]).await);
    bounded("the socket is closed", session.connection.closed()).await;
    assert!(
        beside.connection.reason().is_none(),
        "another agent was cut off"
    );

    let stays_out = async |hub: &Sortie, instance: u8| {
        let denied = hub.log().refusals("denied", "door=data");
        let refused = agent.hello(instance).await;
        assert!(refused.is_err(), "{refused:?}");
        eventually("an audit record of the handshake", || {
            (hub.log().refusals("denied", "door=data") > denied).then_some(())
        })
        .await;
        // Neither does a new key help, nor a new token.
        let (tasks, join) = (Tasks::new(), fake::join(hub, "lab", &["lab"]).await);
        let connection = fake::enrol_connection(&join, &tasks).await;
        let (evidence, key) = (fake::by_token(&join), KeyPair::generate().unwrap());
        let refused = fake::enrol(&connection, &join, &evidence, "lab", &key).await;
        assert!(
            matches!(refused, Err(EnrolError::Refused { .. })),
            "{refused:?}"
        );
        assert_eq!(hub.log().refusals("Revoked", "agent=\"lab\""), 1);
    };
    stays_out(&hub, 3).await;
    hub.kill().await;
    hub.start_again();
    hub.ready().await;
    stays_out(&hub, 4).await;

    stand::ok(hub.command(&["restore", "agent", "lab"]).await);
    let again = agent.hello(5).await;
    assert!(again.is_ok(), "{again:?}");
    let ran = stand::ok(hub.command(&["get", "agents", "lab", "-o", "json"]).await);
    let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(rows["items"][0]["state"], "ACTIVE", "{rows}");
}
