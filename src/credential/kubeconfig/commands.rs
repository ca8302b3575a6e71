//! Users who are found out by a command or a provider: what is served of them, and how.

use std::sync::Arc;

use super::field::At;
use super::{KubeconfigError, Profile, Relaxation, parse_roots};
use crate::credential::authorization::Auth;
use crate::credential::exec::Command;
use crate::credential::minted::{Minted, Minter};
use crate::credential::oidc::{Oidc, OidcSettings};
use crate::credential::server::Server;
use crate::secret::SecretBytes;

/// Most arguments of a command.
const ARGUMENTS: usize = 64;

/// The versions of the answer that are read.
const VERSIONS: [&str; 2] = [
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];

/// `exec`: minted by a connection in its place, or run if the account lists it; else refused.
pub(super) fn exec(user: &At<'_>, profile: &Profile) -> Result<Option<Auth>, KubeconfigError> {
    let Some(exec) = user.find("exec") else {
        return Ok(None);
    };
    let is_wanted = profile.allows(Relaxation::Exec) || profile.rules.token.is_some();
    if !is_wanted {
        return Err(KubeconfigError::Exec {
            path: exec.path(),
            line: exec.line(),
            command: spoken(&exec),
        });
    }
    exec.only(&[
        "apiVersion",
        "args",
        "command",
        "env",
        "installHint",
        "interactiveMode",
        "provideClusterInfo",
    ])?;
    let command = exec.need("command")?;
    let mut argv = vec![command.text()?];
    if let Some(arguments) = exec.find("args") {
        for argument in arguments.items()?.take(ARGUMENTS + 1) {
            argv.push(argument.text()?);
        }
    }
    let source = source(&exec, &argv, profile)?;
    Ok(Some(minted(source, profile)))
}

fn source(
    exec: &At<'_>,
    argv: &[&str],
    profile: &Profile,
) -> Result<Arc<dyn Minter>, KubeconfigError> {
    let (command, arguments) = argv.split_first().unwrap_or((&"", &[]));
    if let Some(minting) = &profile.rules.token {
        if !minting.replaces(command, arguments) {
            return Err(exec.refuse("is not the command that the account's `token` stands for"));
        }
        let tokens = profile.tokens.clone();
        return tokens.ok_or_else(|| {
            exec.refuse("needs the connection that the account's `token` names, which mints none")
        });
    }
    let listed = profile.rules.exec.iter().any(|listed| listed == argv);
    if !listed {
        return Err(
            exec.refuse("is not, word by word, one of the commands in the account's `exec`")
        );
    }
    let version = exec.need("apiVersion")?;
    let version = VERSIONS
        .into_iter()
        .find(|known| version.text().is_ok_and(|text| text == *known))
        .ok_or_else(|| version.refuse("is not client.authentication.k8s.io/v1"))?;
    if let Some(environment) = exec.find("env") {
        return Err(environment.refuse("sets variables; a command runs without any"));
    }
    if let Some(mode) = exec.find("interactiveMode")
        && mode.text()? == "Always"
    {
        return Err(mode.refuse("wants a person at a terminal"));
    }
    if let Some(info) = exec.find("provideClusterInfo")
        && info.is_true("is not true or false")?
    {
        return Err(info.refuse("is not supported"));
    }
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    Ok(Arc::new(Command::new(
        argv,
        version,
        Arc::clone(&profile.clock),
    )))
}

fn minted(source: Arc<dyn Minter>, profile: &Profile) -> Auth {
    Auth::Minted(Minted::new(source, Arc::clone(&profile.clock)))
}

/// The name of the command, if it looks like one.
fn spoken(exec: &At<'_>) -> String {
    let name = exec
        .find("command")
        .and_then(|command| command.text().ok())
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or_default();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(is_name) {
        name.to_owned()
    } else {
        "a command".to_owned()
    }
}

/// `auth-provider`: `OpenID` Connect; the others run commands and are refused.
pub(super) fn auth_provider(
    user: &At<'_>,
    profile: &Profile,
) -> Result<Option<Auth>, KubeconfigError> {
    let Some(provider) = user.find("auth-provider") else {
        return Ok(None);
    };
    provider.only(&["config", "name"])?;
    let name = provider.need("name")?;
    if name.text()? != "oidc" {
        return Err(name.refuse("is not supported; use a token or a client certificate"));
    }
    let config = provider.need("config")?;
    config.only(&[
        "client-id",
        "client-secret",
        "id-token",
        "idp-certificate-authority",
        "idp-certificate-authority-data",
        "idp-issuer-url",
        "refresh-token",
    ])?;
    let issuer = config.need("idp-issuer-url")?;
    let server = Server::parse(issuer.text()?, profile.exceptions());
    match server {
        Ok(server) if !server.is_plain() => {}
        Ok(_) | Err(_) => return Err(issuer.refuse("is not the https address of an issuer")),
    }
    let authority = config.content(
        "idp-certificate-authority-data",
        "idp-certificate-authority",
        profile,
    )?;
    let roots = match authority {
        Some((at, pem)) => Some(parse_roots(&pem).map_err(|problem| at.refuse(problem))?),
        None => None,
    };
    let secret = |key: &str| -> Result<Option<SecretBytes>, KubeconfigError> {
        let Some(field) = config.find(key) else {
            return Ok(None);
        };
        Ok(Some(SecretBytes::new(field.text()?.as_bytes().to_vec())))
    };
    let settings = OidcSettings {
        issuer: issuer.text()?.trim_end_matches('/').to_owned(),
        client_id: config.need("client-id")?.text()?.to_owned(),
        client_secret: secret("client-secret")?,
        refresh_token: secret("refresh-token")?.ok_or_else(|| {
            config.refuse("has no refresh-token; without one the id-token cannot be renewed")
        })?,
        id_token: secret("id-token")?,
        roots,
        exceptions: profile.exceptions(),
        purpose: profile.purpose,
    };
    let source = Oidc::new(settings, Arc::clone(&profile.clock));
    Ok(Some(minted(Arc::new(source), profile)))
}
