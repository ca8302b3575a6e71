//! Starts a hub: everything is bound and open before it is said to run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accounts::{Accounts, Told};
use super::admin::Socket;
use super::backup::AUTHORITY;
use super::bans::Bans;
use super::dispatch::Dispatcher;
use super::listener::{Clients, Door, Listener};
use super::peer::Live;
use super::recent::{Operations, Recent};
use super::registry::{Registry, RegistryError};
use super::session::Sessions;
use super::store::{Store, StoreError};
use super::upstream::Port;
use super::{Addresses, Core, Facade, Settings, own};
use crate::clock::{SharedClock, from_unix_seconds, rfc3339};
use crate::entropy::SharedEntropy;
use crate::fault::Advised;
use crate::identity::tls::{self, TlsError};
use crate::identity::{Authority, AuthorityError, IssueError, Issuer, KeyError};
use crate::tasks::Tasks;

/// Connections that may wait in the kernel for a handshake.
const BACKLOG: u32 = 4096;

/// Time that clients have for what they wait for when the hub stops: that of the operations of an
/// agent's link that drains.
const CLIENTS_DRAIN: Duration = Duration::from_secs(10);

/// Why a hub did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The certificate authority.
    #[error("cannot open the certificate authority")]
    Authority(#[from] AuthorityError),
    /// An address is taken or not ours.
    #[error("cannot listen on {address} (`listen.{door}`)")]
    Bind {
        /// Which listener.
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: Advised,
    },
    /// A name that cannot stand in a certificate.
    #[error("`{0}` in `names` is neither a host name nor an address")]
    HostName(String),
    /// The hub's own certificate.
    #[error("cannot issue the hub's own certificate")]
    Issue(#[from] IssueError),
    /// The hub's own key.
    #[error("cannot make the hub's own key")]
    Key(#[from] KeyError),
    /// The registry.
    #[error("cannot read the registry")]
    Registry(#[from] RegistryError),
    /// The state folder.
    #[error("cannot use the state folder `{}`", path.display())]
    State {
        /// Which.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: Advised,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
}

/// A hub that runs.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addresses: Addresses,
    /// What its parts share.
    pub core: Arc<Core>,
    listeners: CancellationToken,
    tasks: Tasks,
}

impl Running {
    /// Stops accepting, ends watches, lets what else runs finish, tells agents to come back later,
    /// and stores everything; all within `grace`.
    pub async fn drain(self, grace: Duration) -> bool {
        let began = Instant::now();
        self.listeners.cancel();
        // The answers that clients wait for come from agents: those are let go afterwards.
        self.core.clients.drain(CLIENTS_DRAIN.min(grace)).await;
        self.core.send_away();
        self.tasks
            .drain(grace.saturating_sub(began.elapsed()))
            .await
    }

    /// Objects that agents coalesced before they numbered them.
    pub fn coalesced(&self) -> u64 {
        self.core
            .accounts
            .all()
            .iter()
            .map(|account| account.counts().coalesced)
            .sum()
    }

    /// Bytes of the batches that were applied, compressed as they came.
    pub fn batch_bytes(&self) -> u64 {
        self.core
            .accounts
            .all()
            .iter()
            .map(|account| account.counts().bytes)
            .sum()
    }

    /// Objects by kind, over all accounts.
    pub fn objects(&self) -> BTreeMap<String, usize> {
        let mut objects = BTreeMap::new();
        for account in self.core.accounts.all() {
            for (_, kind, count) in account.view.counts() {
                *objects.entry(kind).or_default() += count;
            }
        }
        objects
    }

    /// What clients did, in numbers, and the last of it.
    pub fn operations(&self) -> Operations {
        self.core.recent.operations()
    }

    /// SHA-256 of the public key of the root, hex: what agents pin.
    pub fn root_pin(&self) -> String {
        self.core
            .issuer
            .roots()
            .pins()
            .next()
            .map(hex::encode)
            .unwrap_or_default()
    }
}

/// Starts a hub whose tasks belong to `tasks`.
///
/// # Errors
/// Nothing is left running.
pub async fn start(
    settings: Settings,
    clock: SharedClock,
    entropy: SharedEntropy,
    tasks: Tasks,
) -> Result<Running, StartError> {
    prepare_folder(&settings)?;
    let authority = Authority::open(
        &settings.state_dir.join(AUTHORITY),
        settings.trust_domain.clone(),
        Arc::clone(&clock),
        Arc::clone(&entropy),
    )?;
    let issuer: Arc<dyn Issuer> = Arc::new(authority);
    let first = own::material(&settings, &*issuer, &clock).await?;
    let published = Arc::new(ArcSwap::from_pointee(first));
    let store = open_store(&settings)?;
    let registry = Registry::open(Arc::clone(&store))?;
    let bans = Arc::new(Bans::default());
    bans.load(&registry);
    let listeners = bind(&settings)?;
    let addresses = listeners.addresses;
    let domain = &settings.trust_domain;
    let admission = || Arc::clone(&bans) as Arc<dyn crate::identity::verify::Admission>;
    let data = tls::data_server(&published, domain, admission(), Arc::clone(&clock))?;
    let enrol = tls::enrol_server(&published, Arc::clone(&clock))?;
    let facade = tls::facade_server(&published, domain, admission(), Arc::clone(&clock))?;
    let core = Arc::new_cyclic(|core| Core {
        name: settings.name.clone(),
        trust_domain: settings.trust_domain.clone(),
        hosts: settings.names.clone(),
        ttls: settings.certificates,
        max_stale: settings.max_stale,
        frames: settings.frames.clone(),
        facade: facade_over(core, &clock),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
        issuer: Arc::clone(&issuer),
        own: Arc::clone(&published),
        figures: Arc::default(),
        registry,
        bans,
        sessions: Sessions::default(),
        accounts: Accounts::default(),
        told: Told::default(),
        live: Arc::new(Live::default()),
        clients: Clients::default(),
        checkpointing: tokio::sync::Mutex::default(),
        dispatcher: Dispatcher::default(),
        recent: Recent::default(),
        watches: tokio::sync::Semaphore::new(super::admin::WATCHES),
        store,
        addresses,
        tasks: tasks.clone(),
    });
    core.restore_accounts()?;
    let socket = Socket::bind(&settings.state_dir)?;
    let accepting = listen(
        &core,
        [
            (Door::Data, listeners.data, data),
            (Door::Enrol, listeners.enrol, enrol),
            (Door::Facade, listeners.facade, facade),
        ],
    );
    spawn_rest(&core, settings, socket, listeners.health, listeners.metrics);
    Ok(Running {
        addresses,
        core,
        listeners: accepting,
        tasks,
    })
}

/// Opens the store, and tells of a backup what it cannot know.
fn open_store(settings: &Settings) -> Result<Arc<Store>, StoreError> {
    let store = Store::open(&settings.state_dir)?;
    if let Some(made) = store.copied().map(from_unix_seconds) {
        tracing::warn!(
            made = rfc3339(made),
            "this state is from a backup: who was revoked since then has access again, until `sortie revoke` is repeated; the audit records of that time name them"
        );
    }
    Ok(Arc::new(store))
}

fn facade_over(core: &Weak<Core>, clock: &SharedClock) -> Arc<Facade> {
    Arc::new(Facade::new(
        Arc::new(Port(Weak::clone(core))),
        Arc::clone(clock),
    ))
}

/// Opens the doors; they close when the token is cancelled.
fn listen(
    core: &Arc<Core>,
    doors: [(Door, TcpListener, Arc<ServerConfig>); 3],
) -> CancellationToken {
    let accepting = CancellationToken::new();
    for (door, socket, config) in doors {
        let listener = Listener {
            door,
            socket,
            config,
        };
        let (core, accepting) = (Arc::clone(core), accepting.clone());
        let (tasks, connections) = (core.tasks.clone(), core.tasks.clone());
        tasks.spawn("listener", move |stop| async move {
            let running = listener.run(core, connections, accepting);
            let _stopped = stop.run_until_cancelled(running).await;
        });
    }
    accepting
}

fn spawn_rest(
    core: &Arc<Core>,
    settings: Settings,
    socket: Socket,
    health: TcpListener,
    metrics: TcpListener,
) {
    let tasks = core.tasks.clone();
    let (one, two) = (Arc::clone(core), Arc::clone(core));
    let renewal = own::Renewal {
        settings,
        issuer: Arc::clone(&core.issuer),
        published: Arc::clone(&core.own),
        clock: Arc::clone(&core.clock),
        entropy: Arc::clone(&core.entropy),
    };
    tasks.spawn("checkpoint", |stop| one.checkpoints(stop));
    tasks.spawn("admin", |stop| two.administer(socket, stop));
    tasks.spawn("certificate", |stop| renewal.run(stop));
    crate::telemetry::health::serve(&tasks, health, super::health::latches());
    crate::telemetry::metrics::serve(&tasks, metrics, super::metrics::source(core));
}

fn prepare_folder(settings: &Settings) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = &settings.state_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StartError::State {
            path: path.clone(),
            source: Advised::keeping(error),
        })
}

struct Listeners {
    data: TcpListener,
    enrol: TcpListener,
    facade: TcpListener,
    health: TcpListener,
    metrics: TcpListener,
    addresses: Addresses,
}

fn bind(settings: &Settings) -> Result<Listeners, StartError> {
    let listen = &settings.listen;
    let (data, data_at) = bind_one("data", listen.data)?;
    let (enrol, enrol_at) = bind_one("enrol", listen.enrol)?;
    let (facade, facade_at) = bind_one("facade", listen.facade)?;
    let (health, health_at) = bind_one("health", listen.health)?;
    let (metrics, metrics_at) = bind_one("metrics", listen.metrics)?;
    let addresses = Addresses {
        data: data_at,
        enrol: enrol_at,
        facade: facade_at,
        health: health_at,
        metrics: metrics_at,
    };
    Ok(Listeners {
        data,
        enrol,
        facade,
        health,
        metrics,
        addresses,
    })
}

pub(super) fn bind_one(
    door: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bind = || {
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|error| StartError::Bind {
        door,
        address,
        source: Advised::listening(error),
    })
}
