//! The way to the hub: a certificate, a connection, a link; and the next ones before these end.
//!
//! ```text
//! (kept | join) ─▶ certificate ─▶ dial ─▶ link ──ends──▶ dial again, with jitter
//!                      ▲ renew, or join ◀── due, or told to ──┘
//!                      └─▶ dial beside the old link ─▶ feeds move over ─▶ old link drains
//! ```

mod certificates;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accounts::Accounts;
use super::operations::Port;
use super::renewal::Renewal;
use super::{Evidence, Fatal, Hub, IdentityReport};
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::fault::Chain;
use crate::identity::channel::{Connection, connect};
use crate::identity::client::Certificate;
use crate::identity::renewal::Schedule;
use crate::identity::{Name, tls};
use crate::limits;
use crate::retry::Backoff;
use crate::stream::{Link, LinkEnd, SessionSettings, Shared};
use crate::tasks::Tasks;
use crate::telemetry::health::Latches;
use crate::wire::v1;

/// Time to connect to a listener of the hub.
const CONNECT: Duration = Duration::from_secs(5);

/// First and longest pause between attempts to reach the hub, with the same certificate or with one
/// that it gave instead; full jitter in between.
const REDIAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A link that is lost sooner than this is a failure behind those before it: a hub that welcomes its
/// agents and lets them go at once is not dialled without a growing pause.
const STEADY: Duration = REDIAL.1;

/// Pause of an agent that the hub has banned.
const BANNED: Duration = Duration::from_mins(10);

/// Directives and ends of links that may wait.
const TOLD: usize = 16;

/// What the uplink is made of.
pub(super) struct Settings {
    pub(super) name: Name,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) hub: Hub,
    pub(super) evidence: Evidence,
    pub(super) host: String,
    pub(super) instance: [u8; 16],
}

/// What the uplink tells of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct IdentityStatus {
    pub(super) report: IdentityReport,
    pub(super) fatal: Option<Fatal>,
    /// Links that were opened.
    pub(super) links: u64,
    /// End of the certificate in use.
    pub(super) not_after: Option<std::time::SystemTime>,
}

pub(super) struct Uplink {
    settings: Settings,
    accounts: Arc<Accounts>,
    latches: Latches,
    clock: SharedClock,
    entropy: SharedEntropy,
    status: watch::Sender<IdentityStatus>,
    /// Tells the certificate to engines that know the agent by it.
    shown: watch::Sender<Option<Arc<CertifiedKey>>>,
}

/// The certificate in use, and when to renew it.
struct Identity {
    certificate: Certificate,
    schedule: Schedule,
}

/// The link in use.
struct Current {
    generation: u64,
    since: Instant,
    session: bytes::Bytes,
    connection: Arc<Connection>,
    drain: CancellationToken,
}

/// What happens next to the identity.
enum Next {
    /// A certificate.
    Certified(Box<Identity>),
    /// No certificate, and none to be had.
    Never(Fatal),
    /// Told to stop.
    Stopped,
}

impl Uplink {
    pub(super) fn new(
        settings: Settings,
        accounts: Arc<Accounts>,
        latches: Latches,
        clock: SharedClock,
        entropy: SharedEntropy,
        shown: watch::Sender<Option<Arc<CertifiedKey>>>,
    ) -> Self {
        let status = watch::Sender::default();
        Self {
            settings,
            accounts,
            latches,
            clock,
            entropy,
            status,
            shown,
        }
    }

    pub(super) fn status(&self) -> watch::Receiver<IdentityStatus> {
        self.status.subscribe()
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(REDIAL.0, REDIAL.1, Arc::clone(&self.entropy))
    }

    /// Keeps a link open until `stop`, or until the hub refuses for good. Ends `clusters`, the
    /// connections that operations use, when the last operation is over.
    pub(super) async fn run(self, tasks: Tasks, clusters: Tasks, stop: CancellationToken) {
        // Links and their connections outlive `stop` for the time of their drain, so they are not
        // tasks of `tasks`.
        let links = Tasks::new();
        let _ends = (clusters.stop_on_drop(), links.stop_on_drop());
        let mut identity = match self.first(&tasks, &stop).await {
            Next::Certified(identity) => *identity,
            Next::Never(fatal) => {
                self.status.send_modify(|status| status.fatal = Some(fatal));
                return;
            }
            Next::Stopped => return,
        };
        let current = self.keep_linked(&mut identity, &tasks, &links, &stop).await;
        if let Some(link) = current {
            link.drain.cancel();
        }
        let _all_ended = links.drain_after(limits::DRAIN).await;
        let _all_ended = clusters.drain(CONNECT).await;
    }

