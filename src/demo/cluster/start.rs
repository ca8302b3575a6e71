//! Starting the cluster: certificate, token, listener.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::api::Api;
use super::lists::Lists;
use super::objects::Objects;
use super::seed::{Planter, seed};
use super::serve;
use super::store::Store;
use super::workload::Workload;
use crate::clock::SharedClock;
use crate::demo::canary::Canary;
use crate::entropy::{self, SharedEntropy};
use crate::secret::SecretBytes;
use crate::tasks::Tasks;

/// How the embedded cluster is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Changes of objects per second; none at all with 0.
    pub events_per_second: u32,
    /// Secrets with planted values.
    pub secrets: usize,
    /// New values that are drawn for later rotations; after them Secrets no longer rotate.
    pub rotations: usize,
    /// Changes that can be told to a watcher that comes back.
    pub history: usize,
    /// Time between the bookmarks of a watch.
    pub bookmark_every: Duration,
    /// Source of names, values and choices; a seeded one makes the workload repeatable.
    pub entropy: SharedEntropy,
    /// Source of timestamps.
    pub clock: SharedClock,
}

impl Settings {
    /// The demo's cluster: 40 Secrets, 10 changes a second, a bookmark every 5 seconds.
    pub const fn new(entropy: SharedEntropy, clock: SharedClock) -> Self {
        Self {
            events_per_second: 10,
            secrets: 40,
            rotations: 300,
            history: 10_000,
            bookmark_every: Duration::from_secs(5),
            entropy,
            clock,
        }
    }
}

/// Why the cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No port on the loopback interface.
    #[error("embedded cluster could not listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// No certificate for the listener.
    #[error("embedded cluster could not make its certificate")]
    Certificate(#[source] rcgen::Error),
    /// The cluster refused one of its own first objects.
    #[error("embedded cluster refused one of its first objects with status {0}")]
    Seed(u16),
    /// The TLS library refused its own settings.
    #[error("embedded cluster could not set up TLS")]
    Tls(#[source] rustls::Error),
}

/// Where a running cluster is, and what opens it.
#[derive(Debug)]
pub struct Running {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The certificate its listener shows, which is its own root.
    pub ca_pem: String,
    /// The bearer token it wants.
    pub token: SecretBytes,
    /// A kubeconfig with all of these.
    pub kubeconfig_yaml: SecretBytes,
}

/// A cluster that runs until its tasks are stopped.
#[derive(Clone)]
pub struct Cluster {
    planted: Arc<[Canary]>,
    marker: [u8; 16],
    lists: Arc<Lists>,
    held: Arc<AtomicBool>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts a cluster on a free port; it serves before this returns.
    pub async fn start(settings: Settings, tasks: &Tasks) -> Result<(Self, Running), StartError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(StartError::Listen)?;
        let address = listener
            .local_addr()
            .map_err(StartError::Listen)?
            .to_string();
        let certified =
            rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()])
                .map_err(StartError::Certificate)?;
        let token = hex::encode(entropy::bytes::<24>(&*settings.entropy));
        let objects = Objects {
            store: Arc::new(Store::new(settings.history)),
            clock: Arc::clone(&settings.clock),
            entropy: Arc::clone(&settings.entropy),
        };
        let running = describe(&address, certified.cert.pem(), &token);
        let lists = Arc::new(Lists::default());
        let api = Arc::new(Api {
            lists: Arc::clone(&lists),
            objects: objects.clone(),
            authorization: SecretBytes::new(format!("Bearer {token}").into_bytes()),
            address,
            bookmark_every: settings.bookmark_every,
            tasks: tasks.clone(),
        });
        let tls = acceptor(&certified)?;
        let marker = marker(&settings.entropy);
        let mut planter = Planter::new(&settings, &marker);
        let planted = planter.canaries();
        seed(&objects, &mut planter, settings.secrets)
            .map_err(|refusal| StartError::Seed(refusal.code.as_u16()))?;
        let held = Arc::new(AtomicBool::new(false));
        let workload = Workload {
            objects,
            planter,
            events_per_second: settings.events_per_second,
            held: Arc::clone(&held),
        };
        tasks.spawn("cluster-workload", |stop| workload.run(stop));
        tasks.spawn("cluster-accept", |stop| {
            serve::accept(listener, tls, api, stop)
        });
        let cluster = Self {
            planted,
            marker,
            lists,
            held,
        };
        Ok((cluster, running))
    }

    /// Every value that is or ever will be in a Secret: those of later rotations are drawn
    /// beforehand, so that nobody can miss one.
    pub fn planted(&self) -> Vec<Canary> {
        self.planted.to_vec()
    }

    /// A plain text that every planted Secret, and every pod of the shops, carries as a label: whoever
    /// looks for planted values has to find this.
    pub const fn marker(&self) -> [u8; 16] {
        self.marker
    }

    /// Stops the disturbances; the controllers still follow what was asked for before.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    /// Lists that no 410 preceded (the first of each collection aside), by all readers but those
    /// whose user agent is `ours`.
    pub fn relists(&self, ours: &str) -> u64 {
        self.lists.relists(ours)
    }
}

fn acceptor(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Result<TlsAcceptor, StartError> {
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(StartError::Tls)?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .map_err(StartError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Sixteen letters and digits, as long as a fragment that is looked for.
fn marker(entropy: &SharedEntropy) -> [u8; 16] {
    let mut marker = [0; 16];
    let drawn = hex::encode(entropy::bytes::<8>(&**entropy));
    for (to, from) in marker.iter_mut().zip(drawn.bytes()) {
        *to = from;
    }
    marker
}

fn describe(address: &str, ca_pem: String, token: &str) -> Running {
    let url = format!("https://{address}");
    let ca = BASE64.encode(&ca_pem);
    let kubeconfig = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: embedded\n\
        \x20 cluster:\n\
        \x20   server: {url}\n\
        \x20   certificate-authority-data: {ca}\n\
         users:\n\
         - name: embedded\n\
        \x20 user:\n\
        \x20   token: {token}\n\
         contexts:\n\
         - name: embedded\n\
        \x20 context:\n\
        \x20   cluster: embedded\n\
        \x20   user: embedded\n\
         current-context: embedded\n"
    );
    Running {
        url,
        ca_pem,
        token: SecretBytes::new(token.as_bytes().to_vec()),
        kubeconfig_yaml: SecretBytes::new(kubeconfig.into_bytes()),
    }
}
