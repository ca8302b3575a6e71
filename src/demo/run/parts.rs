//! Starts the parts of a run and waits for what it has to show.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::follow::Followed;
use super::sources::{Sources, read_context, sources, write_private};
use super::verdict::{self, Evidence};
use super::waiting::{Rows, Waiting, admin_ask, refused, rotations, serial, state};
use super::{Owners, Progress, RunError, Settings, look_into};
use crate::agent;
use crate::credential;
use crate::demo::audit::{self, Canaries, Collection, Plant, Reader, Report};
use crate::fault::Chain;
use crate::hub::admin::{self, Answer, Request, SOCKET};
use crate::hub::{self, Frames, STORE_FILE};
use crate::policy::{AccountSettings, KindPattern, NamespacePattern, OperationRule};
use crate::resource::{Gvr, Scope, Verb};
use crate::tasks::Tasks;

/// Name of the demonstration's account.
const ACCOUNT: &str = "demo";

/// Name of the account that sees the planted namespace of a real cluster.
const PLANTED: &str = "demo-planted";

/// Name of the demonstration's agent.
pub(super) const AGENT: &str = "demo";

/// Name of the client that is there to be tried.
const VISITOR: &str = "visitor";

/// Name of the client that the auditor is.
const AUDITOR: &str = "auditor";

/// How long the printed kubeconfig's certificate lasts.
const CLIENT_TTL: Duration = Duration::from_hours(12);

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

/// What an account of the run shows.
pub(super) struct Shown {
    pub(super) name: &'static str,
    pub(super) facade: Reader,
    pub(super) collections: Vec<Collection>,
}

/// The parts of a run that have started.
struct Started<'a> {
    settings: &'a Settings,
    say: &'a Progress,
    tasks: &'a Tasks,
    canaries: &'a Canaries,
    hub: &'a hub::Running,
    agent: &'a agent::Running,
    accounts: &'a [&'static str],
    socket: &'a Path,
}

pub(super) async fn start_and_watch(
    settings: &Settings,
    say: &Progress,
    owners: &Owners,
) -> Result<Option<Report>, RunError> {
    let began = Instant::now();
    let tasks = &owners.rest;
    let sources = sources(settings, say, tasks, &owners.planting).await?;
    let canaries = search_logs(settings, &sources)?;
    let hub = hub(settings, &canaries, &sources, tasks).await?;
    let socket = settings.folder.join("hub").join(SOCKET);
    say(&format!(
        "hub      listening: agents {}, clients {}",
        hub.addresses.data, hub.addresses.facade
    ));
    let accounts = accounts(&sources);
    let agent = agent(settings, &socket, &sources, &accounts, &owners.agent).await?;
    let evidence = OnceLock::new();
    let followed = Followed {
        hub: &hub,
        agent: &agent,
        socket: &socket,
        canaries: (!sources.planted.is_empty()).then_some(&canaries),
        evidence: &evidence,
        clock: &settings.clock,
        began,
    };
    let started = Started {
        settings,
        say,
        tasks,
        canaries: &canaries,
        hub: &hub,
        agent: &agent,
        accounts: &accounts,
        socket: &socket,
    };
    let Some(board) = &settings.board else {
        return started.watch(sources, &evidence).await;
    };
    tokio::select! {
        outcome = started.watch(sources, &evidence) => outcome,
        never = followed.onto(board) => match never {},
    }
}

impl Started<'_> {
    async fn watch(
        &self,
        mut sources: Sources,
        evidence: &OnceLock<Evidence>,
    ) -> Result<Option<Report>, RunError> {
        let Self {
            settings,
            say,
            tasks,
            canaries,
            ..
        } = *self;
        let deadline = Instant::now() + settings.timeout;
        let waiting = Waiting {
            socket: self.socket,
            deadline,
            timeout: settings.timeout,
        };
        wait_until_synced(&waiting, self.agent, self.accounts, say).await?;
        let shown = self.shown(&sources).await?;
        say_synced(&shown, &sources, say).await?;
        self.tell_kubeconfig();
        let cluster =
            Reader::new(&sources.auditor.endpoint, tasks).map_err(|source| RunError::Read {
                side: "the cluster",
                source,
            })?;
        let observed = Evidence::start(&cluster, &shown, &settings.entropy, tasks).await?;
        let evidence = evidence.get_or_init(|| observed);
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
            canaries,
            planted: !sources.planted.is_empty(),
            store: settings.folder.join("hub").join(STORE_FILE),
            states: waiting.states().await?,
            rotations,
            coalesced: self.hub.coalesced(),
            relists: match &sources.embedded {
                Some(embedded) => embedded.relists(audit::AGENT),
                None => self.agent.relists(),
            },
        };
        let report = facts.report(evidence).await?;
        if let Some(plant) = sources.plant {
            remove(plant, say).await;
        }
        Ok(Some(report))
    }

    fn tell_kubeconfig(&self) {
        let kubeconfig = self.settings.folder.join(format!("{ACCOUNT}.kubeconfig"));
        (self.say)(&format!(
            "try      kubectl --kubeconfig {} get pods -A",
            kubeconfig.display()
        ));
        if let Some(board) = &self.settings.board {
            board.change(|board| board.kubeconfig = Some(kubeconfig));
        }
    }
}

