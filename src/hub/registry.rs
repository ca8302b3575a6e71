//! Who may do what: tokens, clusters, agents, accounts, clients. In memory, and in the store before
//! a change is answered.
//!
//! Readers see what is stored, and never wait for the disk: a change is drafted beside it, and put in
//! its place once it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::store::{Change, Entry, Store, StoreError};

/// A one-time join token; its secret is known only to whoever holds the join string.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Token {
    /// The name that the agent gets.
    pub agent: String,
    /// Accounts that need no approval.
    pub accounts: BTreeSet<String>,
    /// SHA-256 of the secret, hex.
    pub secret_sha256: String,
    /// Seconds since the Unix epoch.
    pub expires: u64,
    /// SHA-256 of the public key it was spent on, hex.
    pub spent_on: Option<String>,
}

/// A cluster whose `ServiceAccount` tokens are accepted as proof.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cluster {
    /// `iss` of its tokens.
    pub issuer: String,
    /// Its public keys, as JSON.
    pub jwks: String,
    /// `namespace/serviceaccount` → name of the agent.
    pub allow: BTreeMap<String, String>,
}

/// A certificate that was issued and has not expired.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Issued {
    /// Hex.
    pub serial: String,
    /// SHA-256 of the public key, hex.
    pub key: String,
    /// Seconds since the Unix epoch.
    pub not_after: u64,
}

/// An agent by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Agent {
    /// How it joined last: `token` or `kubernetes`.
    pub join: String,
    /// Accounts that its evidence named.
    pub accounts: BTreeSet<String>,
    /// Certificates that have not expired.
    pub certificates: Vec<Issued>,
    /// Since when it is revoked, in seconds since the Unix epoch.
    pub revoked: Option<u64>,
}

/// An account by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Account {
    /// Its path at the facade, hex.
    pub id: String,
    /// The agent that holds the name.
    pub agent: String,
    /// Whether it may be served.
    pub approved: bool,
    /// Why it is suspended, if it is; empty when somebody has said so.
    pub suspended: Option<String>,
    /// UID of the cluster it was first served from.
    pub cluster_uid: String,
    /// Digest of the rules its stored objects were filtered by, hex.
    pub policy_digest: String,
    /// Encoded `sortie.v1.Discovery` of its kinds, base64.
    pub discovery: String,
    /// When its agent was last connected, in seconds since the Unix epoch.
    pub seen: u64,
}

/// A user of the facade by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Client {
    /// Accounts it may use.
    pub accounts: BTreeSet<String>,
    /// Certificates that have not expired.
    pub certificates: Vec<Issued>,
    /// Since when it is revoked, in seconds since the Unix epoch.
    pub revoked: Option<u64>,
}

/// Rows of one sort, and what a change makes of them.
#[derive(Clone, Debug)]
pub(super) struct Rows<T> {
    sort: &'static str,
    /// What is stored; shared with the draft of a change, for as long as there is one.
    stored: Arc<BTreeMap<String, T>>,
    draft: Draft<T>,
}

/// Rows that are new or have changed, and names of those that go.
type Draft<T> = BTreeMap<String, Option<T>>;

impl<T: Clone + Serialize + DeserializeOwned> Rows<T> {
    fn new(sort: &'static str) -> Self {
        Self {
            sort,
            stored: Arc::default(),
            draft: BTreeMap::new(),
        }
    }

    /// One row.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        match self.draft.get(name) {
            Some(drafted) => drafted.as_ref(),
            None => self.stored.get(name),
        }
    }

    /// All rows: by name, then those that this change has put.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &T)> {
        let stored = self.stored.iter();
        let unchanged = stored.filter(|(name, _)| !self.draft.contains_key(*name));
        let drafted = self.draft.iter();
        unchanged.chain(drafted.filter_map(|(name, row)| Some((name, row.as_ref()?))))
    }

    /// Adds or replaces a row.
    pub(super) fn put(&mut self, name: &str, row: T) {
        self.draft.insert(name.to_owned(), Some(row));
    }

    /// Removes a row; false if there is none.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let found = self.get(name).is_some();
        if found {
            self.draft.insert(name.to_owned(), None);
        }
        found
    }

    fn load(&mut self, key: &str, value: &[u8]) -> Result<bool, RegistryError> {
        let Some(name) = key
            .strip_prefix(self.sort)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return Ok(false);
        };
        let row = serde_json::from_slice(value).map_err(|source| RegistryError::Row {
            key: key.to_owned(),
            source,
        })?;
        Arc::make_mut(&mut self.stored).insert(name.to_owned(), row);
        Ok(true)
    }

    fn changes(&self) -> Result<Vec<Change>, RegistryError> {
        let drafted = self.draft.iter();
        drafted
            .map(|(name, row)| {
                let key = format!("{}/{name}", self.sort);
                let value = row.as_ref().map(serde_json::to_vec).transpose();
                let value = value.map_err(|source| RegistryError::Row {
                    key: key.clone(),
                    source,
                })?;
                Ok((key, value))
            })
            .collect()
    }

    /// Puts what was drafted in its place. Nothing is copied: the draft shares the rows no more.
    fn settle(&mut self, draft: Draft<T>) {
        if draft.is_empty() {
            return;
        }
        let stored = Arc::make_mut(&mut self.stored);
        for (name, row) in draft {
            match row {
                Some(row) => stored.insert(name, row),
                None => stored.remove(&name),
            };
        }
    }
}

