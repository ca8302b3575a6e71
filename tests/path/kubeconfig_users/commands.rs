//! With the token or client certificate of a command.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{CA, account, kubeconfig, plan};
use crate::support::eventually::{eventually, within};
use crate::support::fake::Client;
use crate::support::kube::Api;
use crate::support::pki::{Authority, Leaf};
use crate::support::planted::{self, Certificate};
use crate::support::scan::Needles;
use crate::support::stand::Stand;
use crate::support::testbed::{Cluster, Testbed};

/// Time after which nothing of a key may be left that another one has replaced.
const GONE: Duration = Duration::from_secs(5);

/// A command that does this.
fn plugin(folder: &Path, script: &str) -> PathBuf {
    let plugin = folder.join("plugin");
    fs::write(&plugin, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o700)).unwrap();
    plugin
}

#[tokio::test]
async fn a_listed_command_gives_the_token_and_an_unlisted_one_is_never_started() {
    let cluster = Testbed::shared().await.cluster();
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let answer = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": { "token": cluster.token },
    });
    let script = format!("echo \"$1\" >> {}\necho '{answer}'\n", ran.display());
    let plugin = plugin(folder.path(), &script);
    let with = |name: &str, argument: &str| {
        let user = format!(
            "    exec: {{ apiVersion: client.authentication.k8s.io/v1, command: {}, \
             args: [{argument}], interactiveMode: Never }}\n",
            plugin.display()
        );
        let path = kubeconfig(folder.path(), name, cluster, CA, &user);
        let allow = format!(", allow: [exec], exec: [[{}, listed]]", plugin.display());
        account(name, &path, &allow)
    };
    let accounts = [
        ("listed", with("listed", "listed")),
        ("other", with("other", "other")),
    ];
    let stand = Stand::joining(plan(&accounts)).await;
    stand.wait("listed", "ACTIVE").await;
    stand.wait("other", "FAILED").await;
    let row = stand.account("other").await;
    assert_eq!(row["reason"], "KubeconfigInvalid", "{row}");
    assert!(
        row["message"].as_str().unwrap().contains("word by word"),
        "{row}"
    );
    // One run served every request.
    assert_eq!(fs::read_to_string(&ran).unwrap(), "listed\n");
    let told = stand
        .agent
        .logged("the account's kubeconfig is read less strictly")
        .await;
    assert_eq!(told.text("allows"), Some("exec"));
    stand.agent.log().assert_without(&[&cluster.token]);
}

/// The answer of a command, of which `more` is a part of the status.
fn certificate_answer(certificate: &Certificate, more: &Value) -> String {
    let mut status = json!({
        "clientCertificateData": certificate.chain,
        "clientKeyData": certificate.key,
    });
    let more = more.as_object().unwrap().clone();
    status.as_object_mut().unwrap().extend(more);
    let answer = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    });
    answer.to_string()
}

/// The account `made`, whose command gives these certificates one after the other, with more in the
/// status of its answer: `@ENDS@` stands for ten seconds later. It writes a line of `ran` each time.
fn account_of_runs(folder: &Path, cluster: &Cluster, answers: &[(&Certificate, Value)]) -> String {
    for (number, (certificate, more)) in answers.iter().enumerate() {
        let path = folder.join((number + 1).to_string());
        fs::write(path, certificate_answer(certificate, more)).unwrap();
    }
    let script = format!(
        "cd {}\necho run >> ran\n\
         ends=$(/bin/date -u -d '+10 seconds' +%Y-%m-%dT%H:%M:%SZ)\n\
         /bin/sed \"s/@ENDS@/$ends/\" $(/usr/bin/wc -l < ran)\n",
        folder.display()
    );
    let plugin = plugin(folder, &script);
    let user = format!(
        "    exec: {{ apiVersion: client.authentication.k8s.io/v1, command: {}, \
         interactiveMode: Never }}\n",
        plugin.display()
    );
    let path = kubeconfig(folder, "made", cluster, CA, &user);
    let allow = format!(", allow: [exec], exec: [[{}]]", plugin.display());
    account("made", &path, &allow)
}

