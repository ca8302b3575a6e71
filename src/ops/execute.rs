//! One operation, from its dispatch to the end of its answer.

use std::sync::Arc;

use futures_util::stream::StreamExt as _;
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::up::Up;
use super::version::VersionSeeker;
use super::{Context, Down, Failure, Gone, Turn, headers};
use crate::cluster::{ApiAnswer, ApiRequest, Cluster, ClusterError, RequestBody, Transport};
use crate::fault::Chain;
use crate::limits;
use crate::policy::{AllowedKind, Decision};
use crate::resource::{Target, Verb};
use crate::scrub::{self, AnswerFilter, BodyRefused, RequestPlan};
use crate::secret::{Buffer, clear_traces};
use crate::wire::v1::{self, OperationFailureKind as Kind};

/// Answers `dispatch` through `up`; the rest of its body comes from `down`. Ends soon after
/// `stop`, which closes the request to the API server.
pub async fn run(
    context: Context,
    dispatch: v1::Dispatch,
    mut down: Down,
    up: mpsc::Sender<v1::OperationUp>,
    turn: Turn,
    stop: CancellationToken,
) {
    let mut up = Up::new(up, turn);
    let (client, account) = (dispatch.client.clone(), context.account.clone());
    let mut record = Record::default();
    let executing = execute(&context, dispatch, &mut down, &mut up, &mut record);
    let outcome = stop.run_until_cancelled(executing).await;
    end(up, down, &stop).await;
    let outcome = match outcome {
        None => "cancelled",
        Some(Err(Gone)) => "abandoned",
        Some(Ok(outcome)) => outcome,
    };
    context.tally.add([record.verb, outcome]);
    tracing::info!(
        target: "sortie::audit",
        action = "operation",
        actor = %format_args!("client/{client}"),
        account,
        verb = record.verb,
        resource = record.resource,
        namespace = record.namespace,
        name = record.name,
        status = record.status,
        outcome,
        "audit"
    );
}

/// Lets the hub end the stream: dropped from here, it would be reset, and what the hub has not
/// read yet with it.
async fn end(up: Up, mut down: Down, stop: &CancellationToken) {
    drop(up);
    let ending = async { while let Some(Ok(_)) = down.next().await {} };
    let _cut = stop.run_until_cancelled(ending).await;
}

/// What the audit record tells of an operation.
#[derive(Default)]
struct Record {
    verb: &'static str,
    resource: String,
    namespace: String,
    name: String,
    status: u16,
}

impl Record {
    fn target(&mut self, target: &Target) {
        self.verb = target.verb.as_str();
        self.resource = match &target.subresource {
            Some(part) => format!("{}/{part}", target.gvr),
            None => target.gvr.to_string(),
        };
        self.namespace = target.namespace.clone().unwrap_or_default();
        self.name = target.name.clone().unwrap_or_default();
    }
}

async fn execute(
    context: &Context,
    dispatch: v1::Dispatch,
    down: &mut Down,
    up: &mut Up,
    record: &mut Record,
) -> Result<&'static str, Gone> {
    let prepared = prepare(context, dispatch, down, record).await;
    let (operation, cluster, body) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            up.fail(failure).await?;
            return Ok("refused");
        }
    };
    let answer = cluster.send(operation.request(body)).await;
    // A watch may last for long: its connection stays, the credential that opened it need not.
    drop(cluster);
    match answer {
        Ok(answer) => {
            record.status = answer.status;
            operation.answer_while_served(context, answer, up).await
        }
        Err(error) => {
            up.fail(operation.unanswered(&error)).await?;
            Ok("unanswered")
        }
    }
}

/// An operation that may be sent.
struct Operation {
    target: Target,
    query: String,
    kind: AllowedKind,
    headers: Vec<v1::HttpHeader>,
}

