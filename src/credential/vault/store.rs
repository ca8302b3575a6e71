//! Reading a document, from a key-value store of either version or an engine that lends secrets.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::{ReadSecretMetadataRequest, ReadSecretRequest};

use super::client::Client;
use super::failure::{is_refused, passes};
use super::login::Login;
use super::requests::MountRequest;
use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::credential::transport::is_foreign;
use crate::credential::{Locator, Reference};

/// Most mounts that are remembered.
const MOUNTS: usize = 256;

/// Most documents of which it is remembered that their metadata may not be read.
const UNREADABLE: usize = 4096;

/// Which document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Document {
    mount: String,
    path: String,
    version: Option<u64>,
}

/// What a document holds. Who asked wipes the fields.
pub(super) struct Content {
    pub(super) fields: Value,
    pub(super) version: Option<String>,
    pub(super) lent: Option<Lent>,
    /// When the store deletes it by itself.
    pub(super) gone_at: Option<SystemTime>,
}

/// That a secret was made for us, and ends.
pub(super) struct Lent {
    pub(super) lease_id: String,
    pub(super) lease: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A key-value store of version 2.
    Versioned,
    /// One of version 1, or an engine that makes secrets.
    Plain,
}

/// What was learnt about the stores of a connection.
#[derive(Debug, Default)]
pub(super) struct Stores {
    mounts: Mutex<BTreeMap<String, Kind>>,
    unreadable: Mutex<Unreadable>,
}

/// Documents whose metadata this login may not read.
#[derive(Debug, Default)]
struct Unreadable {
    login: Weak<Login>,
    documents: HashSet<Document>,
}

impl Document {
    pub(super) fn of(reference: &Reference) -> Result<Self, Failure> {
        match &reference.locator {
            Locator::Vault {
                mount,
                path,
                version,
            } => Ok(Self {
                mount: mount.clone(),
                path: path.clone(),
                version: *version,
            }),
            _ => Err(Failure::other_engine()),
        }
    }

    fn full(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }

    /// The same, with the mount where it really is: it may have a `/` in its name.
    fn at(&self, mount: &str) -> Option<Self> {
        let full = self.full();
        let path = full.strip_prefix(mount)?.strip_prefix('/')?;
        Some(Self {
            mount: mount.to_owned(),
            path: path.to_owned(),
            version: self.version,
        })
    }
}

impl Stores {
    /// The newest version, or the one that is asked for.
    pub(super) async fn read(
        &self,
        client: &Client,
        document: &Document,
    ) -> Result<Content, Failure> {
        let Some((document, kind)) = self.place(client, document).await? else {
            return self.guess(client, document).await;
        };
        let read = match kind {
            Kind::Versioned => versioned(client, &document).await,
            Kind::Plain => plain(client, &document).await,
        };
        if let Err(failure) = &read
            && failure.kind == FetchErrorKind::NotFound
        {
            // It may have become another store; the next fetch asks again.
            lock(&self.mounts).remove(&document.mount);
        }
        read
    }

