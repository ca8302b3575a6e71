//! An agent that is certified and means harm: what it can make the hub hold.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use sortie::hub::admin;
use sortie::limits::INSTANCES_PER_AGENT;
use sortie::wire::v1::feed_down::Message as Down;
use sortie::wire::{VERSIONS, v1};
use tokio::net::{TcpStream, UnixStream};

use crate::support::eventually::{bounded, eventually, eventually_async, idle};
use crate::support::fake::{Fake, Session};
use crate::support::sortie::Sortie;
use crate::support::stand;

/// Opens another control stream over the connection of `session`; the error is the hub's.
async fn control_again(session: &mut Session, instance: u8) -> Result<(), String> {
    let hello = v1::AgentHello {
        versions: VERSIONS.to_vec(),
        instance: vec![instance; 16].into(),
        generation: 2,
        ..v1::AgentHello::default()
    };
    let hello = v1::AgentControl {
        message: Some(v1::agent_control::Message::Hello(hello)),
    };
    let opening = session.client.control(tokio_stream::iter([hello]));
    let opened = bounded("the hub answers the hello", opening).await;
    opened.map(drop).map_err(|status| status.to_string())
}

#[tokio::test]
async fn instances_beyond_the_bound_are_refused_and_those_that_are_here_go_on() {
    let hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &["lab"]).await;
    let other = Fake::enrol(&hub, "shop", &["shop"]).await;
    let mut here = Vec::new();
    for instance in 0..INSTANCES_PER_AGENT {
        let instance = u8::try_from(instance).unwrap();
        here.push(agent.hello(instance).await.unwrap());
    }
    let late = u8::MAX;
    let refused = agent.hello(late).await.unwrap_err();
    assert!(
        refused.contains("16 instances of agent `lab` are here"),
        "{refused}"
    );
    eventually("the refusal is told", || {
        (hub.log().refusals("TooManyInstances", "agent/lab") == 1).then_some(())
    })
    .await;
    let decision = here[0].offer("lab", "uid-1").await;
    assert_eq!(decision.admission(), v1::Admission::Accepted);
    other.hello(late).await.unwrap();
    drop(here.pop());
    eventually_async("there is room for another", async || {
        agent.hello(late).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_connection_has_one_control_stream() {
    let hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &["lab"]).await;
    let mut session = agent.hello(1).await.unwrap();
    for instance in [1, 2] {
        let refused = control_again(&mut session, instance).await.unwrap_err();
        assert!(refused.contains("control stream"), "{refused}");
    }
    let decision = session.offer("lab", "uid-1").await;
    assert_eq!(decision.admission(), v1::Admission::Accepted);
}

#[tokio::test]
async fn an_account_that_was_attached_while_it_was_taken_away_is_free_for_the_next_instance() {
    let hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &["lab"]).await;
    let mut first = agent.hello(1).await.unwrap();
    first.offer("lab", "uid-1").await;
    // The hub writes the new ones down before it decides that the other is not offered any more.
    let others: Vec<String> = (0..200).map(|at| format!("other-{at}")).collect();
    first.tell(&others, "uid-1").await;
    let (answer, _feed) = first.attach("lab", "uid-1", Vec::new()).await;
    println!("{answer:?}");
    first.decided("other-0").await;
    drop(first);
    let mut second = agent.hello(2).await.unwrap();
    second.offer("lab", "uid-1").await;
    eventually_async("the other instance is active", async || {
        let decision = second.offer("lab", "uid-1").await;
        (decision.admission() == v1::Admission::Accepted).then_some(())
    })
    .await;
    let mut last = None;
    eventually_async("nobody has the account", async || {
        let (answer, feed) = second.attach("lab", "uid-1", Vec::new()).await;
        last = Some(feed);
        matches!(answer, Down::Attached(_)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_account_is_removed_once_its_agent_is_gone_and_its_name_is_free() {
    let mut hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &["lab"]).await;
    let mut session = agent.hello(1).await.unwrap();
    let before = session.offer("lab", "uid-1").await;
    let _feed = session.feed("lab", "uid-1", Vec::new()).await;
    let remove = ["account", "remove", "lab"];
    let refused = hub.command(&remove).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("agent lab offers account lab"),
        "{refused:?}"
    );
    // Nothing has happened to it.
    let decision = session.offer("lab", "uid-1").await;
    assert_eq!(decision, before);
    drop(session);
    eventually_async("the account is removed", async || {
        let removed = hub.command(&remove).await;
        (removed.code == Some(0)).then_some(())
    })
    .await;
    let unknown = hub.command(&remove).await;
    assert!(unknown.stderr.contains("no account lab"), "{unknown:?}");
    assert!(hub.log().refusals("Refused", "remove-account lab") >= 2);
    hub.kill().await;
    hub.start_again();
    hub.ready().await;
    let accounts = stand::ok(hub.command(&["get", "accounts"]).await).stdout;
    assert!(!accounts.contains("lab"), "{accounts}");
    let rival = Fake::enrol(&hub, "rival", &["lab"]).await;
    let mut session = rival.hello(1).await.unwrap();
    let after = session.offer("lab", "uid-2").await;
    assert_eq!(after.admission(), v1::Admission::Accepted);
    assert_ne!(after.id, before.id);
    session.feed("lab", "uid-2", Vec::new()).await;
}

/// The processor time that a process has taken, in ticks of 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // Behind the name, which may hold anything: state is the first of these.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |at: usize| fields[at].parse::<u64>().expect("a number");
    field(11) + field(12)
}

/// Bounds the files that a process may have open.
fn open_files(hub: &Sortie, most: Option<u64>) {
    let pid = Pid::from_raw(hub.pid()).expect("a process");
    let now = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: most.or(now.maximum),
        maximum: now.maximum,
    };
    prlimit(Some(pid), Resource::Nofile, limit).expect("the limit of a process of our own");
}

#[tokio::test]
async fn a_hub_without_file_descriptors_waits_for_one_and_says_so_once() {
    const FAILED: &str = "accept failed; tried again every 100 ms";
    const AGAIN: &str = "connections are accepted again";
    let hub = stand::hub("24h").await;
    let socket = hub.folder().join("state").join(admin::SOCKET);
    let (health, metrics) = (hub.address("health").await, hub.address("metrics").await);
    let told = |message: &str| {
        let log = hub.log();
        let entries = log.entries();
        entries
            .filter(|entry| entry.message() == Some(message))
            .count()
    };
    open_files(&hub, Some(0));
    let mut waiting = Vec::new();
    for address in [health, metrics] {
        waiting.push(TcpStream::connect(address).await.unwrap());
    }
    let asked = UnixStream::connect(&socket).await.unwrap();
    eventually("each door tells that it is closed", || {
        (told(FAILED) == 3).then_some(())
    })
    .await;
    let before = ticks(hub.pid());
    idle(Duration::from_secs(1)).await;
    let took = ticks(hub.pid()) - before;
    assert!(took < 40, "{took} ticks of a second without anything to do");
    assert_eq!(told(FAILED), 3);
    open_files(&hub, None);
    eventually("each door is open again", || {
        (told(AGAIN) == 3).then_some(())
    })
    .await;
    drop((waiting, asked));
    stand::ok(hub.command(&["get", "agents"]).await);
}
