//! Agents that do not get to their hub, or are not let in.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, FutureExt as _, LocalBoxFuture, join_all};
use secrecy::ExposeSecret as _;
use sortie::clock::{Clock as _, ManualClock, SharedClock, SystemClock};
use sortie::entropy;
use sortie::identity::join::{Join, new_secret};
use sortie::identity::{Issuer as _, KeyPair};
use sortie::tasks::Tasks;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

use super::page::{Page, compare};
use crate::refusals::issue;
use crate::support::double::{Double, Settings};
use crate::support::eventually::eventually;
use crate::support::fake;
use crate::support::pki::{self, Authority, Leaf};
use crate::support::pod::{add_cluster, pod_of, token_of};
use crate::support::sortie::{Sortie, run};
use crate::support::stand::{self, hub_yaml, ok};
use crate::support::testbed::Testbed;

const AGENT: &str = "sortie agent --config agent.yaml";

/// What is told of a peer that is slow on a busy machine; it is none of the mistakes here.
const SLOW: &str = "did not answer within";

/// What all mistakes of this file share.
struct Scene {
    hub: Sortie,
    data: SocketAddr,
    enrol: SocketAddr,
    /// Its certificate is for `hub.example.com` only, and its root is another one.
    other: Sortie,
    other_enrol: SocketAddr,
    double: Double,
    tasks: Tasks,
}

impl Scene {
    async fn start() -> Self {
        let hub = stand::hub("24h").await;
        let other = Sortie::hub(|folder| {
            hub_yaml(folder, "24h").replace("\"127.0.0.1\", localhost", "hub.example.com")
        });
        other.ready().await;
        Self {
            data: hub.address("data").await,
            enrol: hub.address("enrol").await,
            other_enrol: other.address("enrol").await,
            double: Double::start(Settings::default()),
            tasks: Tasks::new(),
            hub,
            other,
        }
    }

    fn page(&self, name: &'static str) -> Page {
        Page::new(name)
            .within(self.hub.folder())
            .within(self.other.folder())
    }

    /// Writes a join string for `agent` of `hub`, beside its state.
    async fn join(hub: &Sortie, agent: &str) -> String {
        let file = hub.folder().join(format!("{agent}.join"));
        let path = file.display().to_string();
        let create = ["token", "create", agent, "--account", agent, "--out", &path];
        ok(hub.command(&create).await);
        path
    }

    /// `agent.yaml` of an agent that joins with the join string in `join`.
    fn yaml(&self, name: &str, join: &str, hub: &str) -> String {
        let kubeconfig = self.double.write_kubeconfig();
        format!(
            "name: {name}\n\
             listen: {{ health: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
             hub: {{ {hub} }}\n\
             identity: {{ join: {{ method: token, join-file: {join} }} }}\n\
             accounts: [{{ name: {name}, credential: {{ kubeconfig-file: {} }} }}]\n",
            kubeconfig.display()
        )
    }

