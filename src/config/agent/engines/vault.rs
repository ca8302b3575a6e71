//! Vault and `OpenBao`.

use std::path::PathBuf;

use super::url;
use crate::config::agent::SERVICE_ACCOUNT;
use crate::config::reader::{Map, printable};
use crate::config::text::{path, text};
use crate::credential::vault::{AuthMethod, Settings};

/// Where the Kubernetes method is mounted, where the configuration says nothing else.
const MOUNT: &str = "kubernetes";

pub(super) const KEYS: [&str; 3] = ["address", "auth", "ca-file"];

pub(super) fn read(map: &Map<'_>) -> Option<Settings> {
    let address = map.required("address", url);
    let ca_file = map.required("ca-file", path);
    let auth = auth(&map.map("auth", &["method", "mount", "role", "token-file"]));
    Some(Settings {
        address: address?,
        ca_file: ca_file?,
        auth: auth?,
    })
}

fn auth(map: &Map<'_>) -> Option<AuthMethod> {
    let method = map.required("method", text)?;
    let foreign = |keys: &[&str]| {
        for key in keys.iter().filter(|key| map.field(key).is_some()) {
            map.tell(key, format!("does not belong to the method `{method}`"));
        }
    };
    match method.as_str() {
        "kubernetes" => {
            let mount = map.optional("mount", text);
            let token_file = map.optional("token-file", path);
            Some(AuthMethod::Kubernetes {
                role: map.required("role", text)?,
                mount: mount.unwrap_or_else(|| MOUNT.to_owned()),
                token_file: token_file
                    .unwrap_or_else(|| PathBuf::from(SERVICE_ACCOUNT).join("token")),
            })
        }
        "token" => {
            foreign(&["mount", "role"]);
            Some(AuthMethod::TokenFile(map.required("token-file", path)?))
        }
        other => {
            let got = printable(other);
            map.tell(
                "method",
                format!("must be `kubernetes` or `token`, got `{got}`"),
            );
            None
        }
    }
}
