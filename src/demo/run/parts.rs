//! Starts the parts of a run and waits for what it has to show.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::verdict::{self, Evidence};
use super::{Progress, RunError, Settings, Source, look_into};
use crate::agent;
use crate::credential;
use crate::demo::audit::{Canaries, Collection, Context, Plant, Reader, Report};
use crate::demo::cluster::{self, Cluster};
use crate::demo::{Canary, audit};
use crate::fault::Chain;
use crate::hub::admin::{self, Answer, Request, SOCKET, Sort, ask};
use crate::hub::{self, Frames, STORE_FILE};
use crate::identity::join::Join;
use crate::policy::{AccountSettings, KindPattern, NamespacePattern, OperationRule};
use crate::resource::{Gvr, Scope, Verb};
use crate::secret::SecretBytes;
use crate::tasks::Tasks;

/// Name of the demonstration's account.
const ACCOUNT: &str = "demo";

/// Name of the account that sees the planted namespace of a real cluster.
const PLANTED: &str = "demo-planted";

/// Name of the demonstration's client.
const CLIENT: &str = "visitor";

/// How long the printed kubeconfig's certificate lasts.
const CLIENT_TTL: Duration = Duration::from_hours(12);

/// How often the hub is asked how things are.
const POLL: Duration = Duration::from_millis(200);

/// The kinds that are cached by default: group, version, resource, kind.
const CACHED: [(&str, &str, &str, &str); 12] = [
    ("", "v1", "namespaces", "Namespace"),
    ("", "v1", "pods", "Pod"),
    ("", "v1", "services", "Service"),
    ("apps", "v1", "daemonsets", "DaemonSet"),
    ("apps", "v1", "deployments", "Deployment"),
    ("apps", "v1", "replicasets", "ReplicaSet"),
    ("apps", "v1", "statefulsets", "StatefulSet"),
    ("batch", "v1", "cronjobs", "CronJob"),
    ("batch", "v1", "jobs", "Job"),
    ("networking.k8s.io", "v1", "ingresses", "Ingress"),
    (
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        "NetworkPolicy",
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
    ),
];

/// What is served, and how it is read.
struct Sources {
    embedded: Option<Cluster>,
    agent_kubeconfig: PathBuf,
    auditor: Context,
    context: Option<String>,
    plant: Option<Plant>,
    planted: Vec<Canary>,
    marker: [u8; 16],
}

/// What an account of the run shows.
pub(super) struct Shown {
    pub(super) name: &'static str,
    pub(super) facade: Reader,
    pub(super) collections: Vec<Collection>,
}

pub(super) async fn start_and_watch(
    settings: &Settings,
    say: &Progress,
    tasks: &Tasks,
    planting: &Tasks,
) -> Result<Option<Report>, RunError> {
    let mut sources = sources(settings, say, tasks, planting).await?;
    let canaries = Canaries::new(&sources.planted, sources.marker)?;
    if !sources.planted.is_empty() {
        settings.logs.search(canaries.scan("logs"));
        let marker = String::from_utf8_lossy(&sources.marker).into_owned();
        tracing::trace!(marker, "what a search of the log has to find");
    }
    let hub = hub(settings, &canaries, &sources, tasks).await?;
    let socket = settings.folder.join("hub").join(SOCKET);
    say(&format!(
        "hub      listening: agents {}, clients {}",
        hub.addresses.data, hub.addresses.facade
    ));
    let accounts = accounts(&sources);
    let agent = agent(settings, &socket, &sources, &accounts, tasks).await?;
    let deadline = Instant::now() + settings.timeout;
    let waiting = Waiting {
        socket: &socket,
        deadline,
        timeout: settings.timeout,
    };
    waiting
        .until("enrolled", |agents, _| serial(agents).is_some())
        .await?;
    say(&format!(
        "enrolled agent demo, serial {}",
        agent.identity().serial
    ));
    waiting
        .until("synced", |_, rows| {
            accounts
                .iter()
                .all(|name| state(rows, name) == Some("ACTIVE"))
        })
        .await?;
    let shown = shown(settings, &sources, &canaries, &socket, &accounts, tasks).await?;
    say_synced(&shown, &sources, say).await?;
    let kubeconfig = settings.folder.join(format!("{ACCOUNT}.kubeconfig"));
    say(&format!(
        "try      kubectl --kubeconfig {} get pods -A",
        kubeconfig.display()
    ));
    let cluster =
        Reader::new(&sources.auditor.endpoint, tasks).map_err(|source| RunError::Read {
            side: "the cluster",
            source,
        })?;
    let evidence = Evidence::start(&cluster, &shown, &settings.entropy, tasks).await?;
    let rotations = rotations(settings, &waiting, sources.plant.as_mut(), say).await?;
    if !settings.once {
        return Ok(None);
    }
    if let Some(embedded) = &sources.embedded {
        embedded.hold();
    }
    evidence.quiet(tasks, deadline).await;
    let facts = verdict::Facts {
        settings,
        cluster: &cluster,
        shown: &shown,
        canaries: &canaries,
        planted: !sources.planted.is_empty(),
        store: settings.folder.join("hub").join(STORE_FILE),
        states: waiting.states().await?,
        rotations,
        coalesced: hub.coalesced(),
        relists: match &sources.embedded {
            Some(embedded) => embedded.relists(audit::AGENT),
            None => relists(&agent),
        },
    };
    let report = facts.report(&evidence).await?;
    if let Some(plant) = sources.plant {
        let namespace = plant.namespace().to_owned();
        if plant.remove().await {
            say(&format!("removed  namespace {namespace}"));
        }
    }
    Ok(Some(report))
}

