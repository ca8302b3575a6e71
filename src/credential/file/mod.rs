//! Files below one folder: a kubeconfig each, or a folder of kubeconfigs.
//!
//! ```text
//! root/path        ── the whole file ──▶ document          sec+file://NAME/path
//! root/path#key    ── the file `key` of the folder ──▶      sec+file://NAME/path#key
//! root/path#*      ── each file of the folder is a key      sec+file://NAME/path#*
//! ```
//! Made for mounted Secrets and for what an injector writes. A reference never leads out of the
//! root, by `..` or by a symbolic link; links that stay inside, as those of a Kubernetes volume, are
//! followed.
//!
//! A version is a keyed digest of what the file system says of the file (device, inode, size, times
//! of change): it is found without reading the content, shows nothing of it, and another content
//! without another version would need a file whose times do not change when it is written.
//!
//! Changes are found by looking once a second. Notifications would come sooner, but not on every file
//! system that is mounted into a pod, and they tell nothing of a link that is replaced further up.
//!
//! # Failure
//! - A file that does not keep still while it is read is read again, at most [`TRIES`] times; what is
//!   written in place and slowly can be seen half-written, so write a new file and rename it.
//! # Sources
//! - Kubernetes, "Secrets": "Mounted Secrets are updated automatically"; `AtomicWriter` of the
//!   kubelet; open(2), rename(2).

mod reading;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;

use self::reading::{Attempt, Place};
use super::fetch::{ABSENT, Asking, Engine, Failure, FetchErrorKind, Fetched, Waiting};
use super::{Key, Places, Reference, document};
use crate::entropy::{self, Entropy};
use crate::retry;
use crate::secret::clear_traces;

/// How often a file is looked at for a change.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time for which a file has to keep still to count as whole.
const STILL: Duration = Duration::from_millis(50);

/// Times that a file which does not keep still is read.
pub(super) const TRIES: u32 = 20;

/// A folder of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder.
    pub root: PathBuf,
}

/// A folder of files.
#[derive(Debug)]
pub struct Files {
    root: Arc<Path>,
    key: Arc<hmac::Key>,
    has_warned: AtomicBool,
}

impl Files {
    /// Prepares a connection; nothing is read yet.
    pub fn new(settings: Settings, entropy: &dyn Entropy) -> Self {
        let key = entropy::bytes::<32>(entropy);
        Self {
            root: settings.root.into(),
            key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key)),
            has_warned: AtomicBool::new(false),
        }
    }

    async fn read(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let place = Place::of(reference)?;
        let mut missed = None;
        for _ in 0..TRIES {
            let attempt = self.blocking(&place, reading::read).await;
            retry::pause(STILL).await;
            let Attempt { found, bytes } = match attempt {
                Ok(attempt) => attempt,
                // A folder that is replaced at this moment is there at the next look.
                Err(failure) if is_absence(&failure) && missed.is_none() => {
                    missed = Some(failure);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            // Looked up again from the root: the link to it may have been replaced meanwhile.
            if self.blocking(&place, reading::look).await != Ok(found) {
                continue;
            }
            if found.readable_by_others() && !self.has_warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    root = %self.root.display(),
                    "files of secrets can be read by every user of this machine or container"
                );
            }
            return Ok(Fetched {
                document: document::as_meant(bytes, reference)?,
                version: Some(found.version(&self.key)),
                lease: None,
                gone_at: None,
            });
        }
        let restless = "the file keeps changing while it is read; write another one and rename it";
        Err(missed.unwrap_or(Failure::unavailable(restless)))
    }

    async fn version_of(&self, reference: &Reference) -> Result<String, Failure> {
        let place = Place::of(reference)?;
        if reference.key == Key::Each {
            let names = self.blocking(&place, reading::names).await?;
            return Ok(reading::digest(
                &self.key,
                names.iter().map(String::as_bytes),
            ));
        }
        let found = self.blocking(&place, reading::look).await?;
        Ok(found.version(&self.key))
    }

    /// Runs `work` where waiting for a disk harms nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        place: &Place,
        work: fn(&Path, &Place) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (root, place) = (Arc::clone(&self.root), place.clone());
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&root, &place);
            clear_traces();
            done
        });
        let done = done.await;
        done.unwrap_or(Err(Failure::unavailable("it could not be read")))
    }

    async fn wait_for_another(&self, reference: &Reference, version: &str) {
        loop {
            retry::pause(LOOK_EVERY).await;
            match self.version_of(reference).await {
                Ok(current) if current == version => {}
                Err(failure) if failure.kind == FetchErrorKind::NotFound && version == ABSENT => {}
                Err(failure) if matches!(failure.kind, FetchErrorKind::Unavailable { .. }) => {}
                // Gone, or of another kind: that is for the next fetch to tell.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

const fn is_absence(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FetchErrorKind::NotFound | FetchErrorKind::Invalid { .. }
    )
}

impl Engine for Files {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(self.read(reference))
    }

    fn keys<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Vec<String>> {
        Box::pin(async move {
            let place = Place::of(reference)?;
            self.blocking(&place, reading::names).await
        })
    }

    fn version<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Option<String>> {
        Box::pin(async move { self.version_of(reference).await.map(Some) })
    }

    fn is_current<'a>(
        &'a self,
        reference: &'a Reference,
        version: &'a str,
    ) -> Asking<'a, Option<bool>> {
        Box::pin(async move { Ok(Some(self.version_of(reference).await? == version)) })
    }

    fn probe(&self) -> Asking<'_, ()> {
        Box::pin(async move { self.blocking(&Place::root(), reading::is_folder).await })
    }

    fn changed<'a>(
        &'a self,
        reference: &'a Reference,
        version: &'a str,
        _places: &'a Places,
    ) -> Option<Waiting<'a>> {
        Some(Box::pin(self.wait_for_another(reference, version)))
    }
}
