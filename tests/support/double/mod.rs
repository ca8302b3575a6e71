//! A Kubernetes API double: objects in any number, events at any rate, and faults on command.
//!
//! ```text
//!  Double::start ─▶ own runtime ─▶ TLS (h2 or http/1.1) ─▶ route ─▶ fault? ─▶ list · watch · log
//!        │                                                             ▲
//!        └─ drive, change, freeze, close, compact ──▶ store ───────────┘
//! ```
//! It is for what a real control plane cannot be made to do. What it says is what kube-apiserver
//! was seen to say; a page of a list shows the objects as they are when it is read.

mod discovery;
mod object;
mod serve;
mod store;
mod watching;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sortie::tasks::Tasks;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::kube::Api;
use super::pki::{Authority, Leaf};

pub(crate) use serve::Fault;
pub(crate) use store::{Change, Trick};

use super::flights::Flights;
use serve::Shared;

/// The token that the double accepts.
pub(crate) const TOKEN: &str = "double-token";

/// How often a driven rate is made up for.
const DRIVE_TICK: Duration = Duration::from_millis(5);

/// What the double holds and how it behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Resource (`pods`) and how many objects of it.
    pub(crate) objects: Vec<(&'static str, usize)>,
    /// Size of an object's JSON, in bytes (about; at least some 1,200).
    pub(crate) bytes: usize,
    /// Over how many namespaces the objects are spread.
    pub(crate) namespaces: usize,
    /// Events kept per kind; a watch from before them is answered 410.
    pub(crate) log_entries: usize,
    /// How often a watch that asked for them gets a bookmark.
    pub(crate) bookmark_every: Duration,
    /// Whether an object's content changes with its version.
    pub(crate) changing: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            objects: vec![("pods", 100)],
            bytes: 10_000,
            namespaces: 4,
            log_entries: 100_000,
            bookmark_every: Duration::from_secs(1),
            changing: false,
        }
    }
}

impl Settings {
    /// How many objects of a resource there are.
    pub(crate) fn count(&self, resource: &str) -> usize {
        let named = self.objects.iter().find(|(name, _)| *name == resource);
        match named {
            Some((_, count)) => *count,
            None if resource == "namespaces" => self.namespaces,
            None => 0,
        }
    }
}

/// A running double; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Double {
    runtime: Option<Arc<Runtime>>,
    tasks: Tasks,
    shared: Arc<Shared>,
    faulty: Arc<Shared>,
    address: SocketAddr,
    faulty_address: SocketAddr,
    folder: TempDir,
    ca_pem: String,
    emitted: Arc<AtomicU64>,
}

impl Double {
    /// Starts one on a thread of its own.
    pub(crate) fn start(settings: Settings) -> Self {
        Self::on(runtime(), settings, &Arc::default())
    }

    /// Starts so many that share a thread, and [`Double::most_lists_at_once`].
    pub(crate) fn fleet(count: usize, settings: &Settings) -> Vec<Self> {
        let (runtime, flights) = (runtime(), Arc::default());
        (0..count)
            .map(|_| Self::on(Arc::clone(&runtime), settings.clone(), &flights))
            .collect()
    }