// ---------------------------------------------------------------- the cluster

async fn sources(
    settings: &Settings,
    say: &Progress,
    tasks: &Tasks,
    planting: &Tasks,
) -> Result<Sources, RunError> {
    match &settings.source {
        Source::Embedded => embedded(settings, say, tasks).await,
        Source::Kubeconfig {
            agent,
            auditor,
            context,
        } => {
            real(
                settings,
                say,
                planting,
                (agent, auditor, context.as_deref()),
            )
            .await
        }
    }
}

async fn embedded(settings: &Settings, say: &Progress, tasks: &Tasks) -> Result<Sources, RunError> {
    let wanted = cluster::Settings::new(Arc::clone(&settings.entropy), Arc::clone(&settings.clock));
    let (embedded, running) = Cluster::start(wanted, tasks).await?;
    say(&format!("cluster  embedded, at {}", running.url));
    let path = settings.folder.join("cluster.kubeconfig");
    write_private(&path, &running.kubeconfig_yaml)?;
    let auditor = read_context(&path, None)?;
    Ok(Sources {
        planted: embedded.planted(),
        marker: embedded.marker(),
        embedded: Some(embedded),
        agent_kubeconfig: path,
        auditor,
        context: None,
        plant: None,
    })
}

async fn real(
    settings: &Settings,
    say: &Progress,
    planting: &Tasks,
    (agent, auditor, context): (&Path, &Path, Option<&str>),
) -> Result<Sources, RunError> {
    let auditor = read_context(auditor, context)?;
    say(&format!(
        "cluster  context {}, server {}",
        auditor.name, auditor.endpoint.url
    ));
    let plant = if settings.plant {
        let endpoint = &auditor.endpoint;
        let planted = Plant::start(endpoint, audit::SECRETS, &settings.entropy, planting).await;
        let planted = planted.map_err(|source| RunError::Read {
            side: "the cluster",
            source,
        })?;
        say(&format!(
            "planted  {} Secrets in namespace {}",
            audit::SECRETS,
            planted.namespace()
        ));
        Some(planted)
    } else {
        say("reading  only; Secrets are not read");
        None
    };
    Ok(Sources {
        embedded: None,
        agent_kubeconfig: agent.to_owned(),
        context: Some(auditor.name.clone()),
        auditor,
        planted: plant
            .as_ref()
            .map(|plant| plant.canaries().to_vec())
            .unwrap_or_default(),
        marker: plant.as_ref().map_or([0; 16], Plant::marker),
        plant,
    })
}

fn read_context(path: &Path, context: Option<&str>) -> Result<Context, RunError> {
    let text = std::fs::read_to_string(path).map_err(|source| RunError::File {
        path: path.to_owned(),
        source,
    })?;
    Context::read(&text, context).map_err(|source| RunError::Kubeconfig {
        path: path.to_owned(),
        source,
    })
}

