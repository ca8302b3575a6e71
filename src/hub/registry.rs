//! Who may do what: tokens, clusters, agents, accounts, clients. In memory, and in the store before
//! a change is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::store::{Change, Store, StoreError};

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

/// Rows of one sort, with what is needed to take a change back.
#[derive(Debug)]
pub(super) struct Rows<T> {
    sort: &'static str,
    by_name: BTreeMap<String, T>,
    before: Vec<(String, Option<T>)>,
}

impl<T: Clone + Serialize + DeserializeOwned> Rows<T> {
    const fn new(sort: &'static str) -> Self {
        Self {
            sort,
            by_name: BTreeMap::new(),
            before: Vec::new(),
        }
    }

    /// One row.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.by_name.get(name)
    }

    /// All rows by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &T)> {
        self.by_name.iter()
    }

    /// Adds or replaces a row.
    pub(super) fn put(&mut self, name: &str, row: T) {
        let old = self.by_name.insert(name.to_owned(), row);
        self.before.push((name.to_owned(), old));
    }

    /// Removes a row; false if there is none.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let old = self.by_name.remove(name);
        let found = old.is_some();
        self.before.push((name.to_owned(), old));
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
        self.by_name.insert(name.to_owned(), row);
        Ok(true)
    }

    fn changes(&self) -> Result<Vec<Change>, RegistryError> {
        let names: BTreeSet<&String> = self.before.iter().map(|(name, _)| name).collect();
        names
            .into_iter()
            .map(|name| {
                let key = format!("{}/{name}", self.sort);
                let value = self.by_name.get(name).map(serde_json::to_vec).transpose();
                let value = value.map_err(|source| RegistryError::Row {
                    key: key.clone(),
                    source,
                })?;
                Ok((key, value))
            })
            .collect()
    }

    fn settle(&mut self, keep: bool) {
        for (name, old) in self.before.drain(..).rev() {
            if keep {
                continue;
            }
            match old {
                Some(old) => self.by_name.insert(name, old),
                None => self.by_name.remove(&name),
            };
        }
    }
}

/// Everything the registry knows.
#[derive(Debug)]
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
    tables: Mutex<Tables>,
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
        let mut tables = Tables {
            tokens: Rows::new("token"),
            clusters: Rows::new("cluster"),
            agents: Rows::new("agent"),
            accounts: Rows::new("account"),
            clients: Rows::new("client"),
        };
        for (key, value) in store.registry()? {
            let known = tables.tokens.load(&key, &value)?
                || tables.clusters.load(&key, &value)?
                || tables.agents.load(&key, &value)?
                || tables.accounts.load(&key, &value)?
                || tables.clients.load(&key, &value)?;
            if !known {
                tracing::warn!(key, "the registry holds an entry of an unknown sort");
            }
        }
        let changed = tokio::sync::watch::Sender::new(0);
        Ok(Arc::new(Self {
            tables: Mutex::new(tables),
            store,
            changed,
            turns: Arc::new(Semaphore::new(THREADS)),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks something up.
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
        let mut tables = self.lock();
        let outcome = change(&mut tables).and_then(|value| {
            let changes = tables.changes()?;
            if !changes.is_empty() {
                self.store.write_registry(&changes)?;
            }
            Ok(value)
        });
        tables.settle(outcome.is_ok());
        drop(tables);
        if outcome.is_ok() {
            self.changed.send_modify(|count| *count += 1);
        }
        outcome
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
    fn changes(&self) -> Result<Vec<Change>, RegistryError> {
        let mut changes = self.tokens.changes()?;
        changes.extend(self.clusters.changes()?);
        changes.extend(self.agents.changes()?);
        changes.extend(self.accounts.changes()?);
        changes.extend(self.clients.changes()?);
        Ok(changes)
    }

    fn settle(&mut self, keep: bool) {
        self.tokens.settle(keep);
        self.clusters.settle(keep);
        self.agents.settle(keep);
        self.accounts.settle(keep);
        self.clients.settle(keep);
    }
}

#[cfg(test)]
mod tests {
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
