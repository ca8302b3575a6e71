//! Whether an agent could do its work here: hub, clock, identity, accounts. Nothing is changed: no
//! token is spent, nothing is enrolled, written or kept bound.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::watch;

use super::fan_out;
use super::kinds::scopes;
use super::uplink::server_name;
use super::worker::git_version;
use super::{AccountSettings, Settings, bind};
use crate::clock::SharedClock;
use crate::cluster::{ApiRequest, Cluster, ClusterError, Reason, Transport};
use crate::credential::{self, Engines, OwnCertificate, Surroundings};
use crate::fault::Chain;
use crate::identity::channel::{connect, probe};
use crate::identity::keep::{self, KeepError};
use crate::identity::renewal::{CLOCK_OFFSET_WARNING, ClockOffset};
use crate::identity::{TrustBundle, client, tls};
use crate::limits::ACCOUNTS_PER_AGENT;
use crate::policy::{AccountPolicy, AllowedKind, Level, Rules};
use crate::tasks::Tasks;
use crate::telemetry::finding::{CHECK_TIMEOUT, Finding, spoken};

/// Time to connect to a listener of the hub.
const CONNECT: Duration = Duration::from_secs(4);

/// Lists that are tried at once, per account.
const LISTS: usize = 4;

/// Looks at everything that an agent needs, at once, and tells what it found.
pub async fn check(settings: Settings, rules: &Rules, clock: &SharedClock) -> Vec<Finding> {
    let tasks = Tasks::new();
    let engines = Engines::new(settings.engines.clone(), surroundings(&settings, clock));
    let bounded = |what: String, looking: BoxFuture<'static, Vec<Finding>>| async move {
        let looked = tokio::time::timeout(CHECK_TIMEOUT, looking).await;
        looked.unwrap_or_else(|_elapsed| {
            let seen = format!("no answer within {CHECK_TIMEOUT:?}");
            vec![Finding::bad(
                what,
                seen,
                "look at the network between here and there",
            )]
        })
    };
    let settings = Arc::new(settings);
    let engines = Arc::new(engines);
    let mut looking = Vec::new();
    for (door, address) in [("health", settings.health), ("metrics", settings.metrics)] {
        looking.push((format!("listen.{door}"), port(door, address).boxed()));
    }
    let of_hub = hub(Arc::clone(&settings), Arc::clone(clock), tasks.clone());
    looking.push(("hub".to_owned(), of_hub.boxed()));
    looking.push((
        "engines".to_owned(),
        answering(Arc::clone(&engines)).boxed(),
    ));
    for account in settings.accounts.clone() {
        let what = format!("account {}", account.name);
        let policy = AccountPolicy::new(account.policy.clone(), rules);
        let (engines, tasks) = (Arc::clone(&engines), tasks.clone());
        let clock = Arc::clone(clock);
        if fan_out::each(&account).is_some() {
            let all = each_field(account, rules.clone(), engines, clock, tasks);
            looking.push((what, all.boxed()));
            continue;
        }
        let one = async move { vec![one_account(account, policy, engines, clock, tasks).await] };
        looking.push((what, one.boxed()));
    }
    let found = join_all(looking.into_iter().map(|(what, one)| bounded(what, one))).await;
    let _all_ended = tasks.drain(Duration::from_secs(1)).await;
    engines.close(None).await;
    let identity = identity(&settings, clock);
    identity
        .into_iter()
        .chain(found.into_iter().flatten())
        .collect()
}

/// Binds a port and lets it go.
async fn port(door: &'static str, address: SocketAddr) -> Vec<Finding> {
    let what = format!("listen.{door} {address}");
    vec![match bind(door, address).await {
        Ok(_) => Finding::good(what, "can be bound"),
        Err(error) => Finding::bad(
            what,
            Chain(&error).to_string(),
            "stop what listens there, or choose another address",
        ),
    }]
}

/// What engines take from a command that is not the running agent: its certificate is the one that
/// `state-dir` keeps, if any.
pub fn surroundings(settings: &Settings, clock: &SharedClock) -> Surroundings {
    let folder = settings.state_dir.as_ref().filter(|folder| folder.exists());
    let pin = &settings.hub.root_spki_sha256;
    let kept =
        folder.and_then(|folder| keep::load(folder, &settings.name, pin, clock.now()).ok()?);
    let certificate = kept.map(|kept| {
        let (_never_another, told) = watch::channel(Some(Arc::new(kept.certified())));
        OwnCertificate::told_by(told)
    });
    Surroundings {
        clock: Arc::clone(clock),
        certificate: certificate.unwrap_or_default(),
        ..Surroundings::of_system()
    }
}