    fn on(runtime: Arc<Runtime>, settings: Settings, flights: &Arc<Flights>) -> Self {
        let authority = Authority::root("double-ca");
        let identity = authority.issue(&Leaf::server());
        let tasks = Tasks::new();
        let shared = Arc::new(Shared::new(settings, Arc::clone(flights)));
        let faulty = Arc::new(shared.faulty());
        let (address, faulty_address) = {
            let _entered = runtime.enter();
            let listen = |door| serve::listen(&tasks, &identity, door);
            (listen(&shared), listen(&faulty))
        };
        let folder = TempDir::with_prefix("sortie-double-").expect("a folder");
        let ca_pem = authority.pem();
        fs::write(folder.path().join("ca.pem"), &ca_pem).expect("the authority is written");
        Self {
            runtime: Some(runtime),
            tasks,
            shared,
            faulty,
            address,
            faulty_address,
            folder,
            ca_pem,
            emitted: Arc::default(),
        }
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Path of its certificate authority.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A client with its token.
    pub(crate) fn api(&self) -> Api {
        Api::new(&self.url(), &self.ca_file().display().to_string(), TOKEN)
    }

    /// A kubeconfig that reaches it at `server`: its own URL, or a relay's.
    pub(crate) fn kubeconfig(&self, server: &str) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca_pem);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: double\n\
             clusters:\n- name: double\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\n\
             users:\n- name: double\n  user:\n    token: {TOKEN}\n\
             contexts:\n- name: double\n  context:\n    cluster: double\n    user: double\n"
        )
    }

    /// Writes [`Double::kubeconfig`] of its own URL; gives the path.
    pub(crate) fn write_kubeconfig(&self) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        fs::write(&path, self.kubeconfig(&self.url())).expect("the kubeconfig is written");
        path
    }

    /// Writes a kubeconfig with which it cannot be trusted: the authority is that of `other`.
    pub(crate) fn write_untrusting_kubeconfig(&self, other: &Self) -> PathBuf {
        let path = self.folder.path().join("untrusting-kubeconfig");
        let text = other.kubeconfig(&self.url());
        fs::write(&path, text).expect("the kubeconfig is written");
        path
    }

    /// Writes [`Double::kubeconfig`] of a second door to the same objects, which lies about
    /// events on command ([`Trick::Hide`], [`Trick::Repeat`], [`Double::freeze_faulty_door`]).
    pub(crate) fn faulty_door(&self) -> PathBuf {
        let path = self.folder.path().join("faulty-kubeconfig");
        let url = format!("https://{}", self.faulty_address);
        fs::write(&path, self.kubeconfig(&url)).expect("the kubeconfig is written");
        path
    }

    /// Stops all answers and events of the second door only.
    pub(crate) fn freeze_faulty_door(&self, frozen: bool) {
        self.faulty.frozen.send_replace(frozen);
    }

    /// Changes one object, by its number; gives its new version.
    pub(crate) fn change(&self, resource: &str, number: usize, change: Change) -> u64 {
        self.shared.store.change(resource, number, change)
    }

    /// From now on, changes the objects of `resource` in turn, so many a second; 0 stops it.
    pub(crate) fn drive(&self, resource: &'static str, per_second: u64) {
        let generation = self.shared.drives.fetch_add(1, Ordering::Relaxed) + 1;
        let (shared, emitted) = (Arc::clone(&self.shared), Arc::clone(&self.emitted));
        let body = async move {
            let (start, mut done) = (Instant::now(), 0);
            let mut ticks = interval(DRIVE_TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while per_second > 0 && shared.drives.load(Ordering::Relaxed) == generation {
                ticks.tick().await;
                let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                let due = elapsed * per_second / 1000;
                shared.store.touch_next(resource, due - done);
                emitted.fetch_add(due - done, Ordering::Relaxed);
                done = due;
            }
        };
        let runtime = self.runtime.as_ref().expect("taken only when dropped");
        let _entered = runtime.enter();
        self.tasks.spawn("double-drive", async move |stop| {
            stop.run_until_cancelled(body).await;
        });
    }

    /// How many changes [`Double::drive`] has made.
    pub(crate) fn emitted(&self) -> u64 {
        self.emitted.load(Ordering::Relaxed)
    }

    /// Requests whose path begins with `prefix` end in `fault`, until [`Double::heal`].
    pub(crate) fn fault(&self, prefix: &str, fault: Fault) {
        let mut faults = self.shared.faults.lock().expect("not poisoned");
        faults.push((prefix.to_owned(), fault));
    }

    /// Ends all faults of new requests.
    pub(crate) fn heal(&self) {
        self.shared.faults.lock().expect("not poisoned").clear();
    }

    /// Stops all answers and events until it is called with false.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.shared.store.frozen.send_replace(frozen);
    }

    /// Ends every watch, as a server does after a while.
    pub(crate) fn close_watches(&self) {
        self.shared.store.closes.send_modify(|closes| *closes += 1);
    }

    /// Lets every watch that is open fall silent, without an end; those opened later are not.
    pub(crate) fn silence_watches(&self) {
        let silences = &self.shared.store.silences;
        silences.send_modify(|silences| *silences += 1);
    }

    /// Plays a trick on the next change of a kind.
    pub(crate) fn trick(&self, resource: &str, trick: Trick) {
        self.shared.store.trick(resource, trick);
    }

    /// Forgets all events: a watch from an older version is answered 410.
    pub(crate) fn compact(&self) {
        self.shared.store.compact();
    }

    /// The objects of a resource: uid and version.
    pub(crate) fn versions(&self, resource: &str) -> BTreeMap<String, u64> {
        let mut inner = self.shared.store.lock();
        let collection = inner.collection(resource);
        let template = Arc::clone(&collection.template);
        collection
            .from(0)
            .map(|instance| (template.uid(instance), instance.version))
            .collect()
    }

    /// How often `verb` (`list`, `watch`, `get`, `log`, or a method) was asked of a resource; a
    /// `streaming-list` counts as a `watch`, and once more under the resource `all`.
    pub(crate) fn count(&self, verb: &str, resource: &str) -> u64 {
        let key = (verb.to_owned(), resource.to_owned());
        self.shared
            .store
            .lock()
            .counts
            .get(&key)
            .copied()
            .unwrap_or(0)
    }

    /// How often `verb` was asked of any resource.
    pub(crate) fn count_all(&self, verb: &str) -> u64 {
        let inner = self.shared.store.lock();
        inner
            .counts
            .iter()
            .filter(|((asked, _), _)| asked == verb)
            .map(|(_, n)| n)
            .sum()
    }

    /// Lists and streaming lists that were being answered at once, at most.
    pub(crate) fn most_lists_at_once(&self) -> usize {
        self.shared.flights.most()
    }

    /// A folder that goes away with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.tasks.cancel();
        // The last of a fleet ends the thread.
        if let Some(runtime) = self.runtime.take().and_then(Arc::into_inner) {
            runtime.shutdown_background(); // a test's own runtime may not be blocked
        }
    }
}

/// One thread.
fn runtime() -> Arc<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    Arc::new(runtime.expect("a runtime"))
}
