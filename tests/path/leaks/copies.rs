//! Copies in the memory of the agent: while in use, at rest, and when the account is gone.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tempfile::TempDir;

use super::looks::{
    AT_REST, IN_USE, LIVE, OPTIONS, SECOND, Values, assert_gone, looked_through, rewrite,
    secret_yaml,
};
#[cfg(feature = "aws")]
use crate::aws::{READ, pod_identity};
use crate::support::eventually::idle;
use crate::support::facade::Facade;
#[cfg(feature = "google")]
use crate::support::google::{Google, PROJECT};
#[cfg(feature = "aws")]
use crate::support::moto::Moto;
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::planted;
use crate::support::scan::{Found, Needles};
#[cfg(feature = "aws")]
use crate::support::server::Server;
use crate::support::stand::{self, Plan, Stand, account_yaml};
use crate::support::testbed::Testbed;

/// A hub and an agent with accounts from Vault, one of them fetched again every second, from a folder,
/// from a Secret, from AWS and from Google, and one account that stays.
struct Lab {
    stand: Stand,
    values: Values,
    steady_yaml: String,
    _bao: Bao,
    #[cfg(feature = "aws")]
    _aws: Aws,
    #[cfg(feature = "google")]
    _google: Google,
    _folder: TempDir,
}

/// The accounts from engines; what stands before the dash is the connection.
const ACCOUNTS: &[&str] = &[
    "calm-token",
    "calm-key",
    "busy-token",
    "files-token",
    "k8s-token",
    #[cfg(feature = "aws")]
    "aws-token",
    #[cfg(feature = "google")]
    "manager-token",
    #[cfg(feature = "google")]
    "storage-token",
];