/// What the agent would show, as far as that can be seen without showing it.
fn identity(settings: &Settings, clock: &SharedClock) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(
        match settings.evidence.show(&settings.hub.root_spki_sha256) {
            Ok(client::Evidence::Token { id, .. }) => Finding::good(
                "identity.join",
                format!("join string with the token {id}, which is not spent by this check"),
            ),
            Ok(client::Evidence::Kubernetes { .. }) => {
                Finding::good("identity.join", "the ServiceAccount token can be read")
            }
            Err(error) => Finding::bad(
                "identity.join",
                Chain(&error).to_string(),
                "mount the projected token there",
            ),
        },
    );
    if let Some(folder) = &settings.state_dir {
        findings.push(kept(settings, folder, clock));
    }
    findings
}

fn kept(settings: &Settings, folder: &Path, clock: &SharedClock) -> Finding {
    let what = format!("state-dir {}", folder.display());
    if !folder.exists() {
        return Finding::good(what, "is made when the agent has joined");
    }
    let now = clock.now();
    match keep::load(folder, &settings.name, &settings.hub.root_spki_sha256, now) {
        Ok(None) => Finding::good(what, "holds no certificate that is valid; the agent joins"),
        Ok(Some(certificate)) => {
            let left = certificate.not_after().duration_since(now);
            let left = spoken(left.unwrap_or_default());
            Finding::good(what, format!("holds a certificate that ends in {left}"))
        }
        Err(KeepError::OtherRoot { .. }) => Finding::good(
            what,
            "holds a certificate of another hub; the agent joins anew",
        ),
        Err(error) => Finding::bad(
            what,
            Chain(&error).to_string(),
            "the agent will not start with it",
        ),
    }
}

// ---------------------------------------------------------------- hub

async fn hub(settings: Arc<Settings>, clock: SharedClock, tasks: Tasks) -> Vec<Finding> {
    let (hub, what) = (&settings.hub, |door, address| {
        format!("hub.{door} {address}")
    });
    let enrol = what("enrol", &hub.enrol);
    let trust = match pinned(&settings, &clock).await {
        Ok(trust) => trust,
        Err(why) => return vec![Finding::bad(enrol, why, UNREACHED)],
    };
    let (data, clocks) = tokio::join!(
        data(&settings, trust, &clock),
        clocks(&settings, &clock, &tasks)
    );
    let mut findings = vec![Finding::good(enrol, "answers, with the pinned root")];
    findings.push(match data {
        Ok(()) => Finding::good(what("data", &hub.data), "answers, with the pinned root"),
        Err(why) => Finding::bad(what("data", &hub.data), why, UNREACHED),
    });
    findings.push(match clocks {
        Ok(off) if off > CLOCK_OFFSET_WARNING => Finding::bad(
            "clock",
            format!("{} off from the hub's", spoken(off)),
            "set both by NTP: certificates are refused before their time and after",
        ),
        Ok(off) => Finding::good("clock", format!("{} off from the hub's", spoken(off))),
        Err(why) => Finding::bad("clock", why, "look at the hub's log"),
    });
    findings
}

/// What to do about a listener that is not what it should be.
const UNREACHED: &str = "compare `hub` and the pin with what the hub logs at its start, and look \
                         at the firewalls in between";

/// The hub's trust domain, and the roots of which one is pinned.
struct Trust {
    domain: crate::identity::TrustDomain,
    roots: TrustBundle,
}

/// Looks for the pinned root at the enrol listener.
async fn pinned(settings: &Settings, clock: &SharedClock) -> Result<Trust, String> {
    let (address, pin) = (&settings.hub.enrol, settings.hub.root_spki_sha256);
    let config = tls::enrol_client(pin, Arc::clone(clock)).map_err(|error| said(&error))?;
    let name = server_name(address).map_err(|_malformed| not_an_address())?;
    let probed = probe(address, config, name, CONNECT).await;
    let (peer, chain) = probed.map_err(|error| said(&error))?;
    let bundles = chain
        .iter()
        .filter_map(|der| TrustBundle::new(0, std::slice::from_ref(der)).ok());
    let mut pinned = bundles.filter(|bundle| bundle.pins().any(|found| found == pin));
    let roots = pinned.next().ok_or("the pinned root is not shown")?;
    Ok(Trust {
        domain: peer.id().trust_domain.clone(),
        roots,
    })
}

async fn data(settings: &Settings, trust: Trust, clock: &SharedClock) -> Result<(), String> {
    let address = &settings.hub.data;
    let name = server_name(address).map_err(|_malformed| not_an_address())?;
    let config = tls::data_probe(trust.roots, trust.domain, Arc::clone(clock));
    let config = config.map_err(|error| said(&error))?;
    let probed = probe(address, config, name, CONNECT).await;
    probed.map(drop).map_err(|error| said(&error))
}

