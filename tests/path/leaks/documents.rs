//! Kubeconfigs, references and configurations with mistakes, and a planted value beside each.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answers::Planted;
use crate::support::pki::{Authority, Leaf};

/// Kubeconfigs that are refused.
pub(super) fn all(planted: &Planted) -> Vec<String> {
    let value = planted.payload.as_str();
    let authority = Authority::root("kubeconfig");
    let ca = STANDARD.encode(authority.pem());
    let good = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://10.255.255.1:1', \
         certificate-authority-data: {ca}}}}}]\n\
         users: [{{name: u, user: {{token: {value}}}}}]\n"
    );
    let with = |from: &str, to: &str| {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        changed
    };
    let token = format!("token: {value}");
    let user = |text: &str| with(&token, text);
    let cluster = |text: &str| with("server: 'https://10.255.255.1:1'", text);
    let mut all = users(value, &user);
    all.extend(servers(value, &cluster));
    all.extend([
        with(&ca, value),
        with(&ca, &STANDARD.encode(value)),
        with(
            &ca,
            &STANDARD.encode(format!(
                "-----BEGIN CERTIFICATE-----\n{value}\n-----END CERTIFICATE-----\n"
            )),
        ),
        with(
            &format!("certificate-authority-data: {ca}"),
            &format!("certificate-authority: /{value}"),
        ),
        with("current-context: c", &format!("current-context: {value}")),
        with("current-context: c", &format!("current-context: [{value}]")),
        with("cluster: c, user: u", &format!("cluster: {value}, user: u")),
        with("cluster: c, user: u", &format!("cluster: c, user: {value}")),
        with(
            "cluster: c, user: u",
            &format!("cluster: c, user: u, {value}: x"),
        ),
        with("apiVersion: v1", &format!("apiVersion: {value}")),
        with("kind: Config", &format!("kind: {value}")),
        with("kind: Config", &format!("kind: Config\n{value}: x")),
        with("kind: Config", &format!("kind: &{value} Config")),
        with("kind: Config", &format!("kind: *{value}")),
        with("kind: Config", &format!("kind: !{value} Config")),
        with("kind: Config", &format!("kind: \"{value}")),
        with("kind: Config", &format!("kind: Config\nkind: {value}")),
        with("kind: Config", &format!("kind: Config\n\t{value}")),
        with("kind: Config", &format!("kind: Config\n{value}")),
        with("kind: Config", &format!("kind: Config\n---\n{value}")),
        with(
            "kind: Config",
            &format!("kind: Config\nextensions: {}{value}", "[".repeat(5_000)),
        ),
        with("kind: Config", &format!("kind: \"\\x{value}\"")),
        with("kind: Config", &format!("%{value} 1.1\nkind: Config")),
        format!("{good}\u{0}{value}"),
        format!("{good}{}", format!("# {value}\n").repeat(50_000)),
        format!("{}{value}", good.split_once(value).expect("it holds it").0),
        value.to_owned(),
        format!("[{value}]"),
        format!("- {value}"),
        format!("{{\"users\": [\"{value}\""),
        STANDARD.encode(&good),
        // It reads well, and nobody is there.
        good.replace("10.255.255.1:1", "127.0.0.1:1"),
    ]);
    all
}

/// Clusters that are not where an API server can be.
fn servers(value: &str, cluster: &dyn Fn(&str) -> String) -> Vec<String> {
    vec![
        cluster(&format!("server: 'http://{value}'")),
        cluster(&format!("server: 'ftp://{value}'")),
        cluster(&format!("server: {value}")),
        cluster(&format!("server: 'https://u:{value}@h'")),
        cluster(&format!("server: 'https://h/{value}?q#{value}'")),
        cluster(&format!("server: 'https://h:{value}'")),
        cluster(&format!("server: [{value}]")),
        cluster(&format!("server: 'https://169.254.169.254/{value}'")),
        cluster(&format!(
            "server: 'https://h', insecure-skip-tls-verify: {value}"
        )),
        cluster(&format!(
            "server: 'https://h', proxy-url: 'http://u:{value}@p'"
        )),
        cluster(&format!("server: 'https://h', tls-server-name: '{value}/'")),
        cluster(&format!("server: 'https://h', {value}: x")),
    ]
}

