use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;

use super::*;
use crate::credential::testkit::Authority;
use crate::credential::{Asking, Auth, Fetched, Made, Minter, ProxyKind, Published, Reason};
use crate::secret::SecretBytes;

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
    read(text.as_bytes(), None, &Profile::sealed())
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
    assert!(matches!(credential.trust(), Trust::Authorities(roots) if roots.len() == 1));
    assert!(matches!(credential.auth(), Auth::Bearer(_)));
    let shown = format!("{credential:?}");
    assert!(shown.contains("10.0.0.1") && shown.contains("token"));
    assert!(!shown.contains("planted"));
}

/// As `base64` writes it and people paste it.
#[test]
fn base64_may_be_broken_over_lines() {
    let authority = STANDARD.encode(Authority::new().pem());
    let (first, rest) = authority.split_at(76);
    for written in [
        format!("|\n      {first}\n      {rest}\n"),
        format!(">-\n      {first}\n      {rest}\n"),
        format!("\"{first}\\n{rest}\\n\""),
        format!("\"{first}\\r\\n{rest}\\r\\n\""),
    ] {
        let text = document(SERVER, TOKEN);
        let line = text.lines().find(|line| line.contains("authority-data"));
        let broken = format!("    certificate-authority-data: {written}");
        let credential = sealed(&text.replace(line.unwrap(), &broken)).unwrap();
        assert!(matches!(credential.trust(), Trust::Authorities(roots) if roots.len() == 1));
    }
}

#[test]
fn a_panic_over_what_holds_a_secret_tells_nothing_of_it() {
    let secret = || SecretBytes::new(b"planted".to_vec());
    let credential = || sealed(&document(SERVER, TOKEN)).unwrap();
    let basic = "    username: planted\n    password: planted\n";
    let fetched = Fetched {
        document: secret(),
        version: None,
        lease: None,
        gone_at: None,
    };
    let published = Published {
        credential: Some(Arc::new(credential())),
        ..Published::default()
    };
    let held: [Box<dyn Debug>; 6] = [
        Box::new(secret()),
        Box::new(Auth::Bearer(secret())),
        Box::new(credential()),
        Box::new(sealed(&document(SERVER, basic)).map_err(|error| error.to_string())),
        Box::new(fetched),
        Box::new(published),
    ];
    for held in held {
        // As an `unwrap` of it would.
        let panicking = AssertUnwindSafe(|| panic!("unwrapped: {held:?}"));
        let Err(payload) = catch_unwind(panicking);
        let message = payload.downcast_ref::<String>().unwrap();
        assert!(message.starts_with("unwrapped: "), "{message}");
        assert!(!message.contains("planted"), "{message}");
    }
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
            "    auth-provider: { name: gcp }\n",
            "is not supported",
        ),
        (SERVER, "    tokenFile: /etc/planted\n", "names a file"),
        (SERVER, "    client-key: /etc/planted\n", "names a file"),
        (
            SERVER,
            "    token: planted\n    as-groups: [a]\n",
            "but no user",
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
            "    server: https://h\n    proxy-url: ftp://planted@p\n",
            TOKEN,
            "other proxies",
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

/// Of an account with these rules.
fn relaxed(rules: Rules, text: &str) -> Result<Credential, KubeconfigError> {
    let profile = Profile {
        rules,
        ..Profile::sealed()
    };
    read(text.as_bytes(), None, &profile)
}

fn allowing(allow: Relaxation) -> Rules {
    Rules {
        allow: vec![allow],
        ..Rules::default()
    }
}

#[test]
fn each_relaxation_opens_what_it_names_and_nothing_else() {
    use Relaxation as R;
    let token = tempfile::NamedTempFile::new().unwrap();
    let token_file = format!("    tokenFile: {}\n", token.path().display());
    let insecure = "    server: https://h\n    insecure-skip-tls-verify: true\n";
    for (relaxation, cluster, user) in [
        (R::Files, SERVER, token_file.as_str()),
        (R::InsecureSkipTlsVerify, insecure, TOKEN),
        (R::LinkLocal, "    server: https://169.254.1.1\n", TOKEN),
        (R::PlainHttp, "    server: http://10.0.0.1:8080\n", TOKEN),
        (R::UnknownFields, SERVER, "    token: planted\n    x: y\n"),
    ] {
        let text = document(cluster, user);
        for allowed in R::ALL {
            let read = relaxed(allowing(allowed), &text);
            assert_eq!(read.is_ok(), allowed == relaxation, "{allowed}: {text}");
        }
    }
    let relative = document(SERVER, "    tokenFile: ../planted\n");
    let error = relaxed(allowing(R::Files), &relative).unwrap_err();
    assert!(error.to_string().contains("not absolute"), "{error}");
    let trusted = relaxed(
        allowing(R::InsecureSkipTlsVerify),
        &document(insecure, TOKEN),
    );
    assert!(matches!(trusted.unwrap().trust(), Trust::Anybody));
}

#[test]
fn only_a_command_that_is_listed_word_by_word_is_run() {
    let rules = Rules {
        exec: vec![vec!["/bin/token".to_owned(), "lab".to_owned()]],
        ..allowing(Relaxation::Exec)
    };
    let exec = |more: &str| {
        document(
            SERVER,
            &format!("    exec: {{ apiVersion: client.authentication.k8s.io/v1, {more} }}\n"),
        )
    };
    let listed = "command: /bin/token, args: [lab]";
    let credential = relaxed(rules.clone(), &exec(listed)).unwrap();
    assert_eq!(credential.auth().kind(), "exec");
    for (more, problem) in [
        ("command: /bin/token".to_owned(), "word by word"),
        (
            "command: /bin/token, args: [lab, x]".to_owned(),
            "word by word",
        ),
        ("command: token, args: [lab]".to_owned(), "word by word"),
        (
            format!("{listed}, env: [{{ name: A, value: planted }}]"),
            "without any",
        ),
        (format!("{listed}, interactiveMode: Always"), "a terminal"),
        (
            format!("{listed}, provideClusterInfo: true"),
            "not supported",
        ),
        (format!("{listed}, planted: x"), "not known"),
    ] {
        let error = relaxed(rules.clone(), &exec(&more)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(problem) && !text.contains("planted"),
            "{text}"
        );
    }
    let other_version = exec(listed).replace("io/v1,", "io/v2,");
    assert!(relaxed(rules, &other_version).is_err());
}

#[derive(Debug)]
struct Mint;

impl Minter for Mint {
    fn mint(&self) -> Asking<'_, Made> {
        let token = SecretBytes::new(b"minted".to_vec());
        let hour = Duration::from_hours(1);
        Box::pin(async move { Ok(Made::token(token, crate::clock::system().now() + hour)) })
    }

    fn kind(&self) -> &'static str {
        "mint"
    }

    fn identity(&self, _add: &mut dyn FnMut(&[u8])) {}
}