fn write_private(path: &Path, content: &SecretBytes) -> Result<(), RunError> {
    use std::io::Write;
    let failed = |source| RunError::File {
        path: path.to_owned(),
        source,
    };
    let mut options = std::fs::OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    #[expect(
        clippy::disallowed_methods,
        reason = "a kubeconfig of the demonstration, mode 0600"
    )]
    opened
        .and_then(|mut file| file.write_all(content.expose_secret()))
        .map_err(failed)
}

// ---------------------------------------------------------------- hub and agent

fn name(text: &'static str) -> Result<crate::identity::Name, RunError> {
    text.parse()
        .map_err(|error| refused("naming a part", &Chain(&error).to_string()))
}

async fn hub(
    settings: &Settings,
    canaries: &Canaries,
    sources: &Sources,
    tasks: &Tasks,
) -> Result<hub::Running, RunError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let frames =
        (!sources.planted.is_empty()).then(|| Frames(Arc::new(look_into(canaries, "frames"))));
    let wanted = hub::Settings {
        name: name("demo")?,
        trust_domain: "demo.sortie.example"
            .parse()
            .map_err(|error| refused("naming the trust domain", &Chain(&error).to_string()))?,
        names: vec![Ipv4Addr::LOCALHOST.to_string(), "localhost".to_owned()],
        state_dir: settings.folder.join("hub"),
        listen: hub::Listen {
            data: any,
            enrol: any,
            facade: any,
            health: any,
            metrics: any,
        },
        certificates: hub::Ttls {
            agent: settings.agent_ttl,
            client: CLIENT_TTL,
            hub: Duration::from_hours(24),
        },
        max_stale: Duration::from_mins(15),
        frames,
    };
    let (clock, entropy) = (Arc::clone(&settings.clock), Arc::clone(&settings.entropy));
    Ok(hub::start(wanted, clock, entropy, tasks.clone()).await?)
}

fn accounts(sources: &Sources) -> Vec<&'static str> {
    if sources.plant.is_some() {
        vec![ACCOUNT, PLANTED]
    } else {
        vec![ACCOUNT]
    }
}

