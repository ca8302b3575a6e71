//! The life of credentials, against a server that speaks Vault's protocol over TLS.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::clock::{self, Clock};
use crate::credential::Surroundings;
use crate::credential::testkit::{Authority, Reply, Scripted};
use crate::credential::vault::{self, AuthMethod};
use crate::credential::{EngineSettings, MAX_STALE, Reference, Rules, Settings};

const MINUTE: Duration = Duration::from_mins(1);

/// A server and the connection to it.
struct Bench {
    server: Option<Scripted>,
    tls: Arc<ServerConfig>,
    folder: TempDir,
    answer: String,
}

impl Bench {
    async fn start() -> Self {
        let authority = Authority::new();
        let tls = authority.tls(&[]);
        let answer = answer(&authority);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("token"), "planted-token").unwrap();
        let mut bench = Self {
            server: None,
            tls,
            folder,
            answer,
        };
        let any = "127.0.0.1:0".parse().unwrap();
        bench.serve(any).await;
        bench
    }

    async fn serve(&mut self, address: std::net::SocketAddr) {
        let answer = self.answer.clone();
        let script = move |request: &str| respond(request, &answer);
        self.server = Some(Scripted::start_at(address, Arc::clone(&self.tls), script).await);
    }

    fn server(&self) -> &Scripted {
        self.server.as_ref().unwrap()
    }

    fn settings(&self, name: &str, refresh: Duration, max_stale: Duration) -> Settings {
        Settings {
            name: name.to_owned(),
            default: false,
            refresh,
            max_stale,
            engine: EngineSettings::Vault(vault::Settings {
                address: format!("https://127.0.0.1:{}", self.server().address.port()),
                ca_file: self.folder.path().join("ca.pem"),
                auth: AuthMethod::TokenFile(self.folder.path().join("token")),
                namespace: None,
                certificate: None,
            }),
        }
    }

    /// How often the secret itself was asked for.
    fn reads(&self) -> usize {
        let requests = self.server().requests();
        let reads = requests.iter().filter(|request| request.contains("/data/"));
        reads.count()
    }
}

/// What the server says to one request.
fn respond(request: &str, answer: &str) -> Reply {
    match request.split(' ').nth(1).unwrap_or_default() {
        path if path.contains("/data/") => Reply::json(200, answer),
        path if path.contains("/sys/health") => {
            Reply::json(200, r#"{"initialized":true,"sealed":false}"#)
        }
        path if path.contains("internal/ui/mounts") => Reply::json(
            200,
            r#"{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"warnings":null,"auth":null,"wrap_info":null,"data":{"options":{"version":"2"},"type":"kv","path":"secret/"}}"#,
        ),
        // No right to the metadata: every refresh is a read.
        _ => Reply::json(403, r#"{"errors":["permission denied"]}"#),
    }
}

fn answer(authority: &Authority) -> String {
    let kubeconfig = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://10.0.0.1',\n  \
         certificate-authority-data: {}}}}}]\nusers: [{{name: u, user: {{token: planted}}}}]\n",
        STANDARD.encode(authority.pem())
    );
    json!({
        "request_id": "r", "lease_id": "", "lease_duration": 0, "renewable": false,
        "warnings": null, "auth": null, "wrap_info": null,
        "data": {
            "data": {"k": kubeconfig},
            "metadata": {"created_time": "t", "deletion_time": "", "destroyed": false,
                         "version": 3, "custom_metadata": null},
        },
    })
    .to_string()
}

fn source(engine: &str, path: &str) -> Source {
    Source::Secret {
        reference: Reference::parse(&format!("sec+vault://{engine}/secret/{path}#k")).unwrap(),
        context: None,
        rules: Rules::default(),
        max_stale: None,
    }
}

fn store(settings: Vec<Settings>, clock: SharedClock, tasks: &Tasks) -> Store {
    let engines = Arc::new(Engines::new(settings, Surroundings::of_system()));
    Store::new(engines, clock, entropy::system(), tasks.clone())
}

