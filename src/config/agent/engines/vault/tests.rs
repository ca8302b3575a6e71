use std::path::Path;

use crate::agent::Settings;
use crate::config::agent::{print, read};
use crate::config::source::Environment;
use crate::credential::vault::{self, AuthMethod, Proof};
use crate::credential::{EngineSettings, Identity};

const REST: &str = "\
name: lab
hub: { data: hub.example.com:9091, enrol: hub.example.com:9092, proxy: none }
identity:
  trust: { root-spki-sha256: \"b15eca566b2cf4189769d8ae77cc6f8733d8a8a479388ae32514e003f6c90b73\" }
  join: { method: kubernetes, token-file: token }
accounts: [{ name: lab, credential: { kubeconfig-file: lab.yaml } }]
engines:
";

fn engine(keys: &str) -> String {
    format!(
        "{REST}  bao: {{ engine: vault, address: \"https://bao:8200\", ca-file: ca.pem, {keys} }}\n"
    )
}

fn vault(settings: &Settings) -> &vault::Settings {
    match &settings.engines[0].engine {
        EngineSettings::Vault(vault) => vault,
        other => panic!("{other:?}"),
    }
}

fn nowhere() -> Environment {
    Environment::of(|_name| None)
}

/// What is wrong, without the place.
fn problem(keys: &str) -> String {
    let error = read(Path::new("agent.yaml"), &engine(keys), &nowhere()).unwrap_err();
    let text = error.to_string();
    let (_place, problem) = text.split_once("engines.bao.").unwrap();
    problem.to_owned()
}

#[test]
fn every_method_reads_and_its_print_reads_back() {
    for auth in [
        "method: approle, role-id: r, secret-id-file: s",
        "method: approle, role-id: r, secret-id-file: s, secret-id-wrapped: true, mount: team/a",
        "method: jwt, token-file: t",
        "method: jwt, token-file: t, role: r, mount: m",
        "method: kubernetes, role: r",
        "method: token, token-file: t",
        "method: userpass, user: agent@example.com, password-file: p",
    ] {
        let text = engine(&format!("namespace: a/b/, auth: {{ {auth} }}"));
        let file = Path::new("/etc/agent.yaml");
        let settings = read(file, &text, &nowhere()).unwrap();
        let printed = print(&settings);
        let again = read(file, &printed, &nowhere()).unwrap();
        assert_eq!(again.engines, settings.engines, "{printed}");
        assert_eq!(vault(&settings).namespace.as_deref(), Some("a/b"));
    }
}

#[test]
fn a_certificate_is_the_connections_and_serves_the_method() {
    let keys = "certificate-file: c.pem, key-file: k.pem, auth: { method: cert }";
    let settings = read(Path::new("/etc/agent.yaml"), &engine(keys), &nowhere()).unwrap();
    let vault = vault(&settings);
    let identity = Identity::Files {
        certificate_file: "/etc/c.pem".into(),
        key_file: "/etc/k.pem".into(),
    };
    assert_eq!(vault.certificate, Some(identity));
    let login = AuthMethod::Login {
        mount: "cert".to_owned(),
        proof: Proof::Certificate { role: None },
    };
    assert_eq!(vault.auth, login);
}

#[test]
fn the_method_cert_without_files_shows_the_agents_own_certificate() {
    for (keys, shown) in [
        ("auth: { method: cert }", Some(Identity::Own)),
        ("auth: { method: token, token-file: t }", None),
    ] {
        let settings = read(Path::new("/etc/agent.yaml"), &engine(keys), &nowhere()).unwrap();
        assert_eq!(vault(&settings).certificate, shown, "{keys}");
    }
}

#[test]
fn what_does_not_fit_is_told() {
    for (keys, told) in [
        (
            "certificate-file: c.pem, auth: { method: token, token-file: t }",
            "key-file: is missing",
        ),
        (
            "auth: { method: approle, role-id: r }",
            "auth.secret-id-file: is missing",
        ),
        (
            "auth: { method: userpass, user: a/b, password-file: p }",
            "auth.user: must be a name without `/`",
        ),
        (
            "auth: { method: userpass, user: a, password-file: p, role: r }",
            "auth.role: does not belong to the method `userpass`",
        ),
        (
            "auth: { method: ldap }",
            "auth.method: must be `approle`, `cert`, `jwt`, `kubernetes`, `token` or `userpass`, \
             got `ldap`",
        ),
        (
            "namespace: \"a b\", auth: { method: token, token-file: t }",
            "namespace: must be names without spaces, with `/` between them",
        ),
        (
            "auth: { method: kubernetes, role: r, mount: a/../b }",
            "auth.mount: must be names without spaces, with `/` between them",
        ),
    ] {
        assert_eq!(problem(keys), told, "{keys}");
    }
}
