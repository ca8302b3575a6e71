//! Who we are to AWS: the credentials that were found, or those of a role taken on with them.

use std::time::{Duration, SystemTime};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_sts::config::StalledStreamProtectionConfig;
use aws_sdk_sts::types::Credentials as Lent;
use http::Request;
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use super::failure::{from_library, from_status, of_login, of_source};
use super::wire::Wire;
use super::{Role, Settings, WebIdentity, domain};
use crate::clock::SharedClock;
use crate::credential::authorization::read_token;
use crate::credential::fetch::{Failure, FetchErrorKind};

/// How long before its expiry a login is renewed.
const RENEW_BEFORE: Duration = Duration::from_mins(5);

/// For how long a login has to be good yet to be used where no new one can be had.
const USABLE: Duration = Duration::from_secs(10);

/// What AWS's own records call our sessions.
const SESSION_NAME: &str = "sortie";

/// Who we are to AWS.
#[derive(Debug)]
pub(super) struct Login {
    settings: Settings,
    wire: Wire,
    clock: SharedClock,
    current: Mutex<Option<Credentials>>,
}

impl Login {
    pub(super) fn new(settings: Settings, clock: SharedClock) -> Self {
        Self {
            wire: Wire::new(&settings),
            settings,
            clock,
            current: Mutex::const_new(None),
        }
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) const fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The current credentials. Those without an expiry are looked up each time.
    pub(super) async fn credentials(&self) -> Result<Credentials, Failure> {
        let mut current = self.current.lock().await;
        let now = self.clock.now();
        let good_for = |time: Duration| {
            let kept = current.as_ref();
            kept.filter(|kept| kept.expiry().is_some_and(|end| end > now + time))
                .cloned()
        };
        if let Some(kept) = good_for(RENEW_BEFORE) {
            return Ok(kept);
        }
        match self.log_in().await {
            Ok(fresh) => {
                *current = fresh.expiry().map(|_end| fresh.clone());
                Ok(fresh)
            }
            Err(failure) => good_for(USABLE).ok_or(failure),
        }
    }

    /// Passes a failure on; credentials that were not accepted are not used again.
    pub(super) async fn judged(&self, failure: Failure) -> Failure {
        if failure.kind == FetchErrorKind::Unauthenticated {
            *self.current.lock().await = None;
        }
        failure
    }

    /// Whether anybody answers for `service`; nothing is said about who asks.
    pub(super) async fn reach(&self, service: &str) -> Result<(), Failure> {
        let settings = &self.settings;
        let address = settings.endpoint.clone().unwrap_or_else(|| {
            let domain = domain(&settings.region);
            format!("https://{service}.{}.{domain}", settings.region)
        });
        let request = Request::get(format!("{address}/"))
            .body(Vec::new())
            .map_err(|_error| Failure::unavailable("its address cannot be used"))?;
        let status = self.wire.send(request).await?.status();
        if status.is_server_error() {
            return Err(from_status(status.as_u16()));
        }
        Ok(())
    }

    /// Forgets the login.
    pub(super) async fn forget(&self) {
        *self.current.lock().await = None;
    }

    async fn log_in(&self) -> Result<Credentials, Failure> {
        let found = self.find().await?;
        match &self.settings.role {
            None => Ok(found),
            Some(role) => self.assume(role, found).await,
        }
    }

