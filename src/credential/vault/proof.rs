//! How a login is asked for: one request per method, with what proves who we are.

use std::path::Path;

use rustify::Endpoint;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::Mutex;
use vaultrs::api::AuthInfo;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::auth::oidc::requests::JWTLoginRequest;
use vaultrs::api::auth::userpass::requests::LoginRequest as LoginWithUserpassRequest;
use vaultrs::api::sys::requests::{UnwrapRequest, WrappingLookupRequest};

use super::client::{Client, exposed};
use super::failure::not_let_in;
use super::requests::CertificateLoginRequest;
use super::{Access, Proof};
use crate::credential::authorization::{read_file, read_token};
use crate::credential::fetch::Failure;
use crate::secret::SecretBytes;

/// Largest password that is read, in bytes.
const PASSWORD_BYTES: usize = 4096;

/// A secret id that was unwrapped; the token that held it is spent, so it is kept.
#[derive(Debug)]
struct Unwrapped {
    wrapping_token: SecretBytes,
    secret_id: SecretBytes,
}

/// Asks for logins.
#[derive(Debug, Default)]
pub(super) struct Prover {
    unwrapped: Mutex<Option<Unwrapped>>,
}

impl Prover {
    /// Logs in once.
    pub(super) async fn log_in(
        &self,
        access: &Access,
        mount: &str,
        proof: &Proof,
    ) -> Result<AuthInfo, Failure> {
        let asked = self.ask(access, mount.to_owned(), proof).await;
        asked
            .map_err(|failure| not_let_in(failure, refusal(proof)))?
            .ok_or(Failure::local("the login gave no usable token"))
    }

    async fn ask(
        &self,
        access: &Access,
        mount: String,
        proof: &Proof,
    ) -> Result<Option<AuthInfo>, Failure> {
        match proof {
            Proof::AppRole {
                role_id,
                secret_id_file,
                wrapped,
            } => {
                let written = token(secret_id_file).await?;
                let secret_id = if *wrapped {
                    self.unwrapped(access, &mount, written).await?
                } else {
                    exposed(&written)?
                };
                let request = LoginWithApproleRequest {
                    mount,
                    role_id: role_id.clone(),
                    secret_id,
                };
                send(access, request).await
            }
            Proof::Certificate { role } => {
                let role = role.clone();
                send(access, CertificateLoginRequest { mount, role }).await
            }
            Proof::Jwt { role, token_file } => {
                let (jwt, role) = (exposed(&token(token_file).await?)?, role.clone());
                send(access, JWTLoginRequest { mount, jwt, role }).await
            }
            Proof::Kubernetes { role, token_file } => {
                let (jwt, role) = (exposed(&token(token_file).await?)?, role.clone());
                send(access, LoginWithKubernetesRequest { mount, role, jwt }).await
            }
            Proof::Userpass {
                user,
                password_file,
            } => {
                let request = LoginWithUserpassRequest {
                    mount,
                    username: user.clone(),
                    password: exposed(&password(password_file).await?)?,
                };
                send(access, request).await
            }
        }
    }

    /// The secret id behind a wrapping token. A token is unwrapped once, its secret id serves every
    /// later login, until the file holds another token.
    async fn unwrapped(
        &self,
        access: &Access,
        mount: &str,
        wrapping_token: SecretBytes,
    ) -> Result<String, Failure> {
        let mut unwrapped = self.unwrapped.lock().await;
        if let Some(known) = &*unwrapped
            && is_same(&known.wrapping_token, &wrapping_token)
        {
            return exposed(&known.secret_id);
        }
        let Some(Value::String(secret_id)) = unwrap(access, mount, &wrapping_token)
            .await?
            .get_mut("secret_id")
            .map(Value::take)
        else {
            return Err(Failure::local(
                "what the token in `secret-id-file` wraps is not a secret id",
            ));
        };
        let secret_id = SecretBytes::new(secret_id.into_bytes());
        let text = exposed(&secret_id);
        *unwrapped = Some(Unwrapped {
            wrapping_token,
            secret_id,
        });
        text
    }
}

/// What a token wraps, if it is the method itself that wrapped it: who read a secret id on its way
/// and wrapped it again is found out by that.
async fn unwrap(
    access: &Access,
    mount: &str,
    wrapping_token: &SecretBytes,
) -> Result<Value, Failure> {
    let spent = |failure| {
        not_let_in(
            failure,
            "the wrapping token in `secret-id-file` is expired or was used before; if not by this agent, somebody else has the secret id: destroy it, and write a new wrapping token",
        )
    };
    let request = WrappingLookupRequest {
        token: exposed(wrapping_token)?,
    };
    let client = Client::build(access, None).await?;
    let about = client.ask(request).await.map_err(spent)?.data;
    let path = about.map(|about| about.creation_path).unwrap_or_default();
    if !path.contains(&format!("auth/{mount}/role/")) || !path.ends_with("secret-id") {
        return Err(Failure::local(
            "the token in `secret-id-file` was not wrapped by the method that is logged in to; somebody may have opened it on its way: destroy the secret id",
        ));
    }
    let client = Client::build(access, Some(wrapping_token)).await?;
    let answer = client.ask(UnwrapRequest { token: None }).await;
    Ok(answer.map_err(spent)?.data.unwrap_or_default())
}

async fn send<E: Endpoint>(access: &Access, request: E) -> Result<Option<AuthInfo>, Failure> {
    let client = Client::build(access, None).await?;
    Ok(client.ask(request).await?.auth)
}

/// What to look at when the engine does not let us in.
const fn refusal(proof: &Proof) -> &'static str {
    match proof {
        Proof::AppRole { .. } => {
            "the login was refused; `role-id` is wrong, or the secret id in `secret-id-file` is wrong, expired or used up: write a new one"
        }
        Proof::Certificate { .. } => {
            "the login was refused; look at its `role`, and whether that one trusts the certificate that is shown: the one in `certificate-file`, or the agent's own"
        }
        Proof::Jwt { .. } => {
            "the login was refused; look at its `role`, and the issuer, audience and subject that it is bound to"
        }
        Proof::Kubernetes { .. } => {
            "the login was refused; look at its `role`, and the service account that is bound to it"
        }
        Proof::Userpass { .. } => {
            "the login was refused; look at `user`, and the password in `password-file`"
        }
    }
}

async fn token(path: &Path) -> Result<SecretBytes, Failure> {
    let read = read_token(path).await;
    read.map_err(|_error| {
        Failure::local("the configured token file cannot be read or holds no token")
    })
}

/// A password may have spaces; a line's end after it is not part of it.
async fn password(path: &Path) -> Result<SecretBytes, Failure> {
    let unusable = Failure::local("the configured `password-file` cannot be read or is empty");
    let Ok(bytes) = read_file(path, PASSWORD_BYTES).await else {
        return Err(unusable);
    };
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(unusable);
    }
    Ok(SecretBytes::new(line.to_vec()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "only whether the file has changed; the older one is spent"
)]
fn is_same(spent: &SecretBytes, written: &SecretBytes) -> bool {
    spent.expose_secret() == written.expose_secret()
}