fn users(value: &str, user: &dyn Fn(&str) -> String) -> Vec<String> {
    let authority = Authority::root("client");
    let (one, other) = (authority.issue(&Leaf::new()), authority.issue(&Leaf::new()));
    let chain = STANDARD.encode(one.chain_pem());
    let key = STANDARD.encode(other.key_pem());
    let garbage = STANDARD.encode(format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(value)
    ));
    [
        format!("token: [{value}]"),
        format!("token: '{value} {value}'"),
        format!("token: \"{value}\\n\""),
        format!("token: {value}é"),
        format!("token: {value}, password: {value}"),
        format!("token: {value}, username: u, password: {value}"),
        format!("token: {value}, tokenFile: /{value}"),
        format!("tokenFile: /{value}"),
        format!("username: 'u:{value}', password: {value}"),
        format!("username: {value}"),
        format!("password: {value}"),
        format!("username: [u], password: {value}"),
        format!("{value}: {value}"),
        format!("token: {value}, as: {value}"),
        format!("token: {value}, as-groups: [{value}]"),
        format!("token: {value}, as-user-extra: {{a: {value}}}"),
        format!("auth-provider: {{name: oidc, config: {{id-token: {value}}}}}"),
        format!("exec: {{command: aws, args: [{value}], env: [{{name: A, value: {value}}}]}}"),
        format!("exec: {{command: 'sh -c {value}'}}"),
        format!("exec: {value}"),
        format!("client-certificate: /{value}"),
        format!("client-certificate-data: {value}, client-key-data: {value}"),
        format!("client-certificate-data: {chain}, client-key-data: {value}"),
        format!("client-certificate-data: {chain}, client-key-data: {key}"),
        format!("client-certificate-data: {chain}, client-key-data: {garbage}"),
        format!("client-certificate-data: {garbage}, client-key-data: {key}"),
        format!("client-key-data: {}", STANDARD.encode(value)),
        format!("client-certificate-data: {chain}, client-key: /{value}"),
    ]
    .iter()
    .map(|text| user(text))
    .collect()
}

/// Configurations that are refused, with a credential where somebody in a hurry may put it.
pub(super) fn mistakes(planted: &Planted, folder: &Path) -> Vec<String> {
    let value = planted.login.as_str();
    let ca = folder.join("ca.pem").display().to_string();
    let config = |auth: &str, account: &str| {
        format!(
            "name: lab\nlisten: {{ health: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
             identity: {{ join: {{ method: token, join-file: /none }} }}\n\
             engines:\n  v: {{ engine: vault, address: \"https://127.0.0.1:1\", ca-file: {ca}, auth: {auth} }}\n\
             accounts:\n  - name: a\n    credential: {account}\n"
        )
    };
    let auth = format!(
        "{{ method: token, token-file: {}/token }}",
        folder.display()
    );
    let auths = [
        format!("{{ method: token, token: {value} }}"),
        format!("{{ method: token, token-file: /t, password: {value} }}"),
        format!("{{ method: userpass, user: u, password: {value} }}"),
        format!("{{ method: approle, role-id: r, secret-id: {value} }}"),
        format!("{{ method: jwt, role: r, jwt: {value} }}"),
        format!("{{ method: kubernetes, role: r, token: {value} }}"),
        format!("{{ method: token, token-file: [{value}] }}"),
        format!("{{ method: token, token-file: {{ x: {value} }} }}"),
        format!("[{value}]"),
        format!("{{ token: {value} }}"),
        format!("{{ method: token, token-file: &{value} /t }}"),
        format!("{{ method: token, token-file: \"{value} }}"),
        format!("{{ method: cert, role: r }}\n  w: {{ engine: vault, token: {value} }}"),
    ];
    let accounts = [
        format!("{{ token: {value} }}"),
        format!("{{ kubeconfig: {value} }}"),
        format!("{{ password: {value} }}"),
        format!("{{ kubeconfig: {{ users: [{{ user: {{ token: {value} }} }}] }} }}"),
        format!("{{ secret: {{ token: {value} }} }}"),
        format!("{{ secret: [{value}] }}"),
        format!("[{value}]"),
        format!("{{ secret: \"sec+vault://u:{value}@v/kv/a#k\" }}"),
        format!("{{ secret: \"sec+vault://v/kv/a?token={value}#k\" }}"),
        format!("{{ secret: \"encrypted:vault!e:kv!p:a!k:k!t:{value}\" }}"),
        format!("{{ secret: \"encrypted:{value}\" }}"),
        format!("{{ secret: \"{value}\" }}"),
        format!("{{ secret: \"sec+vault://v/kv/a#k\", token: {value} }}"),
        format!("{{ secret: \"sec+vault://v/kv/a#k\" }}\n    token: {value}"),
        format!("{{ secret: \"sec+vault://v/kv/a#k\" }}\n    client-key-data: {value}"),
    ];
    let mut all: Vec<String> = auths
        .iter()
        .map(|auth| config(auth, "{ secret: \"sec+vault://v/kv/a#k\" }"))
        .chain(accounts.iter().map(|account| config(&auth, account)))
        .collect();
    let good = config(&auth, "{ secret: \"sec+vault://v/kv/a#k\" }");
    all.extend([
        format!("{good}token: {value}\n"),
        format!("{good}password: [{value}]\n"),
        format!("{good}---\ntoken: {value}\n"),
        format!("{good}\t{value}\n"),
        good.replacen("join-file: /none", &format!("join: {value}"), 1),
        good.replacen("join-file: /none", &format!("secret: {value}"), 1),
    ]);
    all
}
