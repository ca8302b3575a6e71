//! Keeps the credential of one source fresh, for as long as somebody follows it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::material::Fingerprint;
use super::schedule::{Schedule, Trouble, Usable};
use super::source::{Problem, Resolved};
use super::{Auth, Credential, Engines, Purpose, Reason, Source};
use crate::clock::{SharedClock, rfc3339};
use crate::entropy::{self, SharedEntropy};
use crate::retry;

/// Longest pause between the return of an engine and the first question of one key.
const RETURN_SPREAD: Duration = Duration::from_secs(5);

/// How long after the store takes something away that is looked at: its clock is not ours.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// What is known of one source.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The last good credential; none before the first, and none while it must not be used.
    pub credential: Option<Arc<Credential>>,
    /// Grows whenever the credential is another one; 0 before the first.
    pub generation: u64,
    /// The last good credential was given up: nothing may be done with it any more.
    pub suspended: bool,
    /// Why the last attempt failed; none if it did not.
    pub reason: Option<Reason>,
    /// What an operator should know about it; empty if all is well.
    pub message: String,
    /// When the next attempt is made.
    pub next_try: Option<SystemTime>,
    /// The store's version of it.
    pub version: Option<String>,
    /// When the store last confirmed it.
    pub confirmed: Option<SystemTime>,
    /// When it has to be given up, unless it is confirmed before.
    pub usable_until: Option<SystemTime>,
    /// When the store's lease ends.
    pub lease_ends: Option<SystemTime>,
}

/// Keeps the credential of one source fresh; runs as a task.
pub(super) struct Keeper {
    pub(super) source: Source,
    pub(super) engines: Arc<ArcSwap<Engines>>,
    pub(super) clock: SharedClock,
    pub(super) entropy: SharedEntropy,
    pub(super) digest_key: hmac::Key,
    pub(super) published: watch::Sender<Published>,
}

/// What the keeper remembers between two attempts.
struct Memory {
    schedule: Schedule,
    fingerprint: Option<Fingerprint>,
    version: Option<String>,
    leased: bool,
    /// When the store itself takes away what is held.
    gone_at: Option<SystemTime>,
    /// The last attempt failed: what is there now is looked at itself.
    failed: bool,
}

/// What an attempt gave.
enum Outcome {
    /// What is held is still so.
    Current,
    Fetched(Box<Resolved>),
}