    /// `agent.yaml` of an agent that joins with the token in `token`.
    fn yaml_in_pod(&self, pin: &str, token: &Path) -> String {
        let (data, enrol) = (self.data, self.enrol);
        let kubeconfig = self.double.write_kubeconfig();
        format!(
            "name: lab\n\
             listen: {{ health: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
             hub: {{ data: \"{data}\", enrol: \"{enrol}\" }}\n\
             identity: {{ trust: {{ root-spki-sha256: \"{pin}\" }}, \
             join: {{ method: kubernetes, token-file: {} }} }}\n\
             accounts: [{{ name: lab, credential: {{ kubeconfig-file: {} }} }}]\n",
            token.display(),
            kubeconfig.display()
        )
    }

    /// An agent that keeps trying: its warnings up to the `telling` one.
    async fn tries(&self, name: &'static str, yaml: String, telling: &str) -> Page {
        let agent = Sortie::start("agent", &["--log-format", "text"], |_folder| yaml);
        let what = format!("{name}: a line with `{telling}`");
        let log = eventually(&what, || {
            let log = agent.stderr();
            let (whole, _rest) = log.rsplit_once('\n')?;
            let lines = whole.lines().filter(|line| !line.contains(SLOW));
            let log = lines.collect::<Vec<_>>().join("\n");
            log.contains(telling).then_some(log)
        })
        .await;
        let page = self.page(name).within(agent.folder());
        page.runs(AGENT, &log, telling)
    }

    /// An agent that gives up.
    async fn ends(&self, name: &'static str, yaml: String) -> Page {
        let folder = TempDir::with_prefix("sortie-mistake-").unwrap();
        let file = folder.path().join("agent.yaml");
        fs::write(&file, yaml).unwrap();
        let path = file.display().to_string();
        let ran = run(&["agent", "--config", &path], "").await;
        self.page(name).within(folder.path()).ended(AGENT, ran)
    }

    /// An agent whose enrol address is `enrol`, and whose join string is the hub's.
    async fn enrols_at(&self, name: &'static str, enrol: &str) -> Page {
        let join = Self::join(&self.hub, name).await;
        let yaml = self.yaml(name, &join, &format!("enrol: \"{enrol}\""));
        self.tries(name, yaml, "not enrolled yet").await
    }
}

// ---------------------------------------------------------------- the way to the hub

async fn nobody_listens(scene: &Scene) -> Page {
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    scene.enrols_at("hub-not-there", &address.to_string()).await
}

async fn name_unknown(scene: &Scene) -> Page {
    let page = scene
        .enrols_at("hub-name-unknown", "hub.invalid:9092")
        .await;
    // How a resolver says it differs from machine to machine.
    page.hide(
        "Temporary failure in name resolution",
        "Name or service not known",
    )
    .hide(
        "No address associated with hostname",
        "Name or service not known",
    )
}

async fn enrols_at_the_data_port(scene: &Scene) -> Page {
    let data = scene.data.to_string();
    scene.enrols_at("enrol-at-data-port", &data).await
}

async fn connects_to_the_enrol_port(scene: &Scene) -> Page {
    let join = Scene::join(&scene.hub, "mixed").await;
    let yaml = scene.yaml("mixed", &join, &format!("data: \"{}\"", scene.enrol));
    let telling = "not connected to the hub";
    scene.tries("data-at-enrol-port", yaml, telling).await
}

async fn other_name(scene: &Scene) -> Page {
    let join = Scene::join(&scene.other, "lab").await;
    let enrol = format!("enrol: \"{}\"", scene.other_enrol);
    let yaml = scene.yaml("lab", &join, &enrol);
    scene
        .tries("hub-name-not-in-certificate", yaml, "not enrolled yet")
        .await
}

async fn other_root(scene: &Scene) -> Page {
    let join = Scene::join(&scene.other, "pinned").await;
    let yaml = scene.yaml("pinned", &join, &format!("enrol: \"{}\"", scene.enrol));
    scene
        .tries("pinned-root-differs", yaml, "not enrolled yet")
        .await
}

/// Where something answers each connection that is not the hub of the scene.
async fn behind(
    scene: &Scene,
    answer: impl Fn(tokio::net::TcpStream) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    scene.tasks.spawn("in-between", async move |stop| {
        let serving = async {
            while let Ok((connection, _peer)) = listener.accept().await {
                answer(connection).await;
            }
        };
        stop.run_until_cancelled(serving).await;
    });
    address.to_string()
}

async fn http_proxy(scene: &Scene) -> Page {
    let address = behind(scene, |mut connection| {
        async move {
            let mut asked = [0; 512];
            let _gone = connection.read(&mut asked).await;
            let refusal = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
            let _gone = connection.write_all(refusal).await;
        }
        .boxed()
    })
    .await;
    scene.enrols_at("http-proxy-in-between", &address).await
}

/// Whatever ends TLS in place of the hub.
async fn load_balancer(scene: &Scene) -> Page {
    let identity = Authority::root("a load balancer's").issue(&Leaf::server());
    let config = Arc::new(pki::server_config(&identity, &[b"h2"]));
    let address = behind(scene, move |connection| {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        async move { drop(acceptor.accept(connection).await) }.boxed()
    })
    .await;
    scene.enrols_at("load-balancer-in-between", &address).await
}

/// A hub whose clock shows `hub_time` of the real time, as its agent sees it.
async fn clock(
    scene: &Scene,
    name: &'static str,
    hub_time: impl Fn(SystemTime) -> SystemTime,
) -> Page {
    let hub_time = hub_time(SystemClock.now());
    let folder = TempDir::with_prefix("sortie-mistake-").unwrap();
    let clock: SharedClock = Arc::new(ManualClock::new(hub_time));
    let ca = folder.path().join("ca");
    let (mut chain, key) = issue(&ca, Arc::clone(&clock), "hub/hub-1").await;
    let domain = "test.sortie.example".parse().unwrap();
    let authority = sortie::identity::Authority::open(&ca, domain, clock, entropy::system());
    let authority = authority.unwrap();
    let roots = authority.roots();
    chain.extend(roots.roots_der().cloned());
    let config = Arc::new(pki::server_config_of(chain, key, &[b"h2"]));
    let address = behind(scene, move |connection| {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        async move { drop(acceptor.accept(connection).await) }.boxed()
    })
    .await;
    let join = Join {
        data: address.clone(),
        enrol: address,
        root_spki_sha256: roots.pins().next().unwrap(),
        id: "ab12".to_owned(),
        secret: new_secret(&*entropy::system()),
    };
    let path = folder.path().join("join");
    #[expect(
        clippy::disallowed_methods,
        reason = "a join string is what an agent reads"
    )]
    fs::write(&path, join.to_text().expose_secret()).unwrap();
    let yaml = scene.yaml("lab", &path.display().to_string(), "proxy: none");
    scene.tries(name, yaml, "not enrolled yet").await
}

