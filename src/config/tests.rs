use std::fs;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::source::{self, Environment};
use super::{ConfigError, agent, hub};
use crate::agent::{Evidence, Settings};
use crate::credential::{EngineSettings, Relaxation, Source};
use crate::entropy;
use crate::identity::join::{Join, new_secret};

const HUB: &str = r#"
name: hub-1
trust-domain: spinnaker.example
names: [hub.example.com, sortie-hub.spinnaker.svc]   # exactly these are in the hub's certificate
state-dir: /var/lib/sortie                            # CA, registry, view: back this up
listen: { data: "0.0.0.0:9091", enrol: "0.0.0.0:9092", facade: "0.0.0.0:7443", health: "0.0.0.0:8082", metrics: "127.0.0.1:8008" }
certificates: { agent-ttl: 24h, client-ttl: 12h, hub-ttl: 24h }
max-stale: 15m                                        # age of the view
"#;

const AGENT: &str = r#"
name: prod-eu
listen: { health: "0.0.0.0:8082", metrics: "127.0.0.1:8008" }
hub: { data: hub.example.com:9091, enrol: hub.example.com:9092, proxy: none }
identity:
  trust: { root-spki-sha256: "b15eca566b2cf4189769d8ae77cc6f8733d8a8a479388ae32514e003f6c90b73" }
  join: { method: kubernetes, token-file: /var/run/secrets/sortie/token }
engines:                                              # named connections
  prod-vault: { engine: vault, address: https://vault.internal:8200, ca-file: /etc/sortie/vault-ca.pem,
                auth: { method: kubernetes, role: sortie }, default: true }
  lab-vault: { engine: vault, address: "https://10.0.0.1/", ca-file: ca.pem, refresh: 30s,
               auth: { method: token, token-file: token } }
accounts:
  - name: prod-eu
    credential: { service-account: true }
  - name: lab
    credential: { kubeconfig-file: /etc/sortie/lab.yaml, context: lab }
  - name: shop
    credential: { secret: "sec+vault://prod-vault/secret/spinnaker/shop#kubeconfig" }
    namespaces: [shop, shop-canary]
    kinds: { cached: [Deployment.apps, ReplicaSet.apps, Pod, Service], live: [Event] }
    operations: [{ verbs: [get, list, create, update, patch, delete], subresources: [scale, status, log], kinds: ["*"], namespaces: ["*"] }]
    permissions: { read: [dev], write: [sre] }
  - name: old
    credential: { secret: "encrypted:vault!e:secret!p:spinnaker/old!k:kubeconfig" }
"#;

