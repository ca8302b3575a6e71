//! Whatever may die, dies, at a random instant, while a real cluster changes.
//!
//! ```text
//!            ┌──▶ poller: every list, every 100 ms          writer: 20 changes a second ──┐
//!  facade ◀─ hub ◀─ relay ◀─ agent ◀─ relay ◀─ kube-apiserver ◀──────────────────────────┘
//!                              └──▶ relay ──▶ OpenBao (the kubeconfig)
//! ```
//! After each blow the facade has to show what the cluster holds, without a list more than a 410
//! asked for, and must never have shown less in between.

mod objects;
mod poller;
mod writer;

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::slice;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use tokio::time::Instant;

use super::eventually::{eventually, eventually_async, idle, within};
use super::facade::Facade;
use super::openbao::Bao;
use super::pki::Authority;
use super::relay::{Relay, Silence};
use super::sortie::{Sortie, http_get};
use super::stand::{self, Plan};
use super::testbed::Testbed;

use objects::LISTS;
use poller::{Poller, Table};
use writer::Writer;

const NAMESPACE: &str = "matrix";

/// Longest wait before a blow falls, in milliseconds.
const WAIT_MILLIS: u64 = 1_500;

/// Bytes that each file of a hub whose disk is "full" may still have: so few that no page of its
/// store lies within them and is free.
pub(crate) const FULL_DISK: u64 = 16 * 1024;

/// Time until the facade shows what the cluster holds, once everything is there again.
///
/// A watch that was cut is opened again after 10 s at most.
const SETTLED: Duration = Duration::from_mins(1);

/// What dies, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// `kill -9` of the hub, which is started again at once.
    Hub,
    /// `kill -9` of the only agent, which is started again at once.
    Agent,
    /// `kill -9` of an agent beside which another instance waits.
    AgentWithStandby,
    /// `kill -9` of kube-apiserver and etcd, which are started again at once.
    ApiServer,
    /// The link between agent and hub is cut, and refused while it lasts.
    HubCut(Duration),
    /// Nothing passes between agent and hub, and no end is told.
    HubSilent(Duration),
    /// What the agent sends does not reach the hub.
    HubDeaf(Duration),
    /// What the hub sends does not reach the agent.
    HubMute(Duration),
    /// The link between agent and API server is cut, and refused while it lasts.
    ApiCut(Duration),
    /// Nothing passes between agent and API server, and no end is told.
    ApiSilent(Duration),
    /// What the agent sends does not reach the API server.
    ApiDeaf(Duration),
    /// What the API server sends does not reach the agent.
    ApiMute(Duration),
    /// The engine that holds the kubeconfig cannot be reached.
    Engine(Duration),
    /// The hub's disk is full.
    Disk(Duration),
}

impl Blow {
    /// Every one, those that last for `lasting`.
    pub(crate) const fn all(lasting: Duration) -> [Self; 14] {
        [
            Self::Hub,
            Self::Agent,
            Self::AgentWithStandby,
            Self::ApiServer,
            Self::HubCut(lasting),
            Self::HubSilent(lasting),
            Self::HubDeaf(lasting),
            Self::HubMute(lasting),
            Self::ApiCut(lasting),
            Self::ApiSilent(lasting),
            Self::ApiDeaf(lasting),
            Self::ApiMute(lasting),
            Self::Engine(lasting),
            Self::Disk(lasting),
        ]
    }

    /// Whether it lasts for a time that is chosen.
    pub(crate) const fn lasts(self) -> bool {
        !matches!(
            self,
            Self::Hub | Self::Agent | Self::AgentWithStandby | Self::ApiServer
        )
    }
}

/// What came of one blow.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) blow: Blow,
    /// From the end of the blow until the account was ACTIVE.
    pub(crate) active: Duration,
    /// From the end of the writes until the facade showed what the cluster holds.
    pub(crate) settled: Duration,
    /// Lists and streaming lists that Sortie asked of the API server.
    pub(crate) lists: Vec<String>,
    /// Times that the API server had answered 410.
    pub(crate) expired: usize,
    /// Writes that the cluster took.
    pub(crate) written: u64,
    /// What the poller saw.
    pub(crate) polled: Table,
    /// The hash of both sides.
    pub(crate) hash: String,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<28} active {:>5.1?} settled {:>5.1?} lists {} (410: {}) writes {} empty {} slow {} slowest {:.0?} {:?} {}",
            format!("{:?}", self.blow),
            self.active,
            self.settled,
            self.lists.len(),
            self.expired,
            self.written,
            self.polled.empty.len(),
            self.polled.slow.len(),
            self.polled.slowest,
            self.polled.outcomes,
            self.hash.get(..8).unwrap_or_default(),
        )
    }
}