#[tokio::test]
async fn ten_thousand_who_ask_for_one_key_are_one_question() {
    let bench = Bench::start().await;
    let refresh = Duration::from_secs(2);
    let tasks = Tasks::new();
    let settings = vec![bench.settings("v", refresh, MAX_STALE)];
    let store = store(settings, clock::system(), &tasks);
    let wanted = source("v", "shop");
    let ask = || join_all((0..10_000).map(|_| store.get(&wanted)));
    let followed = store.follow(&wanted);
    let cold = ask().await;
    assert!(cold.iter().all(Result::is_ok));
    assert_eq!(bench.reads(), 1, "nobody had it");
    let published = followed.published();
    let first = published.borrow().confirmed.unwrap();
    // Time and again while it expires and is asked for anew.
    let expires = async {
        while bench.reads() < 2 {
            assert!(ask().await.iter().all(Result::is_ok));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), expires)
        .await
        .unwrap();
    assert_eq!(bench.reads(), 2);
    assert!(published.borrow().generation == 1 && first.elapsed().unwrap() >= refresh * 9 / 10);
    drop(followed);
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_thousand_keys_of_four_engines_come_within_ten_seconds_and_spread_out() {
    let mut benches = Vec::new();
    for _ in 0..4 {
        benches.push(Bench::start().await);
    }
    let names = ["a", "b", "c", "d"];
    let refresh = 5 * MINUTE;
    let of = |(name, bench): (&&str, &Bench)| bench.settings(name, refresh, MAX_STALE);
    let settings = names.iter().zip(&benches).map(of).collect();
    let tasks = Tasks::new();
    let store = store(settings, clock::system(), &tasks);
    let sources: Vec<Source> = (0..1_000)
        .map(|key| source(names[key % 4], &format!("shop-{key}")))
        .collect();
    let begun = tokio::time::Instant::now();
    let followed: Vec<Followed> = sources.iter().map(|source| store.follow(source)).collect();
    let got = join_all(sources.iter().map(|source| store.get(source))).await;
    let took = begun.elapsed();
    assert!(got.iter().all(Result::is_ok));
    assert!(took <= Duration::from_secs(10), "{took:?}");
    let reads: usize = benches.iter().map(Bench::reads).sum();
    assert_eq!(reads, 1_000);
    let most: usize = benches
        .iter()
        .map(|bench| bench.server().most_at_once())
        .sum();
    assert!(most <= 16, "{most} at once");
    let pauses = followed.iter().map(|followed| {
        let published = followed.published();
        let now = published.borrow();
        now.next_try
            .unwrap()
            .duration_since(now.confirmed.unwrap())
            .unwrap()
    });
    let pauses: BTreeSet<Duration> = pauses.collect();
    let spread = pauses
        .last()
        .unwrap()
        .checked_sub(*pauses.first().unwrap())
        .unwrap();
    assert!(spread >= refresh / 10, "{spread:?}");
    tasks.cancel();
}

/// The wall clock of a test whose timers are moved by hand.
#[derive(Debug)]
struct TestClock(tokio::time::Instant);

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(24) + self.0.elapsed()
    }
}

/// Keeps timers from running ahead while sockets are at work: a paused runtime does not advance by
/// itself while something blocks.
struct Still {
    _blocks: std::sync::mpsc::Sender<()>,
}

impl Still {
    fn new(tasks: &Tasks) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        tasks.spawn("still", |_stop| async {
            let waiting = tokio::task::spawn_blocking(move || receiver.recv());
            let _ended = waiting.await;
        });
        Self { _blocks: sender }
    }

    /// Moves the time by `step`, second by second, and lets what is due happen.
    async fn pass(&self, step: Duration) {
        let until = tokio::time::Instant::now() + step;
        while tokio::time::Instant::now() < until {
            let left = until - tokio::time::Instant::now();
            tokio::time::advance(left.min(Duration::from_secs(1))).await;
            for _ in 0..TURNS {
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            }
        }
    }
}

