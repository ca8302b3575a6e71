//! Access tokens by Google's own library, kept to what we let it do.
//!
//! The library renews a token in a task that it starts itself, without a deadline, and that keeps
//! token and key until the token has expired. So each login has a small runtime of its own: when it
//! is dropped, so are the library's tasks and connections.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use google_cloud_auth::credentials::service_account::AccessSpecifier;
use google_cloud_auth::credentials::{
    AccessToken, AccessTokenCredentials, Builder, external_account, mds, service_account,
};
use google_cloud_auth::errors::CredentialsError;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::AuthMethod;
use crate::credential::authorization::read_file;
use crate::credential::fetch::Failure;
use crate::credential::transport::is_untrusted;
use crate::secret::{SecretBytes, clear_registers};

/// Time for one answer of the token service: less than an errand has, so that a login that hangs
/// is seen here and given up.
const DEADLINE: Duration = Duration::from_secs(4);

/// Largest account file that is read, in bytes. Key files are about 2.4 KiB.
const FILE_BYTES: usize = 64 * 1024;

/// Threads that the library may use for files and name look-ups.
const BLOCKING_THREADS: usize = 2;

/// A login, made when first needed.
#[derive(Debug)]
pub(super) struct Login {
    auth: AuthMethod,
    scope: &'static str,
    /// Another metadata server than Google's, for tests.
    metadata: Option<String>,
    pub(super) deadline: Duration,
    held: Mutex<Option<Library>>,
}

impl Login {
    /// Nothing is read or dialled yet. `scope` is the OAuth scope of the tokens.
    pub(super) const fn new(auth: AuthMethod, scope: &'static str) -> Self {
        Self {
            auth,
            scope,
            metadata: None,
            deadline: DEADLINE,
            held: Mutex::const_new(None),
        }
    }

    /// As [`Login::new`], by the metadata server at `address`.
    #[cfg(test)]
    pub(super) fn of_metadata(address: String, scope: &'static str) -> Self {
        Self {
            metadata: Some(address),
            ..Self::new(AuthMethod::Metadata, scope)
        }
    }

    /// An access token that has not expired; the library renews it four minutes before that.
    ///
    /// # Errors
    /// `Unauthenticated` where the file or the token service says no, `Unavailable` where the
    /// service does not answer.
    pub(super) async fn token(&self) -> Result<SecretBytes, Failure> {
        let mut held = self.held.lock().await;
        // Taken, so that a caller who gives up drops a login that may hang.
        let library = match held.take() {
            Some(library) => library,
            None => self.start().await?,
        };
        let asking = AssertUnwindSafe(library.credentials.access_token()).catch_unwind();
        let token = match tokio::time::timeout(self.deadline, asking).await {
            Ok(Ok(Ok(token))) => sealed(token)?,
            Ok(Ok(Err(error))) => return Err(self.refused(&error)),
            // It panics where its HTTP client cannot be made.
            Ok(Err(_panic)) => {
                return Err(Failure::unavailable(
                    "Google's library broke down; it needs the certificate authorities of the system",
                ));
            }
            Err(_elapsed) => {
                return Err(Failure::unavailable(
                    "Google's token service did not answer in time",
                ));
            }
        };
        *held = Some(library);
        Ok(token)
    }

    /// Makes the next token come from a new login, which reads the file again.
    pub(super) async fn forget(&self) {
        *self.held.lock().await = None;
    }

    async fn start(&self) -> Result<Library, Failure> {
        let file = match &self.auth {
            AuthMethod::Default | AuthMethod::Metadata => None,
            AuthMethod::KeyFile(path) => Some(account_file(path, "service_account").await?),
            AuthMethod::Federation(path) => Some(account_file(path, "external_account").await?),
        };
        let unusable = |_error| Failure::unavailable("the login cannot be started");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("google-login")
            .on_thread_park(clear_registers)
            .enable_all()
            .build()
            .map_err(unusable)?;
        let library = Library::of(runtime, |scopes| self.build(file, scopes), self.scope);
        library.ok_or(Failure::local(self.hint()))
    }