impl Round {
    /// Fails unless the round was as it has to be; no answer may have taken longer than `slow`.
    pub(crate) fn check(&self, slow: Duration) {
        assert_eq!(self.polled.empty, [] as [String; 0], "{self}");
        assert!(!self.polled.outcomes.contains_key("403"), "{self}");
        assert!(
            self.polled.slowest <= slow,
            "{:?}\n{self}",
            self.polled.slow
        );
        let excused = match self.blow {
            // A new server's cache begins at its start: it may not know the last version.
            Blow::ApiServer => self.expired,
            Blow::ApiCut(lasting)
            | Blow::ApiSilent(lasting)
            | Blow::ApiDeaf(lasting)
            | Blow::ApiMute(lasting)
                if lasting > Duration::from_mins(1) =>
            {
                self.expired
            }
            _ => 0,
        };
        assert!(self.lists.len() <= excused, "{:?}\n{self}", self.lists);
        let written = self.written > 0;
        assert!(written, "nothing was written: {self}");
    }
}

/// Everything that may die.
pub(crate) struct World {
    testbed: Testbed,
    _bao: Bao,
    hub: Sortie,
    agent: Sortie,
    standby: Option<Sortie>,
    plan: Plan,
    way: String,
    hub_links: [Relay; 2],
    api_link: Relay,
    engine_link: Relay,
    facade: Facade,
    poller: Poller,
    writer: Writer,
}

impl World {
    /// Starts all of it, and waits until the account is ACTIVE.
    pub(crate) async fn start() -> Self {
        let quiet = ["-nodes", "0", "-controllers=false"];
        let testbed = Testbed::start_audited(&quiet).await;
        let cluster = testbed.cluster();
        objects::create_one_of_each(&cluster.api(), NAMESPACE).await;
        let api_link = Relay::to(address_of(&cluster.url));
        let kubeconfig = fs::read_to_string(&cluster.kubeconfig).expect("readable");
        let relayed = format!("https://{}", api_link.address());
        let kubeconfig = kubeconfig.replace(&cluster.url, &relayed);
        assert!(
            kubeconfig.contains(&relayed),
            "the agent goes through the relay"
        );
        let bao = Bao::start(&Authority::root("bao")).await;
        bao.enable_kv2("kv").await;
        bao.put("kv", "lab", &json!({"kubeconfig": kubeconfig}))
            .await;
        let engine_link = Relay::to(bao.address());
        let hub = stand::hub("24h").await;
        stand::keep_addresses(&hub).await;
        let hub_links = [
            Relay::to(hub.address("data").await),
            Relay::to(hub.address("enrol").await),
        ];
        let token = hub.folder().join("bao-token");
        fs::write(&token, bao.root_token()).expect("written");
        let plan = plan(&bao, &engine_link, &token.display().to_string());
        let [data, enrol] = hub_links.each_ref().map(Relay::address);
        let way = format!("state-dir: identity\nhub: {{ data: \"{data}\", enrol: \"{enrol}\" }}\n");
        let agent = stand::agent_with(&[], &hub, "lab", &plan, &way).await;
        stand::wait(&hub, &agent, "lab", "ACTIVE").await;
        let visitor = stand::kubeconfig(&hub, "lab", "visitor").await;
        let poller = Poller::start(&visitor, LISTS);
        let writer = Writer::start(testbed.cluster().api(), NAMESPACE);
        stored(&hub).await;
        Self {
            facade: Facade::of(&visitor),
            _bao: bao,
            testbed,
            hub,
            agent,
            standby: None,
            plan,
            way,
            hub_links,
            api_link,
            engine_link,
            poller,
            writer,
        }
    }

    /// Deals one blow at a random instant, and looks at what came of it.
    pub(crate) async fn round(&mut self, blow: Blow) -> Round {
        if blow == Blow::AgentWithStandby {
            self.standby = Some(stand::standby(&self.hub, "lab", &self.plan, &self.way).await);
        }
        self.poller.take();
        let (lists, expired, written) = (
            self.testbed.lists().len(),
            self.expired().await,
            self.writer.written(),
        );
        idle(Duration::from_millis(random() % WAIT_MILLIS)).await;
        self.deal(blow).await;
        let healed = Instant::now();
        stand::wait(&self.hub, &self.agent, "lab", "ACTIVE").await;
        let active = healed.elapsed();
        self.writer.pause(true).await;
        let api = self.testbed.cluster().api();
        objects::mark_one_of_each(&api, NAMESPACE, random()).await;
        let stopped = Instant::now();
        let hash = within(
            SETTLED,
            "the facade shows what the cluster holds",
            async || {
                let [cluster, served] = objects::hashes(&api, &self.facade).await?;
                (cluster == served).then_some(cluster)
            },
        )
        .await;
        let settled = stopped.elapsed();
        // A new agent counts from zero.
        let expired_now = self.expired().await;
        let restarted = matches!(blow, Blow::Agent | Blow::AgentWithStandby);
        let round = Round {
            blow,
            active,
            settled,
            lists: self.testbed.lists().split_off(lists),
            expired: if restarted {
                expired_now
            } else {
                expired_now - expired
            },
            written: self.writer.written() - written,
            polled: self.poller.take(),
            hash,
        };
        self.writer.pause(false).await;
        round
    }

