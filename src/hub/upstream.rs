//! The facade's port: accounts as clients see them, and the way to their agents.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::Core;
use super::account::{Account as Held, Surface};
use super::audit::Audit;
use super::dispatch::{Answer, Body, NoAnswer, Order};
use super::metrics::class;
use crate::facade::{
    Account, AuditRecord, BodyError, Freshness, Kind, Level, LiveAnswer, LiveRequest, Refusal,
    Upstream, UpstreamError,
};
use crate::limits;
use crate::policy;
use crate::resource::{self, Gvr, Subresource, Verb};
use crate::wire::v1;

/// The hub behind a facade.
#[derive(Debug)]
pub(super) struct Port(pub(super) Weak<Core>);

impl Upstream for Port {
    fn account(&self, id: &str) -> Option<Arc<Account>> {
        let core = self.0.upgrade()?;
        let held = core.accounts.by_id(id)?;
        let served = core.registry.read(|tables| {
            let row = tables.accounts.get(&held.name)?;
            (row.approved && row.suspended.is_none()).then_some(())
        });
        served?;
        let surface = held.surface.borrow().clone();
        Some(Arc::new(core.facade_account(&held, &surface)))
    }

    fn newer_kinds<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Option<Arc<Account>>> {
        Box::pin(async move {
            let held = self.0.upgrade()?.accounts.by_id(id)?;
            let mut surface = held.surface.subscribe();
            let told = surface.wait_for(|now| !now.awaits_kinds());
            drop(tokio::time::timeout(limits::NEWER_KINDS, told).await);
            self.account(id)
        })
    }

    fn send<'a>(
        &'a self,
        account: &'a Account,
        client: &'a str,
        request: LiveRequest,
    ) -> BoxFuture<'a, Result<LiveAnswer, UpstreamError>> {
        Box::pin(async move {
            let core = self.0.upgrade().ok_or(UpstreamError::Away)?;
            let reads = request.method == http::Method::GET;
            let begun = Instant::now();
            let answer = core.dispatch(order(account, client, request)).await;
            let outcome = answer.as_ref().map_or_else(NoAnswer::label, |_| "answered");
            core.figures.operations.add([outcome]);
            core.figures.operation_time.record(begun.elapsed());
            answer
                .map(live)
                .map_err(|error| upstream_error(error, reads))
        })
    }

    fn authorize(
        &self,
        client: &str,
        account: &str,
        verb: Verb,
        kind: &str,
        namespace: Option<&str>,
    ) -> bool {
        let Some(core) = self.0.upgrade() else {
            return false;
        };
        let mut bindings = policy::Bindings::default();
        core.registry.read(|tables| {
            let known = tables
                .clients
                .get(client)
                .filter(|row| row.revoked.is_none());
            for account in known.iter().flat_map(|row| &row.accounts) {
                bindings.bind(client, account);
            }
        });
        let question = policy::Question {
            client,
            account,
            verb,
            kind,
            namespace,
        };
        policy::authorize(&bindings, &question).is_allowed()
    }

    fn audit(&self, record: AuditRecord) {
        if let Some(core) = self.0.upgrade() {
            core.recent.note(&record);
        }
        let verb = record.verb.map_or("request", Verb::as_str);
        if let Some(core) = self.0.upgrade() {
            let labels = [verb, record.served.label(), class(record.status)];
            core.figures.requests.add(labels);
        }
        let mut audit = Audit::new("operation", &format!("client/{}", record.client))
            .with("account", record.account)
            .with("verb", verb)
            .with("status", record.status.as_u16())
            .with("served", record.served.label())
            .with("millis", record.duration.as_millis());
        if let Some(gvr) = record.gvr {
            audit = audit.with("resource", gvr);
        }
        let optional = [
            ("namespace", record.namespace),
            ("name", record.name),
            ("subresource", record.subresource),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                audit = audit.with(name, value);
            }
        }
        let is_resource = record.verb.is_some();
        match record.status {
            // No path of an account: a typing error, or somebody who tries doors.
            StatusCode::NOT_FOUND if !is_resource => audit.refuse("NotFound"),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => audit.refuse("Forbidden"),
            StatusCode::BAD_REQUEST => audit.refuse("BadRequest"),
            _ => audit.admit(),
        }
    }
}

