//! `sortie ref check` against a real `OpenBao`.
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::kubectl::Ran;
use crate::support::openbao::Bao;
use crate::support::pki::{Authority, Leaf};
use crate::support::sortie::run;

const TOKEN: &str = "planted-token-0123456789";

/// A kubeconfig with two users, and a piece of the key of one of them.
fn kubeconfig() -> (String, String) {
    let authority = Authority::root("cluster");
    let client = authority.issue(&Leaf::client("spiffe://test.example/client/a"));
    let data = |pem: String| STANDARD.encode(pem);
    let (ca, chain, key) = (
        data(authority.pem()),
        data(client.chain_pem()),
        data(client.key_pem()),
    );
    let text = format!(
        "current-context: by-token\n\
         contexts:\n\
         - {{ name: by-token, context: {{ cluster: c, user: token, namespace: shop }} }}\n\
         - {{ name: by-certificate, context: {{ cluster: c, user: certificate }} }}\n\
         clusters: [{{ name: c, cluster: {{ server: 'https://api.test.example:6443', \
         certificate-authority-data: {ca} }} }}]\n\
         users:\n\
         - {{ name: token, user: {{ token: {TOKEN} }} }}\n\
         - {{ name: certificate, user: {{ client-certificate-data: {chain}, client-key-data: {key} }} }}\n"
    );
    (text, key.get(64..96).expect("a key is longer").to_owned())
}

/// Writes the configuration of an agent with one connection, and gives its path.
fn configuration(bao: &Bao, folder: &Path) -> String {
    let token = folder.join("token");
    fs::write(&token, bao.root_token()).expect("written");
    let file = folder.join("agent.yaml");
    let config = format!(
        "name: lab\nhub: {{ data: \"hub.example.com:9091\", enrol: \"hub.example.com:9092\" }}\n\
         identity:\n  trust: {{ root-spki-sha256: \"{}\" }}\n  \
         join: {{ method: kubernetes, token-file: /none }}\n\
         engines:\n  bao: {{ engine: vault, address: \"{}\", ca-file: {}, default: true, \
         auth: {{ method: token, token-file: {} }} }}\n\
         accounts:\n  - {{ name: lab, credential: {{ service-account: true }} }}\n",
        "0".repeat(64),
        bao.url(),
        bao.ca_file().display(),
        token.display()
    );
    fs::write(&file, config).expect("written");
    file.to_str().expect("text").to_owned()
}

fn assert_lines(ran: &Ran, lines: &[&str]) {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for line in lines {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
}

#[tokio::test]
async fn a_check_shows_the_shape_of_a_kubeconfig_and_nothing_of_its_secrets() {
    let (kubeconfig, key) = kubeconfig();
    let bao = Bao::start(&Authority::root("engines")).await;
    bao.enable_kv2("kv").await;
    let fields = json!({ "kubeconfig": kubeconfig, "other": format!("token: {TOKEN}") });
    bao.put("kv", "shop", &fields).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = configuration(&bao, folder.path());
    let check = async |reference: &str, more: &[&str]| {
        let words = [
            "ref",
            "check",
            reference,
            "--config",
            &file,
            "--log-level",
            "trace",
        ];
        let ran = run(&[&words, more].concat(), "").await;
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        for secret in [TOKEN, &key, bao.root_token()] {
            assert!(!shown.contains(secret), "{shown}");
        }
        ran
    };

    let reference = "encrypted:vault!e:kv!p:shop!k:kubeconfig";
    let ran = check(reference, &[]).await;
    assert_lines(
        &ran,
        &[
            "reference       sec+vault:///kv/shop#kubeconfig\n",
            "connection      bao\n",
            "version         1@",
            "lease           none\n",
            "contexts        by-token, by-certificate\n",
            "server          https://api.test.example:6443\n",
            "namespace       shop\n",
            "user            token\n",
            "authority ends  ",
        ],
    );
    assert!(!ran.stdout.contains("certificate ends"), "{}", ran.stdout);
    let ran = check(reference, &["--context", "by-certificate"]).await;
    let user = "user              client-certificate\n";
    assert_lines(&ran, &[user, "certificate ends  "]);
    let ran = check("sec+vault://bao/kv/shop#*", &[]).await;
    assert_lines(&ran, &["fields      kubeconfig, other\n"]);

    let ran = check("sec+vault://bao/kv/shop#other", &[]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("version"), "{ran:?}");
    assert!(
        ran.stderr.contains("error: `kubeconfig` (line 1) "),
        "{ran:?}"
    );
    let ran = check("sec+vault://bao/kv/nobody#kubeconfig", &[]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("there is no such secret"), "{ran:?}");
}
