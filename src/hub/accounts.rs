//! The accounts of a hub, and what becomes of them as agents come and go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;

use super::Core;
use super::account::{Account, Surface};
use super::admission::{Decisions, Offers};
use super::audit::Audit;
use super::store::StoreError;
use super::stored::parse_stream_key;
use crate::clock::{self, unix_seconds};
use crate::fault::Chain;
use crate::wire::v1;

/// Every account that was ever registered and not removed.
#[derive(Debug, Default)]
pub(super) struct Accounts(RwLock<BTreeMap<String, Arc<Account>>>);

impl Accounts {
    pub(super) fn get(&self, name: &str) -> Option<Arc<Account>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    pub(super) fn by_id(&self, id: &str) -> Option<Arc<Account>> {
        let accounts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        accounts.values().find(|account| account.id == id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Account>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Takes out `account`, unless another one has its name by now.
    pub(super) fn remove(&self, account: &Arc<Account>) {
        let mut accounts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let held = accounts.get(&account.name);
        if held.is_some_and(|held| Arc::ptr_eq(held, account)) {
            accounts.remove(&account.name);
        }
    }

    fn insert(&self, account: Arc<Account>) {
        let mut accounts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        accounts.insert(account.name.clone(), account);
    }
}

/// What agents have told of their clusters' kinds, each once: the clusters of a fleet are alike.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<u64, Weak<v1::Discovery>>>);

impl Told {
    /// `discovery`, or what is held already and says the same; and how it is written down.
    fn share(&self, mut discovery: v1::Discovery) -> (Arc<v1::Discovery>, Vec<u8>) {
        let encoded = discovery.encode_to_vec();
        let mut hasher = DefaultHasher::new();
        hasher.write(&encoded);
        let hash = hasher.finish();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = told.get(&hash).and_then(Weak::upgrade)
            && *known == discovery
        {
            return (known, encoded);
        }
        // As it came, it is a part of the message, which would be kept as a whole.
        discovery.version_json = Bytes::copy_from_slice(&discovery.version_json);
        let discovery = Arc::new(discovery);
        told.retain(|_, known| known.strong_count() > 0);
        told.insert(hash, Arc::downgrade(&discovery));
        (discovery, encoded)
    }
}

impl Core {
    /// Makes the accounts that the registry knows, with the state that the store holds.
    pub(super) fn restore_accounts(&self) -> Result<(), StoreError> {
        let rows = self.registry.read(|tables| {
            tables
                .accounts
                .iter()
                .map(|(name, row)| (name.clone(), row.clone()))
                .collect::<Vec<_>>()
        });
        for (name, row) in rows {
            let discovery = STANDARD.decode(&row.discovery).ok();
            let discovery = discovery.and_then(|d| v1::Discovery::decode(d.as_slice()).ok());
            let surface = Surface {
                discovery: self.told.share(discovery.unwrap_or_default()).0,
                outdated: false,
                absent: Arc::new(HashSet::new()),
                away_since: Some(clock::from_unix_seconds(row.seen)),
                offer: None,
            };
            let account = self.account(&name, &row.id, surface);
            let digest = hex::decode(&row.policy_digest).unwrap_or_default();
            account.set_provenance(&row.cluster_uid, &digest);
            self.accounts.insert(account);
        }
        for (key, cursor) in self.store.cursors()? {
            let Some((name, stream)) = parse_stream_key(&key) else {
                continue;
            };
            let Some(account) = self.accounts.get(name) else {
                continue;
            };
            account.restore(&stream, &cursor, &self.store.objects(&key)?);
        }
        Ok(())
    }

    fn account(&self, name: &str, id: &str, surface: Surface) -> Arc<Account> {
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Arc::new(Account::new(name, id, surface, clock, entropy))
    }

    /// Takes over what the active instance says of its accounts.
    pub(super) fn note_offers(&self, offers: &Offers, decisions: &Decisions) {
        for (name, offer) in offers.iter() {
            let ours = decisions
                .get(name)
                .filter(|d| d.admission != v1::Admission::Taken);
            let Some(decision) = ours else { continue };
            // One that was removed in between is not the same, though it has the same name.
            let held = self.accounts.get(name);
            let held = held.filter(|account| account.id == decision.id);
            let account = held.unwrap_or_else(|| {
                let away_since = Some(self.clock.now());
                let surface = Surface {
                    away_since,
                    ..Surface::default()
                };
                let account = self.account(name, &decision.id, surface);
                self.accounts.insert(Arc::clone(&account));
                account
            });
            account.surface.send_if_modified(|surface| {
                let differs = surface.offer.as_ref() != Some(offer);
                if differs {
                    surface.offer = Some(Arc::clone(offer));
                }
                differs
            });
        }
    }

    /// A feed has attached: the account is connected, and its provenance is noted.
    ///
    /// `before` is the provenance until then. What other rules or another cluster have left goes
    /// from the store first: a hub that is killed in between would serve it as if it were of these.
    pub(super) async fn attached(&self, account: &Arc<Account>, before: &(String, Vec<u8>)) {
        account.tell_presence(self.clock.now());
        let is_other = !before.1.is_empty() && account.provenance() != *before;
        if is_other && self.checkpoint().await.is_err() {
            // Told by whoever stores every second. The next feed notes it.
            return;
        }
        let (cluster_uid, digest) = account.provenance();
        let (digest, now) = (hex::encode(digest), unix_seconds(self.clock.now()));
        self.note_account(&account.name, move |row| {
            row.cluster_uid = cluster_uid;
            row.policy_digest = digest;
            row.seen = now;
        })
        .await;
    }

    /// No agent feeds the account any more.
    pub(super) fn away(self: &Arc<Self>, account: &Arc<Account>) {
        let now = self.clock.now();
        account.tell_presence(now);
        let (core, name) = (Arc::clone(self), account.name.clone());
        self.tasks.spawn("away", |stop| async move {
            let noting = core.note_account(&name, move |row| row.seen = unix_seconds(now));
            let _stopped = stop.run_until_cancelled(noting).await;
        });
    }

    /// The account's kinds, as its agent tells them.
    pub(super) async fn discovered(&self, account: &Arc<Account>, mut discovery: v1::Discovery) {
        // Of the moment: neither shared with other accounts nor written down.
        let outdated = mem::take(&mut discovery.outdated);
        let is_known = *account.surface.borrow().discovery == discovery;
        let newer = (!is_known).then(|| self.told.share(discovery));
        account.surface.send_if_modified(|surface| {
            if let Some((discovery, _)) = &newer {
                surface.discovery = Arc::clone(discovery);
            }
            mem::replace(&mut surface.outdated, outdated) != outdated || newer.is_some()
        });
        if let Some((_, encoded)) = newer {
            let encoded = STANDARD.encode(encoded);
            self.note_account(&account.name, move |row| row.discovery = encoded)
                .await;
        }
    }

    /// Stops serving an account until it is approved again.
    pub(super) async fn suspend(&self, name: &str, reason: &str) {
        let why = reason.to_owned();
        self.note_account(name, move |row| row.suspended = Some(why))
            .await;
        Audit::new("suspend account", "hub")
            .with("account", name)
            .refuse(reason);
    }

    async fn note_account(
        &self,
        name: &str,
        change: impl FnOnce(&mut super::registry::Account) + Send + 'static,
    ) {
        let wanted = name.to_owned();
        let noted = self.registry.update(move |tables| {
            if let Some(mut row) = tables.accounts.get(&wanted).cloned() {
                change(&mut row);
                tables.accounts.put(&wanted, row);
            }
            Ok(())
        });
        if let Err(error) = noted.await {
            // The account goes on from memory; the next change tries again.
            tracing::error!(account = name, error = %Chain(&error), "cannot note the account's state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_alike_is_held_once_and_without_the_message_it_came_in() {
        let told = Told::default();
        let message = Bytes::from(vec![b'x'; 1000]);
        let of = |until| v1::Discovery {
            version_json: message.slice(..until),
            ..v1::Discovery::default()
        };
        let (one, encoded) = told.share(of(10));
        assert_eq!(encoded, of(10).encode_to_vec());
        assert!(Arc::ptr_eq(&one, &told.share(of(10)).0));
        assert!(!Arc::ptr_eq(&one, &told.share(of(20)).0));
        assert_eq!(*told.share(of(20)).0, of(20));
        assert_ne!(one.version_json.as_ptr(), message.as_ptr());
        drop(one);
        let _another = told.share(of(30));
        assert_eq!(told.0.lock().unwrap().len(), 1);
    }
}
