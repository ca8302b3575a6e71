//! What clients did lately, for whoever watches the hub.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::facade::AuditRecord;
use crate::resource::{Scope, Verb};

/// Operations that are remembered one by one; all are counted.
const REMEMBERED: usize = 32;

/// Operations through the facade since the hub started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Gets, lists and watches.
    pub reads: u64,
    /// Everything else.
    pub writes: u64,
    /// Those of both that were answered with a status of 400 or more.
    pub failed: u64,
    /// The last of them, the newest at the end.
    pub last: VecDeque<Operation>,
}

/// One operation that was answered, or whose client went away. It never holds a body or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: String,
    /// Of which account.
    pub account: String,
    /// What for, as RBAC writes it; `request` if the path did not say.
    pub verb: &'static str,
    /// Path at the account's API server; empty if it named no resource.
    pub path: String,
    /// What was answered; 499 if the client went away before.
    pub status: u16,
    /// Where the answer came from: `facade`, `live` or `view`.
    pub served: &'static str,
    /// Time until the head of the answer.
    pub duration: Duration,
}

/// Takes note of operations.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Operations>);

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Operations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, record: &AuditRecord) {
        let operation = Operation {
            client: record.client.clone(),
            account: record.account.clone(),
            verb: record.verb.map_or("request", Verb::as_str),
            path: path(record),
            status: record.status.as_u16(),
            served: record.served.label(),
            duration: record.duration,
        };
        let mut operations = self.lock();
        match record.verb {
            Some(verb) if !verb.reads() => operations.writes += 1,
            Some(_) | None => operations.reads += 1,
        }
        if operation.status >= 400 {
            operations.failed += 1;
        }
        if operations.last.len() >= REMEMBERED {
            operations.last.pop_front();
        }
        operations.last.push_back(operation);
    }

    pub(super) fn operations(&self) -> Operations {
        self.lock().clone()
    }
}

fn path(record: &AuditRecord) -> String {
    let Some(gvr) = &record.gvr else {
        return String::new();
    };
    let scope = match &record.namespace {
        Some(namespace) => Scope::Namespace(namespace.clone()),
        None => Scope::Cluster,
    };
    let mut path = gvr.collection(&scope);
    for part in [&record.name, &record.subresource].into_iter().flatten() {
        path.push('/');
        path.push_str(part);
    }
    path
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::facade::Served;
    use crate::resource::Gvr;

    fn record(verb: Verb, name: &str, status: StatusCode) -> AuditRecord {
        AuditRecord {
            client: "visitor".into(),
            account: "demo".into(),
            verb: Some(verb),
            gvr: Some(Gvr::new("apps", "v1", "deployments")),
            namespace: Some("shop".into()),
            name: Some(name.into()),
            subresource: Some("scale".into()),
            status,
            served: Served::Live,
            duration: Duration::from_millis(3),
        }
    }

    #[test]
    fn an_operation_is_told_with_the_path_that_was_asked_for() {
        let recent = Recent::default();
        recent.note(&record(Verb::Patch, "cart", StatusCode::OK));
        let operations = recent.operations();
        let path = "/apis/apps/v1/namespaces/shop/deployments/cart/scale";
        assert_eq!(operations.last[0].path, path);
        assert_eq!(operations.last[0].verb, "patch");
        assert_eq!(operations.last[0].served, "live");
    }

    #[test]
    fn all_are_counted_and_the_last_are_remembered() {
        let recent = Recent::default();
        for number in 0..=REMEMBERED {
            recent.note(&record(Verb::Get, &number.to_string(), StatusCode::OK));
        }
        recent.note(&record(Verb::Patch, "last", StatusCode::CONFLICT));
        let told = recent.operations();
        let counts = (told.reads, told.writes, told.failed);
        assert_eq!(counts, (REMEMBERED as u64 + 1, 1, 1));
        assert_eq!(told.last.len(), REMEMBERED);
        let newest = told.last.back().map(|operation| operation.path.as_str());
        assert!(newest.is_some_and(|path| path.contains("/last/")));
    }
}
