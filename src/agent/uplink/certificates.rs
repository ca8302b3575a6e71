//! The certificates of the way to the hub: the kept one, the first, and each that replaces another.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{CONNECT, Current, Identity, Next, Uplink, described, server_name};
use crate::agent::Fatal;
use crate::agent::renewal::Renewal;
use crate::fault::Chain;
use crate::identity::channel::connect;
use crate::identity::client::{self, Applicant, Certificate, EnrolError};
use crate::identity::keep::{self, KeepError};
use crate::identity::renewal::Schedule;
use crate::identity::{KeyPair, tls};
use crate::retry::{Retry, pause_unless};
use crate::tasks::Tasks;

/// Time for one enrolment or renewal.
const CERTIFY: Duration = Duration::from_secs(15);

/// Share of a certificate's life after which renewal no longer relies on the certificate alone.
const JOIN_AFTER: f64 = 0.75;

impl Uplink {
    /// The certificate to start with: the kept one, or a new one.
    pub(super) async fn first(&self, tasks: &Tasks, stop: &CancellationToken) -> Next {
        if let Some(folder) = &self.settings.state_dir {
            let (name, pin) = (&self.settings.name, &self.settings.hub.root_spki_sha256);
            match keep::load(folder, name, pin, self.clock.now()) {
                Ok(Some(certificate)) => {
                    tracing::info!(serial = certificate.serial(), "identity kept from before");
                    return Next::Certified(Box::new(self.identity(certificate)));
                }
                Ok(None) => {}
                // It stays where it is until there is another.
                Err(error @ KeepError::OtherRoot { .. }) => {
                    tracing::warn!(error = %Chain(&error), "the kept identity is of no use at this hub; joining anew");
                }
                Err(error) => {
                    return Next::Never(Fatal {
                        message: Chain(&error).to_string(),
                    });
                }
            }
        }
        self.join(tasks, stop, true).await
    }

    fn identity(&self, certificate: Certificate) -> Identity {
        let (from, until) = (certificate.issued_at(), certificate.not_after());
        let schedule = Schedule::draw(from, until, &*self.entropy);
        self.latches.close("identity");
        self.shown
            .send_replace(Some(Arc::new(certificate.certified())));
        self.status.send_if_modified(|status| {
            status.not_after = Some(until);
            let first = status.report.serial.is_empty();
            if first {
                status.report.serial = certificate.serial();
                status.report.life = Some(schedule.into());
            }
            first
        });
        if let Some(folder) = &self.settings.state_dir
            && let Err(error) = keep::save(folder, &certificate)
        {
            tracing::error!(error = %Chain(&error), "cannot keep the identity; after a restart the agent has to join again");
        }
        Identity {
            certificate,
            schedule,
        }
    }

    /// Joins, as often as it takes; a refusal is final if this is the `first` certificate.
    pub(super) async fn join(&self, tasks: &Tasks, stop: &CancellationToken, first: bool) -> Next {
        let mut backoff = self.backoff();
        // One key for all attempts: the hub may have spent the token on it already.
        let Ok(key) = KeyPair::generate() else {
            return Next::Never(Fatal {
                message: "cannot make a key".to_owned(),
            });
        };
        loop {
            let joining = tokio::time::timeout(CERTIFY, self.join_once(&key, tasks));
            let Some(joined) = stop.run_until_cancelled(joining).await else {
                return Next::Stopped;
            };
            let why = match joined {
                Ok(Ok(certificate)) => {
                    tracing::info!(id = %certificate.id(), serial = certificate.serial(), "enrolled");
                    return Next::Certified(Box::new(self.identity(certificate)));
                }
                Ok(Err(JoinError::Refused(message))) => {
                    return Next::Never(self.refused(message, first));
                }
                Ok(Err(JoinError::Again(message))) => message,
                Err(_) => "the hub did not answer within 15 s".to_owned(),
            };
            let pause = backoff.next_pause();
            tracing::warn!(error = why, retry_in = ?pause, hub = self.settings.hub.enrol, "not enrolled yet");
            if !pause_unless(stop, pause).await {
                return Next::Stopped;
            }
        }
    }

    fn refused(&self, mut message: String, first: bool) -> Fatal {
        let lost = first && self.settings.evidence.is_spent() && self.settings.state_dir.is_none();
        if lost && message.contains("TokenUsed") {
            message.push_str("; without `state-dir` an agent loses its key when it restarts");
        }
        Fatal { message }
    }