    /// Keeps a link open until `stop`; gives the one that is open then.
    async fn keep_linked(
        &self,
        identity: &mut Identity,
        tasks: &Tasks,
        links: &Tasks,
        stop: &CancellationToken,
    ) -> Option<Current> {
        let shared = self.shared();
        let (directed, mut directives) = mpsc::channel(TOLD);
        let (ended, mut ends) = mpsc::channel(TOLD);
        let mut backoff = self.backoff();
        let mut current: Option<Current> = None;
        let mut dial_at = Instant::now();
        let mut renewal = Renewal::new(&self.entropy);
        loop {
            let due = renewal.due(&identity.schedule, &*self.clock);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(dial_at), if current.is_none() => {
                    let opening = self.open(identity, &shared, links);
                    let Some(opened) = stop.run_until_cancelled(opening).await else { break };
                    match opened {
                        Ok(link) => current = Some(self.start(link, links, &directed, &ended)),
                        Err(end) => {
                            dial_at = Instant::now() + self.after(end, identity, &mut backoff, tasks, stop).await;
                        }
                    }
                }
                Some((generation, end)) = ends.recv() => {
                    if let Some(lost) = current.take_if(|link| link.generation == generation) {
                        self.connected(false);
                        if lost.since.elapsed() >= STEADY { backoff.reset() }
                        dial_at = Instant::now() + self.after(end, identity, &mut backoff, tasks, stop).await;
                    }
                }
                Some(directive) = directives.recv() => {
                    if let Some(pause) = directed_by(directive, &mut renewal) {
                        if let Some(link) = current.take() { link.drain.cancel() }
                        self.connected(false);
                        dial_at = Instant::now() + pause;
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    if !renewal.is_asked() && !identity.schedule.is_due(self.clock.now()) { continue }
                    let renewing = self.renew(identity, current.as_ref(), &mut renewal, tasks);
                    let Some(renewed) = stop.run_until_cancelled(renewing).await else { break };
                    let Some(renewed) = renewed else { continue };
                    *identity = renewed;
                    // Make before break: the old link carries the feeds until they have moved.
                    let opening = self.open(identity, &shared, links);
                    let Some(opened) = stop.run_until_cancelled(opening).await else { break };
                    let old = match opened {
                        Ok(link) => current.replace(self.start(link, links, &directed, &ended)),
                        Err(end) => {
                            tracing::warn!(error = described(&end), "cannot connect with the new certificate yet; the old connection stays");
                            None
                        }
                    };
                    self.rotated(identity, old);
                }
            }
        }
        current
    }

    fn shared(&self) -> Arc<Shared> {
        Shared::new(
            SessionSettings {
                instance: self.settings.instance,
                host: self.settings.host.clone(),
            },
            self.accounts.offers.subscribe(),
            self.accounts.feeds.subscribe(),
            Arc::new(Port::new(Arc::clone(&self.accounts))),
            Arc::clone(&self.clock),
        )
    }

    fn connected(&self, connected: bool) {
        self.status
            .send_modify(|status| status.report.connected = connected);
        if connected {
            self.latches.close("hub");
        } else {
            self.latches.reopen("hub");
        }
    }

    fn rotated(&self, identity: &Identity, old: Option<Current>) {
        let serial = identity.certificate.serial();
        self.status.send_modify(|status| {
            let old = std::mem::replace(&mut status.report.serial, serial.clone());
            status.report.life = Some(identity.schedule.into());
            status.report.rotations += 1;
            tracing::info!(old, new = serial, "certificate rotated");
        });
        if let Some(old) = old {
            old.drain.cancel();
        }
    }

