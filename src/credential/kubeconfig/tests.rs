use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::credential::testkit::Authority;
use crate::credential::{Auth, Reason};

/// A kubeconfig whose cluster and user have these lines besides the server and its authority.
fn document(cluster: &str, user: &str) -> String {
    let authority = STANDARD.encode(Authority::new().pem());
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         contexts:\n- name: lab\n  context: {{ cluster: c, user: u, namespace: shop }}\n\
         clusters:\n- name: c\n  cluster:\n    certificate-authority-data: {authority}\n{cluster}\
         users:\n- name: u\n  user:\n{user}"
    )
}

const SERVER: &str = "    server: https://10.0.0.1:6443\n";
const TOKEN: &str = "    token: planted-token\n";

fn sealed(text: &str) -> Result<Credential, KubeconfigError> {
    read(text.as_bytes(), None, &Profile::Sealed)
}

fn refusal(cluster: &str, user: &str) -> (String, Reason) {
    let error = sealed(&document(cluster, user)).unwrap_err();
    let shown = format!("{} {error:?}", crate::fault::Chain(&error));
    assert!(!shown.contains("planted"), "{shown}");
    (error.to_string(), error.reason())
}

#[test]
fn a_token_and_its_cluster_are_read() {
    let credential = sealed(&document(SERVER, TOKEN)).unwrap();
    assert_eq!(credential.server().to_string(), "https://10.0.0.1:6443");
    assert_eq!(credential.namespace(), Some("shop"));
    assert_eq!(credential.roots().len(), 1);
    assert!(matches!(credential.auth(), Auth::Bearer(_)));
    let shown = format!("{credential:?}");
    assert!(shown.contains("10.0.0.1") && shown.contains("token"));
    assert!(!shown.contains("planted"));
}

#[test]
fn a_client_certificate_needs_its_own_key() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["client"]);
    let (_, other_key) = authority.issue(&["other"]);
    let user = |key: &str| {
        format!(
            "    client-certificate-data: {}\n    client-key-data: {}\n",
            STANDARD.encode(&certificate),
            STANDARD.encode(key)
        )
    };
    let credential = sealed(&document(SERVER, &user(&key))).unwrap();
    assert!(matches!(credential.auth(), Auth::ClientCertificate(_)));
    let (message, _) = refusal(SERVER, &user(&other_key));
    assert!(
        message.contains("client-key-data` (line 16) is not the key"),
        "{message}"
    );
}

#[test]
fn what_could_run_or_redirect_is_refused() {
    let exec =
        "    exec:\n      command: /usr/local/bin/aws\n      env: [{name: A, value: planted}]\n";
    let (message, reason) = refusal(SERVER, exec);
    assert_eq!(reason, Reason::ExecUnsupported);
    assert!(message.contains("runs `aws`") && message.contains("use a service account token"));
    let exec = "    exec: { command: 'sh -c planted' }\n";
    assert!(refusal(SERVER, exec).0.contains("runs `a command`"));
    for (cluster, user, problem) in [
        (
            SERVER,
            "    auth-provider: { name: oidc }\n",
            "is not supported",
        ),
        (SERVER, "    tokenFile: /etc/planted\n", "names a file"),
        (SERVER, "    client-key: /etc/planted\n", "names a file"),
        (
            SERVER,
            "    token: planted\n    as: admin\n",
            "impersonation",
        ),
        (
            SERVER,
            "    token: planted\n    as-groups: [a]\n",
            "impersonation",
        ),
        (
            SERVER,
            "    token: planted\n    username: u\n    password: planted\n",
            "more than one",
        ),
        (SERVER, "    token: \"planted value\"\n", "no token has"),
        (SERVER, "    token: [planted]\n", "is not a text"),
        (SERVER, "    tokens: planted\n", "not known"),
        ("    server: http://10.0.0.1\n", TOKEN, "must use https"),
        (
            "    server: https://169.254.169.254\n",
            TOKEN,
            "metadata or link-local",
        ),
        (
            "    server: https://[fe80::1]\n",
            TOKEN,
            "metadata or link-local",
        ),
        (
            "    server: https://h\n    insecure-skip-tls-verify: true\n",
            TOKEN,
            "trust anybody",
        ),
        (
            "    server: https://h\n    proxy-url: http://planted@p\n",
            TOKEN,
            "is not supported",
        ),
        (
            "    server: https://h\n    tls-server-name: '*'\n",
            TOKEN,
            "not a name",
        ),
        ("", TOKEN, "is missing"),
    ] {
        let (message, reason) = refusal(cluster, user);
        assert!(message.contains(problem), "{problem}: {message}");
        assert_eq!(reason, Reason::KubeconfigInvalid);
    }
}