async fn clocks(
    settings: &Settings,
    clock: &SharedClock,
    tasks: &Tasks,
) -> Result<Duration, String> {
    let (address, pin) = (&settings.hub.enrol, settings.hub.root_spki_sha256);
    let config = tls::enrol_client(pin, Arc::clone(clock)).map_err(|error| said(&error))?;
    let name = server_name(address).map_err(|_malformed| not_an_address())?;
    let connected = connect(address, config, name, CONNECT, tasks).await;
    let connection = connected.map_err(|error| said(&error))?;
    let looked = client::look(&connection, &**clock).await;
    looked.map(ClockOffset::size).map_err(|error| said(&error))
}

fn said(error: &dyn std::error::Error) -> String {
    Chain(error).to_string()
}

fn not_an_address() -> String {
    "is not host:port".to_owned()
}

// ---------------------------------------------------------------- accounts

/// The accounts that one stands for.
async fn each_field(
    template: AccountSettings,
    rules: Rules,
    engines: Arc<Engines>,
    clock: SharedClock,
    tasks: Tasks,
) -> Vec<Finding> {
    let what = format!("account {}", template.name);
    let Some(reference) = fan_out::each(&template) else {
        return Vec::new();
    };
    let keys = match engines.keys(reference).await {
        Ok(keys) => keys,
        Err(error) => {
            let reason = error.reason();
            let seen = format!("{reason}: {error}");
            return vec![Finding::bad(what, seen, of_source(reason))];
        }
    };
    let named = keys.names.iter();
    let accounts: Vec<AccountSettings> = named
        .filter_map(|field| fan_out::account(&template, field))
        .take(ACCOUNTS_PER_AGENT)
        .collect();
    if accounts.is_empty() {
        let seen = "the secret has no field that makes the name of an account";
        let remedy = "name its fields by letters, digits, `-`, `_` and `.`";
        return vec![Finding::bad(what, seen, remedy)];
    }
    let looking = accounts.into_iter().map(|account| {
        let policy = AccountPolicy::new(account.policy.clone(), &rules);
        let (engines, clock) = (Arc::clone(&engines), Arc::clone(&clock));
        one_account(account, policy, engines, clock, tasks.clone())
    });
    join_all(looking).await
}

/// Whether each engine answers, be it that no account needs it yet.
async fn answering(engines: Arc<Engines>) -> Vec<Finding> {
    let told = |(name, answered): (String, Result<(), credential::Failure>)| {
        let what = format!("engine {name}");
        match answered {
            Ok(()) => Finding::good(what, "answers"),
            Err(failure) => {
                let reason = failure.kind.reason();
                Finding::bad(what, format!("{reason}: {failure}"), of_source(reason))
            }
        }
    };
    engines.probe().await.into_iter().map(told).collect()
}

async fn one_account(
    account: AccountSettings,
    policy: AccountPolicy,
    engines: Arc<Engines>,
    clock: SharedClock,
    tasks: Tasks,
) -> Finding {
    let what = format!("account {}", account.name);
    let credential = match account.source.resolve(&engines, &clock).await {
        Ok(credential) => Arc::new(credential),
        Err((reason, message)) => {
            return Finding::bad(what, format!("{reason}: {message}"), of_source(reason));
        }
    };
    let server = credential.server().to_string();
    let asked = async {
        let rehearsed = credential.auth().rehearse().await;
        if let Some(seen) = rehearsed.map_err(ClusterError::Token)? {
            Cluster::reach(credential).await?;
            return Ok(Asked::Reached(seen));
        }
        let cluster = Cluster::new(credential, tasks).await?;
        let version = cluster.version().await?;
        cluster.uid().await?;
        let kinds = cluster.discovery().await?.kinds;
        let allowed: Vec<_> = kinds.iter().filter_map(|kind| policy.allow(kind)).collect();
        let lists = lists(&cluster, &allowed, policy.namespaces()).await?;
        Ok::<_, ClusterError>(Asked::Answered(version, lists))
    };
    match asked.await {
        Ok(Asked::Reached(seen)) => {
            Finding::good(what, format!("API server {server} can be reached, {seen}"))
        }
        Ok(Asked::Answered(version, lists)) => {
            let seen = format!("API server {server} answers, {}", git_version(&version));
            listed(what, &seen, &lists)
        }
        Err(error) => Finding::bad(
            what,
            format!("{}: {}", error.reason(), said(&error)),
            of_cluster(error.reason()),
        ),
    }
}

/// How far an API server could be asked.
enum Asked {
    /// It told its version, and which kinds can be listed.
    Answered(Vec<u8>, Vec<Listed>),
    /// Nobody could tell it who is asking; what was seen besides.
    Reached(String),
}

