//! Certificates rotated in a row while a cluster changes, seen from a watch at the facade.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::double::{Double, Settings};
use super::eventually::{bounded, eventually};
use super::facade::Facade;
use super::kube::Watch;
use super::stand::{Plan, Stand};

pub(super) const PODS: &str = "/api/v1/pods";

/// How many pods change in turn.
pub(super) const OBJECTS: usize = 1_000;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Certificates that came into use.
    pub(crate) rotations: usize,
    /// Changes that the cluster made.
    pub(crate) sent: u64,
    /// Events of the watch.
    pub(crate) seen: u64,
    /// Objects that the facade shows in another version than the cluster, or not at all.
    pub(crate) lost: usize,
    /// Events with a (uid, resourceVersion) that the watch had told before.
    pub(crate) duplicated: u64,
    /// Events with an older version than one that the watch had told of the object before.
    pub(crate) reordered: u64,
    /// Lists of the cluster after the first, of any kind.
    pub(crate) lists: u64,
    /// Watches of the cluster after the first, of any kind.
    pub(crate) watches: u64,
    /// The largest gap between two events of the watch.
    pub(crate) stall: Duration,
    /// From the first command to the last certificate.
    pub(crate) took: Duration,
}

/// Rotates the agent's certificate so often, one after the other, under so many events a second.
pub(crate) async fn rotate(rotations: usize, per_second: u64) -> Report {
    let double = Double::start(Settings {
        objects: vec![("pods", OBJECTS)],
        changing: true,
        ..Settings::default()
    });
    let stand = Stand::start(Plan::one("lab", &double.write_kubeconfig(), "")).await;
    let facade = Facade::of(&stand.kubeconfig("lab", "watcher").await);
    let version = versions(&facade.get(PODS).await).1;
    let query = format!("{PODS}?watch=1&timeoutSeconds=3600&resourceVersion={version}");
    let mut seen = Seen::new(facade.watch(&query).await);
    let before = (double.count_all("list"), double.count_all("watch"));
    double.drive("pods", per_second);
    let start = Instant::now();
    let socket = stand.hub.folder().join("state").join("admin.sock");
    let rotating = async {
        for number in 1..=rotations {
            command(&socket, &json!({"command": "rotate", "agent": "lab"})).await;
            let what = format!("certificate {number} is in use");
            eventually(&what, || (rotated(&stand) >= number).then_some(())).await;
        }
    };
    seen.until(rotating).await;
    let took = start.elapsed();
    double.drive("pods", 0);
    let mut report = Report {
        rotations: rotated(&stand),
        took,
        ..Report::default()
    };
    // What the drive had begun is in by then: the list and the last event agree.
    let wanted = seen.settle(&double).await;
    report.lists = double.count_all("list") - before.0 - wanted.lists;
    report.watches = double.count_all("watch") - before.1;
    report.sent = double.emitted();
    let served = versions(&facade.get(PODS).await).0;
    let differ = |(uid, version): &(&String, &u64)| served.get(*uid) != Some(*version);
    report.lost = wanted.objects.iter().filter(differ).count() + served.len().abs_diff(OBJECTS);
    report.seen = seen.events;
    report.duplicated = seen.duplicated;
    report.reordered = seen.reordered;
    report.stall = seen.stall;
    report
}

fn rotated(stand: &Stand) -> usize {
    let log = stand.agent.log();
    let rotated = log
        .entries()
        .filter(|entry| entry.message() == Some("certificate rotated"));
    rotated.count()
}

/// Sends one command to the hub's administration socket; it has to be done.
pub(crate) async fn command(socket: &Path, request: &Value) -> Value {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = bounded("an answer of the hub", asked)
        .await
        .expect("the hub listens");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_ne!(answer["answer"], "error", "{answer}");
    answer
}

/// The versions of a list's objects by uid, and its own.
pub(crate) fn versions(list: &Value) -> (BTreeMap<String, u64>, u64) {
    let number = |meta: &Value| meta["resourceVersion"].as_str()?.parse().ok();
    let items = list["items"].as_array().expect("a list");
    let of = |item: &Value| {
        let meta = &item["metadata"];
        let uid = meta["uid"].as_str().expect("a uid").to_owned();
        (uid, number(meta).expect("a version"))
    };
    (
        items.iter().map(of).collect(),
        number(&list["metadata"]).expect("a version"),
    )
}

/// The cluster at its end.
pub(super) struct Settled {
    pub(super) objects: BTreeMap<String, u64>,
    pub(super) lists: u64,
}

/// A watch and what it told.
pub(super) struct Seen {
    watch: Watch,
    pairs: BTreeSet<(String, u64)>,
    newest: BTreeMap<String, u64>,
    latest: u64,
    pub(super) events: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    last: Option<Instant>,
    /// The largest gap between two events so far.
    pub(super) stall: Duration,
}

impl Seen {
    pub(super) fn new(watch: Watch) -> Self {
        Self {
            watch,
            pairs: BTreeSet::new(),
            newest: BTreeMap::new(),
            latest: 0,
            events: 0,
            duplicated: 0,
            reordered: 0,
            last: None,
            stall: Duration::ZERO,
        }
    }

    /// Reads the watch until `done` is.
    pub(super) async fn until<T>(&mut self, done: impl Future<Output = T>) -> T {
        tokio::pin!(done);
        loop {
            tokio::select! {
                done = &mut done => return done,
                line = self.watch.next_line() => self.note(&line.expect("the watch goes on")),
            }
        }
    }

    /// Reads the next event.
    pub(super) async fn event(&mut self) {
        let before = self.events;
        while self.events == before {
            let line = self.watch.next_line().await.expect("the watch goes on");
            self.note(&line);
        }
    }

    /// Reads the watch until it has told the cluster's newest change.
    pub(super) async fn settle(&mut self, double: &Double) -> Settled {
        let (mut objects, newest) = versions(&double.api().get(PODS).await);
        let mut lists = 1;
        while self.latest < newest {
            let line = self.watch.next_line().await.expect("the watch goes on");
            self.note(&line);
            if self.latest >= newest {
                // One tick of the drive may still have been under way.
                objects = versions(&double.api().get(PODS).await).0;
                lists += 1;
            }
        }
        Settled { objects, lists }
    }

    fn note(&mut self, line: &[u8]) {
        if memchr::memmem::find(&line[..line.len().min(40)], b"BOOKMARK").is_some() {
            return;
        }
        let uid = text(line, b"\"uid\":\"");
        let version: u64 = text(line, b"\"resourceVersion\":\"")
            .parse()
            .expect("a number");
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.stall = self.stall.max(now - last);
        }
        self.events += 1;
        self.latest = self.latest.max(version);
        if !self.pairs.insert((uid.clone(), version)) {
            self.duplicated += 1;
        }
        if self
            .newest
            .insert(uid, version)
            .is_some_and(|before| before > version)
        {
            self.reordered += 1;
        }
    }
}

/// The first string behind `key`.
fn text(line: &[u8], key: &[u8]) -> String {
    let Some(found) = memchr::memmem::find(line, key) else {
        panic!("no object: {}", String::from_utf8_lossy(line));
    };
    let at = found + key.len();
    let end = memchr::memchr(b'"', &line[at..]).expect("it ends");
    String::from_utf8_lossy(&line[at..at + end]).into_owned()
}