async fn agent(
    settings: &Settings,
    socket: &Path,
    sources: &Sources,
    accounts: &[&'static str],
    tasks: &Tasks,
) -> Result<agent::Running, RunError> {
    let request = Request::CreateToken {
        agent: "demo".to_owned(),
        accounts: accounts.iter().map(|name| (*name).to_owned()).collect(),
        ttl_seconds: 600,
    };
    let Answer::Token { join, .. } = admin_ask(socket, "making a join token", &request).await?
    else {
        return Err(refused(
            "making a join token",
            "another answer than asked for",
        ));
    };
    let join = Join::parse(join.as_bytes())
        .map_err(|error| refused("reading the join token", &Chain(&error).to_string()))?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let wanted = agent::Settings {
        name: name("demo")?,
        health: any,
        metrics: any,
        state_dir: None,
        hub: agent::Hub {
            data: join.data,
            enrol: join.enrol,
            root_spki_sha256: join.root_spki_sha256,
        },
        evidence: agent::Evidence::Token {
            id: join.id,
            secret: Arc::new(join.secret),
        },
        engines: Vec::new(),
        accounts: accounts.iter().map(|name| account(name, sources)).collect(),
        host: "demo".to_owned(),
    };
    let (clock, entropy) = (Arc::clone(&settings.clock), Arc::clone(&settings.entropy));
    Ok(agent::start(wanted, &settings.rules, clock, entropy, tasks.clone()).await?)
}

/// What the agent may read and do: everything in the embedded cluster; a real one is only read,
/// and of its Secrets those of the planted namespace, by an account of their own.
fn account(name: &str, sources: &Sources) -> agent::AccountSettings {
    let secret = || KindPattern::parse("Secret").into_iter();
    let planted = sources.plant.as_ref().filter(|_| name == PLANTED);
    let policy = match (planted, &sources.embedded) {
        (Some(plant), _) => AccountSettings {
            cached: Some(secret().collect()),
            live: Some(Vec::new()),
            operations: None,
            namespaces: vec![plant.namespace().to_owned()],
        },
        (None, None) => AccountSettings::default(),
        (None, Some(_)) => AccountSettings {
            cached: Some(cached_patterns().chain(secret()).collect()),
            live: None,
            operations: Some(vec![everything()]),
            namespaces: Vec::new(),
        },
    };
    agent::AccountSettings {
        name: name.to_owned(),
        source: credential::Source::KubeconfigFile {
            path: sources.agent_kubeconfig.clone(),
            context: sources.context.clone(),
        },
        policy,
        read_roles: Vec::new(),
        write_roles: Vec::new(),
    }
}

fn cached_patterns() -> impl Iterator<Item = KindPattern> {
    CACHED.iter().filter_map(|(group, _, _, kind)| {
        let name = if group.is_empty() {
            (*kind).to_owned()
        } else {
            format!("{kind}.{group}")
        };
        KindPattern::parse(&name).ok()
    })
}

fn everything() -> OperationRule {
    OperationRule {
        verbs: Verb::ALL.to_vec(),
        subresources: None,
        kinds: KindPattern::parse("*").into_iter().collect(),
        namespaces: vec![NamespacePattern::parse("*")],
    }
}

/// Lists that no 410 preceded: snapshots beyond the first of each stream and those that 410 asked
/// for, by the agent's own count.
fn relists(agent: &agent::Running) -> u64 {
    let of = |counts: &crate::stream::StreamCounts| {
        counts
            .snapshots
            .saturating_sub(counts.streams)
            .saturating_sub(counts.expired)
    };
    agent.counts().iter().map(|(_, counts)| of(counts)).sum()
}

// ---------------------------------------------------------------- reading the facade

async fn shown(
    settings: &Settings,
    sources: &Sources,
    canaries: &Canaries,
    socket: &Path,
    accounts: &[&'static str],
    tasks: &Tasks,
) -> Result<Vec<Shown>, RunError> {
    let names: BTreeSet<String> = accounts.iter().map(|name| (*name).to_owned()).collect();
    let request = Request::CreateClient {
        name: CLIENT.to_owned(),
        accounts: names,
    };
    admin_ask(socket, "making a client", &request).await?;
    let mut shown = Vec::new();
    for name in accounts {
        let kubeconfig = admin::kubeconfig(socket, name, CLIENT, Some(CLIENT_TTL)).await;
        let kubeconfig = kubeconfig
            .map_err(|error| refused("making a kubeconfig", &Chain(&error).to_string()))?;
        let path = settings.folder.join(format!("{name}.kubeconfig"));
        write_private(&path, &kubeconfig.document)?;
        let endpoint = read_context(&path, None)?.endpoint;
        let facade = Reader::new(&endpoint, tasks).map_err(|source| RunError::Read {
            side: "the facade",
            source,
        })?;
        let facade = if sources.planted.is_empty() {
            facade
        } else {
            facade.tapped(canaries.clone(), "facade")
        };
        shown.push(Shown {
            name,
            facade,
            collections: collections(name, sources),
        });
    }
    Ok(shown)
}

fn collections(account: &str, sources: &Sources) -> Vec<Collection> {
    let secrets = |scope: Scope| Collection {
        gvr: Gvr::new("", "v1", "secrets"),
        kind: "Secret".to_owned(),
        scope,
    };
    if account == PLANTED {
        let planted = sources
            .plant
            .iter()
            .map(|plant| plant.namespace().to_owned());
        return planted
            .map(|namespace| secrets(Scope::Namespace(namespace)))
            .collect();
    }
    let cached = CACHED
        .iter()
        .map(|(group, version, resource, kind)| Collection {
            gvr: Gvr::new(*group, *version, *resource),
            kind: (*kind).to_owned(),
            scope: Scope::Cluster,
        });
    let embedded = sources.embedded.as_ref().map(|_| secrets(Scope::Cluster));
    cached.chain(embedded).collect()
}

async fn say_synced(shown: &[Shown], sources: &Sources, say: &Progress) -> Result<(), RunError> {
    let filter = verdict::filter();
    for shown in shown {
        let snapshot = audit::Snapshot::read(&shown.facade, &shown.collections)
            .await
            .map_err(|source| RunError::Read {
                side: "the facade",
                source,
            })?;
        let counts: Vec<String> = snapshot
            .counts()
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        say(&format!(
            "synced   account {}: {}",
            shown.name,
            counts.join(", ")
        ));
        if !sources.planted.is_empty() {
            let masked = snapshot.masked_values(&filter);
            if masked > 0 {
                say(&format!("masked   {masked} values"));
            }
        }
    }
    Ok(())
}

// ---------------------------------------------------------------- waiting

type Rows = Vec<BTreeMap<String, serde_json::Value>>;

struct Waiting<'a> {
    socket: &'a Path,
    deadline: Instant,
    timeout: Duration,
}

impl Waiting<'_> {
    /// Polls the hub until `wanted` holds of its agents and accounts.
    async fn until(
        &self,
        what: &'static str,
        wanted: impl Fn(&Rows, &Rows) -> bool,
    ) -> Result<(), RunError> {
        let mut tick = tokio::time::interval(POLL);
        loop {
            tick.tick().await;
            let agents = rows(self.socket, Sort::Agents).await?;
            let accounts = rows(self.socket, Sort::Accounts).await?;
            if wanted(&agents, &accounts) {
                return Ok(());
            }
            if Instant::now() >= self.deadline {
                let state = accounts.iter().map(describe).collect::<Vec<_>>().join("; ");
                return Err(RunError::TimedOut {
                    what,
                    timeout: self.timeout,
                    state,
                });
            }
        }
    }

    async fn states(&self) -> Result<BTreeMap<String, String>, RunError> {
        let accounts = rows(self.socket, Sort::Accounts).await?;
        let text = |row: &BTreeMap<String, serde_json::Value>, key: &str| {
            row.get(key)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        Ok(accounts
            .iter()
            .map(|row| (text(row, "name"), text(row, "state")))
            .collect())
    }
}

fn describe(row: &BTreeMap<String, serde_json::Value>) -> String {
    let text = |key: &str| {
        row.get(key)
            .and_then(|value| value.as_str())
            .unwrap_or_default()
    };
    format!(
        "{} is {} {} {}",
        text("name"),
        text("state"),
        text("reason"),
        text("message")
    )
}

/// Follows the agent's certificate at the hub until it has changed twice, or for ever.
async fn rotations(
    settings: &Settings,
    waiting: &Waiting<'_>,
    mut plant: Option<&mut Plant>,
    say: &Progress,
) -> Result<u64, RunError> {
    let mut tick = tokio::time::interval(POLL);
    let (mut known, mut rotations) = (None, 0);
    loop {
        tick.tick().await;
        let now = serial(&rows(waiting.socket, Sort::Agents).await?);
        if let (Some(old), Some(new)) = (&known, &now)
            && old != new
        {
            rotations += 1;
            say(&format!("rotated  {old} → {new}"));
        }
        if let Some(plant) = &mut plant {
            let changed = plant.change().await;
            changed.map_err(|source| RunError::Read {
                side: "the cluster",
                source,
            })?;
        }
        known = now.or(known);
        let over = rotations >= 2 || Instant::now() >= waiting.deadline;
        if settings.once && over {
            return Ok(rotations);
        }
    }
}

fn serial(agents: &Rows) -> Option<String> {
    agents
        .first()?
        .get("certificate-serial")?
        .as_str()
        .map(str::to_owned)
}

fn state<'a>(accounts: &'a Rows, name: &str) -> Option<&'a str> {
    let row = accounts
        .iter()
        .find(|row| row.get("name").and_then(|n| n.as_str()) == Some(name))?;
    row.get("state")?.as_str()
}

async fn rows(socket: &Path, what: Sort) -> Result<Rows, RunError> {
    match admin_ask(socket, "asking the hub", &Request::Get { what }).await? {
        Answer::List { rows, .. } => Ok(rows),
        _ => Err(refused("asking the hub", "another answer than asked for")),
    }
}

async fn admin_ask(
    socket: &Path,
    what: &'static str,
    request: &Request,
) -> Result<Answer, RunError> {
    match ask(socket, request).await {
        Ok(Answer::Error { message }) => Err(refused(what, &message)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(refused(what, &Chain(&error).to_string())),
    }
}

fn refused(what: &'static str, message: &str) -> RunError {
    RunError::Admin {
        what,
        message: message.to_owned(),
    }
}
