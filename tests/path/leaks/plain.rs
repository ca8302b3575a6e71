//! For comparison: the same secret fetched with the client library as its documentation has it.

use std::collections::HashMap;
use std::env;
use std::process::Stdio;

use rustls::crypto::aws_lc_rs;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};

use super::looks::{IN_USE, SECOND, Values};
use crate::aws::{READ, pod_identity};
use crate::support::eventually::{bounded, idle};
use crate::support::moto::Moto;
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::planted;
use crate::support::scan::Needles;
use crate::support::testbed::Testbed;

/// Where the plain client finds its engine, and the file of its token.
const VARIABLES: [&str; 3] = ["SORTIE_PLAIN_URL", "SORTIE_PLAIN_CA", "SORTIE_PLAIN_TOKEN"];

/// How often the secret is fetched.
const FETCHES: usize = 20;

/// What the plain client says when it has come to a point, and waits there.
const POINTS: [&str; 3] = ["held", "dropped", "closed"];

#[tokio::test]
#[ignore = "the other half of the test below, which runs it"]
async fn fetches_with_a_plain_client() {
    let [url, ca, token] = VARIABLES.map(|name| env::var_os(name).unwrap().into_string().unwrap());
    let _installed_before = aws_lc_rs::default_provider().install_default();
    let settings = VaultClientSettingsBuilder::default()
        .address(url)
        .ca_certs(vec![ca])
        .token(std::fs::read_to_string(token).unwrap())
        .build()
        .unwrap();
    let client = VaultClient::new(settings).unwrap();
    let mut held: Option<HashMap<String, String>> = None;
    for _ in 0..FETCHES {
        held = Some(vaultrs::kv2::read(&client, "kv", "shop").await.unwrap());
    }
    waits(POINTS[0]).await;
    drop(held);
    waits(POINTS[1]).await;
    drop(client);
    waits(POINTS[2]).await;
}

/// Says where it is, and waits for a line.
async fn waits(point: &str) {
    println!("{point}");
    let waiting = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_plain_client_leaves_more_than_the_agent_may() {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("plain").await;
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    let planted = planted::token(cluster, &namespace, "plain").await;
    bao.put("kv", "shop", &json!({"kubeconfig": planted.kubeconfig}))
        .await;
    bao.policy("reader", r#"path "kv/*" { capabilities = ["read"] }"#)
        .await;
    let login = bao.create_token(&["reader"], "1h").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, &login.secret).unwrap();
    let needles = Needles::new(&[&planted.values[0].1, login.secret.as_bytes()]);

    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("leaks::plain::fetches_with_a_plain_client")
        .env(VARIABLES[0], bao.url())
        .env(VARIABLES[1], bao.ca_file())
        .env(VARIABLES[2], &file);
    let mut client = Plain::start(&mut command);
    let mut copies = Vec::new();
    for point in POINTS {
        client.comes_to(point).await;
        let found = needles.scan(client.pid);
        copies.push((found.copies(0), found.copies(1)));
        println!(
            "plain client, {point}: {:?}, {:?}",
            copies.last(),
            found.forms
        );
        client.goes_on().await;
    }
    // The positive control of the other tests: this is what they would find.
    assert!(copies.iter().any(|(token, _)| *token > 1), "{copies:?}");
}

/// A plain client that runs.
struct Plain {
    pid: i32,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Plain {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            pid: child.id().unwrap().try_into().unwrap(),
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    /// Waits until it says that it has come to `point`, where it waits itself.
    async fn comes_to(&mut self, point: &str) {
        let mut line = String::new();
        while !line.ends_with(point) {
            let next = bounded("the plain client goes on", self.lines.next_line()).await;
            let next = next.unwrap();
            line = next.unwrap_or_else(|| panic!("ended before {point}"));
        }
    }

    async fn goes_on(&mut self) {
        self.stdin.write_all(b"\n").await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a program of its own: `.ci/soak leaks` builds and runs it"]
async fn the_sdk_of_aws_by_itself_leaves_more_than_the_agent_may() {
    let program = env::var_os("SORTIE_PLAIN_AWS")
        .expect("run it as `.ci/soak leaks`: the plain client has to be built");
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("plain-aws").await;
    let moto = Moto::start(&Authority::root("aws")).await;
    let role = moto.role("reader", &READ).await;
    let session = json!({"RoleArn": role, "RoleSessionName": "pod"});
    let lent = moto.call("sts", "assume_role", session).await["Credentials"].clone();
    let shop = planted::token(cluster, &namespace, "shop").await;
    let secret = json!({"Name": "shop", "SecretString": shop.kubeconfig});
    moto.call("secretsmanager", "create_secret", secret).await;
    let mut values = Values::default();
    values.add("shop", &shop);
    for name in ["SecretAccessKey", "SessionToken"] {
        let value = lent[name].as_str().unwrap().as_bytes().to_vec();
        values.0.push((name.to_owned(), value));
    }
    let needles = values.needles();

    let folder = tempfile::tempdir().unwrap();
    let (_pod, variables) = pod_identity(&folder, &lent, "planted-token-of-the-pod").await;
    let mut command = Command::new(program);
    command
        .env("HOME", folder.path())
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ENDPOINT_URL", moto.url())
        .env("SSL_CERT_FILE", moto.ca_file())
        .envs(variables);
    let mut client = Plain::start(&mut command);
    let mut most = vec![0; values.0.len()];
    for point in POINTS {
        client.comes_to(point).await;
        for when in ["at once", "after a second"] {
            let found = needles.scan(client.pid);
            let copies = values.report(&format!("plain client of AWS, {point}, {when}"), &found);
            for (most, copies) in most.iter_mut().zip(copies) {
                *most = copies.max(*most);
            }
            idle(SECOND).await;
        }
        client.goes_on().await;
    }
    assert!(most.iter().all(|most| *most > 0), "{most:?}");
    assert!(most.iter().any(|most| *most > IN_USE), "{most:?}");
}