impl Keeper {
    /// Resolves, publishes and waits, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _stopped = stop.run_until_cancelled(self.keep()).await;
        // Whoever still holds a receiver holds no plaintext by it.
        self.published
            .send_modify(|published| published.credential = None);
    }

    async fn keep(&self) {
        let terms = self.source.terms(&self.engines.load());
        let mut memory = Memory {
            schedule: Schedule::new(terms, &self.entropy),
            fingerprint: None,
            version: None,
            leased: false,
            gone_at: None,
            failed: false,
        };
        loop {
            let outcome = self.ask_within_use(&mut memory).await;
            let now = self.clock.now();
            memory.failed = outcome.is_err();
            let (pause, is_away) = match outcome {
                Ok(outcome) => (self.succeeded(&mut memory, now, outcome), false),
                Err(problem) => {
                    let is_away = problem.trouble == Trouble::Away;
                    (self.failed(&mut memory, now, problem), is_away)
                }
            };
            self.wait(&mut memory, pause, is_away).await;
        }
    }

    /// Asks; what ends meanwhile is given up at that moment.
    async fn ask_within_use(&self, memory: &mut Memory) -> Result<Outcome, Problem> {
        tokio::select! {
            biased;
            outcome = self.ask(memory) => return outcome,
            () = self.end_of_use(&memory.schedule) => {}
        }
        // What was under way counted on what has just been given up: it starts anew.
        self.expire(memory);
        self.ask(memory).await
    }

    /// The cheap question first, where there is one.
    async fn ask(&self, memory: &Memory) -> Result<Outcome, Problem> {
        let engines = self.engines.load_full();
        let is_held = memory.schedule.usable() != Usable::Not;
        if let Some(version) = &memory.version
            && is_held
            && !memory.leased
            && !memory.failed
            && self.source.is_current(&engines, version).await?
        {
            return Ok(Outcome::Current);
        }
        let fetched = self.source.fetch(&engines, &self.clock, Purpose::Use).await;
        fetched.map(|resolved| Outcome::Fetched(Box::new(resolved)))
    }

    fn succeeded(&self, memory: &mut Memory, now: SystemTime, outcome: Outcome) -> Duration {
        let lease = match &outcome {
            Outcome::Current => None,
            Outcome::Fetched(resolved) => resolved.lease,
        };
        if let Outcome::Fetched(resolved) = &outcome {
            memory.gone_at = resolved.gone_at;
        }
        let pause = memory.schedule.confirmed(now, lease);
        let pause = until_gone(memory.gone_at, now).map_or(pause, |left| left.min(pause));
        let until = usable_until(&memory.schedule);
        let lease_ends = lease.and_then(|lease| now.checked_add(lease));
        let (is_new, resolved) = match outcome {
            Outcome::Current => (false, None),
            Outcome::Fetched(resolved) => {
                let fingerprint = Some(resolved.credential.fingerprint(&self.digest_key));
                let is_new = memory.fingerprint != fingerprint;
                if is_new && matches!(resolved.credential.auth(), Auth::Basic(_)) {
                    tracing::warn!(
                        source = %self.source,
                        "the kubeconfig sends a password with every request; a token can be revoked"
                    );
                }
                memory.fingerprint = fingerprint;
                memory.version.clone_from(&resolved.version);
                memory.leased = lease.is_some();
                (is_new, Some(resolved))
            }
        };
        self.published.send_if_modified(|published| {
            // What lies on this machine is read every few seconds: that alone is no news.
            let is_asked = self.source.reference().is_some();
            let is_news = is_new || is_asked || published.reason.is_some();
            if let Some(resolved) = resolved {
                published.version = resolved.version;
                published.lease_ends = lease_ends;
                let mut credential = resolved.credential;
                if is_new {
                    published.credential = Some(Arc::new(credential));
                    published.generation += 1;
                } else if let Some(lent) = credential.lent.take() {
                    // The same, which stays in use, was lent once more: whether giving that back
                    // would end it is the engine's to say.
                    lent.left_lent();
                }
            }
            published.suspended = false;
            published.reason = None;
            published.message.clear();
            published.next_try = now.checked_add(pause);
            published.confirmed = Some(now);
            published.usable_until = until;
            is_news
        });
        pause
    }

    fn failed(&self, memory: &mut Memory, now: SystemTime, problem: Problem) -> Duration {
        let was_held = memory.schedule.usable() != Usable::Not;
        let pause = memory
            .schedule
            .failed(now, problem.trouble, problem.at_least);
        tracing::warn!(
            source = %self.source,
            reason = problem.reason.as_str(),
            error = problem.message,
            "credential not refreshed"
        );
        let given_up = was_held && memory.schedule.usable() == Usable::Not;
        self.published.send_modify(|published| {
            published.next_try = now.checked_add(pause);
            let is_expired = published.reason == Some(Reason::CredentialExpired);
            if is_expired && problem.trouble == Trouble::Away {
                // The engine that is away is why it ended, and stays so until it says something.
                published.message = unconfirmed(published.confirmed, &problem.message);
                return;
            }
            published.reason = Some(problem.reason);
            published.message = problem.message;
        });
        if given_up {
            self.give_up(memory, None);
        } else if expired(&memory.schedule, now) {
            self.expire(memory);
        }
        pause
    }

    /// Until the next attempt; what ends meanwhile is given up at that moment.
    async fn wait(&self, memory: &mut Memory, pause: Duration, is_away: bool) {
        let sleep = retry::pause(pause);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                biased;
                () = &mut sleep => return,
                () = self.end_of_use(&memory.schedule) => self.expire(memory),
                () = self.returned(), if is_away => return,
                () = self.changed(memory), if !is_away => return,
            }
        }
    }

    /// Waits for the moment from which what is held must not be used.
    async fn end_of_use(&self, schedule: &Schedule) {
        let Usable::Until(end) = schedule.usable() else {
            return std::future::pending().await;
        };
        let left = end.duration_since(self.clock.now()).unwrap_or_default();
        retry::pause(left).await;
    }

    async fn returned(&self) {
        let Some(reference) = self.source.reference() else {
            return std::future::pending().await;
        };
        let returned = self.engines.load().returned(reference);
        returned.await;
        let spread = RETURN_SPREAD.mul_f64(entropy::unit(&*self.entropy));
        retry::pause(spread).await;
    }

    async fn changed(&self, memory: &Memory) {
        // What was not there, or of no use, is waited for from what there is now: it is not what is
        // held, and would be asked for again at once.
        let version = memory.version.as_deref().filter(|_| !memory.failed);
        match self.source.reference() {
            Some(reference) => {
                let changed = self.engines.load().changed(reference, version);
                changed.await;
            }
            None => std::future::pending().await,
        }
    }

    fn expire(&self, memory: &mut Memory) {
        self.give_up(memory, Some(Reason::CredentialExpired));
    }

    /// Drops the plaintext. `reason` replaces the one of the last failure, which stays in the text.
    fn give_up(&self, memory: &mut Memory, reason: Option<Reason>) {
        memory.schedule.suspended();
        memory.fingerprint = None;
        self.published.send_modify(|published| {
            published.credential = None;
            published.suspended = true;
            published.usable_until = None;
            published.lease_ends = None;
            if let Some(reason) = reason {
                published.reason = Some(reason);
                published.message = unconfirmed(published.confirmed, &published.message);
            }
        });
        let published = self.published.borrow();
        tracing::error!(
            source = %self.source,
            reason = published.reason.map(Reason::as_str),
            error = published.message,
            "credential given up and wiped"
        );
    }
}