/// Everything the registry knows.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    /// By public id.
    pub tokens: Rows<Token>,
    /// By name.
    pub clusters: Rows<Cluster>,
    /// By name.
    pub agents: Rows<Agent>,
    /// By name.
    pub accounts: Rows<Account>,
    /// By name.
    pub clients: Rows<Client>,
}

/// What went wrong with the registry.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The store failed; nothing was changed.
    #[error("the change was not made")]
    Store(#[from] StoreError),
    /// A row cannot be read or written.
    #[error("entry `{key}` of the registry cannot be read or written")]
    Row {
        /// Which one.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The change is not allowed; nothing was changed.
    #[error("{0}")]
    Refused(String),
}

/// Threads that change something, or wait for the one that does: enough that there is always one
/// ready when the disk has taken a change.
const THREADS: usize = 4;

/// The registry.
#[derive(Debug)]
pub(super) struct Registry {
    /// What is stored. Held for a look, or for as long as it takes to put a change in its place.
    tables: Mutex<Tables>,
    /// Held by the change under way, which may wait for the disk.
    changing: Mutex<()>,
    store: Arc<Store>,
    /// Grows with every change.
    changed: tokio::sync::watch::Sender<u64>,
    /// Of the threads that change something.
    turns: Arc<Semaphore>,
}

impl Registry {
    /// Reads the registry from `store`.
    ///
    /// # Errors
    /// The store cannot be read, or holds an entry that this build does not understand.
    pub(super) fn open(store: Arc<Store>) -> Result<Arc<Self>, RegistryError> {
        let tables = Tables::read(store.registry()?)?;
        let changed = tokio::sync::watch::Sender::new(0);
        Ok(Arc::new(Self {
            tables: Mutex::new(tables),
            changing: Mutex::default(),
            store,
            changed,
            turns: Arc::new(Semaphore::new(THREADS)),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks something up, in what is stored.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.lock())
    }

    /// Changes something: all of it and on disk, or nothing. Changes follow each other.
    ///
    /// Waits for the disk: call it off the runtime's workers (see [`Registry::update`]).
    ///
    /// # Errors
    /// What `change` refuses, or the store's failure.
    pub(super) fn update_blocking<T>(
        &self,
        change: impl FnOnce(&mut Tables) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let changing = self.changing.lock();
        let _changing = changing.unwrap_or_else(PoisonError::into_inner);
        let mut draft = self.lock().clone();
        let value = change(&mut draft)?;
        let changes = draft.changes()?;
        if !changes.is_empty() {
            self.store.write_registry(&changes)?;
        }
        let drafts = draft.into_drafts();
        self.lock().settle(drafts);
        self.changed.send_modify(|count| *count += 1);
        Ok(value)
    }

    /// [`Registry::update_blocking`], off the runtime's workers. Dropped before its turn, nothing
    /// is changed; after that, the change is made all the same.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn update<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Tables) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        // Without turns there would be a thread per change, all waiting for the first, when a fleet
        // comes; glibc was seen to keep 16 heaps for them. The semaphore is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok();
        let registry = Arc::clone(self);
        let changing = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            registry.update_blocking(change)
        });
        changing.await.unwrap_or_else(|error| {
            Err(RegistryError::Refused(format!(
                "the change was not finished: {error}"
            )))
        })
    }

    /// Tells when something has changed.
    pub(super) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Tables {
    /// Reads what the store holds.
    ///
    /// # Errors
    /// An entry that this build does not understand.
    pub(super) fn read(entries: Vec<Entry>) -> Result<Self, RegistryError> {
        let mut tables = Self {
            tokens: Rows::new("token"),
            clusters: Rows::new("cluster"),
            agents: Rows::new("agent"),
            accounts: Rows::new("account"),
            clients: Rows::new("client"),
        };
        for (key, value) in entries {
            let known = tables.tokens.load(&key, &value)?
                || tables.clusters.load(&key, &value)?
                || tables.agents.load(&key, &value)?
                || tables.accounts.load(&key, &value)?
                || tables.clients.load(&key, &value)?;
            if !known {
                tracing::warn!(key, "the registry holds an entry of an unknown sort");
            }
        }
        Ok(tables)
    }

    fn changes(&self) -> Result<Vec<Change>, RegistryError> {
        let mut changes = self.tokens.changes()?;
        changes.extend(self.clusters.changes()?);
        changes.extend(self.agents.changes()?);
        changes.extend(self.accounts.changes()?);
        changes.extend(self.clients.changes()?);
        Ok(changes)
    }

    /// What was drafted; the rows it was drafted beside are let go.
    fn into_drafts(self) -> Drafts {
        Drafts {
            tokens: self.tokens.draft,
            clusters: self.clusters.draft,
            agents: self.agents.draft,
            accounts: self.accounts.draft,
            clients: self.clients.draft,
        }
    }

    fn settle(&mut self, drafts: Drafts) {
        self.tokens.settle(drafts.tokens);
        self.clusters.settle(drafts.clusters);
        self.agents.settle(drafts.agents);
        self.accounts.settle(drafts.accounts);
        self.clients.settle(drafts.clients);
    }
}

/// What a change makes of each sort.
#[derive(Debug)]
struct Drafts {
    tokens: Draft<Token>,
    clusters: Draft<Cluster>,
    agents: Draft<Agent>,
    accounts: Draft<Account>,
    clients: Draft<Client>,
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn agent(join: &str) -> Agent {
        Agent {
            join: join.into(),
            ..Agent::default()
        }
    }

    #[test]
    fn a_refused_change_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(Arc::new(Store::open(folder.path()).unwrap())).unwrap();
        registry
            .update_blocking(|tables| {
                tables.agents.put("a", agent("token"));
                Ok(())
            })
            .unwrap();
        let refused: Result<(), _> = registry.update_blocking(|tables| {
            tables.agents.put("a", agent("changed"));
            tables.agents.put("b", agent("token"));
            Err(RegistryError::Refused("no".into()))
        });
        assert!(refused.is_err());
        let names = registry.read(|tables| {
            tables
                .agents
                .iter()
                .map(|(name, row)| format!("{name} {}", row.join))
                .collect::<Vec<_>>()
        });
        assert_eq!(names, ["a token"]);
    }

    #[test]
    fn readers_see_what_is_stored_while_a_change_waits_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let registry = Registry::open(Arc::clone(&store)).unwrap();
        let count = || registry.read(|tables| tables.agents.iter().count());
        let (drafted, is_drafted) = mpsc::channel();
        let (read, is_read) = mpsc::channel();
        std::thread::scope(|threads| {
            let hung = store.hang();
            let changing = threads.spawn(|| {
                registry.update_blocking(|tables| {
                    tables.agents.put("a", agent("token"));
                    drafted.send(tables.agents.iter().count()).unwrap();
                    Ok(())
                })
            });
            assert_eq!(is_drafted.recv(), Ok(1));
            threads.spawn(|| read.send(count()).unwrap());
            let seen = is_read.recv_timeout(Duration::from_secs(20));
            drop(hung);
            assert_eq!(seen, Ok(0), "readers do not wait for the disk");
            changing.join().unwrap().unwrap();
        });
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_change_sees_itself_and_its_rows_are_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(Arc::new(Store::open(folder.path()).unwrap())).unwrap();
        let place = || registry.read(|tables| Arc::as_ptr(&tables.agents.stored));
        let before = place();
        for name in ["a", "b"] {
            let seen = registry.update_blocking(|tables| {
                tables.agents.put(name, agent("token"));
                let removed = tables.agents.remove("a");
                let again = tables.agents.remove("a");
                tables.agents.put("c", agent("token"));
                let names = tables.agents.iter().map(|(name, _)| name.clone());
                Ok((removed, again, names.collect::<Vec<_>>().join(" ")))
            });
            let names = if name == "a" { "c" } else { "b c" };
            assert_eq!(seen.unwrap(), (name == "a", false, names.to_owned()));
        }
        assert_eq!(place(), before);
    }

    #[test]
    fn what_was_changed_is_found_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(Arc::new(Store::open(folder.path()).unwrap())).unwrap();
        registry
            .update_blocking(|tables| {
                tables.agents.put("a", agent("token"));
                tables.agents.put("b", agent("token"));
                tables.agents.remove("a");
                Ok(())
            })
            .unwrap();
        drop(registry);
        let registry = Registry::open(Arc::new(Store::open(folder.path()).unwrap())).unwrap();
        assert!(registry.read(|tables| tables.agents.get("a").is_none()));
        assert!(registry.read(|tables| tables.agents.get("b").is_some()));
    }
}
