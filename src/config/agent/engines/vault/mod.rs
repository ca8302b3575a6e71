//! Vault and `OpenBao`.

use std::path::PathBuf;

use serde_json::{Map as Json, Value, json};

use super::url;
use crate::config::agent::SERVICE_ACCOUNT;
use crate::config::reader::{Field, Map, Parsed, printable};
use crate::config::text::{boolean, path, text};
use crate::credential::Identity;
use crate::credential::vault::{AuthMethod, Proof, Settings};

pub(super) const KEYS: [&str; 6] = [
    "address",
    "auth",
    "ca-file",
    "certificate-file",
    "key-file",
    "namespace",
];

/// Every key of `auth`, of whatever method.
const AUTH_KEYS: [&str; 9] = [
    "method",
    "mount",
    "password-file",
    "role",
    "role-id",
    "secret-id-file",
    "secret-id-wrapped",
    "token-file",
    "user",
];

pub(super) fn read(map: &Map<'_>) -> Option<Settings> {
    let address = map.required("address", url);
    let namespace = map.optional("namespace", segments);
    let ca_file = map.required("ca-file", path);
    let files = identity(map);
    let auth = auth(&map.map("auth", &AUTH_KEYS))?;
    Some(Settings {
        address: address?,
        namespace,
        ca_file: ca_file?,
        certificate: files.or_else(|| is_by_certificate(&auth).then_some(Identity::Own)),
        auth,
    })
}

const fn is_by_certificate(auth: &AuthMethod) -> bool {
    matches!(
        auth,
        AuthMethod::Login {
            proof: Proof::Certificate { .. },
            ..
        }
    )
}

fn identity(map: &Map<'_>) -> Option<Identity> {
    let both = ["certificate-file", "key-file"];
    if both.iter().all(|key| map.field(key).is_none()) {
        return None;
    }
    let [certificate_file, key_file] = both.map(|key| map.required(key, path));
    Some(Identity::Files {
        certificate_file: certificate_file?,
        key_file: key_file?,
    })
}

fn auth(map: &Map<'_>) -> Option<AuthMethod> {
    let method = map.required("method", text)?;
    let own: &[&str] = match method.as_str() {
        "approle" => &["mount", "role-id", "secret-id-file", "secret-id-wrapped"],
        "cert" => &["mount", "role"],
        "jwt" | "kubernetes" => &["mount", "role", "token-file"],
        "token" => &["token-file"],
        "userpass" => &["mount", "password-file", "user"],
        other => {
            let got = printable(other);
            map.tell(
                "method",
                format!(
                    "must be `approle`, `cert`, `jwt`, `kubernetes`, `token` or `userpass`, got \
                     `{got}`"
                ),
            );
            return None;
        }
    };
    for key in AUTH_KEYS {
        let is_foreign = key != "method" && !own.contains(&key);
        if is_foreign && map.field(key).is_some() {
            map.tell(key, format!("does not belong to the method `{method}`"));
        }
    }
    if method == "token" {
        return Some(AuthMethod::TokenFile(map.required("token-file", path)?));
    }
    let mount = map.optional("mount", segments);
    let proof = proof(map, &method);
    Some(AuthMethod::Login {
        mount: mount.unwrap_or(method),
        proof: proof?,
    })
}

fn proof(map: &Map<'_>, method: &str) -> Option<Proof> {
    let proof = match method {
        "approle" => {
            let role_id = map.required("role-id", text);
            let secret_id_file = map.required("secret-id-file", path);
            Proof::AppRole {
                role_id: role_id?,
                secret_id_file: secret_id_file?,
                wrapped: map.optional("secret-id-wrapped", boolean).unwrap_or(false),
            }
        }
        "cert" => Proof::Certificate {
            role: map.optional("role", text),
        },
        "jwt" => Proof::Jwt {
            role: map.optional("role", text),
            token_file: map.required("token-file", path)?,
        },
        "userpass" => {
            let user = map.required("user", segment);
            let password_file = map.required("password-file", path);
            Proof::Userpass {
                user: user?,
                password_file: password_file?,
            }
        }
        _ => {
            let token_file = map.optional("token-file", path);
            Proof::Kubernetes {
                role: map.required("role", text)?,
                token_file: token_file
                    .unwrap_or_else(|| PathBuf::from(SERVICE_ACCOUNT).join("token")),
            }
        }
    };
    Some(proof)
}

/// The settings as they would be written.
pub(in crate::config::agent) fn value(engine: &Settings) -> Json<String, Value> {
    let mut map = Json::from_iter([
        ("address".to_owned(), json!(engine.address)),
        ("ca-file".to_owned(), json!(engine.ca_file)),
        ("auth".to_owned(), auth_value(&engine.auth)),
    ]);
    if let Some(Identity::Files {
        certificate_file,
        key_file,
    }) = &engine.certificate
    {
        map.insert("certificate-file".to_owned(), json!(certificate_file));
        map.insert("key-file".to_owned(), json!(key_file));
    }
    if let Some(namespace) = &engine.namespace {
        map.insert("namespace".to_owned(), json!(namespace));
    }
    map
}

fn auth_value(auth: &AuthMethod) -> Value {
    let (mount, proof) = match auth {
        AuthMethod::Login { mount, proof } => (mount, proof),
        AuthMethod::TokenFile(path) => return json!({ "method": "token", "token-file": path }),
    };
    let mut value = match proof {
        Proof::AppRole {
            role_id,
            secret_id_file,
            wrapped,
        } => json!({
            "method": "approle", "role-id": role_id, "secret-id-file": secret_id_file,
            "secret-id-wrapped": wrapped,
        }),
        Proof::Certificate { role } => json!({ "method": "cert", "role": role }),
        Proof::Jwt { role, token_file } => {
            json!({ "method": "jwt", "role": role, "token-file": token_file })
        }
        Proof::Kubernetes { role, token_file } => {
            json!({ "method": "kubernetes", "role": role, "token-file": token_file })
        }
        Proof::Userpass {
            user,
            password_file,
        } => json!({ "method": "userpass", "user": user, "password-file": password_file }),
    };
    if let Some(map) = value.as_object_mut() {
        map.insert("mount".to_owned(), json!(mount));
        map.retain(|_key, value| !value.is_null());
    }
    value
}

/// Part of a path, of one or more segments.
fn segments(field: &Field<'_>) -> Parsed<String> {
    let text = text(field)?;
    let text = text.trim_matches('/');
    let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
    if text.split('/').any(is_odd) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be names without spaces, with `/` between them".to_owned());
    }
    Ok(text.to_owned())
}

/// As [`segments`], of one only.
fn segment(field: &Field<'_>) -> Parsed<String> {
    let text = segments(field)?;
    if text.contains('/') {
        return Err("must be a name without `/`".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
