//! Hundreds of ways to fail, each with a value that may not be told: in no log at its most talkative,
//! no figure, no table, no check, no error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::answers::{self, Planted};
use super::documents;
use super::fault::{Fault, Reply};
use crate::support::eventually::within;
use crate::support::pki::Authority;
use crate::support::scan::Needles;
use crate::support::sortie::{http_get, run};
use crate::support::stand::{self, Plan, Stand};

/// Fewest cases, all kinds together.
const LEAST: usize = 300;

/// Time for all accounts to have failed: the slowest answers take their whole deadline.
const ALL_FAILED: std::time::Duration = std::time::Duration::from_mins(1);

/// Everything that is logged ever could be, and the libraries' own switches are open as well.
const OPTIONS: [&str; 2] = ["--log-level", "trace"];

/// One account that cannot work.
struct Case {
    /// Name of the account.
    account: String,
    /// Its `credential`.
    reference: String,
}

/// Cases of one agent, the answers that they get, and the engines that are asked.
#[derive(Default)]
struct Corpus {
    cases: Vec<Case>,
    replies: BTreeMap<String, Reply>,
    logins: BTreeSet<String>,
}

impl Corpus {
    fn of_answers(planted: &Planted) -> Self {
        let mut corpus = Self::default();
        for (number, reply) in answers::of_reads(planted).into_iter().enumerate() {
            corpus.read(&format!("answer-{number:03}"), reply);
        }
        corpus
    }

    fn of_logins_and_documents(planted: &Planted) -> Self {
        let mut corpus = Self::default();
        for (number, reply) in answers::of_logins(planted).into_iter().enumerate() {
            corpus.log_in(&format!("login-{number:03}"), reply);
        }
        for (number, text) in documents::all(planted).into_iter().enumerate() {
            let answer = answers::secret(&json!({"kubeconfig": text}));
            corpus.read(&format!("document-{number:03}"), Reply::json(200, &answer));
        }
        corpus
    }

    /// A secret that is read with a login that works.
    fn read(&mut self, name: &str, reply: Reply) {
        self.replies.insert(format!("/v1/kv/data/{name}"), reply);
        let mount = format!("/v1/sys/internal/ui/mounts/kv/{name}");
        self.replies.insert(mount, Reply::json(200, answers::MOUNT));
        self.cases.push(Case {
            account: name.to_owned(),
            reference: format!("sec+vault://fault/kv/{name}#kubeconfig"),
        });
    }

    /// A login that does not work.
    fn log_in(&mut self, name: &str, reply: Reply) {
        self.replies.insert(format!("/v1/auth/{name}/login"), reply);
        self.logins.insert(name.to_owned());
        self.cases.push(Case {
            account: name.to_owned(),
            reference: format!("sec+vault://{name}/kv/none#kubeconfig"),
        });
    }

    fn engines(&self, fault: &Fault, folder: &Path) -> String {
        let engine = |name: &str, auth: &str| {
            format!(
                "  {name}: {{ engine: vault, address: \"https://{}\", ca-file: {}, auth: {{ {auth} }} }}\n",
                fault.address,
                folder.join("ca.pem").display()
            )
        };
        let token = folder.join("token").display().to_string();
        let mut all = engine("fault", &format!("method: token, token-file: {token}"));
        for name in &self.logins {
            let auth = format!("method: kubernetes, role: r, mount: {name}, token-file: {token}");
            all += &engine(name, &auth);
        }
        all
    }

    fn accounts(&self) -> String {
        let account = |case: &Case| {
            format!(
                "  - name: {}\n    credential: {{ secret: \"{}\" }}\n",
                case.account, case.reference
            )
        };
        self.cases.iter().map(account).collect()
    }
}

/// Where values are looked for.
struct Sieve {
    needles: Needles,
    places: usize,
}

impl Sieve {
    #[track_caller]
    fn clean(&mut self, what: &str, text: &str) {
        let found = self.needles.look(text.as_bytes());
        if found.total() > 0 {
            let line = text
                .lines()
                .find(|line| self.needles.look(line.as_bytes()).total() > 0);
            panic!("{what}: {found:?} in {line:?}");
        }
        self.places += 1;
    }
}

#[tokio::test]
async fn no_failure_of_an_engine_or_a_kubeconfig_tells_a_planted_value() {
    let planted = Planted::draw();
    let mut sieve = Sieve {
        needles: planted.needles(),
        places: 0,
    };
    let control = format!("x{}x", STANDARD.encode(format!(" {}", planted.payload)));
    assert!(sieve.needles.look(control.as_bytes()).total() > 0);
    let folder = tempfile::tempdir().unwrap();
    let mut cases = 0;
    for corpus in [
        Corpus::of_answers(&planted),
        Corpus::of_logins_and_documents(&planted),
    ] {
        failing(&corpus, &planted, folder.path(), &mut sieve).await;
        cases += corpus.cases.len();
    }
    let mistakes = documents::mistakes(&planted, folder.path());
    for (number, text) in mistakes.iter().enumerate() {
        let file = folder.path().join(format!("mistake-{number:03}.yaml"));
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let ran = run(&["agent", "--check", "--config", &file], "").await;
        assert!(ran.code != Some(0), "mistake {number} is none: {text}");
        let shown = ran.stdout + &ran.stderr;
        sieve.clean(&format!("mistake {number}"), &shown);
    }
    cases += mistakes.len();
    println!("{cases} cases, {} places, 0 values", sieve.places);
    assert!(cases >= LEAST, "{cases}");
}