    async fn join_once(&self, key: &KeyPair, tasks: &Tasks) -> Result<Certificate, JoinError> {
        let again = |error: &dyn std::error::Error| JoinError::Again(Chain(error).to_string());
        let pin = self.settings.hub.root_spki_sha256;
        let evidence = self.settings.evidence.show(&pin);
        let evidence = evidence.map_err(|error| again(&error))?;
        let config =
            tls::enrol_client(pin, Arc::clone(&self.clock)).map_err(|error| again(&error))?;
        let address = &self.settings.hub.enrol;
        let name = server_name(address).map_err(|end| JoinError::Again(described(&end)))?;
        let connection = connect(address, config, name, CONNECT, tasks).await;
        let connection = connection.map_err(|error| again(&error))?;
        let applicant = Applicant {
            name: self.settings.name.clone(),
            instance: self.settings.instance.to_vec().into(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.settings.host.clone(),
            root_spki_sha256: pin,
        };
        let enrolled = client::enrol(&connection, &evidence, key, &applicant, &*self.clock).await;
        match enrolled {
            Ok(enrolled) => {
                if enrolled.clock_offset.size() > Duration::from_mins(1) {
                    tracing::warn!(offset = ?enrolled.clock_offset.size(), "this machine's clock differs from the hub's");
                }
                Ok(enrolled.certificate)
            }
            Err(error @ EnrolError::Refused { .. }) => {
                Err(JoinError::Refused(Chain(&error).to_string()))
            }
            Err(error) if error.retry() == Retry::Never => {
                Err(JoinError::Refused(Chain(&error).to_string()))
            }
            Err(error) => Err(again(&error)),
        }
    }

    /// Renews over the link; past three quarters of the life, or when told to, joins instead.
    pub(super) async fn renew(
        &self,
        identity: &Identity,
        current: Option<&Current>,
        renewal: &mut Renewal,
        tasks: &Tasks,
    ) -> Option<Identity> {
        let now = self.clock.now();
        let late = identity.schedule.elapsed(now) > JOIN_AFTER;
        let by_link = match current {
            Some(link) if !renewal.is_by_joining() => {
                Some(self.renew_by_link(identity, link).await)
            }
            _ => None,
        };
        let outcome = match by_link {
            Some(Err(why)) if late && !self.settings.evidence.is_spent() => {
                tracing::warn!(error = why, "renewal failed; joining again");
                self.renew_by_joining(tasks).await
            }
            Some(outcome) => outcome,
            None if renewal.is_by_joining() || late => self.renew_by_joining(tasks).await,
            None => Err("not connected to the hub".to_owned()),
        };
        match outcome {
            Ok(certificate) => {
                renewal.done();
                Some(self.identity(certificate))
            }
            Err(why) => {
                let pause = renewal.failed(&identity.schedule, now);
                tracing::warn!(error = why, retry_in = ?pause, "certificate not renewed yet");
                None
            }
        }
    }

    async fn renew_by_link(
        &self,
        identity: &Identity,
        link: &Current,
    ) -> Result<Certificate, String> {
        let key = KeyPair::generate().map_err(|error| Chain(&error).to_string())?;
        let (session, now) = (link.session.clone(), self.clock.now());
        let renewing = client::renew(&link.connection, session, &key, &identity.certificate, now);
        match tokio::time::timeout(CERTIFY, renewing).await {
            Ok(renewed) => renewed.map_err(|error| Chain(&error).to_string()),
            Err(_) => Err("the hub did not answer within 15 s".to_owned()),
        }
    }

    async fn renew_by_joining(&self, tasks: &Tasks) -> Result<Certificate, String> {
        let key = KeyPair::generate().map_err(|error| Chain(&error).to_string())?;
        match tokio::time::timeout(CERTIFY, self.join_once(&key, tasks)).await {
            Ok(Ok(certificate)) => Ok(certificate),
            Ok(Err(JoinError::Refused(why) | JoinError::Again(why))) => Err(why),
            Err(_) => Err("the hub did not answer within 15 s".to_owned()),
        }
    }
}

/// Why joining did not work.
enum JoinError {
    /// Not with this evidence.
    Refused(String),
    /// Perhaps later.
    Again(String),
}