fn pod() -> Environment {
    Environment::of(|name| match name {
        "KUBERNETES_SERVICE_HOST" => Some("10.96.0.1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
        "HOSTNAME" => Some("agent-0".to_owned()),
        _ => None,
    })
}

fn nowhere() -> Environment {
    Environment::of(|_name| None)
}

fn told(error: &ConfigError) -> String {
    let text = error.to_string();
    assert!(matches!(error, ConfigError::Problems(_)), "{text}");
    text
}

#[test]
fn the_example_of_a_hub_reads_and_its_print_reads_back() {
    let settings = hub::read(Path::new("hub.yaml"), HUB).unwrap();
    assert_eq!(
        settings.names,
        ["hub.example.com", "sortie-hub.spinnaker.svc"]
    );
    let printed = hub::print(&settings);
    let again = hub::read(Path::new("hub.yaml"), &printed).unwrap();
    assert_eq!(hub::print(&again), printed);
}

#[test]
fn a_hub_needs_three_keys_and_the_rest_has_the_values_of_the_example() {
    let short = "name: hub-1\ntrust-domain: spinnaker.example\nnames: [hub.example.com, sortie-hub.spinnaker.svc]\n";
    let read = |text| hub::print(&hub::read(Path::new("hub.yaml"), text).unwrap());
    assert_eq!(read(short), read(HUB));
}

#[test]
fn the_example_of_an_agent_reads_and_its_print_reads_back() {
    let file = Path::new("/etc/sortie/agent.yaml");
    let settings = agent::read(file, AGENT, &pod()).unwrap();
    assert_eq!(settings.host, "agent-0");
    let ca_file = Path::new("/etc/sortie/ca.pem");
    assert!(
        matches!(&settings.engines[1].engine, EngineSettings::Vault(vault) if vault.ca_file == ca_file)
    );
    assert_eq!(settings.engines[1].refresh, Duration::from_secs(30));
    assert!(
        matches!(&settings.accounts[0].source, Source::ServiceAccount { host, port: 443, .. } if host == "10.96.0.1")
    );
    let printed = agent::print(&settings);
    let again = agent::read(file, &printed, &pod()).unwrap();
    assert_eq!(agent::print(&again), printed);
}

#[test]
fn all_mistakes_of_a_hub_are_told_at_once() {
    let text = "\
name: Hub_1
trust-domian: spinnaker.example
names: [hub.example.com, \"a b\"]
state-dir: [a]
listen:
  data: x
  enroll: 0.0.0.0:1
  facade: hub.example.com:7443
certificates:
  agent-ttl: 5s
  client-ttl: 100h
  hub-ttl: soon
max-stale: 15
colour: blue
";
    let wanted = "\
hub.yaml:1: name: a name is 1 to 63 lower-case letters, digits, `-` or `.`, and starts and ends with a letter or digit, got `Hub_1`
hub.yaml:1: trust-domain: is missing
hub.yaml:2: trust-domian: is not a key here; did you mean `trust-domain`?
hub.yaml:3: names[1]: must be a host name or an address, got `a b`
hub.yaml:4: state-dir: must be text
hub.yaml:6: listen.data: must be an address and a port, such as `0.0.0.0:9091`, got `x`
hub.yaml:7: listen.enroll: is not a key here; did you mean `enrol`?
hub.yaml:8: listen.facade: must be an address and a port, such as `0.0.0.0:9091`, got `hub.example.com:7443`
hub.yaml:10: certificates.agent-ttl: must be a duration from 10s to 3d, such as `15m`, got `5s`
hub.yaml:11: certificates.client-ttl: must be a duration from 10s to 3d, such as `15m`, got `100h`
hub.yaml:12: certificates.hub-ttl: must be a duration from 10s to 3d, such as `15m`, got `soon`
hub.yaml:13: max-stale: must be a duration from 1s to 1d, such as `15m`, got `15`
hub.yaml:14: colour: is not a key here; known are `certificates`, `listen`, `max-stale`, `name`, `names`, `state-dir`, `trust-domain`";
    let error = hub::read(Path::new("hub.yaml"), text).unwrap_err();
    assert_eq!(told(&error), wanted);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "\
name: prod-eu
state-dir: state
hub: { data: hub, proxy: environment }
identity:
  trust: { root-spki-sha256: \"ab\" }
  join: { method: kubernetes, join-file: join }
engines:
  one: { engine: gcp, address: http://vault, ca-file: ca.pem, auth: { method: ldap } }
  two: { engine: vault, address: https://user:pass@vault, ca-file: ca.pem, auth: { method: token, role: x, token-file: t } }
accounts:
  - name: lab
    credential: { service-account: true }
  - name: lab
    credential: { kubeconfig-file: lab.yaml, secret: x }
  - name: shop
    credential: { secret: \"sec+vault://three/secret/shop#kubeconfig\" }
    namespaces: [Shop]
    kinds: { cached: [Deployment.apps, \"*.apps\"] }
    operations: [{ verbs: [read], kinds: [] }]
";
    let wanted = "\
agent.yaml:2: state-dir: belongs to the join method `token`: this one needs no state
agent.yaml:3: hub.data: must be host:port, got `hub`
agent.yaml:3: hub.enrol: is missing
agent.yaml:3: hub.proxy: `environment` is not available in this version; write `none`
agent.yaml:5: identity.trust.root-spki-sha256: must be the 64 hex digits of a SHA-256; the hub logs it as `root-spki-sha256`
agent.yaml:6: identity.join.join-file: belongs to the method `token`
agent.yaml:6: identity.join.token-file: is missing
agent.yaml:8: engines.one.engine: `gcp` is no engine; there are `file`, `gcs`, `google-secrets-manager`, `k8s`, `noop`, `s3`, `secrets-manager`, `vault`
agent.yaml:9: engines.two.address: must be https://host or https://host:port
agent.yaml:9: engines.two.auth.role: does not belong to the method `token`
agent.yaml:12: accounts[0].credential.service-account: works in a pod only: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; elsewhere use `kubeconfig-file`
agent.yaml:13: accounts[1].name: `lab` is also the account in line 11
agent.yaml:14: accounts[1].credential: needs exactly one of `kubeconfig-file`, `secret`, `service-account`
agent.yaml:16: accounts[2].credential.secret: names the engine `three`, which is not under `engines`
agent.yaml:17: accounts[2].namespaces[0]: must be the name of a namespace, got `Shop`
agent.yaml:18: accounts[2].kinds.cached[1]: `*` stands for every kind and only alone, got `*.apps`
agent.yaml:19: accounts[2].operations[0].kinds: needs at least one entry
agent.yaml:19: accounts[2].operations[0].namespaces: needs at least one entry
agent.yaml:19: accounts[2].operations[0].verbs[0]: must be one of `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`, got `read`";
    let error = agent::read(Path::new("agent.yaml"), text, &nowhere()).unwrap_err();
    assert_eq!(told(&error), wanted);
}

#[test]
fn what_is_not_yaml_is_told_with_its_place() {
    let error = hub::read(Path::new("hub.yaml"), "name: &a x\n").unwrap_err();
    assert_eq!(
        told(&error),
        "hub.yaml:1: column 7: anchors and aliases are not accepted"
    );
    for text in ["", "- a\n", "just text"] {
        let error = hub::read(Path::new("hub.yaml"), text).unwrap_err();
        assert!(
            told(&error).contains("names: needs at least one entry"),
            "{text}"
        );
    }
}

/// A folder with a join string in `join`, and what it says.
fn joined() -> (TempDir, Join, String) {
    let folder = TempDir::new().unwrap();
    let join = Join {
        data: "hub.example.com:9091".to_owned(),
        enrol: "hub.example.com:9092".to_owned(),
        root_spki_sha256: [7; 32],
        id: "ab12".to_owned(),
        secret: new_secret(&*entropy::system()),
    };
    let text = join.to_text();
    #[expect(clippy::disallowed_methods, reason = "the test plants it")]
    let text = String::from_utf8(text.expose_secret().to_vec()).unwrap();
    fs::write(folder.path().join("join"), format!("{text}\n")).unwrap();
    (folder, join, text)
}

const BY_TOKEN: &str = "\
name: lab
identity: { join: { method: token, join-file: join } }
accounts: [{ name: lab, credential: { kubeconfig-file: lab.yaml } }]
";

#[test]
fn a_join_string_says_which_hub_and_lies_beside_the_configuration() {
    let (folder, join, _text) = joined();
    let file = folder.path().join("agent.yaml");
    let settings = agent::read(&file, BY_TOKEN, &nowhere()).unwrap();
    assert_eq!(settings.hub.data, join.data);
    assert_eq!(settings.hub.enrol, join.enrol);
    assert_eq!(settings.hub.root_spki_sha256, join.root_spki_sha256);
    assert!(matches!(&settings.evidence, Evidence::Token { id, .. } if *id == join.id));
    assert!(settings.state_dir.is_none());
}

#[test]
fn a_join_secret_is_never_printed() {
    let (folder, _join, text) = joined();
    let file = folder.path().join("agent.yaml");
    let settings = agent::read(&file, BY_TOKEN, &nowhere()).unwrap();
    let secret = text
        .rsplit('.')
        .next()
        .and_then(|secret| secret.get(..40))
        .unwrap();
    for shown in [agent::print(&settings), format!("{settings:?}")] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(agent::print(&settings).contains("token-id: \"ab12\""));
    // Nor when the file is damaged.
    fs::write(
        folder.path().join("join"),
        text.get(..text.len() - 5).unwrap(),
    )
    .unwrap();
    let error = agent::read(&file, BY_TOKEN, &nowhere()).unwrap_err();
    assert!(!error.to_string().contains(secret));
    assert!(
        error
            .to_string()
            .ends_with("the join string is damaged: copy it again, whole")
    );
}

#[test]
fn the_way_to_the_hub_may_be_another_than_the_join_strings() {
    let (folder, join, _text) = joined();
    let file = folder.path().join("agent.yaml");
    let text = format!("{BY_TOKEN}hub: {{ data: forwarder:1 }}\n");
    let settings = agent::read(&file, &text, &nowhere()).unwrap();
    assert_eq!(settings.hub.data, "forwarder:1");
    assert_eq!(settings.hub.enrol, join.enrol);
    assert_eq!(settings.hub.root_spki_sha256, join.root_spki_sha256);
}

#[test]
fn a_root_that_differs_from_the_join_string_is_refused() {
    let (folder, _join, _text) = joined();
    let file = folder.path().join("agent.yaml");
    let trust = format!(
        "identity: {{ trust: {{ root-spki-sha256: \"{}\" }}, join",
        "08".repeat(32)
    );
    let text = BY_TOKEN.replace("identity: { join", &trust);
    let error = agent::read(&file, &text, &nowhere()).unwrap_err();
    assert!(told(&error).contains("differs from the one in the join string"));
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_path() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("hub.yaml");
    let error = source::load(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read the configuration `{}`", path.display())
    );
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(
        source::load(&path),
        Err(ConfigError::NotText { .. })
    ));
}

/// A whole agent with these engines, indented by two, and an account of the first kind of secret.
fn with_engines(engines: &str, secret: &str) -> String {
    AGENT
        .split_once("engines:")
        .map(|(head, _)| {
            format!(
                "{head}engines:\n{engines}accounts:\n  - name: shop\n    \
                 credential: {{ secret: \"{secret}\" }}\n"
            )
        })
        .unwrap()
}

#[test]
fn engines_on_this_machine_and_in_clusters_read_and_their_print_reads_back() {
    let engines = "  own: { engine: k8s, in-cluster: true, default: true }\n  \
                   ops: { engine: k8s, kubeconfig-file: ops.yaml, context: c, namespace: sortie }\n  \
                   mounted: { engine: file, root: /var/run/kubeconfigs }\n  \
                   test: { engine: noop }\n";
    let text = with_engines(engines, "encryptedFile:k8s!n:Shop!k:config");
    let file = Path::new("/etc/sortie/agent.yaml");
    let settings = agent::read(file, &text, &pod()).unwrap();
    let printed = agent::print(&settings);
    let again = agent::read(file, &printed, &pod()).unwrap();
    let sorted = |mut engines: Vec<crate::credential::Settings>| {
        engines.sort_by(|one, other| one.name.cmp(&other.name));
        engines
    };
    assert_eq!(sorted(settings.engines), sorted(again.engines));
    assert_eq!(settings.accounts, again.accounts);
}

#[test]
fn mistakes_with_these_engines_are_told_at_their_places() {
    let engines = "  a: { engine: k8s }\n  \
                   b: { engine: k8s, in-cluster: true, kubeconfig-file: x }\n  \
                   c: { engine: k8s, in-cluster: true, context: c }\n  \
                   d: { engine: file, root: / }\n  \
                   e: { engine: file }\n  \
                   f: { engine: noop, root: /x }\n";
    let text = with_engines(engines, "sec+file://d/x");
    let error = agent::read(Path::new("agent.yaml"), &text, &nowhere()).unwrap_err();
    let told: Vec<String> = told(&error)
        .lines()
        .filter_map(|line| Some(line.split_once("engines.")?.1.to_owned()))
        .collect();
    let wanted = [
        "a.in-cluster: must be `true`, or `kubeconfig-file` must name another cluster",
        "b.kubeconfig-file: does not go with `in-cluster: true`",
        "c.context: belongs to `kubeconfig-file`",
        "c.in-cluster: works in a pod only: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT \
         are not set; elsewhere use `kubeconfig-file`",
        "d.root: must be a folder of its own, not `/`",
        "e.root: is missing",
        "f.root: is not a key here",
    ];
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for (told, wanted) in told.iter().zip(wanted) {
        assert!(told.starts_with(wanted), "{told} instead of {wanted}");
    }
}

/// [`AGENT`] with one account more, whose credential is this.
fn with_credential(credential: &str) -> String {
    format!("{AGENT}  - name: relaxed\n    credential: {{ {credential} }}\n")
}

#[test]
fn what_a_kubeconfig_may_do_is_read_and_printed() {
    let file = Path::new("/etc/sortie/agent.yaml");
    let text = with_credential(
        "secret: 'sec+vault://prod-vault/secret/a#k', context: c, \
         allow: [exec, files], exec: [[/bin/token, lab], [/bin/other]]",
    );
    let settings = agent::read(file, &text, &pod()).unwrap();
    let rules = settings.accounts.last().unwrap().source.rules().unwrap();
    assert_eq!(rules.allow, [Relaxation::Exec, Relaxation::Files]);
    assert_eq!(rules.exec.len(), 2);
    let printed = agent::print(&settings);
    let again = agent::read(file, &printed, &pod()).unwrap();
    let source = |settings: &Settings| settings.accounts.last().unwrap().source.clone();
    assert_eq!(source(&again), source(&settings));
}

#[test]
fn mistakes_about_what_a_kubeconfig_may_do_are_told() {
    let file = Path::new("agent.yaml");
    let reference = "secret: 'sec+vault://prod-vault/secret/a#k'";
    for (more, problem) in [
        ("allow: [exce], exec: [[/x]]", "did you mean `exec`?"),
        ("allow: [everything]", "known are `exec`, `files`"),
        ("allow: [exec]", "must list the commands"),
        ("exec: [[/bin/x]]", "unless `allow` has `exec`"),
        ("allow: [exec], exec: [[x]]", "absolute path"),
        ("allow: [exec], exec: [[]]", "absolute path"),
        ("allow: [exec], exec: ['/bin/x']", "must be a list"),
        ("token: { eks: nowhere, cluster: c }", "not under `engines`"),
        (
            "token: { eks: prod-vault, cluster: c }",
            "needs a connection to",
        ),
        ("token: { eks: prod-vault }", "is missing"),
        ("token: { gke: prod-vault, cluster: c }", "belongs to `eks`"),
        ("token: {}", "exactly one of `eks`, `gke`"),
    ] {
        let text = with_credential(&format!("{reference}, {more}"));
        let told = told(&agent::read(file, &text, &pod()).unwrap_err());
        assert!(told.contains(problem), "{more}: {told}");
    }
    let text = with_credential("service-account: true, allow: [files]");
    let told = told(&agent::read(file, &text, &pod()).unwrap_err());
    assert!(told.contains("not to `service-account`"), "{told}");
}