impl Core {
    fn facade_account(&self, held: &Held, surface: &Surface) -> Account {
        let kinds = surface.discovery.kinds.iter().filter_map(kind);
        let present = kinds.filter(|kind| !surface.absent.contains(&kind.resource.gvr));
        let freshness = match surface.away_since {
            None => Freshness::Connected,
            Some(std::time::SystemTime::UNIX_EPOCH) => Freshness::Unknown,
            Some(since) => Freshness::Away { since },
        };
        Account {
            name: held.name.clone(),
            id: held.id.clone(),
            view: Arc::clone(&held.view),
            discovery: Arc::new(present.collect()),
            version_json: surface.discovery.version_json.clone(),
            namespaces: surface.discovery.namespaces.clone(),
            outdated: surface.awaits_kinds(),
            freshness,
            max_stale: self.max_stale,
        }
    }
}

fn kind(told: &v1::DiscoveredKind) -> Option<Kind> {
    let gvr = told.resource.as_ref()?;
    let level = match told.level() {
        v1::Level::Cached => Level::Cached,
        v1::Level::Live => Level::Live,
        v1::Level::Unspecified => return None,
    };
    let subresources = told.subresources.iter().map(|part| Subresource {
        name: part.name.clone(),
        kind: part.kind.clone(),
        group: part.group.clone(),
        version: part.version.clone(),
        verbs: part.verbs.clone(),
    });
    Some(Kind {
        resource: resource::Kind {
            gvr: Gvr::new(&gvr.group, &gvr.version, &gvr.resource),
            kind: told.kind.clone(),
            singular: told.singular.clone(),
            short_names: told.short_names.clone(),
            categories: told.categories.clone(),
            namespaced: told.namespaced,
            verbs: told.verbs.clone(),
            subresources: subresources.collect(),
            preferred_version: told.preferred_version,
        },
        level,
        masked: told.masked,
    })
}

fn order(account: &Account, client: &str, request: LiveRequest) -> Order {
    let path = request.target.split('?').next().unwrap_or_default();
    let of_masked = account
        .discovery
        .iter()
        .filter(|kind| kind.masked)
        .any(|kind| {
            path.split('/')
                .any(|segment| segment == kind.resource.gvr.resource)
        });
    let headers = request.headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    Order {
        account: account.name.clone(),
        client: client.to_owned(),
        method: request.method.as_str().to_owned(),
        target: request.target,
        headers: headers.collect(),
        secret: of_masked && !request.body.is_empty(),
        body: request.body,
        timeout: request.timeout,
    }
}

fn live(answer: Answer) -> LiveAnswer {
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    LiveAnswer {
        status: StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY),
        headers,
        body: stream::unfold(Some(answer.body), chunk).fuse().boxed(),
    }
}

async fn chunk(body: Option<Body>) -> Option<(Result<Bytes, BodyError>, Option<Body>)> {
    let mut body = body?;
    match body.next().await {
        Ok(Some(bytes)) => Some((Ok(bytes), Some(body))),
        Ok(None) => None,
        Err(why) => {
            tracing::debug!(why, "answer broke off");
            Some((Err(BodyError::BrokenOff), None))
        }
    }
}

fn upstream_error(error: NoAnswer, reads: bool) -> UpstreamError {
    match error {
        NoAnswer::Away => UpstreamError::Away,
        NoAnswer::Busy => UpstreamError::Busy,
        NoAnswer::TimedOut if reads => UpstreamError::TimedOut,
        NoAnswer::OutcomeUnknown if reads => UpstreamError::Away,
        NoAnswer::TimedOut | NoAnswer::OutcomeUnknown => UpstreamError::OutcomeUnknown,
        NoAnswer::Failed(failure) => failed(failure, reads),
    }
}

fn failed(failure: v1::OperationFailure, reads: bool) -> UpstreamError {
    use v1::OperationFailureKind as K;
    let kind = match failure.kind() {
        K::Policy => Refusal::Policy,
        K::Malformed => Refusal::Malformed,
        K::MaskedContent => Refusal::MaskedContent,
        K::UnsupportedMediaType => Refusal::UnsupportedMediaType,
        K::NoAccount => Refusal::NoAccount,
        K::Unfilterable => return UpstreamError::Unfilterable,
        K::Busy => return UpstreamError::Busy,
        K::Unreachable => return UpstreamError::Away,
        K::OutcomeUnknown if reads => return UpstreamError::Away,
        K::OutcomeUnknown | K::Unspecified => return UpstreamError::OutcomeUnknown,
    };
    let field = (!failure.field.is_empty()).then_some(failure.field);
    UpstreamError::Refused {
        kind,
        message: failure.message,
        field,
    }
}
