//! Keeps the credential of one account fresh.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::authorization::read_file;
use super::fetch::FetchErrorKind;
use super::kubeconfig::{self, KubeconfigError};
use super::material::Fingerprint;
use super::{Credential, Engines, Profile, Reason, Reference, service_account};
use crate::clock::SharedClock;
use crate::entropy::{self, SharedEntropy};
use crate::fault::Chain;
use crate::limits;
use crate::retry::{Backoff, pause_unless};

/// Where an account's credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A kubeconfig in a file, with files beside it.
    KubeconfigFile {
        /// The file.
        path: PathBuf,
        /// The context; otherwise its current one.
        context: Option<String>,
    },
    /// A kubeconfig in an engine.
    Secret {
        /// Which secret.
        reference: Reference,
        /// The context; otherwise its current one.
        context: Option<String>,
    },
    /// The pod's own account.
    ServiceAccount {
        /// The API server's host.
        host: String,
        /// Its port.
        port: u16,
        /// The folder with `ca.crt`, `token` and `namespace`.
        mount: PathBuf,
    },
}

impl Source {
    /// Whether an engine is asked for it.
    pub const fn needs_engine(&self) -> bool {
        matches!(self, Self::Secret { .. })
    }
}

/// What a [`Keeper`] tells.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The last good credential.
    pub credential: Option<Arc<Credential>>,
    /// Grows whenever the credential is another one; 0 before the first.
    pub generation: u64,
    /// Why the last attempt failed; none if it did not.
    pub reason: Option<Reason>,
    /// What an operator should know about it; empty if all is well.
    pub message: String,
    /// When the next attempt is made.
    pub next_try: Option<SystemTime>,
}

/// Pause before the first repetition after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Longest pause after a failure.
const RETRY_CAP: Duration = Duration::from_secs(30);

/// How often a file is read again.
const FILE_POLL: Duration = Duration::from_secs(10);

/// Keeps the credential of one account fresh; runs as a task.
pub struct Keeper {
    source: Source,
    engines: Arc<Engines>,
    clock: SharedClock,
    entropy: SharedEntropy,
    published: watch::Sender<Published>,
    digest_key: hmac::Key,
    fingerprint: Option<Fingerprint>,
}

/// An attempt that failed.
struct Failure {
    reason: Reason,
    message: String,
    /// Not to be tried sooner than this.
    at_least: Duration,
}

impl Keeper {
    /// A keeper, and where it publishes.
    pub fn new(
        source: Source,
        engines: Arc<Engines>,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> (Self, watch::Receiver<Published>) {
        let (published, watched) = watch::channel(Published::default());
        let digest_key = hmac::Key::new(hmac::HMAC_SHA256, &entropy::bytes::<32>(&*entropy));
        let keeper = Self {
            source,
            engines,
            clock,
            entropy,
            published,
            digest_key,
            fingerprint: None,
        };
        (keeper, watched)
    }

    /// Resolves, publishes and waits, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(RETRY, RETRY_CAP, Arc::clone(&self.entropy));
        while let Some(outcome) = stop.run_until_cancelled(self.resolve()).await {
            let pause = match outcome {
                Ok(credential) => {
                    backoff.reset();
                    let pause = self.refresh();
                    self.publish(credential, pause);
                    pause
                }
                Err(failure) => {
                    let pause = backoff.next_pause().max(failure.at_least);
                    self.publish_failure(failure, pause);
                    pause
                }
            };
            if !pause_unless(&stop, pause).await {
                return;
            }
        }
    }

    async fn resolve(&self) -> Result<Credential, Failure> {
        self.source.fetch(&self.engines).await
    }
}

impl Source {
    /// Resolves it once, for a check.
    ///
    /// # Errors
    /// The reason that the account would show, and what an operator should know about it.
    pub async fn resolve(&self, engines: &Engines) -> Result<Credential, (Reason, String)> {
        let fetched = self.fetch(engines).await;
        fetched.map_err(|failure| (failure.reason, failure.message))
    }

