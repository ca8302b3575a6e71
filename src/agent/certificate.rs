//! Accounts whose client certificates are made when they are needed: new connections in place of
//! those that show an old one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::rfc3339;
use crate::cluster::{Cluster, ClusterError};
use crate::fault::Chain;
use crate::retry;
use crate::tasks::Tasks;

/// Pause before a client certificate that does not work is tried again, or another one by then.
const PAUSE: Duration = Duration::from_secs(5);

/// Renews the client certificate of what is `in_use`, in time, and takes new connections into use.
///
/// In a task of its own: whoever follows the account would have to stop it for every news, and the
/// command that makes the certificate with it.
pub(super) fn follow(account: &str, in_use: watch::Sender<Arc<Cluster>>, tasks: &Tasks) {
    let account = account.to_owned();
    tasks.spawn("client-certificate", move |stop| async move {
        let _stopped = stop.run_until_cancelled(renew(&account, &in_use)).await;
    });
}

async fn renew(account: &str, in_use: &watch::Sender<Arc<Cluster>>) {
    let mut changes = in_use.subscribe();
    loop {
        let cluster = Arc::clone(&changes.borrow_and_update());
        tokio::select! {
            () = cluster.outlived() => {}
            _another_credential = changes.changed() => continue,
        }
        let renewed = match tried(&cluster).await {
            Ok(renewed) => renewed,
            Err(error) => {
                tracing::warn!(
                    account,
                    error = %Chain(&error),
                    "the new client certificate does not work; the old one stays in use"
                );
                retry::pause(PAUSE).await;
                continue;
            }
        };
        let expires = renewed.credential().expires().map(rfc3339);
        tracing::info!(account, expires, "client certificate renewed");
        in_use.send_if_modified(|now| {
            // Else another credential came meanwhile.
            let is_current = Arc::ptr_eq(now, &cluster);
            if is_current {
                *now = Arc::new(renewed);
            }
            is_current
        });
    }
}

/// The same cluster with the newest client certificate, which its API server accepts.
async fn tried(cluster: &Cluster) -> Result<Cluster, ClusterError> {
    let renewed = cluster.renewed().await?;
    renewed.uid().await?;
    Ok(renewed)
}
