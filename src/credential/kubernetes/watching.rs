//! Waits until a Secret has another version than the one that is held.
//!
//! ```text
//! open the watch ──▶ look at the metadata ──other, gone──▶ changed
//!       ▲                    │ the same
//!       │ back-off      read the lines ──other version, DELETED──▶ changed
//!       └── closed, silent, ERROR ──┘
//! ```
//! The watch begins with "now", not with the version that is held: that is as old as the Secret, and
//! an API server forgets versions after minutes (410). What changed before the watch began is found
//! by looking once it is open, so nothing falls between. Only metadata is sent. Opening and looking are
//! an errand like others; the watch that is open is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::client::{Client, Who};
use super::{Kubernetes, Named, answer};
use crate::credential::Places;
use crate::credential::fetch::{ABSENT, Failure, FetchErrorKind};
use crate::credential::transport::ANSWER_BYTES;
use crate::retry::{self, Backoff};
use crate::secret::Buffer;

/// Life of one watch, in seconds, as the server is asked for.
const LIFE_SECONDS: u32 = 290;

/// Silence after which a watch counts as broken. Servers send a bookmark about once a minute.
pub(super) const SILENCE: Duration = Duration::from_secs(150);

/// Pause before a watch is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest such pause.
const PAUSE_CAP: Duration = Duration::from_secs(30);

/// A watch that lived this long makes earlier failures forgotten.
const STEADY: Duration = Duration::from_secs(10);

/// How a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The Secret has another version, or is gone.
    Changed,
    /// It may not be watched.
    Denied,
    /// As watches end, or fail.
    Over,
}

/// Waits until `named` has another version than `version`; for ever where it may not be watched.
pub(super) async fn changed(engine: &Kubernetes, named: Named, version: &str, places: &Places) {
    let mut backoff = Backoff::new(PAUSE, PAUSE_CAP, Arc::clone(&engine.entropy));
    loop {
        let began = Instant::now();
        match watch(engine, &named, version, places).await {
            Ok(End::Changed) => return,
            Ok(End::Denied) => {
                engine.may_not_watch(&named);
                return std::future::pending().await;
            }
            Ok(End::Over) => {}
            Err(failure) => tracing::debug!(
                secret = named.name,
                status = failure.status,
                hint = failure.hint,
                "the watch of the Secret failed"
            ),
        }
        if began.elapsed() >= STEADY {
            backoff.reset();
        }
        retry::pause(backoff.next_pause()).await;
    }
}

async fn watch(
    engine: &Kubernetes,
    named: &Named,
    version: &str,
    places: &Places,
) -> Result<End, Failure> {
    let place = places.take().await;
    let client = Client::new(&engine.settings.access, Who::Account).await?;
    let path = format!(
        "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={LIFE_SECONDS}\
         &fieldSelector=metadata.name%3D{}",
        engine.collection(named, &client)?,
        named.name
    );
    let response = client.open(&path).await?;
    // The watch lasts for long: it need not hold the login that opened it.
    drop(client);
    match response.status().as_u16() {
        200 => {}
        403 => return Ok(End::Denied),
        code => return Err(Failure::unavailable("").with_status(code)),
    }
    match engine.version_of(named).await {
        Ok(current) if current == version => {}
        Ok(_) => return Ok(End::Changed),
        Err(failure) if is_absent(&failure) && version == ABSENT => {}
        Err(failure) if is_an_answer(&failure) => return Ok(End::Changed),
        Err(failure) => return Err(failure),
    }
    drop(place);
    follow(response, engine.silence, |event| {
        judge(event, named, version)
    })
    .await
}

fn is_absent(failure: &Failure) -> bool {
    failure.kind == FetchErrorKind::NotFound
}

/// Whether the Secret is not there any more, or not for us: that is for the next fetch to tell.
const fn is_an_answer(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FetchErrorKind::NotFound | FetchErrorKind::Denied
    )
}

/// Reads lines until one is judged.
async fn follow(
    mut response: reqwest::Response,
    silence: Duration,
    judge: impl Fn(&answer::Event) -> Option<End>,
) -> Result<End, Failure> {
    let mut buffer = Buffer::new(ANSWER_BYTES);
    loop {
        while let Some(end) = memchr::memchr(b'\n', buffer.filled()) {
            let line = buffer.filled().get(..end).unwrap_or_default();
            let event = serde_json::from_slice(line)
                .map_err(|_error| Failure::corrupt("a line of the watch is not an event"))?;
            if let Some(end) = judge(&event) {
                return Ok(end);
            }
            buffer.consume(end + 1);
        }
        buffer.release();
        let chunk = match timeout(silence, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(End::Over),
            Ok(Err(_broken)) => return Err(Failure::unavailable("the watch broke off")),
            Err(_elapsed) => return Err(Failure::unavailable("the watch is silent")),
        };
        if !buffer.push(&chunk) {
            return Err(Failure::corrupt("a line of the watch is too long"));
        }
    }
}

fn judge(event: &answer::Event, named: &Named, version: &str) -> Option<End> {
    let metadata = &event.object.metadata;
    let is_ours = metadata.name == named.name;
    match event.kind.as_str() {
        "ADDED" | "MODIFIED" if is_ours && metadata.resource_version != version => {
            Some(End::Changed)
        }
        "DELETED" if is_ours && version != ABSENT => Some(End::Changed),
        "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" => None,
        // ERROR, and what is not known: the next watch looks anew.
        _ => Some(End::Over),
    }
}