// ---------------------------------------------------------------- what is shown to be let in

async fn token_used(scene: &Scene) -> Page {
    let path = Scene::join(&scene.hub, "used").await;
    let join = Join::parse(&fs::read(&path).unwrap()).unwrap();
    let connection = fake::enrol_connection(&join, &scene.tasks).await;
    let key = KeyPair::generate().unwrap();
    let evidence = fake::by_token(&join);
    let first = fake::enrol(&connection, &join, &evidence, "used", &key).await;
    first.unwrap();
    let yaml = scene.yaml("used", &path, "proxy: none");
    scene.ends("token-used", yaml).await
}

async fn token_of_another(scene: &Scene) -> Page {
    let join = Scene::join(&scene.hub, "shop").await;
    let yaml = scene.yaml("lab", &join, "proxy: none");
    scene.ends("token-of-another", yaml).await
}

async fn token_expired(scene: &Scene) -> Page {
    let path = scene.hub.folder().join("late.join").display().to_string();
    let create = ["token", "create", "late", "--ttl", "1s", "--out", &path];
    ok(scene.hub.command(&create).await);
    let over = SystemClock.now() + Duration::from_secs(2);
    eventually("the token expires", || {
        (SystemClock.now() > over).then_some(())
    })
    .await;
    let yaml = scene.yaml("late", &path, "proxy: none");
    scene.ends("token-expired", yaml).await
}

async fn token_deleted(scene: &Scene) -> Page {
    let path = Scene::join(&scene.hub, "deleted").await;
    let join = Join::parse(&fs::read(&path).unwrap()).unwrap();
    ok(scene.hub.command(&["token", "delete", &join.id]).await);
    let yaml = scene.yaml("deleted", &path, "proxy: none");
    scene.ends("token-deleted", yaml).await
}

/// The mistakes of agents that join with a token of their pod.
async fn in_a_pod(scene: &Scene) -> Vec<Page> {
    let join = fake::join(&scene.hub, "unused", &[]).await;
    let pin = hex::encode(join.root_spki_sha256);
    let folder = TempDir::with_prefix("sortie-mistake-").unwrap();
    let missing = scene.yaml_in_pod(&pin, &folder.path().join("token"));
    let missing = scene.tries("pod-token-missing", missing, "not enrolled yet");
    let missing = missing.await.within(folder.path());

    let cluster = Testbed::shared().await.cluster();
    let api = cluster.api();
    let namespace = api.namespace("mistakes").await;
    let pod = pod_of(&api, &namespace, "sortie").await;
    let audience = "spiffe://test.sortie.example/hub";
    let page = async |name: &'static str, audience: &str, bound: bool| {
        let token = token_of(&api, &pod, audience, bound).await;
        let file = folder.path().join(name);
        fs::write(&file, token).unwrap();
        let page = scene.ends(name, scene.yaml_in_pod(&pin, &file)).await;
        page.within(folder.path())
            .hide(&namespace, "NAMESPACE")
            .hide(&cluster.url, "ISSUER")
    };
    let unknown = page("pod-issuer-unknown", audience, true).await;
    let subject = format!("{namespace}/somebody");
    add_cluster(&scene.hub, &api, "here", &subject, "lab").await;
    let audience_wrong = page("pod-token-audience", "https://kubernetes.default.svc", true).await;
    let not_bound = page("pod-token-not-bound", audience, false).await;
    let not_allowed = page("pod-not-allowed", audience, true).await;
    vec![missing, unknown, audience_wrong, not_bound, not_allowed]
}

// On several threads: what stands in between has to answer while agents are started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_an_agent_does_not_get_to_its_hub() {
    let scene = Scene::start().await;
    let minutes = Duration::from_mins;
    let one: Vec<LocalBoxFuture<'_, Page>> = vec![
        nobody_listens(&scene).boxed_local(),
        name_unknown(&scene).boxed_local(),
        enrols_at_the_data_port(&scene).boxed_local(),
        connects_to_the_enrol_port(&scene).boxed_local(),
        other_name(&scene).boxed_local(),
        other_root(&scene).boxed_local(),
        http_proxy(&scene).boxed_local(),
        load_balancer(&scene).boxed_local(),
        clock(&scene, "clock-behind", |now| now + minutes(10)).boxed_local(),
        clock(&scene, "clock-ahead", |now| now - minutes(60 * 24)).boxed_local(),
        token_used(&scene).boxed_local(),
        token_of_another(&scene).boxed_local(),
        token_deleted(&scene).boxed_local(),
    ];
    // Before any other token is made: the hub forgets expired ones then.
    let expired = token_expired(&scene).await;
    let (mut pages, in_a_pod) = tokio::join!(join_all(one), in_a_pod(&scene));
    pages.extend(in_a_pod);
    pages.push(expired);
    compare("joining", &pages);
}