    /// The version that a read would give; `None` where it cannot be told without one.
    pub(super) async fn version(
        &self,
        client: &Client,
        login: &Arc<Login>,
        document: &Document,
        now: SystemTime,
    ) -> Result<Option<String>, Failure> {
        let Some((document, Kind::Versioned)) = self.place(client, document).await? else {
            return Ok(None);
        };
        if lock(&self.unreadable).holds(login, &document) {
            return Ok(None);
        }
        let request = ReadSecretMetadataRequest {
            mount: document.mount.clone(),
            path: document.path.clone(),
        };
        let metadata = match client.ask(request).await {
            Ok(answer) => answer.data.ok_or(Failure::corrupt(""))?,
            Err(failure) if failure.kind == FetchErrorKind::Denied => {
                lock(&self.unreadable).add(login, document);
                return Ok(None);
            }
            // Whether the engine is away, or only this path is closed, the document tells.
            Err(failure) if is_foreign(&failure) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let wanted = document.version.unwrap_or(metadata.current_version);
        let about = metadata.versions.get(&wanted.to_string());
        if let Some(about) = about
            && !about.destroyed
            && !is_deleted(&about.deletion_time, now)
        {
            return Ok(Some(tag(wanted, &about.created_time)));
        }
        let hint = "this version of it was deleted or destroyed, or never written";
        Err(Failure::new(FetchErrorKind::NotFound, hint))
    }

    /// Where the document really is; `None` if the engine does not tell.
    async fn place(
        &self,
        client: &Client,
        document: &Document,
    ) -> Result<Option<(Document, Kind)>, Failure> {
        if let Some(known) = self.known(document) {
            return Ok(Some(known));
        }
        let request = MountRequest {
            path: document.full(),
        };
        let told = match client.ask(request).await {
            Ok(answer) => answer.data,
            Err(failure) if passes(&failure) && !is_foreign(&failure) => return Err(failure),
            // Not told to this token, or behind this proxy; or there is no such mount.
            Err(_failure) => None,
        };
        let Some(told) = told else { return Ok(None) };
        let mount = told.path.trim_end_matches('/');
        let Some(placed) = document.at(mount) else {
            return Ok(None);
        };
        let version = told.options.and_then(|options| options.version);
        let kind = match (told.engine.as_str(), version.as_deref()) {
            ("kv", Some("2")) => Kind::Versioned,
            _ => Kind::Plain,
        };
        self.remember(mount, kind);
        Ok(Some((placed, kind)))
    }

    /// Reads without knowing what the store is.
    async fn guess(&self, client: &Client, document: &Document) -> Result<Content, Failure> {
        let first = match versioned(client, document).await {
            // A policy for a store of version 1 does not cover the path of version 2.
            Err(failure) if is_refused(&failure) => failure,
            done => return done,
        };
        if document.version.is_some() {
            return Err(first);
        }
        match plain(client, document).await {
            Err(failure) if passes(&failure) => Err(failure),
            Err(_failure) => Err(first),
            content => {
                self.remember(&document.mount, Kind::Plain);
                content
            }
        }
    }

    /// No mount lies in another one, so at most one fits.
    fn known(&self, document: &Document) -> Option<(Document, Kind)> {
        let mounts = lock(&self.mounts);
        mounts
            .iter()
            .find_map(|(mount, kind)| Some((document.at(mount)?, *kind)))
    }

    fn remember(&self, mount: &str, kind: Kind) {
        let mut mounts = lock(&self.mounts);
        if mounts.len() >= MOUNTS {
            mounts.clear();
        }
        mounts.insert(mount.to_owned(), kind);
    }
}

impl Unreadable {
    fn holds(&self, login: &Arc<Login>, document: &Document) -> bool {
        self.is_of(login) && self.documents.contains(document)
    }

    fn add(&mut self, login: &Arc<Login>, document: Document) {
        if !self.is_of(login) || self.documents.len() >= UNREADABLE {
            self.documents.clear();
        }
        self.login = Arc::downgrade(login);
        self.documents.insert(document);
    }

    fn is_of(&self, login: &Arc<Login>) -> bool {
        self.login.ptr_eq(&Arc::downgrade(login))
    }
}

async fn versioned(client: &Client, document: &Document) -> Result<Content, Failure> {
    let request = ReadSecretRequest {
        mount: document.mount.clone(),
        path: document.path.clone(),
        version: document.version,
    };
    let answer = client.ask(request).await?;
    let secret = answer.data.ok_or(Failure::corrupt(""))?;
    Ok(Content {
        fields: secret.data,
        version: Some(tag(secret.metadata.version, &secret.metadata.created_time)),
        lent: None,
        gone_at: deletion(&secret.metadata.deletion_time),
    })
}

/// When a version is or was deleted: with `delete_version_after` it is written with a time to come.
fn deletion(time: &str) -> Option<SystemTime> {
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    Some(time.into())
}

/// An empty time is none; one that cannot be read has come.
fn is_deleted(time: &str, now: SystemTime) -> bool {
    !time.is_empty() && deletion(time).is_none_or(|at| at <= now)
}

/// Tells versions apart, also those of a secret that was removed with all its versions and written
/// anew: the numbers begin with 1 again, so the time belongs to them.
fn tag(number: u64, created: &str) -> String {
    let is_of_a_time = |c: &char| c.is_ascii_alphanumeric() || "-+:.".contains(*c);
    let created: String = created.chars().filter(is_of_a_time).take(40).collect();
    format!("{number}@{created}")
}

async fn plain(client: &Client, document: &Document) -> Result<Content, Failure> {
    if document.version.is_some() {
        let hint = "it keeps no versions, and the reference asks for one";
        return Err(Failure::new(FetchErrorKind::NotFound, hint));
    }
    let request = GetSecretRequest {
        mount: document.mount.clone(),
        path: document.path.clone(),
    };
    let answer = client.ask_whole(request).await?;
    let seconds = u64::try_from(answer.lease_duration).unwrap_or_default();
    let lent = (!answer.lease_id.is_empty()).then(|| Lent {
        lease_id: answer.lease_id,
        lease: Duration::from_secs(seconds),
    });
    Ok(Content {
        fields: answer.data,
        version: None,
        lent,
        gone_at: None,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