    /// Asks the sources in the order of AWS's Java library, which Clouddriver uses.
    async fn find(&self) -> Result<Credentials, Failure> {
        let environment = EnvironmentVariableCredentialsProvider::new();
        if let Some(found) = provided(environment).await? {
            return Ok(found);
        }
        if let Some(identity) = &self.settings.web_identity {
            return self.present(identity).await;
        }
        let config = self.provider_config(ProviderConfig::without_region());
        let profile = ProfileFileCredentialsProvider::builder().configure(&config);
        if let Some(found) = provided(profile.build()).await? {
            return Ok(found);
        }
        // Without a way to sleep it does not try again by itself.
        let once = self.provider_config(ProviderConfig::empty());
        let container = EcsCredentialsProvider::builder().configure(&once);
        if let Some(found) = provided(container.build()).await? {
            return Ok(found);
        }
        if self.settings.instance_metadata {
            let client = aws_config::imds::Client::builder()
                .configure(&config)
                .max_attempts(1);
            let instance = ImdsCredentialsProvider::builder()
                .configure(&config)
                .imds_client(client.build());
            if let Some(found) = provided(instance.build()).await? {
                return Ok(found);
            }
        }
        Err(Failure::local(
            "there are no AWS credentials: no AWS_ACCESS_KEY_ID, ~/.aws, IRSA or pod identity; on \
             EC2 set `instance-metadata: true`",
        ))
    }

    fn provider_config(&self, config: ProviderConfig) -> ProviderConfig {
        config
            .with_http_client(self.wire.clone())
            .with_region(Some(Region::new(self.settings.region.clone())))
            .with_retry_config(RetryConfig::disabled())
    }

    /// Shows the token of a service account.
    async fn present(&self, identity: &WebIdentity) -> Result<Credentials, Failure> {
        let unreadable = Failure::local("the file of AWS_WEB_IDENTITY_TOKEN_FILE holds no token");
        let Ok(token) = read_token(&identity.token_file).await else {
            return Err(unreadable);
        };
        #[expect(clippy::disallowed_methods, reason = "the library takes plain text")]
        let token = String::from_utf8(token.expose_secret().to_vec());
        let asked = self
            .sts(None)
            .assume_role_with_web_identity()
            .role_arn(&identity.role_arn)
            .role_session_name(SESSION_NAME)
            .web_identity_token(token.map_err(|_error| unreadable)?);
        match Box::pin(asked.send()).await {
            Ok(answer) => taken(answer.credentials),
            Err(error) => Err(of_login(from_library(&error))),
        }
    }

    async fn assume(&self, role: &Role, found: Credentials) -> Result<Credentials, Failure> {
        let asked = self
            .sts(Some(found))
            .assume_role()
            .role_arn(&role.arn)
            .set_external_id(role.external_id.clone())
            .role_session_name(SESSION_NAME);
        match Box::pin(asked.send()).await {
            Ok(answer) => taken(answer.credentials),
            Err(error) => Err(of_login(from_library(&error))),
        }
    }

    fn sts(&self, credentials: Option<Credentials>) -> aws_sdk_sts::Client {
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.settings.region.clone()))
            .http_client(self.wire.clone())
            .identity_cache(aws_sdk_sts::config::IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_endpoint_url(self.settings.sts_endpoint.clone());
        if let Some(credentials) = credentials {
            config = config.credentials_provider(credentials);
        }
        aws_sdk_sts::Client::from_conf(config.build())
    }
}

/// What a source gave; `None` where it is not configured.
async fn provided(source: impl ProvideCredentials) -> Result<Option<Credentials>, Failure> {
    let given = Box::pin(source.provide_credentials()).await;
    match given {
        Ok(credentials) => Ok(Some(credentials)),
        Err(error) => of_source(&error).map_or(Ok(None), Err),
    }
}

fn taken(lent: Option<Lent>) -> Result<Credentials, Failure> {
    let unusable = Failure::unavailable("what STS answered is not a login");
    let Some(lent) = lent else {
        return Err(unusable);
    };
    let Ok(expiry) = SystemTime::try_from(lent.expiration) else {
        return Err(unusable);
    };
    // Moved, not copied: the library's type of credentials is wiped when it is dropped.
    Ok(Credentials::builder()
        .access_key_id(lent.access_key_id)
        .secret_access_key(lent.secret_access_key)
        .session_token(lent.session_token)
        .expiry(expiry)
        .provider_name("sts")
        .build())
}