/// Turns of the runtime that one question and its answer take at most.
const TURNS: usize = 40;

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_for_two_hours_is_borne_for_as_long_as_was_agreed() {
    let tasks = Tasks::new();
    let still = Still::new(&tasks);
    let mut bench = Bench::start().await;
    let address = bench.server().address;
    let clock = Arc::new(TestClock(tokio::time::Instant::now()));
    let settings = vec![bench.settings("v", 5 * MINUTE, 90 * MINUTE)];
    let store = store(settings, clock, &tasks);
    let followed = store.follow(&source("v", "shop"));
    let mut published = followed.published();
    let first = published
        .wait_for(|now| now.generation == 1)
        .await
        .unwrap()
        .clone();
    assert_eq!(
        first.usable_until,
        first.confirmed.map(|at| at + 90 * MINUTE)
    );

    // Away. Nobody listens at the address.
    bench.server = None;
    let confirmed = tokio::time::Instant::now();
    while confirmed.elapsed() + Duration::from_secs(2) < 90 * MINUTE {
        still.pass(Duration::from_secs(1)).await;
        assert!(
            !published.borrow().suspended,
            "after {:?}",
            confirmed.elapsed()
        );
    }
    assert!(published.borrow().credential.is_some());
    assert_eq!(published.borrow().reason, Some(Reason::EngineUnavailable));
    still.pass(Duration::from_secs(4)).await;
    let told = published
        .wait_for(|now| now.suspended)
        .await
        .unwrap()
        .clone();
    assert!(told.credential.is_none(), "the plaintext is wiped");
    assert_eq!(told.reason, Some(Reason::CredentialExpired));
    assert!(
        told.message
            .contains("has not confirmed the credential since"),
        "{}",
        told.message
    );

    // It comes back, counts, and is asked at once.
    let fetches_of = |store: &Store| {
        let tally = store.engines.load().figures().fetches.read();
        tally.iter().map(|(_, count)| *count).sum::<u64>()
    };
    let at_suspension = fetches_of(&store);
    still.pass(30 * MINUTE).await;
    let asked = fetches_of(&store) - at_suspension;
    assert!(asked <= 6, "{asked} questions in 30 minutes at the cap");
    bench.serve(address).await;
    let back = tokio::time::Instant::now();
    while published.borrow().credential.is_none() {
        still.pass(Duration::from_secs(1)).await;
        assert!(back.elapsed() <= Duration::from_secs(30), "not recovered");
    }
    assert!(!published.borrow().suspended && published.borrow().reason.is_none());
    assert_eq!(bench.reads(), 1, "one question after the probe");
    drop(still);
    tasks.cancel();
}

#[tokio::test]
async fn what_nobody_follows_is_wiped_and_not_asked_for_again() {
    let bench = Bench::start().await;
    let tasks = Tasks::new();
    let settings = vec![bench.settings("v", Duration::from_secs(1), MAX_STALE)];
    let store = store(settings, clock::system(), &tasks);
    let wanted = source("v", "shop");
    let held = {
        let followed = store.follow(&wanted);
        let credential = store.get(&wanted).await.unwrap();
        let mut published = followed.published();
        drop(followed);
        // The keeper ends, and takes what it published along.
        while published.changed().await.is_ok() {}
        assert!(published.borrow().credential.is_none());
        Arc::downgrade(&credential)
    };
    assert!(held.upgrade().is_none());
    assert_eq!(tasks.running(), 0);
}

/// A server that lends kubeconfigs for a minute each, with the token that `token` says for the number
/// of the lease.
async fn lending(token: fn(usize) -> String) -> Bench {
    let mut bench = Bench::start().await;
    let answer: Value = serde_json::from_str(&bench.answer).unwrap();
    let kubeconfig = answer["data"]["data"]["k"].as_str().unwrap().to_owned();
    let lent = AtomicUsize::new(0);
    let any = "127.0.0.1:0".parse().unwrap();
    let script = move |request: &str| match request.split(' ').nth(1).unwrap_or_default() {
        path if path.contains("internal/ui/mounts") => Reply::json(
            200,
            r#"{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"warnings":null,"auth":null,"wrap_info":null,"data":{"options":null,"type":"database","path":"secret/"}}"#,
        ),
        path if path.contains("/secret/") => {
            let number = lent.fetch_add(1, Ordering::Relaxed) + 1;
            let kubeconfig = kubeconfig.replace("token: planted", &token(number));
            let answer = json!({
                "request_id": "r", "lease_id": format!("lease-{number}"), "lease_duration": 60,
                "renewable": false, "warnings": null, "auth": null, "wrap_info": null,
                "data": {"k": kubeconfig},
            });
            Reply::json(200, &answer.to_string())
        }
        _ => Reply::json(204, ""),
    };
    bench.server = Some(Scripted::start_at(any, Arc::clone(&bench.tls), script).await);
    bench
}