    async fn fetch(&self, engines: &Engines) -> Result<Credential, Failure> {
        match self {
            Self::KubeconfigFile { path, context } => {
                let bytes = read_file(path, limits::YAML_BYTES).await.map_err(|error| {
                    Failure::new(
                        Reason::KubeconfigInvalid,
                        format!("cannot read the kubeconfig `{}`: {error}", path.display()),
                    )
                })?;
                let base = path.parent().map(PathBuf::from).unwrap_or_default();
                let context = context.clone();
                let reading = tokio::task::spawn_blocking(move || {
                    kubeconfig::read(&bytes, context.as_deref(), &Profile::File { base })
                });
                match reading.await {
                    Ok(read) => read.map_err(|error| {
                        Failure::kubeconfig(&format!("`{}`", path.display()), &error)
                    }),
                    Err(_panicked) => Err(Failure::new(
                        Reason::KubeconfigInvalid,
                        format!("cannot read the kubeconfig `{}`", path.display()),
                    )),
                }
            }
            Self::Secret { reference, context } => {
                let fetched = engines.fetch(reference).await.map_err(|error| Failure {
                    reason: error.reason(),
                    message: error.to_string(),
                    at_least: match error.kind {
                        FetchErrorKind::Throttled { retry_after } => {
                            retry_after.unwrap_or_default()
                        }
                        _ => Duration::ZERO,
                    },
                })?;
                #[expect(clippy::disallowed_methods, reason = "read into sealed parts")]
                let document = fetched.document.expose_secret();
                kubeconfig::read(document, context.as_deref(), &Profile::Sealed)
                    .map_err(|error| Failure::kubeconfig("of the secret", &error))
            }
            Self::ServiceAccount { host, port, mount } => service_account::read(host, *port, mount)
                .await
                .map_err(|problem| Failure::new(Reason::KubeconfigInvalid, problem.to_owned())),
        }
    }
}

impl Keeper {
    /// Until a good source is asked again; engines within a tenth of their interval, so that the
    /// accounts of one agent spread out.
    fn refresh(&self) -> Duration {
        match &self.source {
            Source::KubeconfigFile { .. } | Source::ServiceAccount { .. } => FILE_POLL,
            Source::Secret { reference, .. } => {
                let spread = 0.9 + 0.2 * entropy::unit(&*self.entropy);
                self.engines.refresh(reference).mul_f64(spread)
            }
        }
    }

    fn publish(&mut self, credential: Credential, pause: Duration) {
        let fingerprint = Some(credential.fingerprint(&self.digest_key));
        let is_new = self.fingerprint != fingerprint;
        self.fingerprint = fingerprint;
        let next_try = self.clock.now().checked_add(pause);
        self.published.send_if_modified(|published| {
            let is_news = is_new || published.reason.is_some();
            if is_new {
                published.credential = Some(Arc::new(credential));
                published.generation += 1;
            }
            published.reason = None;
            published.message.clear();
            published.next_try = next_try;
            is_news
        });
    }

    fn publish_failure(&self, failure: Failure, pause: Duration) {
        tracing::warn!(
            reason = failure.reason.as_str(),
            error = failure.message,
            "credential not refreshed"
        );
        let next_try = self.clock.now().checked_add(pause);
        self.published.send_modify(|published| {
            published.reason = Some(failure.reason);
            published.message = failure.message;
            published.next_try = next_try;
        });
    }
}

impl Failure {
    const fn new(reason: Reason, message: String) -> Self {
        Self {
            reason,
            message,
            at_least: Duration::ZERO,
        }
    }

    /// `which` names the kubeconfig as an operator knows it.
    fn kubeconfig(which: &str, error: &KubeconfigError) -> Self {
        let message = format!("the kubeconfig {which}: {}", Chain(error));
        Self::new(error.reason(), message)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use tempfile::TempDir;

    use super::*;
    use crate::credential::testkit::Authority;
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

    fn keep(source: Source) -> (Tasks, watch::Receiver<Published>) {
        let (keeper, watched) = Keeper::new(
            source,
            Arc::new(Engines::default()),
            clock::system(),
            entropy::system(),
        );
        let tasks = Tasks::new();
        tasks.spawn("keeper", |stop| keeper.run(stop));
        (tasks, watched)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_content_is_a_new_generation_and_a_broken_one_keeps_the_last_good() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("config");
        let authority = Authority::new();
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(&kubeconfig(&authority, "one"));
        let (tasks, mut watched) = keep(Source::KubeconfigFile {
            path: path.clone(),
            context: None,
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
        let (tasks, mut watched) = keep(Source::ServiceAccount {
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
        let (tasks, mut watched) = keep(Source::Secret {
            reference,
            context: None,
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
