//! Who a kubeconfig's user is.

use std::sync::Arc;

use super::field::At;
use super::{KubeconfigError, Profile, commands};
use crate::credential::authorization::{Auth, TokenFile};
use crate::credential::certificate::{self, Unusable};
use crate::secret::SecretBytes;

/// The one way in which this user proves who it is.
pub(super) fn auth(user: &At<'_>, profile: &Profile) -> Result<Auth, KubeconfigError> {
    user.only(&[
        "as",
        "as-groups",
        "as-uid",
        "as-user-extra",
        "auth-provider",
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "exec",
        "extensions",
        "password",
        "token",
        "tokenFile",
        "username",
    ])?;
    let mut ways = [
        commands::exec(user, profile)?,
        commands::auth_provider(user, profile)?,
        token(user)?,
        token_file(user, profile)?,
        password(user)?,
        client_certificate(user, profile)?,
    ]
    .into_iter()
    .flatten();
    let auth = ways.next().unwrap_or(Auth::Anonymous);
    if ways.next().is_some() {
        return Err(user.refuse("has more than one kind of credential"));
    }
    Ok(auth)
}

fn token(user: &At<'_>) -> Result<Option<Auth>, KubeconfigError> {
    let Some(token) = user.find("token") else {
        return Ok(None);
    };
    let text = token.text()?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(token.refuse("has characters that no token has"));
    }
    Ok(Some(Auth::Bearer(SecretBytes::new(
        text.as_bytes().to_vec(),
    ))))
}

fn token_file(user: &At<'_>, profile: &Profile) -> Result<Option<Auth>, KubeconfigError> {
    let Some(file) = user.find("tokenFile") else {
        return Ok(None);
    };
    let path = file.file_path(profile)?;
    Ok(Some(Auth::BearerFile(TokenFile::new(path))))
}

fn password(user: &At<'_>) -> Result<Option<Auth>, KubeconfigError> {
    let (name, password) = (user.find("username"), user.find("password"));
    let Some(name) = name else {
        return match password {
            None => Ok(None),
            Some(password) => Err(password.refuse("has no username beside it")),
        };
    };
    let user_name = name.text()?;
    if user_name.contains(':') {
        return Err(name.refuse("must not contain a colon"));
    }
    let password = user.need("password")?.text()?;
    let mut both = Vec::with_capacity(user_name.len() + 1 + password.len());
    both.extend_from_slice(user_name.as_bytes());
    both.push(b':');
    both.extend_from_slice(password.as_bytes());
    Ok(Some(Auth::Basic(SecretBytes::new(both))))
}

fn client_certificate(user: &At<'_>, profile: &Profile) -> Result<Option<Auth>, KubeconfigError> {
    let certificate = user.content("client-certificate-data", "client-certificate", profile)?;
    let key = user.content("client-key-data", "client-key", profile)?;
    let ((at, chain), (key_at, key)) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some((at, _)), None) => return Err(at.refuse("has no client key beside it")),
        (None, Some((at, _))) => return Err(at.refuse("has no client certificate beside it")),
    };
    let certified = certificate::pair(&chain, &key).map_err(|unusable| match unusable {
        Unusable::Chain(problem) => at.refuse(problem),
        Unusable::Key(problem) => key_at.refuse(problem),
    })?;
    Ok(Some(Auth::ClientCertificate(Arc::new(certified))))
}