/// Runs an agent whose accounts all fail; looks at everything that it and its hub tell.
async fn failing(corpus: &Corpus, planted: &Planted, folder: &Path, sieve: &mut Sieve) {
    let authority = Authority::root("fault");
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    fs::write(folder.join("token"), &planted.login).unwrap();
    let fault = Fault::start(&authority, corpus.replies.clone()).await;
    let names = corpus.cases.iter().map(|case| case.account.clone());
    let plan = Plan {
        accounts: names.collect(),
        accounts_yaml: corpus.accounts(),
        engines_yaml: corpus.engines(&fault, folder),
        agent_ttl: "24h",
    };
    let hub = stand::hub_with(&OPTIONS, "24h").await;
    let open =
        ["RUST_LOG", "GOOGLE_CLOUD_RUST_LOGGING"].map(|name| (name.to_owned(), "trace".to_owned()));
    let agent = stand::agent_in(&open, &OPTIONS, &hub, "lab", &plan, "").await;
    let stand = Stand { hub, agent };
    all_failed(&stand, corpus.cases.len()).await;
    assert_no_core(stand.agent.pid());

    for form in ["json", "table"] {
        let listed = ["get", "accounts", "-o", form];
        let ran = stand.hub.command(&listed).await;
        assert!(ran.stdout.contains(&corpus.cases[0].account), "{ran:?}");
        sieve.clean(form, &(ran.stdout + &ran.stderr));
    }
    for (what, process) in [("agent", &stand.agent), ("hub", &stand.hub)] {
        let metrics = http_get(process.address("metrics").await, "/metrics").await;
        let metrics = metrics.expect("figures");
        assert!(metrics.contains("sortie_"), "{metrics}");
        sieve.clean(&format!("metrics of the {what}"), &metrics);
        sieve.clean(&format!("output of the {what}"), &process.stdout());
        sieve.clean(&format!("log of the {what}"), &process.stderr());
    }
    assert_capped(&stand, corpus.cases.len());
    let config = stand.agent.config_file().display().to_string();
    for more in ["--check", "--print-config"] {
        let arguments = ["agent", more, "--config", &config, "--log-level", "trace"];
        let ran = run(&arguments, "").await;
        let shown = ran.stdout + &ran.stderr;
        assert!(shown.contains(&corpus.cases[0].account), "{more}: {shown}");
        sieve.clean(more, &shown);
    }
}

/// The log tells of every failure, and the libraries tell nothing of what they do.
fn assert_capped(stand: &Stand, cases: usize) {
    let log = stand.agent.log();
    let told = log
        .entries()
        .filter(|entry| entry.message() == Some("credential not refreshed"));
    assert!(told.count() >= cases, "{log:?}");
    for entry in log.entries() {
        let target = entry.text("target").unwrap_or_default();
        let level = entry.text("level").unwrap_or_default();
        let is_ours = target == "sortie" || target.starts_with("sortie::");
        assert!(is_ours || matches!(level, "WARN" | "ERROR"), "{entry:?}");
        let prints_bodies = ["rustify", "vaultrs"]
            .iter()
            .any(|name| target.starts_with(name));
        assert!(!prints_bodies, "{entry:?}");
    }
}

/// Nobody has asked for dumps: the system makes none.
fn assert_no_core(pid: i32) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("readable");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
}

/// Waits until so many accounts are there, and all have failed with a reason.
async fn all_failed(stand: &Stand, wanted: usize) {
    let mut left = vec![format!("{wanted} that nobody knows")];
    let waiting = within(ALL_FAILED, "every account has failed", async || {
        let rows = rows(stand).await;
        if rows.len() != wanted {
            return None;
        }
        let works = rows.iter().filter(|row| row["state"] != "FAILED");
        left = works.map(ToString::to_string).collect();
        left.is_empty().then_some(rows)
    });
    let Ok(rows) = AssertUnwindSafe(waiting).catch_unwind().await else {
        panic!("not failed: {left:?}\n{:?}", stand.agent.log());
    };
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        let reason = row["reason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty(), "{row}");
        *reasons.entry(reason).or_default() += 1;
    }
    println!("{wanted} accounts: {reasons:?}");
}

async fn rows(stand: &Stand) -> Vec<Value> {
    let ran = stand::ok(stand.hub.command(&["get", "accounts", "-o", "json"]).await);
    let answer: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    answer["items"].as_array().expect("a list").clone()
}
