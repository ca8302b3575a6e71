//! The uplink's port for tunnelled operations.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::accounts::Accounts;
use crate::ops;
use crate::stream::Operations;
use crate::wire::v1;

/// Runs operations on the accounts that the workers serve.
#[derive(Debug)]
pub(super) struct Port(pub(super) Arc<Accounts>);

impl Operations for Port {
    fn run(
        &self,
        dispatch: v1::Dispatch,
        down: Streaming<v1::OperationDown>,
        up: mpsc::Sender<v1::OperationUp>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        let Some(context) = self.0.context(&dispatch.account) else {
            return Box::pin(refuse(dispatch.account, up));
        };
        Box::pin(ops::run(context, dispatch, down, up, stop))
    }
}

async fn refuse(account: String, up: mpsc::Sender<v1::OperationUp>) {
    let failure = v1::OperationFailure {
        kind: v1::OperationFailureKind::NoAccount.into(),
        message: format!("this agent does not serve the account `{account}` now"),
        field: String::new(),
    };
    let failure = v1::operation_up::Message::Failure(failure);
    // If the hub is gone, there is nobody to tell.
    let _gone = up
        .send(v1::OperationUp {
            message: Some(failure),
        })
        .await;
}