impl Lab {
    async fn start() -> Self {
        let cluster = Testbed::shared().await.cluster();
        let namespace = cluster.api().namespace("copies").await;
        let bao = Bao::start(&Authority::root("bao")).await;
        bao.enable_kv2("kv").await;
        bao.policy("reader", r#"path "kv/*" { capabilities = ["read"] }"#)
            .await;
        let folder = tempfile::tempdir().unwrap();
        let mut values = Values::default();
        let mut engines_yaml = String::new();
        for (profile, refresh) in [("calm", "1h"), ("busy", "1s")] {
            let login = bao.create_token(&["reader"], "1h").await;
            let file = folder.path().join(profile);
            fs::write(&file, &login.secret).unwrap();
            let engine = format!(
                "  {profile}: {{ engine: vault, address: \"{}\", ca-file: {}, refresh: {refresh}, \
                 auth: {{ method: token, token-file: {} }} }}\n",
                bao.url(),
                bao.ca_file().display(),
                file.display()
            );
            engines_yaml.push_str(&engine);
            let name = format!("login of {profile}");
            values.0.push((name, login.secret.into_bytes()));
        }
        let login = planted::token(cluster, &namespace, "login").await;
        let login_file = folder.path().join("login.yaml");
        fs::write(&login_file, &login.kubeconfig).unwrap();
        values.add("login of k8s", &login);
        let files = folder.path().join("files");
        fs::create_dir(&files).unwrap();
        let engines = format!(
            "  files: {{ engine: file, root: {} }}\n  \
             k8s: {{ engine: k8s, kubeconfig-file: {}, namespace: {namespace} }}\n",
            files.display(),
            login_file.display()
        );
        engines_yaml.push_str(&engines);
        #[cfg(feature = "aws")]
        let aws = Aws::start(&folder, &mut values).await;
        #[cfg(feature = "aws")]
        engines_yaml.push_str(&aws.engine_yaml());
        #[cfg(feature = "google")]
        let google = Google::start(&Authority::root("google")).await;
        #[cfg(feature = "google")]
        {
            engines_yaml += &google_yaml(&google);
            let login = ("login of Google".to_owned(), google.key_part());
            values.0.push(login);
        }
        let steady = planted::token(cluster, &namespace, "steady").await;
        let steady_file = folder.path().join("steady.yaml");
        fs::write(&steady_file, &steady.kubeconfig).unwrap();
        values.add("steady", &steady);
        let steady_yaml = account_yaml("steady", &steady_file, "");
        let mut accounts_yaml = steady_yaml.clone();
        for name in ACCOUNTS {
            let planted = if name.ends_with("key") {
                planted::certificate(cluster)
            } else {
                planted::token(cluster, &namespace, name).await
            };
            let profile = name.split('-').next().unwrap();
            let reference = match profile {
                "files" => {
                    fs::write(files.join(name), &planted.kubeconfig).unwrap();
                    format!("sec+file://files/{name}")
                }
                "k8s" => {
                    let data = json!({"kubeconfig": STANDARD.encode(&planted.kubeconfig)});
                    let secret = json!({"metadata": {"name": name}, "data": data});
                    let path = format!("/api/v1/namespaces/{namespace}/secrets");
                    cluster.api().create(&path, &secret).await;
                    format!("sec+k8s://k8s/{name}#kubeconfig")
                }
                #[cfg(feature = "aws")]
                "aws" => {
                    let secret = json!({"Name": name, "SecretString": planted.kubeconfig});
                    aws.moto
                        .call("secretsmanager", "create_secret", secret)
                        .await;
                    format!("sec+secrets-manager://aws/{name}")
                }
                #[cfg(feature = "google")]
                "manager" => {
                    google.put_secret(name, planted.kubeconfig.as_bytes()).await;
                    format!("sec+google-secrets-manager://manager/{PROJECT}/{name}")
                }
                #[cfg(feature = "google")]
                "storage" => {
                    let text = planted.kubeconfig.as_bytes();
                    google.put_object("bucket", name, text).await;
                    format!("sec+gcs://storage/bucket/{name}")
                }
                _ => {
                    let document = json!({"kubeconfig": planted.kubeconfig});
                    bao.put("kv", name, &document).await;
                    format!("sec+vault://{profile}/kv/{name}#kubeconfig")
                }
            };
            accounts_yaml += &secret_yaml(name, &reference);
            values.add(name, &planted);
        }
        let names = ACCOUNTS.iter().chain(&["steady"]);
        let plan = Plan {
            accounts: names.map(|name| (*name).to_owned()).collect(),
            accounts_yaml,
            engines_yaml,
            agent_ttl: "24h",
        };
        #[cfg(feature = "aws")]
        let variables = aws.variables.clone();
        #[cfg(not(feature = "aws"))]
        let variables = Vec::new();
        Self {
            stand: start(&variables, &plan).await,
            values,
            steady_yaml,
            _bao: bao,
            #[cfg(feature = "aws")]
            _aws: aws,
            #[cfg(feature = "google")]
            _google: google,
            _folder: folder,
        }
    }

    /// As many copies as there may be at rest, and tokens are there: they go with every request.
    #[track_caller]
    fn assert_at_rest(&self, when: &str, found: &Found) {
        let copies = self.values.report(when, found);
        for ((name, _), copies) in self.values.0.iter().zip(&copies) {
            let most = match name {
                busy if busy.contains("busy") => IN_USE,
                // Each of the two connections has the key.
                shared if shared.contains("Google") => 2 * AT_REST,
                _ => AT_REST,
            };
            assert!(*copies <= most, "{when}: {name}: {copies}, {found:?}");
            assert!(
                !name.ends_with("-token: token") || *copies > 0,
                "{when}: {name} is not found"
            );
        }
    }

    /// Takes everything away but the account from a file; gives the values that have to go.
    async fn drop_accounts(&self) -> Values {
        rewrite(&self.stand, "", &self.steady_yaml).await;
        let goes = |(name, _): &&(String, Vec<u8>)| !name.starts_with("steady");
        Values(self.values.0.iter().filter(goes).cloned().collect())
    }
}

/// A hub, and an agent with these variables in its environment, once all accounts are ACTIVE.
async fn start(variables: &[(String, String)], plan: &Plan) -> Stand {
    let hub = stand::hub_with(&OPTIONS, plan.agent_ttl).await;
    let agent = stand::agent_in(variables, &OPTIONS, &hub, "lab", plan, "").await;
    let stand = Stand { hub, agent };
    for account in &plan.accounts {
        stand.wait(account, "ACTIVE").await;
    }
    stand
}

/// An emulator of AWS, and a pod whose agent is known there.
#[cfg(feature = "aws")]
struct Aws {
    moto: Moto,
    /// By which the agent finds out who it is.
    variables: Vec<(String, String)>,
    _pod: Server,
}

#[cfg(feature = "aws")]
impl Aws {
    /// What the pod is lent is added to `values`.
    async fn start(folder: &TempDir, values: &mut Values) -> Self {
        let moto = Moto::start(&Authority::root("aws")).await;
        let role = moto.role("reader", &READ).await;
        let session = json!({"RoleArn": role, "RoleSessionName": "pod"});
        let lent = moto.call("sts", "assume_role", session).await["Credentials"].clone();
        for name in ["SecretAccessKey", "SessionToken"] {
            let value = lent[name].as_str().unwrap().as_bytes().to_vec();
            values.0.push((format!("login of AWS: {name}"), value));
        }
        let (pod, mut variables) = pod_identity(folder, &lent, "planted-token-of-the-pod").await;
        variables.push(("HOME", folder.path().display().to_string()));
        let owned = |(name, value): (&str, String)| (name.to_owned(), value);
        Self {
            moto,
            variables: variables.into_iter().map(owned).collect(),
            _pod: pod,
        }
    }

