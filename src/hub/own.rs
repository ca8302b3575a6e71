//! The hub's own certificate: made at the start, and made anew in time, by the wall clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::DnsName;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::start::StartError;
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::fault::Chain;
use crate::identity::profile::BACKDATE;
use crate::identity::renewal::Schedule;
use crate::identity::tls::{Material, Published};
use crate::identity::{Issuer, KeyPair, Order, Role, SpiffeId};
use crate::retry::{Backoff, pause_unless};
use crate::telemetry::finding::spoken;

/// How often the wall clock is looked at: timers stand still while a machine sleeps, and do not
/// notice a clock that is set.
const LOOK: Duration = Duration::from_secs(30);

/// Pauses after a failed renewal, the first and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// The names for the hub's certificate, host names and addresses apart.
pub(super) fn hosts(names: &[String]) -> Result<(Vec<DnsName<'static>>, Vec<IpAddr>), StartError> {
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    for name in names {
        match name.parse::<IpAddr>() {
            Ok(ip) => ips.push(ip),
            Err(_) => dns.push(
                DnsName::try_from(name.clone())
                    .map_err(|_malformed| StartError::HostName(name.clone()))?,
            ),
        }
    }
    Ok((dns, ips))
}

/// A new key and a certificate for it, which would pass the checks of peers.
pub(super) async fn material(
    settings: &Settings,
    issuer: &dyn Issuer,
    clock: &SharedClock,
) -> Result<Material, StartError> {
    let key = KeyPair::generate()?;
    let (dns, ips) = hosts(&settings.names)?;
    let id = SpiffeId {
        trust_domain: settings.trust_domain.clone(),
        role: Role::Hub,
        name: settings.name.clone(),
    };
    let ttl = settings.certificates.hub;
    let order = Order {
        public_key: key.public_key().clone(),
        id,
        dns,
        ips,
        ttl,
    };
    let issued = issuer.issue(&order).await?;
    Ok(Material::new(
        &key,
        &issued.chain,
        issuer.roots(),
        clock.now(),
    )?)
}

/// Keeps the published certificate in force.
pub(super) struct Renewal {
    pub(super) settings: Settings,
    pub(super) issuer: Arc<dyn Issuer>,
    pub(super) published: Published,
    pub(super) clock: SharedClock,
    pub(super) entropy: SharedEntropy,
}

impl Renewal {
    /// Renews at about half of each certificate's life, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1, Arc::clone(&self.entropy));
        loop {
            let until = self.published.load().not_after();
            let schedule = Schedule::draw(self.clock.now(), until, &*self.entropy);
            if let Some(left) = self.issuer.ends_soon(self.clock.now()) {
                tracing::warn!(
                    left = spoken(left),
                    "the intermediate certificate ends and is not renewed here: replace `intermediate.pem`, or put the root's key into `root.pem`, in `ca` of the state folder"
                );
            }
            if !self.due(&schedule, &stop).await {
                return;
            }
            while let Err(error) = self.renew().await {
                tracing::error!(error = %Chain(&error), "cannot renew the hub's certificate");
                if !backoff.wait(&stop).await {
                    return;
                }
            }
            backoff.reset();
            tracing::info!("hub certificate renewed");
        }
    }

    /// Waits until the certificate is to be renewed; false if `stop` comes first.
    async fn due(&self, schedule: &Schedule, stop: &CancellationToken) -> bool {
        loop {
            let now = self.clock.now();
            if is_due(schedule, now) {
                return true;
            }
            let pause = schedule.due_in(now).min(LOOK);
            if !pause_unless(stop, pause).await {
                return false;
            }
        }
    }

    async fn renew(&self) -> Result<(), StartError> {
        let fresh = material(&self.settings, &*self.issuer, &self.clock).await?;
        self.published.store(Arc::new(fresh));
        Ok(())
    }
}

