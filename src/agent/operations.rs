//! The uplink's port for tunnelled operations.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::accounts::Accounts;
use crate::ops::{self, Turns};
use crate::stream::{OperationDown, Operations};
use crate::wire::v1;

/// Runs operations on the accounts that the workers serve.
#[derive(Debug)]
pub(super) struct Port {
    accounts: Arc<Accounts>,
    turns: Turns,
}

impl Port {
    pub(super) fn new(accounts: Arc<Accounts>) -> Self {
        let turns = Turns::default();
        Self { accounts, turns }
    }
}

impl Operations for Port {
    fn run(
        &self,
        dispatch: v1::Dispatch,
        down: OperationDown,
        up: mpsc::Sender<v1::OperationUp>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        let Some(context) = self.accounts.context(&dispatch.account) else {
            return Box::pin(refuse(dispatch.account, up));
        };
        Box::pin(ops::run(
            context,
            dispatch,
            down,
            up,
            self.turns.begin(),
            stop,
        ))
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