/// What the agent has asked for.
fn asked(testbed: &Testbed) -> impl Iterator<Item = Value> {
    let ours = |entry: &Value| {
        entry["userAgent"]
            .as_str()
            .unwrap_or_default()
            .starts_with("sortie")
    };
    testbed.audit().into_iter().filter(ours)
}

/// The paths that the agent watches or has watched as `user`.
fn watched(testbed: &Testbed, user: &str) -> BTreeSet<String> {
    let by_user = |entry: &Value| entry["verb"] == "watch" && entry["user"]["username"] == user;
    let watches = asked(testbed).filter(by_user);
    let path = |entry: Value| {
        let uri = entry["requestURI"].as_str().unwrap();
        uri.split('?').next().unwrap().to_owned()
    };
    watches.map(path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commands_client_certificate_is_renewed_in_time_and_every_watch_goes_over() {
    let testbed = Testbed::start_audited(&[]).await;
    let cluster = testbed.cluster();
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (
        planted::client_certificate(cluster, "first"),
        planted::client_certificate(cluster, "second"),
    );
    let foreign = Authority::root("another").issue(&Leaf::new());
    let foreign = Certificate {
        chain: foreign.chain_pem(),
        key: foreign.key_pem(),
        values: Vec::new(),
    };
    // By the word of the command the first two are good for ten seconds, and the API server does not
    // accept the second of them; the last is good until its own end.
    let answers = [
        (&first, json!({ "expirationTimestamp": "@ENDS@" })),
        (&foreign, json!({ "expirationTimestamp": "@ENDS@" })),
        (&second, json!({ "token": cluster.token })),
    ];
    let made = account_of_runs(folder.path(), cluster, &answers);
    let accounts = plan(&[("made", made)]);
    let stand = Stand::start_with(&["--allow-dump"], accounts).await;
    stand.wait("made", "ACTIVE").await;
    let before = eventually("each kind is watched", || {
        let watched = watched(&testbed, "first");
        (watched.len() >= 12).then_some(watched)
    })
    .await;
    let lists = testbed.lists();
    assert_eq!(watched(&testbed, "second"), BTreeSet::new());

    eventually("every watch goes over to the second", || {
        (watched(&testbed, "second") == before).then_some(())
    })
    .await;
    assert_eq!(testbed.lists(), lists, "nothing was listed again");
    let values: Vec<&[u8]> = first.values.iter().map(|(_, value)| &value[..]).collect();
    let (needles, agent) = (Needles::new(&values), stand.agent.pid());
    within(GONE, "nothing of the first key is left", async || {
        (needles.scan(agent).total() == 0).then_some(())
    })
    .await;
    let client = Client::read(&stand.kubeconfig("made", "visitor").await);
    let object = format!("{}/api/v1/namespaces/kube-public", client.path);
    let answer = Api::of(client.https())
        .ask(Method::GET, &object, None)
        .await;
    assert!(answer.status.is_success(), "{answer:?}");
    let entry = eventually("the object was asked for", || {
        asked(&testbed).find(|entry| entry["requestURI"] == "/api/v1/namespaces/kube-public")
    })
    .await;
    assert_eq!(entry["user"]["username"], "second", "{entry}");
    let row = stand.account("made").await;
    assert_eq!(row["state"], "ACTIVE", "{row}");
    let told = stand.agent.logged("client certificate renewed").await;
    assert_eq!(told.text("account"), Some("made"));
    assert_eq!(
        fs::read_to_string(folder.path().join("ran")).unwrap(),
        "run\nrun\nrun\n"
    );
    let refused = "the new client certificate does not work; the old one stays in use";
    stand.agent.logged(refused).await;
    let secrets = [&first, &foreign, &second];
    let secrets = secrets.map(|it| it.key.lines().nth(1).unwrap());
    let log = stand.agent.log();
    log.assert_without(&[secrets[0], secrets[1], secrets[2], &cluster.token]);
}
