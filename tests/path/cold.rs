//! A thousand references that nobody has asked for, of four engines of different sorts.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sortie::credential::{
    EngineSettings, Engines, MAX_STALE, REFRESH, Reference, Rules, Settings, Source, Store,
    Surroundings, aws, google, kubernetes, vault,
};
use sortie::tasks::Tasks;
use sortie::{clock, entropy};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::door::{Calls, Door};
use crate::support::eventually::eventually;
use crate::support::google::{Google, PROJECT};
use crate::support::moto::Moto;
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::testbed::{Cluster, Testbed};

/// References of each engine.
const EACH: usize = 250;

/// Time for all of them.
const TIME: Duration = Duration::from_secs(10);

/// Calls that all engines together have under way at once, and each of them.
const AT_ONCE: usize = 16;
const AT_ONCE_EACH: usize = 4;

/// What stands for the token of the agent's `ServiceAccount` at AWS.
const POD_TOKEN: &str = "token-of-the-pod";

/// Writes under way at once while the secrets are put where they are looked for.
const WRITES: usize = 8;

/// How the engines are reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the doors, which count, and cost time themselves.
    Doors,
    Straight,
}

/// The engines, each behind a door of its own, and what they need to go on.
struct Lab {
    /// In the order of [`Lab::references`].
    doors: [(&'static str, Door); 4],
    all: Arc<Calls>,
    settings: Vec<Settings>,
    servers: Servers,
    _folder: TempDir,
}

/// The servers besides the testbed's, all of them filled.
struct Servers {
    bao: Bao,
    moto: Moto,
    google: Google,
    /// Of the Secrets.
    namespace: String,
    vault_token: String,
}

impl Servers {
    async fn start(authority: &Authority, cluster: &Cluster) -> Self {
        let namespace = cluster.api().namespace("cold").await;
        let (bao, moto, google) = tokio::join!(
            Bao::start(authority),
            Moto::start(authority),
            Google::start(authority),
        );
        let (vault_token, (), (), ()) = tokio::join!(
            fill_vault(&bao, cluster),
            fill_aws(&moto, cluster),
            fill_google(&google, cluster),
            fill_cluster(cluster, &namespace),
        );
        Self {
            bao,
            moto,
            google,
            namespace,
            vault_token,
        }
    }
}

impl Lab {
    async fn start(way: Way) -> Self {
        let authority = Authority::root("engines");
        let cluster = Testbed::shared().await.cluster();
        let servers = Servers::start(&authority, cluster).await;
        let Servers {
            bao, moto, google, ..
        } = &servers;
        let all = Arc::default();
        let own = vec![authority.der()];
        let pem = fs::read(&cluster.ca).unwrap();
        let of_cluster = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>();
        let before = async |url: &str, roots: Vec<CertificateDer<'static>>| {
            Door::before(address(url), roots, &authority, &all).await
        };
        let doors = [
            ("vault", before(&bao.url(), own.clone()).await),
            ("secrets-manager", before(moto.url(), own.clone()).await),
            ("google-secrets-manager", before(&google.url(), own).await),
            ("k8s", before(&cluster.url, of_cluster.unwrap()).await),
        ];
        let folder = TempDir::new().unwrap();
        let put = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let ca_file = put("ca.pem", &authority.pem());
        let own = [
            bao.url(),
            moto.url().to_owned(),
            google.url(),
            cluster.url.clone(),
        ];
        let url = |number: usize| match way {
            Way::Doors => doors[number].1.url(),
            Way::Straight => own[number].clone(),
        };
        let through = Cluster {
            url: url(3),
            ca: match way {
                Way::Doors => ca_file.display().to_string(),
                Way::Straight => cluster.ca.clone(),
            },
            ..cluster.clone()
        };
        let login = through.kubeconfig_as(&json!({"token": cluster.token}));
        let role_arn = moto.role("reader", &crate::aws::READ).await;
        let engines = [
            of_vault(url(0), &ca_file, put("vault-token", &servers.vault_token)),
            of_aws(&url(1), &ca_file, role_arn, put("pod-token", POD_TOKEN)),
            of_google(url(2), &ca_file, google.key_file()),
            of_k8s(put("login", &login)),
        ];
        let named = doors.iter().zip(engines);
        let settings = named.map(|((name, _), engine)| Settings {
            name: (*name).to_owned(),
            default: false,
            refresh: REFRESH,
            max_stale: MAX_STALE,
            engine,
        });
        Self {
            settings: settings.collect(),
            doors,
            all,
            servers,
            _folder: folder,
        }
    }

    /// The references, the engines in turns, and the token that each of them means.
    fn references(&self) -> Vec<(Source, String)> {
        let of_number = |number: usize| {
            let of_engine = [
                format!("vault://vault/kv/{number}#kubeconfig"),
                format!("secrets-manager://secrets-manager/shop-{number}"),
                format!("google-secrets-manager://google-secrets-manager/{PROJECT}/s-{number}"),
                format!(
                    "k8s://k8s/{}/shop-{number}#kubeconfig",
                    self.servers.namespace
                ),
            ];
            let engines = self.doors.iter().map(|(engine, _)| *engine);
            let pairs = engines.zip(of_engine);
            pairs.map(move |(engine, text)| (secret(&text), token(engine, number)))
        };
        (0..EACH).flat_map(of_number).collect()
    }
}

fn of_vault(address: String, ca_file: &Path, token_file: PathBuf) -> EngineSettings {
    EngineSettings::Vault(vault::Settings {
        address,
        namespace: None,
        ca_file: ca_file.to_owned(),
        certificate: None,
        auth: vault::AuthMethod::TokenFile(token_file),
    })
}

fn of_aws(url: &str, ca_file: &Path, role_arn: String, token_file: PathBuf) -> EngineSettings {
    EngineSettings::SecretsManager(aws::Settings {
        region: "eu-west-1".to_owned(),
        endpoint: Some(url.to_owned()),
        sts_endpoint: Some(url.to_owned()),
        ca_file: Some(ca_file.to_owned()),
        role: None,
        web_identity: Some(aws::WebIdentity {
            role_arn,
            token_file,
        }),
        instance_metadata: false,
    })
}

fn of_google(endpoint: String, ca_file: &Path, key_file: PathBuf) -> EngineSettings {
    EngineSettings::GoogleSecretsManager(google::Settings {
        endpoint,
        ca_file: Some(ca_file.to_owned()),
        auth: google::AuthMethod::KeyFile(key_file),
    })
}

const fn of_k8s(kubeconfig: PathBuf) -> EngineSettings {
    EngineSettings::Kubernetes(kubernetes::Settings {
        access: kubernetes::Access::Kubeconfig {
            path: kubeconfig,
            context: None,
        },
        namespace: None,
    })
}

fn address(url: &str) -> SocketAddr {
    let authority = url.strip_prefix("https://").unwrap();
    authority.parse().unwrap()
}

fn secret(reference: &str) -> Source {
    Source::Secret {
        reference: Reference::parse(&format!("sec+{reference}")).unwrap(),
        context: None,
        rules: Rules::default(),
        max_stale: None,
    }
}

/// No two references mean the same.
fn token(engine: &str, number: usize) -> String {
    format!("token-{number}-of-{engine}")
}

fn kubeconfig(cluster: &Cluster, engine: &str, number: usize) -> String {
    cluster.kubeconfig_as(&json!({"token": token(engine, number)}))
}

/// Makes all writes, a few at a time.
async fn each(write: impl AsyncFn(usize)) {
    let writing = |first: usize| {
        let write = &write;
        async move {
            for number in (first..EACH).step_by(WRITES) {
                write(number).await;
            }
        }
    };
    join_all((0..WRITES).map(writing)).await;
}

/// Gives a token that may read.
async fn fill_vault(bao: &Bao, cluster: &Cluster) -> String {
    bao.enable_kv2("kv").await;
    bao.policy("reader", r#"path "kv/*" { capabilities = ["read"] }"#)
        .await;
    each(async |number| {
        let fields = json!({"kubeconfig": kubeconfig(cluster, "vault", number)});
        bao.put("kv", &number.to_string(), &fields).await;
    })
    .await;
    bao.create_token(&["reader"], "1h").await.secret
}

async fn fill_aws(moto: &Moto, cluster: &Cluster) {
    let create = |number: usize| {
        let text = kubeconfig(cluster, "secrets-manager", number);
        let secret = json!({"Name": format!("shop-{number}"), "SecretString": text});
        ("secretsmanager", "create_secret", secret)
    };
    let calls: Vec<(&str, &str, Value)> = (0..EACH).map(create).collect();
    moto.calls(&calls).await;
}

async fn fill_google(google: &Google, cluster: &Cluster) {
    each(async |number| {
        let text = kubeconfig(cluster, "google-secrets-manager", number);
        let id = format!("s-{number}");
        google.put_secret(&id, text.as_bytes()).await;
    })
    .await;
}

async fn fill_cluster(cluster: &Cluster, namespace: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let api = cluster.api();
    each(async |number| {
        let text = STANDARD.encode(kubeconfig(cluster, "k8s", number));
        let secret = json!({
            "metadata": {"name": format!("shop-{number}")},
            "data": {"kubeconfig": text},
        });
        api.create(&path, &secret).await;
    })
    .await;
}

/// Asks for all of them at once, and gives how long it took; then waits, where doors tell, until all
/// that can be watched is.
async fn ask(lab: &Lab, way: Way) -> Duration {
    let tasks = Tasks::new();
    let engines = Arc::new(Engines::new(
        lab.settings.clone(),
        Surroundings::of_system(),
    ));
    let store = Store::new(engines, clock::system(), entropy::system(), tasks.clone());
    let wanted = lab.references();
    let began = Instant::now();
    // As accounts do: what is had stays in use.
    let follow = |(source, _): &(Source, String)| store.follow(source);
    let followed: Vec<_> = wanted.iter().map(follow).collect();
    let asked = wanted.iter().map(async |(source, _)| {
        let credential = store.get(source).await;
        (credential, began.elapsed())
    });
    let got = join_all(asked).await;
    let took = began.elapsed();
    for ((credential, _), (source, token)) in got.iter().zip(&wanted) {
        let credential = credential.as_ref();
        let credential = credential.unwrap_or_else(|told| panic!("{source}: {told:?}"));
        let header = credential.auth().header().await.unwrap().unwrap();
        assert_eq!(header, format!("Bearer {token}"), "{source}");
    }
    println!("{} references after {took:?}", got.len());
    for (engine, (name, _)) in lab.doors.iter().enumerate() {
        let own = got.iter().skip(engine).step_by(lab.doors.len());
        let last = own.map(|(_, after)| *after).max().unwrap();
        println!("{name}: the last after {last:?}");
    }
    if way == Way::Doors {
        eventually("every Secret is watched", || {
            (lab.all.watches() >= EACH).then_some(())
        })
        .await;
    }
    drop(followed);
    tasks.cancel();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_references_of_four_sorts_of_engine_are_sixteen_calls_at_once() {
    // As the program does, for Google's library.
    let _installed_before = aws_lc_rs::default_provider().install_default();
    let lab = Box::pin(Lab::start(Way::Doors)).await;
    ask(&lab, Way::Doors).await;
    for (name, door) in &lab.doors {
        let (total, most) = (door.calls.total(), door.calls.most());
        println!("{name}: {total} calls, {most} at once");
        assert!(total >= EACH, "{name} was asked through its door");
        assert!(most <= AT_ONCE_EACH, "{name}: {most}");
    }
    println!("all: {} at once", lab.all.most());
    assert!(lab.all.most() <= AT_ONCE, "{}", lab.all.most());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a machine that does nothing else: `.ci/soak cold` runs it"]
async fn a_thousand_references_of_four_sorts_of_engine_come_within_ten_seconds() {
    let _installed_before = aws_lc_rs::default_provider().install_default();
    let lab = Box::pin(Lab::start(Way::Straight)).await;
    let took = ask(&lab, Way::Straight).await;
    assert!(took <= TIME, "{took:?}");
}