/// What is told of a credential that has ended without its engine; `last` is why that did not help.
fn unconfirmed(confirmed: Option<SystemTime>, last: &str) -> String {
    let since = confirmed.map(rfc3339).unwrap_or_default();
    format!("the engine has not confirmed the credential since {since}: {last}")
}

/// Time left until it is seen that the store has taken away what it gave; none where it does not, or
/// was to have done it already.
fn until_gone(gone_at: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
    let left = gone_at?.duration_since(now).ok()?;
    Some(left.saturating_add(GONE_AFTER))
}

const fn usable_until(schedule: &Schedule) -> Option<SystemTime> {
    match schedule.usable() {
        Usable::Until(end) => Some(end),
        Usable::Not | Usable::Always => None,
    }
}

fn expired(schedule: &Schedule, now: SystemTime) -> bool {
    matches!(schedule.usable(), Usable::Until(end) if end <= now)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use tempfile::TempDir;

    use super::*;
    use crate::credential::testkit::Authority;
    use crate::credential::{Engines, Followed, Reference, Rules, Store, Surroundings};
    use crate::tasks::Tasks;
    use crate::{clock, entropy};

    fn kubeconfig(authority: &Authority, token: &str) -> String {
        format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://10.0.0.1',\n  \
             certificate-authority-data: {}}}}}]\nusers: [{{name: u, user: {{token: {token}}}}}]\n",
            STANDARD.encode(authority.pem())
        )
    }

    fn keep(source: &Source) -> (Tasks, Followed, watch::Receiver<Published>) {
        let tasks = Tasks::new();
        let engines = Arc::new(Engines::new(Vec::new(), Surroundings::of_system()));
        let store = Store::new(engines, clock::system(), entropy::system(), tasks.clone());
        let followed = store.follow(source);
        let published = followed.published();
        (tasks, followed, published)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_content_is_a_new_generation_and_a_broken_one_keeps_the_last_good() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("config");
        let authority = Authority::new();
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(&kubeconfig(&authority, "one"));
        let (tasks, _followed, mut watched) = keep(&Source::KubeconfigFile {
            path: path.clone(),
            context: None,
            rules: Rules::default(),
        });
        let first = watched
            .wait_for(|now| now.generation == 1)
            .await
            .unwrap()
            .clone();
        assert!(first.reason.is_none() && first.credential.is_some());

        write("planted: [");
        let broken = watched
            .wait_for(|now| now.reason.is_some())
            .await
            .unwrap()
            .clone();
        assert_eq!(broken.reason, Some(Reason::KubeconfigInvalid));
        assert!(broken.message.contains("line") && !broken.message.contains("planted"));
        assert!(broken.credential.is_some() && broken.next_try.is_some());

        write(&format!("# the same\n{}", kubeconfig(&authority, "one")));
        let healed = watched
            .wait_for(|now| now.reason.is_none())
            .await
            .unwrap()
            .clone();
        assert_eq!((healed.generation, healed.message.as_str()), (1, ""));

        write(&kubeconfig(&authority, "two"));
        watched.wait_for(|now| now.generation == 2).await.unwrap();
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pods_own_account_appears_when_its_files_do() {
        let mount = TempDir::new().unwrap();
        let (tasks, _followed, mut watched) = keep(&Source::ServiceAccount {
            host: "10.96.0.1".to_owned(),
            port: 443,
            mount: mount.path().to_owned(),
        });
        let missing = watched
            .wait_for(|now| now.reason.is_some())
            .await
            .unwrap()
            .clone();
        assert!(missing.message.contains("ca.crt") && missing.generation == 0);
        std::fs::write(mount.path().join("ca.crt"), Authority::new().pem()).unwrap();
        std::fs::write(mount.path().join("token"), "planted-token").unwrap();
        std::fs::write(mount.path().join("namespace"), "sortie\n").unwrap();
        let found = watched
            .wait_for(|now| now.generation == 1)
            .await
            .unwrap()
            .clone();
        let credential = found.credential.unwrap();
        assert_eq!(credential.server().to_string(), "https://10.96.0.1:443");
        assert_eq!(credential.namespace(), Some("sortie"));
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_of_an_unknown_engine_is_told_and_tried_again() {
        let reference = Reference::parse("sec+vault://nowhere/secret/a#k").unwrap();
        let (tasks, _followed, mut watched) = keep(&Source::Secret {
            reference,
            context: None,
            rules: Rules::default(),
            max_stale: None,
        });
        for _ in 0..3 {
            let told = watched
                .wait_for(|now| now.reason.is_some())
                .await
                .unwrap()
                .clone();
            assert_eq!(told.reason, Some(Reason::EngineUnavailable));
            watched.changed().await.unwrap();
        }
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }
}
