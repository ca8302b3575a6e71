//! An account at the hub's facade, asked as a client of it, without kubectl.

use std::path::Path;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::fake::Client;
use super::https::Answer;
use super::kube::{Api, Watch};

/// One account, as its kubeconfig reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Facade {
    api: Api,
    prefix: String,
}

impl Facade {
    /// Of a kubeconfig that `sortie kubeconfig` wrote.
    pub(crate) fn of(kubeconfig: &Path) -> Self {
        let client = Client::read(kubeconfig);
        Self {
            api: Api::of(client.https()),
            prefix: client.path,
        }
    }

    /// One object, or a list.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.api.get(&format!("{}{path}", self.prefix)).await
    }

    /// The same, if it is answered 200.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Value> {
        let path = format!("{}{path}", self.prefix);
        let answer = self.api.try_ask(Method::GET, &path, None).await.ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// The same as it came.
    pub(crate) async fn read(&self, path: &str) -> Bytes {
        let path = format!("{}{path}", self.prefix);
        let answer = self.api.ask(Method::GET, &path, None).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.status);
        answer.body
    }

    /// Sends a body of this type.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: &Value,
    ) -> Answer {
        let path = format!("{}{path}", self.prefix);
        self.api.send(method, &path, kind, Some(body)).await
    }

    /// Watches a collection.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        self.api.watch(&format!("{}{path}", self.prefix)).await
    }
}