/// Also where the clock was set back to before the certificate begins: peers refuse it then.
fn is_due(schedule: &Schedule, now: SystemTime) -> bool {
    schedule.is_due(now) || now + BACKDATE < schedule.issued_at()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arc_swap::ArcSwap;
    use tokio::time::timeout;

    use super::*;
    use crate::clock::{Clock as _, ManualClock, from_unix_seconds};
    use crate::entropy;
    use crate::hub::{Listen, Ttls};
    use crate::identity::Authority;

    fn settings(folder: &Path) -> Settings {
        let any = ([127, 0, 0, 1], 0).into();
        let day = Duration::from_hours(24);
        Settings {
            name: "hub-1".parse().unwrap(),
            trust_domain: "spinnaker.example".parse().unwrap(),
            names: vec!["localhost".to_owned()],
            state_dir: folder.to_owned(),
            listen: Listen {
                data: any,
                enrol: any,
                facade: any,
                health: any,
                metrics: any,
            },
            certificates: Ttls {
                agent: day,
                client: day,
                hub: day,
            },
            max_stale: day,
            frames: None,
        }
    }

    /// A hub's certificate of 24 hours at `at`, on a clock that is moved by hand.
    async fn certified(folder: &Path, at: SystemTime) -> (Renewal, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(at));
        let shared: SharedClock = clock.clone();
        let settings = settings(folder);
        let authority = Authority::open(
            &folder.join("ca"),
            settings.trust_domain.clone(),
            Arc::clone(&shared),
            entropy::system(),
        );
        let issuer: Arc<dyn Issuer> = Arc::new(authority.unwrap());
        let first = material(&settings, &*issuer, &shared).await.unwrap();
        let renewal = Renewal {
            settings,
            issuer,
            published: Arc::new(ArcSwap::from_pointee(first)),
            clock: shared,
            entropy: entropy::system(),
        };
        (renewal, clock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_slept_renews_within_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let (renewal, clock) = certified(folder.path(), from_unix_seconds(1_800_000_000)).await;
        let published = Arc::clone(&renewal.published);
        let first = published.load().not_after();
        let mut running = Box::pin(renewal.run(CancellationToken::new()));
        // Days of a timer, while the wall clock stands: nothing is due.
        let days = timeout(Duration::from_hours(48), &mut running).await;
        assert!(days.is_err() && published.load().not_after() == first);
        clock.advance(Duration::from_hours(23));
        let minute = timeout(Duration::from_mins(1), &mut running).await;
        let left = published.load().not_after().duration_since(clock.now());
        assert!(minute.is_err() && left.unwrap() > Duration::from_hours(23));
    }

    #[tokio::test]
    async fn an_intermediate_that_nobody_renews_is_told_in_the_last_third_of_its_life() {
        let folder = tempfile::tempdir().unwrap();
        let now = from_unix_seconds(1_800_000_000);
        drop(certified(folder.path(), now).await);
        let root = folder.path().join("ca").join("root.pem");
        let text = std::fs::read_to_string(&root).unwrap();
        let (certificate, _key) = text.split_once("-----BEGIN PRIVATE").unwrap();
        std::fs::write(&root, certificate).unwrap();
        let (renewal, clock) = certified(folder.path(), now).await;
        clock.advance(Duration::from_hours(59 * 24));
        renewal.renew().await.unwrap();
        assert_eq!(renewal.issuer.ends_soon(clock.now()), None);
        clock.advance(Duration::from_hours(2 * 24));
        renewal.renew().await.unwrap();
        let left = Duration::from_hours(29 * 24);
        assert_eq!(renewal.issuer.ends_soon(clock.now()), Some(left));
        std::fs::write(&root, text).unwrap();
        renewal.renew().await.unwrap();
        assert_eq!(renewal.issuer.ends_soon(clock.now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_ahead_leaves_no_certificate_of_the_future() {
        let folder = tempfile::tempdir().unwrap();
        let now = from_unix_seconds(1_800_000_000);
        let ahead = now + Duration::from_hours(2);
        let schedule = Schedule::draw(ahead, ahead + Duration::from_hours(24), &*entropy::system());
        assert!(is_due(&schedule, now));
        assert!(!is_due(&schedule, ahead - BACKDATE));
        let (renewal, _clock) = certified(folder.path(), now).await;
        let stop = CancellationToken::new();
        let due = timeout(Duration::from_secs(1), renewal.due(&schedule, &stop));
        assert!(due.await.unwrap());
    }
}