    fn build(&self, file: Option<Value>, scopes: [&str; 1]) -> Option<AccessTokenCredentials> {
        let built = match (&self.auth, file) {
            (AuthMethod::KeyFile(_), Some(file)) => service_account::Builder::new(file)
                .with_access_specifier(AccessSpecifier::from_scopes(scopes))
                .build_access_token_credentials(),
            (AuthMethod::Federation(_), Some(file)) => external_account::Builder::new(file)
                .with_scopes(scopes)
                .build_access_token_credentials(),
            (AuthMethod::Metadata, _) => {
                let builder = mds::Builder::default().with_scopes(scopes);
                match &self.metadata {
                    Some(address) => builder.with_endpoint(address.as_str()),
                    None => builder,
                }
                .build_access_token_credentials()
            }
            _ => Builder::default()
                .with_scopes(scopes)
                .build_access_token_credentials(),
        };
        built.ok()
    }

    /// Reads the class of `error`; the answers that it quotes are dropped.
    fn refused(&self, error: &CredentialsError) -> Failure {
        if is_untrusted(error) {
            return Failure::unavailable(
                "the certificate of Google's token service is not one that this system trusts",
            );
        }
        let broken = http_error(error).is_some_and(|error| error.status().is_none());
        if error.is_transient() || broken {
            return Failure::unavailable(match self.auth {
                AuthMethod::Metadata => {
                    "the metadata server does not work, or this is no machine \
                                         or pod of Google's"
                }
                _ => "Google's token service does not work or cannot be reached",
            });
        }
        Failure::local(self.hint())
    }

    const fn hint(&self) -> &'static str {
        match self.auth {
            AuthMethod::Default => {
                "look at the application default credentials, or choose another `auth.method`"
            }
            AuthMethod::Federation(_) => {
                "the federation was refused; look at `auth.file`, at the token it names, and at \
                 the pool's conditions"
            }
            AuthMethod::KeyFile(_) => "look at the key in `auth.file`",
            AuthMethod::Metadata => {
                "the metadata server gives no token; has the machine or pod a service account?"
            }
        }
    }
}

/// The library at work, with everything that it has started.
#[derive(Debug)]
struct Library {
    credentials: AccessTokenCredentials,
    runtime: Option<Runtime>,
}

impl Library {
    /// Its tasks are started on the runtime that is entered here.
    fn of(
        runtime: Runtime,
        build: impl FnOnce([&str; 1]) -> Option<AccessTokenCredentials>,
        scope: &str,
    ) -> Option<Self> {
        let credentials = {
            let _on_its_own = runtime.enter();
            build([scope])
        };
        let Some(credentials) = credentials else {
            runtime.shutdown_background();
            return None;
        };
        Some(Self {
            credentials,
            runtime: Some(runtime),
        })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Reads an account file of one type, and refuses what the library would do beyond asking Google.
async fn account_file(path: &Path, kind: &str) -> Result<Value, Failure> {
    let Ok(bytes) = read_file(path, FILE_BYTES).await else {
        return Err(Failure::local("the configured `auth.file` cannot be read"));
    };
    let Ok(file) = serde_json::from_slice::<Value>(&bytes) else {
        return Err(Failure::local("the configured `auth.file` is not JSON"));
    };
    if file.get("type").and_then(Value::as_str) != Some(kind) {
        return Err(Failure::local(
            "the configured `auth.file` is not of the type that `auth.method` needs: a key is \
             `service_account`, a federation `external_account`",
        ));
    }
    let source = file.get("credential_source");
    if source.is_some_and(|source| source.get("executable").is_some()) {
        return Err(Failure::local(
            "the configured `auth.file` asks for a command, which is never run; use a file or URL",
        ));
    }
    let is_bare = |key: &&str| {
        let url = file.get(*key).and_then(Value::as_str);
        url.is_some_and(|url| !url.starts_with("https://"))
    };
    if ["token_url", "service_account_impersonation_url"]
        .iter()
        .any(is_bare)
    {
        return Err(Failure::local(
            "an address in the configured `auth.file` does not begin with https://",
        ));
    }
    Ok(file)
}

fn sealed(token: AccessToken) -> Result<SecretBytes, Failure> {
    let bytes = SecretBytes::new(token.token.into_bytes());
    if bytes.is_empty() {
        return Err(Failure::local("the token service gave an empty token"));
    }
    Ok(bytes)
}

/// The HTTP error among the causes, if there is one.
fn http_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a reqwest::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<reqwest::Error>() {
            return Some(http);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests;
