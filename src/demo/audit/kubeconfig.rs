//! The few fields of a kubeconfig that a reader of a real cluster needs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::endpoint::{Credential, Endpoint};
use crate::secret::SecretBytes;
use crate::yaml::{self, Node, YamlError};

/// Fields of users that log in by neither a token nor a certificate in the file.
const OTHER_LOGINS: [&str; 4] = ["exec", "auth-provider", "tokenFile", "username"];

/// A context of a kubeconfig, ready to be read.
#[derive(Debug)]
pub struct Context {
    /// The context's name.
    pub name: String,
    /// Its cluster and what opens it.
    pub endpoint: Endpoint,
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// Not YAML.
    #[error("kubeconfig is not YAML that can be read")]
    Yaml(#[source] YamlError),
    /// No context was asked for, and the file names none.
    #[error("kubeconfig has no current context; name one")]
    NoContext,
    /// An entry that is referred to does not exist.
    #[error("kubeconfig has no entry `{name}` in `{list}`")]
    NoEntry {
        /// `contexts`, `clusters` or `users`.
        list: &'static str,
        /// The name that was looked for.
        name: String,
    },
    /// A field that is needed is missing.
    #[error(
        "kubeconfig entry in `{list}` has no `{field}`; `kubectl config view --raw --flatten` puts files inside"
    )]
    NoField {
        /// `contexts`, `clusters` or `users`.
        list: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The user logs in by a way that only some programs know.
    #[error(
        "kubeconfig user `{user}` logs in by `{way}`, and the demonstration only by `token` or \
         `client-certificate-data`; `kubectl create token` gives a token to write there"
    )]
    OtherLogin {
        /// The user's name.
        user: String,
        /// The field that says how it logs in.
        way: &'static str,
    },
    /// A `…-data` field is not base64 of text.
    #[error("kubeconfig field `{0}` is not base64 of PEM")]
    Data(&'static str),
}

impl Context {
    /// Reads the context `wanted`, or the current one, from the text of a kubeconfig.
    pub fn read(text: &str, wanted: Option<&str>) -> Result<Self, KubeconfigError> {
        let document = yaml::parse(text).map_err(KubeconfigError::Yaml)?;
        let current = document.get("current-context").and_then(Node::as_str);
        let name = wanted.or(current).filter(|name| !name.is_empty());
        let name = name.ok_or(KubeconfigError::NoContext)?;
        let context = entry(&document, "contexts", "context", name)?;
        let cluster = field(context, "contexts", "cluster")?;
        let user_name = field(context, "contexts", "user")?;
        let cluster = entry(&document, "clusters", "cluster", cluster)?;
        let user = entry(&document, "users", "user", user_name)?;
        let url = field(cluster, "clusters", "server")?.to_owned();
        let ca_pem = data(cluster, "clusters", "certificate-authority-data")?;
        Ok(Self {
            name: name.to_owned(),
            endpoint: Endpoint {
                url,
                ca_pem: String::from_utf8(ca_pem)
                    .map_err(|_binary| KubeconfigError::Data("certificate-authority-data"))?,
                credential: credential(user_name, user)?,
            },
        })
    }
}

fn credential(name: &str, user: &Node) -> Result<Credential, KubeconfigError> {
    if let Some(way) = OTHER_LOGINS.iter().find(|way| user.get(way).is_some()) {
        return Err(KubeconfigError::OtherLogin {
            user: name.to_owned(),
            way,
        });
    }
    if let Some(token) = user.get("token").and_then(Node::as_str) {
        return Ok(Credential::Token(SecretBytes::new(
            token.as_bytes().to_vec(),
        )));
    }
    let chain = data(user, "users", "client-certificate-data")?;
    let key = data(user, "users", "client-key-data")?;
    Ok(Credential::Certificate {
        chain_pem: String::from_utf8(chain)
            .map_err(|_binary| KubeconfigError::Data("client-certificate-data"))?,
        key_pem: SecretBytes::new(key),
    })
}

fn entry<'a>(
    document: &'a Node,
    list: &'static str,
    inside: &str,
    name: &str,
) -> Result<&'a Node, KubeconfigError> {
    let entries = document
        .get(list)
        .and_then(Node::as_list)
        .unwrap_or_default();
    let named = |entry: &&Node| entry.get("name").and_then(Node::as_str) == Some(name);
    let found = entries
        .iter()
        .find(named)
        .and_then(|entry| entry.get(inside));
    found.ok_or_else(|| KubeconfigError::NoEntry {
        list,
        name: name.to_owned(),
    })
}

fn field<'a>(
    node: &'a Node,
    list: &'static str,
    field: &'static str,
) -> Result<&'a str, KubeconfigError> {
    let text = node.get(field).and_then(Node::as_str);
    text.ok_or(KubeconfigError::NoField { list, field })
}

fn data(node: &Node, list: &'static str, name: &'static str) -> Result<Vec<u8>, KubeconfigError> {
    let text = field(node, list, name)?;
    BASE64
        .decode(text)
        .map_err(|_not_base64| KubeconfigError::Data(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
apiVersion: v1
kind: Config
current-context: one
contexts:
- name: one
  context: {cluster: c, user: tokened}
- name: two
  context: {cluster: c, user: certified}
- name: three
  context: {cluster: c, user: absent}
clusters:
- name: c
  cluster: {server: \"https://127.0.0.1:6443\", certificate-authority-data: Y2E=}
users:
- name: tokened
  user: {token: abc}
- name: certified
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
";

    #[test]
    fn the_current_or_the_named_context_is_read() {
        let one = Context::read(FILE, None).expect("reads");
        assert_eq!(
            (one.name.as_str(), one.endpoint.ca_pem.as_str()),
            ("one", "ca")
        );
        assert!(matches!(one.endpoint.credential, Credential::Token(_)));
        let two = Context::read(FILE, Some("two")).expect("reads");
        assert_eq!(two.endpoint.url, "https://127.0.0.1:6443");
        assert!(matches!(
            two.endpoint.credential,
            Credential::Certificate { .. }
        ));
    }

    #[test]
    fn what_is_missing_is_named() {
        let failure = Context::read(FILE, Some("three"))
            .expect_err("no user")
            .to_string();
        assert_eq!(failure, "kubeconfig has no entry `absent` in `users`");
        let without = FILE.replace("token: abc", "client-certificate: /c.pem");
        let failure = Context::read(&without, None)
            .expect_err("no credential")
            .to_string();
        assert!(failure.contains("`client-certificate-data`"), "{failure}");
        assert!(failure.contains("--flatten"), "{failure}");
        assert!(Context::read("a: b", None).is_err());
    }
    #[test]
    fn a_user_who_logs_in_by_a_command_is_told_of_tokens() {
        let command = FILE.replace("token: abc", "exec: {command: x}");
        let failure = Context::read(&command, None)
            .expect_err("another login")
            .to_string();
        assert!(
            failure.contains("user `tokened` logs in by `exec`"),
            "{failure}"
        );
        assert!(failure.contains("kubectl create token"), "{failure}");
    }
}