#[tokio::test]
async fn a_connection_mints_in_place_of_the_commands_that_are_known() {
    let eks = || Minting::Eks {
        profile: "aws".to_owned(),
        cluster: "c".to_owned(),
    };
    let gke = || Minting::Gke {
        profile: "google".to_owned(),
    };
    for (token, command, replaced) in [
        (
            eks(),
            "command: aws, args: [--region, x, eks, get-token]",
            true,
        ),
        (
            eks(),
            "command: /usr/bin/aws-iam-authenticator, args: [token, -i, c]",
            true,
        ),
        (eks(), "command: aws, args: [s3, ls]", false),
        (eks(), "command: gke-gcloud-auth-plugin", false),
        (gke(), "command: gke-gcloud-auth-plugin", true),
        (gke(), "command: gcloud", false),
    ] {
        let text = document(SERVER, &format!("    exec: {{ {command} }}\n"));
        let rules = Rules {
            token: Some(token),
            ..Rules::default()
        };
        let without = relaxed(rules.clone(), &text).unwrap_err().to_string();
        let profile = Profile {
            rules,
            tokens: Some(Arc::new(Mint)),
            ..Profile::sealed()
        };
        let read = read(text.as_bytes(), None, &profile);
        assert_eq!(read.is_ok(), replaced, "{command}");
        let Ok(credential) = read else { continue };
        assert!(without.contains("mints none"), "{without}");
        let header = credential.auth().header().await.unwrap().unwrap();
        assert_eq!(header, "Bearer minted");
    }
}

#[test]
fn a_user_may_act_for_another() {
    let user = "    token: t\n    as: jane\n    as-uid: '7'\n    as-groups: [a, b]\n    \
                as-user-extra: { Example.com/Scopes: [x, y] }\n";
    let credential = sealed(&document(SERVER, user)).unwrap();
    let headers: Vec<String> = credential
        .impersonation()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    assert_eq!(
        headers,
        [
            "impersonate-user: jane",
            "impersonate-uid: 7",
            "impersonate-group: a",
            "impersonate-group: b",
            "impersonate-extra-example.com%2fscopes: x",
            "impersonate-extra-example.com%2fscopes: y",
        ]
    );
}

#[test]
fn a_proxy_and_its_user_are_read_and_not_shown() {
    let credential = |url: &str| {
        let cluster = format!("    server: https://h\n    proxy-url: '{url}'\n");
        sealed(&document(&cluster, TOKEN))
    };
    let two = |url: &str| {
        let credential = credential(url).unwrap();
        let proxy = credential.proxy().unwrap();
        let user = proxy.user().unwrap();
        assert!(!format!("{proxy:?}").contains("planted"));
        #[expect(clippy::disallowed_methods, reason = "the test planted it")]
        let pair = (user.name.expose_secret(), user.password.expose_secret());
        (
            proxy.kind(),
            proxy.server().authority(),
            pair.0.to_vec(),
            pair.1.to_vec(),
        )
    };
    let (http, socks) = (ProxyKind::Http, ProxyKind::Socks5);
    for (url, kind, at, name, password) in [
        (
            "http://who:planted%40@p:3128/",
            http,
            "p:3128",
            "who",
            "planted@",
        ),
        ("http://who@p", http, "p:80", "who", ""),
        (
            "socks5://who:planted%3A:@p",
            socks,
            "p:1080",
            "who",
            "planted::",
        ),
        (
            "socks5://who:planted@[::1]",
            socks,
            "[::1]:1080",
            "who",
            "planted",
        ),
        ("socks5://who@10.0.0.1:99", socks, "10.0.0.1:99", "who", ""),
    ] {
        let read = two(url);
        let wanted = (kind, at.to_owned(), name.into(), password.into());
        assert_eq!(read, wanted, "{url}");
    }
    let long = "x".repeat(256);
    for (url, problem) in [
        ("socks5h://p", "other proxies are not used"),
        ("https://p", "other proxies are not used"),
        ("socks5://p/path", "other proxies are not used"),
        ("socks5://169.254.169.254", "metadata"),
        ("socks5://who%3Aelse:planted@p", "colon"),
        ("socks5://:planted@p", "no user"),
        ("socks5://who:%planted@p", "not escaped well"),
        (&format!("socks5://who:{long}@p"), "255 bytes"),
    ] {
        let error = credential(url).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}\nnot: {problem}");
        assert!(!error.contains("planted"), "{error}");
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
    let by = |name| read(text.as_bytes(), Some(name), &Profile::sealed());
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
    let profile = Profile {
        base: Some(base),
        ..Profile::sealed()
    };
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
        read(b"\xff", None, &Profile::sealed()),
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