/// Has the logs looked through for the planted values, and shows them the marker.
fn search_logs(settings: &Settings, sources: &Sources) -> Result<Canaries, RunError> {
    let canaries = Canaries::new(&sources.planted, sources.marker)?;
    if !sources.planted.is_empty() {
        settings.logs.search(canaries.scan("logs"));
        let marker = String::from_utf8_lossy(&sources.marker).into_owned();
        tracing::trace!(marker, "what a search of the log has to find");
    }
    Ok(canaries)
}

async fn wait_until_synced(
    waiting: &Waiting<'_>,
    agent: &agent::Running,
    accounts: &[&'static str],
    say: &Progress,
) -> Result<(), RunError> {
    waiting
        .until("enrolled", |agents, _| serial(agents).is_some())
        .await?;
    let serial = agent.identity().serial;
    say(&format!("enrolled agent demo, serial {serial}"));
    let active = |name: &&str, rows: &Rows| state(rows, name) == Some("ACTIVE");
    waiting
        .until("synced", |_, rows| {
            accounts.iter().all(|name| active(name, rows))
        })
        .await
}

async fn remove(plant: Plant, say: &Progress) {
    let namespace = plant.namespace().to_owned();
    if plant.remove().await {
        say(&format!("removed  namespace {namespace}"));
    }
}

// ---------------------------------------------------------------- hub and agent

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
        name: "demo"
            .parse()
            .map_err(|error| refused("naming a part", &Chain(&error).to_string()))?,
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
        agent: AGENT.to_owned(),
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
    let (hub, evidence) = agent::joining(join.as_bytes())
        .map_err(|error| refused("reading the join token", &Chain(&error).to_string()))?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let wanted = agent::Settings {
        name: AGENT
            .parse()
            .map_err(|error| refused("naming a part", &Chain(&error).to_string()))?,
        health: any,
        metrics: any,
        state_dir: None,
        hub,
        evidence,
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
            rules: credential::Rules::default(),
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

// ---------------------------------------------------------------- reading the facade

impl Started<'_> {
    /// Makes a client for whoever wants to try, and one for the auditor, each with a kubeconfig
    /// per account; what the auditor reads goes through the search for planted values.
    async fn shown(&self, sources: &Sources) -> Result<Vec<Shown>, RunError> {
        for client in [VISITOR, AUDITOR] {
            let request = Request::CreateClient {
                name: client.to_owned(),
                accounts: self.accounts.iter().copied().map(str::to_owned).collect(),
            };
            admin_ask(self.socket, "making a client", &request).await?;
        }
        let mut shown = Vec::new();
        for name in self.accounts {
            self.kubeconfig(name, VISITOR, &format!("{name}.kubeconfig"))
                .await?;
            let own = format!("{name}-{AUDITOR}.kubeconfig");
            let own = self.kubeconfig(name, AUDITOR, &own).await?;
            let endpoint = read_context(&own, None)?.endpoint;
            let facade = Reader::new(&endpoint, self.tasks).map_err(|source| RunError::Read {
                side: "the facade",
                source,
            })?;
            let facade = if sources.planted.is_empty() {
                facade
            } else {
                facade.tapped(self.canaries.clone(), "facade")
            };
            shown.push(Shown {
                name,
                facade,
                collections: collections(name, sources),
            });
        }
        Ok(shown)
    }

    /// Writes a kubeconfig for `client` into the private folder.
    async fn kubeconfig(
        &self,
        account: &str,
        client: &str,
        file: &str,
    ) -> Result<PathBuf, RunError> {
        let granted = admin::kubeconfig(self.socket, account, client, Some(CLIENT_TTL)).await;
        let granted =
            granted.map_err(|error| refused("making a kubeconfig", &Chain(&error).to_string()))?;
        let path = self.settings.folder.join(file);
        write_private(&path, &granted.document)?;
        Ok(path)
    }
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