async fn prepare(
    context: &Context,
    dispatch: v1::Dispatch,
    down: &mut Down,
    record: &mut Record,
) -> Result<(Operation, Arc<Cluster>, Zeroizing<Vec<u8>>), Failure> {
    let head = dispatch.head.unwrap_or_default();
    let target = Target::parse(&head.method, &head.target)
        .map_err(|error| Failure::new(Kind::Malformed, error.to_string()))?;
    record.target(&target);
    let kind = context
        .kinds
        .borrow()
        .get(&target.gvr)
        .cloned()
        .ok_or_else(|| {
            let message = format!("the account does not offer `{}`", target.gvr);
            Failure::new(Kind::Policy, message)
        })?;
    let content_type = headers::value(&head.headers, "content-type");
    let policy = &context.policy;
    let decisions = [
        policy.permits(&target, &kind),
        policy.permits_creation(&target, &kind, content_type),
    ];
    for decision in decisions {
        if let Decision::Deny(denial) = decision {
            return Err(Failure::new(Kind::Policy, denial.to_string()));
        }
    }
    let query = head
        .target
        .split_once('?')
        .map_or("", |(_, query)| query)
        .to_owned();
    if !query.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::new(
            Kind::Malformed,
            "query is not printable ASCII",
        ));
    }
    let cluster = context.cluster.borrow().clone().ok_or_else(|| {
        Failure::new(
            Kind::Unreachable,
            "the account has no connection to its API server yet",
        )
    })?;
    let operation = Operation {
        target,
        query,
        kind,
        headers: head.headers,
    };
    let body = collect(&dispatch.body, dispatch.body_complete, down).await?;
    let body = operation.checked(context, &cluster, body).await?;
    Ok((operation, cluster, body))
}

/// Puts a body together, in memory that is wiped.
async fn collect(
    first: &[u8],
    complete: bool,
    down: &mut Down,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut body = Zeroizing::new(first.to_vec());
    let mut complete = complete;
    while !complete {
        let broke = || Failure::new(Kind::Malformed, "the body broke off on its way");
        let message = down
            .next()
            .await
            .ok_or_else(broke)?
            .map_err(|_status| broke())?;
        match message.message {
            Some(v1::operation_down::Message::Body(bytes)) => {
                if body.len() + bytes.len() > limits::REQUEST_BODY_BYTES {
                    return Err(Failure::new(
                        Kind::Malformed,
                        "the body is larger than 3 MiB",
                    ));
                }
                body.extend_from_slice(&bytes);
            }
            Some(v1::operation_down::Message::End(_)) => complete = true,
            Some(v1::operation_down::Message::Filler(_)) | None => {}
        }
    }
    Ok(body)
}

impl Operation {
    /// Refuses a body that would write masks, and completes the one patch that has to hold some.
    async fn checked(
        &self,
        context: &Context,
        cluster: &Cluster,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let rules = context.policy.scrub_rules();
        let content_type = headers::value(&self.headers, "content-type");
        let plan = scrub::check_request(rules, &self.target, &self.query, content_type, &body);
        if self.kind.masked() {
            clear_traces();
        }
        match plan.map_err(body_refused)? {
            RequestPlan::SendOn => Ok(body),
            RequestPlan::RestoreLastApplied => self.restore(context, cluster, &body).await,
        }
    }