#[test]
fn loopback_and_a_base_path_are_accepted() {
    for server in [
        "https://127.0.0.1:6443",
        "https://localhost",
        "https://r/k8s/clusters/c",
    ] {
        let cluster = format!("    server: {server}\n    insecure-skip-tls-verify: false\n");
        assert!(sealed(&document(&cluster, TOKEN)).is_ok(), "{server}");
    }
}

#[test]
fn the_systems_authorities_are_never_used() {
    let text = document(SERVER, TOKEN);
    let lines = text.lines();
    let without: Vec<&str> = lines
        .filter(|line| !line.contains("certificate-authority-data"))
        .collect();
    let without = without.join(
        "
",
    );
    let error = sealed(&without).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has no certificate-authority-data")
    );
}

#[test]
fn contexts_are_chosen_by_name() {
    let text = document(SERVER, TOKEN);
    let by = |name| read(text.as_bytes(), Some(name), &Profile::Sealed);
    assert!(by("lab").is_ok());
    assert!(by("other").is_err());
    let none = text.replace("current-context: lab\n", "");
    assert!(
        sealed(&none)
            .unwrap_err()
            .to_string()
            .contains("current-context")
    );
    let unknown = format!("{text}planted: x\n");
    let message = sealed(&unknown).unwrap_err().to_string();
    assert!(message.contains("not known") && !message.contains("planted"));
}

#[test]
fn a_file_may_name_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), Authority::new().pem()).unwrap();
    let text = document(SERVER, "    tokenFile: token\n");
    let lines: Vec<&str> = text
        .lines()
        .map(|line| {
            if line.contains("certificate-authority-data") {
                "    certificate-authority: ca.pem"
            } else {
                line
            }
        })
        .collect();
    let text = lines.join(
        "
",
    );
    let base = folder.path().to_owned();
    let profile = Profile::File { base };
    let credential = read(text.as_bytes(), None, &profile).unwrap();
    assert!(matches!(credential.auth(), Auth::BearerFile(_)));
    assert!(sealed(&text).is_err());
    std::fs::remove_file(folder.path().join("ca.pem")).unwrap();
    assert!(matches!(
        read(text.as_bytes(), None, &profile),
        Err(KubeconfigError::File { line: 10, .. })
    ));
}

#[test]
fn a_document_that_is_not_yaml_is_named_by_line_only() {
    let error = sealed("users: [planted\n  planted: {").unwrap_err();
    let shown = format!("{} {error:?}", crate::fault::Chain(&error));
    assert!(
        shown.contains("line") && !shown.contains("planted"),
        "{shown}"
    );
    assert!(matches!(
        read(b"\xff", None, &Profile::Sealed),
        Err(KubeconfigError::NotText)
    ));
}

proptest::proptest! {
    #[test]
    fn no_document_makes_the_reader_panic(at in 0..2000_usize, with in "[ -~\n]{0,12}") {
        let mut text = document(SERVER, TOKEN);
        let at = at.min(text.len());
        text.replace_range(at..(at + with.len()).min(text.len()), &with);
        drop(sealed(&text));
    }
}