    async fn open(
        &self,
        identity: &Identity,
        shared: &Arc<Shared>,
        tasks: &Tasks,
    ) -> Result<Link, LinkEnd> {
        let lost = |error: &dyn std::error::Error| LinkEnd::Lost(Chain(error).to_string());
        let now = self.clock.now();
        let material = identity
            .certificate
            .material(now)
            .map_err(|error| lost(&error))?;
        let config =
            tls::data_client(&material, Arc::clone(&self.clock)).map_err(|error| lost(&error))?;
        let address = &self.settings.hub.data;
        let connection = connect(address, config, server_name(address)?, CONNECT, tasks).await;
        let connection = connection.map_err(|error| lost(&error))?;
        Link::open(shared, connection, tasks).await
    }

    fn start(
        &self,
        link: Link,
        links: &Tasks,
        directed: &mpsc::Sender<v1::directive::Directive>,
        ended: &mpsc::Sender<(u64, LinkEnd)>,
    ) -> Current {
        let current = Current {
            generation: link.generation(),
            since: Instant::now(),
            session: link.welcome().session.clone(),
            connection: link.connection(),
            drain: CancellationToken::new(),
        };
        tracing::info!(
            hub = link.welcome().hub,
            generation = current.generation,
            role = link.welcome().role().as_str_name(),
            "connected to the hub"
        );
        self.connected(true);
        self.status.send_modify(|status| status.links += 1);
        if link.welcome().role() == v1::InstanceRole::Standby {
            // A standby is ready to take over; it has no account to wait for.
            self.latches.close("accounts");
        }
        let (drain, directed, ended) = (current.drain.clone(), directed.clone(), ended.clone());
        links.spawn("link", move |stop| async move {
            let generation = link.generation();
            let running = link.run(drain, directed);
            let Some(end) = stop.run_until_cancelled(running).await else {
                return;
            };
            // The uplink is gone when it does not listen any more.
            let _gone = ended.send((generation, end)).await;
        });
        current
    }

    /// What a link's end asks for, and the pause before the next one.
    async fn after(
        &self,
        end: LinkEnd,
        identity: &mut Identity,
        backoff: &mut Backoff,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Duration {
        self.accounts.figures.ends.add([end.label()]);
        match end {
            LinkEnd::Drained => Duration::ZERO,
            LinkEnd::Banned(why) => {
                tracing::error!(
                    error = why,
                    "this agent is revoked; asking again in 10 minutes"
                );
                self.latches.reopen("identity");
                BANNED
            }
            LinkEnd::Refused(why) => {
                tracing::warn!(
                    error = why,
                    "the hub refuses the certificate; joining again"
                );
                self.latches.reopen("identity");
                match self.join(tasks, stop, false).await {
                    Next::Certified(joined) => {
                        *identity = *joined;
                        self.rotated(identity, None);
                        // This one may be refused as well, and every join is work for the hub.
                        backoff.next_pause()
                    }
                    Next::Never(fatal) => {
                        tracing::error!(
                            error = fatal.message,
                            "joining again was refused; asking again in 10 minutes"
                        );
                        BANNED
                    }
                    Next::Stopped => Duration::ZERO,
                }
            }
            LinkEnd::Lost(why) => {
                let pause = backoff.next_pause();
                tracing::warn!(error = why, retry_in = ?pause, hub = self.settings.hub.data, "not connected to the hub");
                pause
            }
        }
    }
}

/// Notes what the hub asks for; the pause before the next connection, if this one is to end.
fn directed_by(directive: v1::directive::Directive, renewal: &mut Renewal) -> Option<Duration> {
    use v1::directive::Directive as D;
    match directive {
        D::Rotate(_) => renewal.now(),
        D::Reattest(_) => renewal.join_now(),
        D::Drain(drain) => {
            tracing::info!("the hub drains");
            return Some(millis(drain.retry_after_millis));
        }
        D::Disconnect(told) => {
            tracing::warn!(reason = told.reason, "the hub disconnects");
            return Some(millis(told.retry_after_millis));
        }
        D::Role(role) => tracing::info!(role, "the hub gives another role"),
    }
    None
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

fn described(end: &LinkEnd) -> String {
    match end {
        LinkEnd::Lost(why) | LinkEnd::Refused(why) | LinkEnd::Banned(why) => why.clone(),
        LinkEnd::Drained => "drained".to_owned(),
    }
}

pub(super) fn server_name(address: &str) -> Result<ServerName<'static>, LinkEnd> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    ServerName::try_from(host)
        .map_err(|_malformed| LinkEnd::Lost(format!("`{address}` is not host:port")))
}