    async fn restore(
        &self,
        context: &Context,
        cluster: &Cluster,
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let unreachable =
            |error: ClusterError| Failure::new(Kind::Unreachable, Chain(&error).to_string());
        let mut answer = cluster
            .send(ApiRequest {
                method: "GET".into(),
                target: self.target.path(),
                headers: vec![("accept".into(), "application/json".into())],
                body: RequestBody::None,
                transport: Transport::Wiping,
                long_running: false,
            })
            .await
            .map_err(unreachable)?;
        let mut live = Buffer::new(limits::RAW_OBJECT_BYTES);
        while !live.space().is_empty()
            && answer.body.read(&mut live).await.map_err(unreachable)? > 0
        {}
        let rules = context.policy.scrub_rules();
        let restored = scrub::restore_last_applied(rules, &self.target.gvr, body, live.filled());
        let restored = restored.map_err(|error| {
            let message = "the last-applied annotation cannot be put back";
            Failure::new(Kind::MaskedContent, format!("{message}: {error}"))
        })?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the body that is sent to the API server"
        )]
        let bytes = restored.expose_secret().to_vec();
        Ok(Zeroizing::new(bytes))
    }

    fn request(&self, body: Zeroizing<Vec<u8>>) -> ApiRequest<'static> {
        let path = self.target.path();
        let masked = self.kind.masked();
        ApiRequest {
            method: self.target.method().into(),
            target: if self.query.is_empty() {
                path
            } else {
                format!("{path}?{}", self.query)
            },
            headers: headers::to_api(&self.headers, masked),
            body: if body.is_empty() {
                RequestBody::None
            } else {
                RequestBody::Bytes(body)
            },
            transport: if masked {
                Transport::Wiping
            } else {
                Transport::Pooled
            },
            long_running: self.is_long_running(),
        }
    }

    fn is_long_running(&self) -> bool {
        self.target.verb == Verb::Watch || self.target.subresource.as_deref() == Some("log")
    }

    /// The same as [`Self::answer`]. A watch or a log does not outlast the credential that it was
    /// opened with: when that is given up, it is cut.
    async fn answer_while_served(
        &self,
        context: &Context,
        answer: ApiAnswer,
        up: &mut Up,
    ) -> Result<&'static str, Gone> {
        if !self.is_long_running() {
            return self.answer(context, answer, up).await;
        }
        let mut cluster = context.cluster.clone();
        let outcome = tokio::select! {
            outcome = self.answer(context, answer, up) => Some(outcome),
            _given_up = cluster.wait_for(Option::is_none) => None,
        };
        if let Some(outcome) = outcome {
            return outcome;
        }
        let message = "the account has given up its connection to its API server";
        up.fail(Failure::new(Kind::Unreachable, message)).await?;
        Ok("cut")
    }

    /// Filters and sends the answer as it comes.
    async fn answer(
        &self,
        context: &Context,
        mut answer: ApiAnswer,
        up: &mut Up,
    ) -> Result<&'static str, Gone> {
        let status = answer.status;
        let headers = headers::to_client(&answer.headers, self.kind.masked());
        up.head(status, headers);
        let rules = Arc::clone(context.policy.scrub_rules());
        let content_type = answer
            .headers
            .get("content-type")
            .and_then(|v| v.to_str().ok());
        let filter = AnswerFilter::new(rules, &self.target, status, content_type);
        let Ok(mut filter) = filter else {
            let message = "the API server's answer about a masked kind is not JSON";
            return up.unfilterable(status, message).await;
        };
        if self.is_long_running() {
            up.flush().await?;
        }
        let mut buffer = Buffer::new(limits::RAW_OBJECT_BYTES);
        let mut version = self.wrote(status).then(VersionSeeker::default);
        loop {
            let read = match answer.body.read(&mut buffer).await {
                Ok(read) => read,
                Err(error) => {
                    let message = Chain(&error).to_string();
                    up.fail(Failure::new(Kind::OutcomeUnknown, message)).await?;
                    return Ok("broken");
                }
            };
            if read == 0 {
                break;
            }
            let mut passed = Vec::new();
            let pushed = filter.push(buffer.filled(), &mut passed);
            buffer.clear();
            for bytes in passed {
                if let Some(version) = &mut version {
                    version.look(bytes.as_bytes());
                }
                up.body(bytes).await?;
            }
            if let Err(refused) = pushed {
                return up.unfilterable(status, refused.label).await;
            }
        }
        if let Err(refused) = filter.finish() {
            return up.unfilterable(status, refused.label).await;
        }
        if let Some(version) = version.and_then(|version| version.found()) {
            (context.wrote)(&self.target.gvr, version);
        }
        up.end().await?;
        Ok("answered")
    }

    /// Whether an answer with this status says that something was written.
    fn wrote(&self, status: u16) -> bool {
        let is_dry = self.query.contains("dryRun");
        !self.target.verb.reads() && (200..300).contains(&status) && !is_dry
    }

    /// What a failed request means: a read may be repeated, a write may have been carried out.
    fn unanswered(&self, error: &ClusterError) -> Failure {
        let message = Chain(error).to_string();
        let never_sent = matches!(
            error,
            ClusterError::Unreachable { .. }
                | ClusterError::Untrusted { .. }
                | ClusterError::Unauthorized
                | ClusterError::Exhausted
                | ClusterError::Token(_)
        );
        match error {
            ClusterError::Request(_) => Failure::new(Kind::Malformed, message),
            _ if never_sent || self.target.verb.reads() => Failure::new(Kind::Unreachable, message),
            _ => Failure::new(Kind::OutcomeUnknown, message),
        }
    }
}

fn body_refused(refused: BodyRefused) -> Failure {
    let message = refused.to_string();
    match refused {
        BodyRefused::Malformed => Failure::new(Kind::Malformed, message),
        BodyRefused::MaskedContent { field_path } => {
            Failure::new(Kind::MaskedContent, message).at(field_path)
        }
        BodyRefused::PatchTouchesMasked { pointer } => {
            Failure::new(Kind::MaskedContent, message).at(pointer)
        }
        BodyRefused::UnsupportedMediaType => Failure::new(Kind::UnsupportedMediaType, message),
    }
}