    fn engine_yaml(&self) -> String {
        let url = self.moto.url();
        format!(
            "  aws: {{ engine: secrets-manager, region: eu-west-1, endpoint: \"{url}\", \
             sts-endpoint: \"{url}\", ca-file: {} }}\n",
            self.moto.ca_file().display()
        )
    }
}

/// Both engines of Google, with the key of a service account.
#[cfg(feature = "google")]
fn google_yaml(google: &Google) -> String {
    let (url, ca, key) = (google.url(), google.ca_file(), google.key_file());
    let rest = format!(
        "endpoint: \"{url}\", ca-file: {}, auth: {{ method: key-file, file: {} }}",
        ca.display(),
        key.display()
    );
    format!(
        "  manager: {{ engine: google-secrets-manager, {rest} }}\n  storage: {{ engine: gcs, {rest} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_an_engine_lies_in_memory_once_and_goes_with_its_account() {
    let lab = Lab::start().await;
    let pid = lab.stand.agent.pid();
    let most = looked_through(&lab.stand, ACCOUNTS, &lab.values, pid).await;
    for ((name, _), most) in lab.values.0.iter().zip(most) {
        assert!(most <= IN_USE, "in use: {name}: {most}");
    }
    idle(SECOND).await;
    let needles = lab.values.needles();
    lab.assert_at_rest("at rest", &needles.scan(pid));
    for name in ["environ", "cmdline"] {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).expect("readable");
        assert!(!bytes.is_empty(), "{name}");
        assert_eq!(needles.look(&bytes).total(), 0, "{name}");
    }
    let gone = lab.drop_accounts().await;
    assert_gone(&gone, pid).await;
    assert_eq!(lab.stand.account("steady").await["state"], "ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs gdb: `.ci/soak leaks` runs it"]
async fn a_core_dump_shows_what_memory_does_and_nothing_that_is_gone() {
    let lab = Lab::start().await;
    idle(SECOND).await;
    let needles = lab.values.needles();
    lab.assert_at_rest("dumped at rest", &dump(&lab.stand, &needles));
    let gone = lab.drop_accounts().await;
    assert_gone(&gone, lab.stand.agent.pid()).await;
    let found = dump(&lab.stand, &gone.needles());
    gone.assert_at_most(0, "dumped when gone", &found);
}

/// Looks through a core dump of the agent, made with gdb's gcore.
fn dump(stand: &Stand, needles: &Needles) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let pid = stand.agent.pid().to_string();
    let made = Command::new("gcore")
        .args(["-a", "-o"])
        .arg(folder.path().join("core"))
        .arg(&pid)
        .output()
        .expect("gcore is needed (Debian: apt-get install gdb)");
    let core = fs::read(folder.path().join(format!("core.{pid}")));
    let core = core.unwrap_or_else(|error| panic!("no core dump: {error}: {made:?}"));
    needles.look(&core)
}

#[tokio::test]
#[ignore = "needs strace: `.ci/soak leaks` runs it"]
async fn no_file_is_written_that_holds_a_value() {
    let traces = std::env::var_os("SORTIE_TRACES")
        .expect("run it as `.ci/soak leaks`: the program has to be started under strace");
    let lab = Lab::start().await;
    let (needles, pid) = (lab.values.needles(), lab.stand.agent.pid());
    for account in ACCOUNTS {
        let facade = Facade::of(&lab.stand.kubeconfig(account, account).await);
        facade.read(LIVE).await;
    }
    lab.drop_accounts().await;
    let mut stand = lab.stand;
    assert_eq!(stand.agent.stop().await, 0);
    let trace = Path::new(&traces).join(format!("{pid}.trace"));
    let trace = fs::read(&trace).expect("the agent was traced");
    let (mut files, mut bytes) = (0, 0);
    for line in trace.split(|byte| *byte == b'\n').map(unescaped) {
        // `write(7</path>, …`: what goes to sockets and pipes has another name there.
        let goes_to_a_file = line
            .split(|byte| *byte == b'<')
            .nth(1)
            .is_some_and(|name| name.starts_with(b"/"));
        if goes_to_a_file || !line.windows(5).any(|window| window == b"write") {
            files += usize::from(goes_to_a_file);
            bytes += line.len();
            let found = needles.look(&line);
            assert_eq!(found.total(), 0, "{}", String::from_utf8_lossy(&line));
        }
    }
    println!("{files} writes to files and {bytes} bytes of the trace, 0 values");
    let logged = stand.agent.stderr().lines().count();
    assert!(files >= logged, "{files} writes, {logged} lines of log");
}

/// What `strace -xx` wrote: every byte of a text as `\xNN`.
fn unescaped(line: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((first, after)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|code| code.get(..2));
        if let Some(byte) = code.and_then(|code| hex::decode(code).ok()) {
            bytes.extend(byte);
            rest = &rest[4..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}