/// A kind with whether it can be listed everywhere it has to be.
type Listed = (String, bool);

/// Asks for each cached kind.
async fn lists(
    cluster: &Cluster,
    allowed: &[AllowedKind],
    namespaces: &[String],
) -> Result<Vec<Listed>, ClusterError> {
    let mut asking = Vec::new();
    for kind in allowed {
        if kind.level() == Level::Cached {
            asking.push(may_list(cluster, kind, namespaces).boxed());
        }
    }
    let answers: Vec<_> = stream::iter(asking).buffered(LISTS).collect().await;
    answers.into_iter().collect()
}

/// Asks for one object of a kind in each scope, and reads nothing but the status.
async fn may_list(
    cluster: &Cluster,
    kind: &AllowedKind,
    namespaces: &[String],
) -> Result<Listed, ClusterError> {
    let gvr = &kind.kind().gvr;
    let mut may = true;
    for scope in scopes(kind, namespaces) {
        let path = gvr.collection(&scope);
        let one = match gvr.selects_by_name(&scope) {
            Some(name) => format!("{path}?limit=1&fieldSelector=metadata.name%3D{name}"),
            None => format!("{path}?limit=1"),
        };
        let mut request = ApiRequest::get(one).header("accept", "application/json");
        if kind.masked() {
            request.transport = Transport::Wiping;
        }
        match cluster.send(request).await?.status {
            200 => {}
            403 => may = false,
            401 => return Err(ClusterError::Unauthorized),
            status => {
                let what = "a list";
                return Err(ClusterError::Status { what, status });
            }
        }
    }
    Ok((written(kind), may))
}

/// A kind as configurations write it.
fn written(kind: &AllowedKind) -> String {
    let kind = kind.kind();
    match kind.gvr.group.as_str() {
        "" => kind.kind.clone(),
        group => format!("{}.{group}", kind.kind),
    }
}

fn listed(what: String, seen: &str, lists: &[Listed]) -> Finding {
    let refused: Vec<&str> = lists
        .iter()
        .filter(|(_, may)| !may)
        .map(|(kind, _)| kind.as_str())
        .collect();
    let (all, may) = (lists.len(), lists.len() - refused.len());
    let seen = format!("{seen}, {may} of {all} cached kinds can be listed");
    match (refused.as_slice(), may) {
        ([], _) => Finding::good(what, seen),
        (refused, 0) => Finding::bad(
            what,
            format!("{seen}, not {}", refused.join(", ")),
            "grant the credential list and watch on them",
        ),
        (refused, _) => Finding::good(what, format!("{seen}, not {}", refused.join(", "))),
    }
}

/// What to do about a credential that cannot be had.
const fn of_source(reason: credential::Reason) -> &'static str {
    use credential::Reason as R;
    match reason {
        R::CredentialExpired => "bring the engine back, or raise `credential-max-stale`",
        R::EngineSealed => "unseal the engine",
        R::EngineThrottled => "ask for less, or raise the engine's rate limit",
        R::EngineUnauthenticated => "look at `auth` of the engine, here and in its own roles",
        R::EngineUnavailable => "look at `address` and `ca-file` of the engine",
        R::ExecUnsupported => "write a token or a client certificate into the kubeconfig",
        R::KubeconfigInvalid => "write a kubeconfig with a server, its CA, and a user",
        R::SecretCorrupt | R::SecretField => {
            "look at what is stored there, and at the part after `#`"
        }
        R::SecretDenied => "let the engine's policy read the path",
        R::SecretNotFound => "look at mount and path of the reference",
    }
}

/// What to do about an API server that does not answer as it should.
const fn of_cluster(reason: Reason) -> &'static str {
    match reason {
        Reason::ApiUnauthorized => {
            "renew the token or certificate in the kubeconfig, and let it read `/api`, `/apis`, \
             `/version` and the namespace `kube-system`"
        }
        Reason::ApiUnreachable => "look at `server` in the kubeconfig and at the network",
        Reason::ApiUntrusted => "write the CA of this API server into the kubeconfig",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lists: &[(&str, bool)]) -> String {
        let lists: Vec<Listed> = lists
            .iter()
            .map(|(kind, may)| ((*kind).to_owned(), *may))
            .collect();
        listed("account shop".to_owned(), "answers", &lists).to_string()
    }

    #[test]
    fn kinds_that_may_not_be_listed_are_named() {
        assert_eq!(
            told(&[("Pod", true), ("Job.batch", false)]),
            "ok   account shop: answers, 1 of 2 cached kinds can be listed, not Job.batch"
        );
        assert!(told(&[("Pod", false)]).starts_with("FAIL account shop: answers, 0 of 1"));
        assert!(told(&[("Pod", true)]).starts_with("ok   "));
    }
}