/// The numbers of the leases that were given back.
fn given_back(bench: &Bench) -> Vec<String> {
    let requests = bench.server().requests();
    let leases = requests
        .iter()
        .filter_map(|request| request.split_once(r#"{"lease_id":"lease-"#));
    leases
        .map(|(_, number)| number.trim_end_matches("\"}").to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_lent_is_given_back_once_the_credential_that_came_with_it_is_not_used_any_more() {
    let tasks = Tasks::new();
    let still = Still::new(&tasks);
    let bench = lending(|number| format!("token: planted-{number}")).await;
    let clock = Arc::new(TestClock(tokio::time::Instant::now()));
    let settings = vec![bench.settings("v", 5 * MINUTE, MAX_STALE)];
    let store = store(settings, clock, &tasks);
    let wanted = source("v", "shop");
    let followed = store.follow(&wanted);
    // As an account does until the next one works.
    let in_use = store.get(&wanted).await.unwrap();
    let published = followed.published();
    while published.borrow().generation < 2 {
        still.pass(Duration::from_secs(1)).await;
    }
    still.pass(Duration::from_secs(1)).await;
    assert!(given_back(&bench).is_empty(), "it is still used");
    drop(in_use);
    let over = tokio::time::Instant::now();
    while given_back(&bench).is_empty() {
        // In small steps, because the answer takes its own time.
        still.pass(Duration::from_millis(10)).await;
        assert!(over.elapsed() <= Duration::from_secs(5), "not given back");
    }
    assert_eq!(given_back(&bench), ["1"]);
    let engines = store.engines.load_full();
    engines.close(None).await;
    // The first one once more, if the answer to that was still on its way.
    let all: BTreeSet<String> = given_back(&bench).into_iter().collect();
    assert!(all.iter().eq(["1", "2"]), "{all:?}");
    drop(still);
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_is_lent_once_more_while_it_is_used_is_not_given_back() {
    let tasks = Tasks::new();
    let still = Still::new(&tasks);
    let bench = lending(|_| "token: planted".to_owned()).await;
    let clock = Arc::new(TestClock(tokio::time::Instant::now()));
    let settings = vec![bench.settings("v", 5 * MINUTE, MAX_STALE)];
    let store = store(settings, clock, &tasks);
    let followed = store.follow(&source("v", "shop"));
    let published = followed.published();
    still.pass(3 * MINUTE).await;
    assert_eq!(published.borrow().generation, 1);
    assert!(given_back(&bench).is_empty());
    drop(still);
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_the_store_deletes_by_itself_is_looked_at_when_that_is_due() {
    let tasks = Tasks::new();
    let still = Still::new(&tasks);
    let mut bench = Bench::start().await;
    let clock = Arc::new(TestClock(tokio::time::Instant::now()));
    let gone_at = clock.now() + MINUTE;
    let told = format!(r#""deletion_time":"{}""#, clock::rfc3339(gone_at));
    bench.answer = bench.answer.replace(r#""deletion_time":"""#, &told);
    bench.serve("127.0.0.1:0".parse().unwrap()).await;
    let settings = vec![bench.settings("v", 5 * MINUTE, MAX_STALE)];
    let store = store(settings, clock, &tasks);
    let followed = store.follow(&source("v", "shop"));
    let mut published = followed.published();
    let first = published.wait_for(|now| now.generation == 1).await;
    let soon = gone_at + Duration::from_secs(1);
    assert_eq!(first.unwrap().next_try, Some(soon));
    still.pass(MINUTE + Duration::from_secs(1)).await;
    let due = tokio::time::Instant::now();
    while published.borrow().next_try == Some(soon) {
        // In small steps, because the answer takes its own time.
        still.pass(Duration::from_millis(10)).await;
        assert!(due.elapsed() <= Duration::from_secs(5), "not asked");
    }
    assert_eq!(bench.reads(), 2);
    // It is still there: from here on as ever.
    assert!(published.borrow().next_try.unwrap() > soon + 4 * MINUTE);
    drop(still);
    tasks.cancel();
}