    async fn deal(&mut self, blow: Blow) {
        match blow {
            Blow::Hub => {
                self.hub.kill().await;
                self.hub.start_again();
                self.hub.ready().await;
            }
            Blow::Agent => {
                self.agent.kill().await;
                self.agent.start_again();
            }
            Blow::AgentWithStandby => {
                self.agent.kill().await;
                self.agent = self.standby.take().expect("it waits");
            }
            Blow::ApiServer => {
                self.testbed.kill().await;
                self.testbed.start_again().await;
            }
            Blow::HubCut(lasting) => cut(&self.hub_links, lasting).await,
            Blow::HubSilent(lasting) => silence(&self.hub_links, Silence::Both, lasting).await,
            Blow::HubDeaf(lasting) => silence(&self.hub_links, Silence::Up, lasting).await,
            Blow::HubMute(lasting) => silence(&self.hub_links, Silence::Down, lasting).await,
            Blow::ApiCut(lasting) => cut(slice::from_ref(&self.api_link), lasting).await,
            Blow::ApiSilent(lasting) => self.silence_api(Silence::Both, lasting).await,
            Blow::ApiDeaf(lasting) => self.silence_api(Silence::Up, lasting).await,
            Blow::ApiMute(lasting) => self.silence_api(Silence::Down, lasting).await,
            Blow::Engine(lasting) => cut(slice::from_ref(&self.engine_link), lasting).await,
            Blow::Disk(lasting) => {
                fill_disk(&self.hub, true);
                idle(lasting).await;
                fill_disk(&self.hub, false);
            }
        }
    }
}

impl World {
    async fn silence_api(&self, what: Silence, lasting: Duration) {
        silence(slice::from_ref(&self.api_link), what, lasting).await;
    }

    /// How often the agent that runs was told 410.
    async fn expired(&self) -> usize {
        let address = self.agent.address("metrics").await;
        let text = eventually_async("the agent's metrics", async || {
            http_get(address, "/metrics").await
        })
        .await;
        let line = text
            .lines()
            .find(|line| line.starts_with("sortie_stream_expired_total{"));
        let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
        value.unwrap_or(0)
    }
}

/// Waits until the first snapshots are in the store: what was never stored has to be read again.
async fn stored(hub: &Sortie) {
    let file = hub.folder().join("state").join(sortie::hub::STORE_FILE);
    let written = || fs::metadata(&file).and_then(|meta| meta.modified()).ok();
    for _ in 0..2 {
        let since = written();
        eventually("a checkpoint", || (written() > since).then_some(())).await;
    }
}

fn plan(bao: &Bao, link: &Relay, token_file: &str) -> Plan {
    Plan {
        accounts: vec!["lab".to_owned()],
        accounts_yaml:
            "  - name: lab\n    credential: { secret: \"sec+vault://bao/kv/lab#kubeconfig\" }\n"
                .to_owned(),
        engines_yaml: format!(
            "  bao: {{ engine: vault, address: \"https://{}\", ca-file: {}, refresh: 1s, \
             auth: {{ method: token, token-file: {token_file} }} }}\n",
            link.address(),
            bao.ca_file().display(),
        ),
        agent_ttl: "24h",
    }
}

async fn cut(links: &[Relay], lasting: Duration) {
    for link in links {
        link.refuse(true);
        link.cut();
    }
    idle(lasting).await;
    for link in links {
        link.refuse(false);
    }
}

async fn silence(links: &[Relay], what: Silence, lasting: Duration) {
    for link in links {
        link.silence(what);
    }
    idle(lasting).await;
    for link in links {
        link.silence(Silence::None);
    }
}

/// No file of the process may grow past [`FULL_DISK`] and its log, or any may again. A write beyond
/// fails as one on a full disk does, with another number.
pub(crate) fn fill_disk(hub: &Sortie, full: bool) {
    let most = FULL_DISK + hub.log_bytes();
    let limit = Rlimit {
        current: full.then_some(most),
        maximum: None,
    };
    let pid = Pid::from_raw(hub.pid()).expect("a process");
    prlimit(Some(pid), Resource::Fsize, limit).expect("the limit of a process of our own");
}

fn address_of(url: &str) -> SocketAddr {
    let address = url.trim_start_matches("https://").parse();
    address.expect("an address with a port")
}

/// A number that nobody chose.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
