//! An account at the hub's facade, asked as a client of it, without kubectl.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::kube::{Api, Watch};
use super::pki;

/// One account, as its kubeconfig reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Facade {
    api: Api,
    prefix: String,
}

impl Facade {
    /// Of a kubeconfig that `sortie kubeconfig` wrote.
    pub(crate) fn of(kubeconfig: &Path) -> Self {
        let text = fs::read_to_string(kubeconfig).expect("the kubeconfig is readable");
        let value = |key: &str| {
            let mark = format!("{key}: ");
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(&mark));
            line.unwrap_or_else(|| panic!("no `{key}`"))
                .trim_matches('"')
                .to_owned()
        };
        let pem = |key| STANDARD.decode(value(key)).expect("base64");
        let certificates = |pem: &[u8]| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .expect("certificates")
        };
        let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data")).expect("a key");
        let mut tls = pki::client_config_with(
            certificates(&pem("certificate-authority-data")),
            Some((certificates(&pem("client-certificate-data")), key)),
        );
        tls.alpn_protocols = vec![b"http/1.1".to_vec()]; // without, the hub refuses a connection
        let server = value("server");
        let (host, path) = server["https://".len()..].split_once('/').expect("a path");
        Self {
            api: Api::over(&format!("https://{host}"), tls),
            prefix: format!("/{path}"),
        }
    }

    /// One object, or a list.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.api.get(&format!("{}{path}", self.prefix)).await
    }

    /// The same as it came.
    pub(crate) async fn read(&self, path: &str) -> Bytes {
        let path = format!("{}{path}", self.prefix);
        let answer = self.api.ask(Method::GET, &path, None).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.status);
        answer.body
    }

    /// Watches a collection.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        self.api.watch(&format!("{}{path}", self.prefix)).await
    }
}
