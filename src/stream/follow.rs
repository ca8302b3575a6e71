//! Starts a watcher for each kind and scope of an account.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::feed::Feed;
use super::watch::{Shared, Watcher};
use crate::cluster::Cluster;
use crate::entropy::SharedEntropy;
use crate::policy::{AllowedKind, ScrubRules};
use crate::resource::Scope;
use crate::scrub::Filter;
use crate::tasks::Tasks;

impl Feed {
    /// Follows every object of `kind` within `scope` for as long as `tasks` run or the feed knows
    /// the kind.
    pub fn follow(
        self: &Arc<Self>,
        kind: &AllowedKind,
        scope: Scope,
        follow: &Follow,
        tasks: &Tasks,
    ) {
        let gvr = kind.kind().gvr.clone();
        let filter = follow.filter(kind);
        let stream = self.add(gvr, kind.kind().kind.clone(), scope);
        let shared = Shared {
            feed: Arc::clone(self),
            cluster: follow.cluster.clone(),
            snapshots: Arc::clone(&follow.snapshots),
            entropy: Arc::clone(&follow.entropy),
        };
        let watcher = Watcher::new(shared, stream, kind, filter);
        tasks.spawn("watch", |stop| watcher.run(stop));
    }
}

/// What all streams of an account are followed with.
#[derive(Clone, Debug)]
pub struct Follow {
    /// The connection to the API server, now and after a change of credential.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// Snapshots that may be under way at once.
    pub snapshots: Arc<Semaphore>,
    /// For jitter.
    pub entropy: SharedEntropy,
    /// What is removed.
    pub rules: Arc<ScrubRules>,
    /// Key of the content hash, random per process.
    pub hash_key: std::hash::RandomState,
}

impl Follow {
    fn filter(&self, kind: &AllowedKind) -> Filter {
        Filter::feed(
            Arc::clone(&self.rules),
            kind.kind().gvr.clone(),
            &kind.kind().kind,
            self.hash_key.clone(),
        )
    }
}
