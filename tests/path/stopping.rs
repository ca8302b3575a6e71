//! A hub that is told to stop while clients watch, follow logs and wait for answers.
#![expect(clippy::expect_used, reason = "helpers of tests fail their test")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use rustls_pki_types::ServerName;
use sortie::tasks::Tasks;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::support::double::{Double, Settings};
use crate::support::eventually::{bounded, eventually};
use crate::support::fake::Client;
use crate::support::stand::{Plan, Stand, account_yaml};

/// What a drain may take.
const DRAIN: Duration = Duration::from_secs(25);

/// Runs hyper's tasks.
#[derive(Clone, Debug)]
struct Run(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Run {
    fn execute(&self, future: F) {
        self.0.spawn("h2", |_stop| future);
    }
}

/// One HTTP/2 connection, as kubectl has one for all that it does.
async fn http2(client: &Client, tasks: &Tasks) -> SendRequest<Full<Bytes>> {
    let authority = client.url.trim_start_matches("https://");
    let tcp = TcpStream::connect(authority).await.expect("it listens");
    let connector = TlsConnector::from(std::sync::Arc::new(client.tls(&[b"h2"])));
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let tls = connector.connect(name, tcp).await.expect("it is trusted");
    let shaking = hyper::client::conn::http2::handshake(Run(tasks.clone()), TokioIo::new(tls));
    let (sender, connection) = shaking.await.expect("it speaks HTTP/2");
    tasks.spawn("connection", |_stop| async move {
        let _seen_by_the_requests = connection.await;
    });
    sender
}

/// Opens a GET on that connection.
async fn open(
    sender: &SendRequest<Full<Bytes>>,
    client: &Client,
    path: &str,
) -> Response<Incoming> {
    let request = Request::get(format!("{}{}{path}", client.url, client.path))
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let mut sender = sender.clone();
    let response = bounded(path, sender.send_request(request)).await;
    let response = response.expect("the hub answers");
    assert_eq!(response.status(), 200, "{path}");
    response
}

/// Opens a GET on a connection of its own, over HTTP/1.1.
async fn open_own(client: &Client, path: &str) -> Response<Incoming> {
    let full = format!("{}{path}", client.path);
    let https = client.https();
    let own = https.open(Method::GET, &full, "application/json", Bytes::new());
    bounded(path, own).await.expect("the hub answers")
}

/// Opens the same GETs half over connections of their own, half on one.
async fn open_all(
    shared: &SendRequest<Full<Bytes>>,
    client: &Client,
    paths: &[String],
) -> Vec<Response<Incoming>> {
    let mut opened = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        opened.push(if number % 2 == 0 {
            open(shared, client, path).await
        } else {
            open_own(client, path).await
        });
    }
    opened
}

/// Reads a body that has no end of its own.
async fn read_on(response: Response<Incoming>) -> Result<(), hyper::Error> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

#[tokio::test]
async fn a_hub_that_stops_ends_watches_cuts_logs_and_answers_what_is_under_way() {
    let double = Double::start(Settings {
        objects: vec![("pods", 5), ("services", 1)],
        ..Settings::default()
    });
    let mut stand = Stand::start(Plan::one("lab", &double.write_kubeconfig(), "")).await;
    let client = Client::read(&stand.kubeconfig("lab", "visitor").await);
    let (https, tasks) = (client.https(), Tasks::new());
    let shared = http2(&client, &tasks).await;
    let watch = "/api/v1/pods?watch=1&timeoutSeconds=3600".to_owned();
    let watches = open_all(&shared, &client, &vec![watch; 20]).await;
    let log = |pod| {
        let namespace = pod % 4;
        format!("/api/v1/namespaces/ns-{namespace}/pods/pods-00000{pod}/log?follow=true")
    };
    let logs: Vec<String> = (0..5).map(log).collect();
    let mut logs = open_all(&shared, &client, &logs).await;
    double.freeze(true);
    let service = "/api/v1/namespaces/ns-0/services/services-000000";
    let service = format!("{}{service}", client.path);
    let label = Bytes::from_static(b"{\"metadata\":{\"labels\":{\"a\":\"b\"}}}");
    let kind = "application/merge-patch+json";
    let patching = https.send(Method::PATCH, &service, kind, label);

    let stopping = async {
        eventually("the API server was asked", || {
            (double.count("patch", "services") > 0).then_some(())
        })
        .await;
        let hub = Pid::from_raw(stand.hub.pid()).expect("a process");
        kill_process(hub, Signal::TERM).expect("it runs");
        let began = Instant::now();
        stand.hub.logged("draining").await;
        double.freeze(false);
        let exit = stand.hub.ended().await;
        (exit, began.elapsed())
    };
    // One of them is not read any more.
    let unread = logs.pop();
    let ended = join_all(watches.into_iter().map(read_on));
    let cut = join_all(logs.into_iter().map(read_on));
    let all = Box::pin(async { tokio::join!(stopping, patching, ended, cut) });
    let ((exit, took), patched, ended, cut) = bounded("everything ends", all).await;
    drop(unread);
    println!("drained in {took:?}, exit {exit}");
    assert_eq!(exit, 0, "{:?}", stand.hub.log());
    assert!(took < DRAIN, "{took:?}");
    assert_eq!(patched.expect("an answer").status, 200);
    let broken: Vec<_> = ended
        .iter()
        .filter_map(|watch| watch.as_ref().err())
        .collect();
    assert!(
        broken.is_empty(),
        "watches that did not end well: {broken:?}"
    );
    assert!(
        cut.iter().all(Result::is_err),
        "a log that is cut has no end: {cut:?}"
    );
    assert_eq!(stand.agent.stop().await, 0);
}

/// More accounts than an agent's link remembers ends of feeds.
const ACCOUNTS: usize = 80;

/// An agent of sound accounts, where nothing is under way, is gone by then.
const GONE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_agent_of_many_accounts_that_stops_is_gone_at_once() {
    let double = Double::start(Settings {
        objects: vec![("pods", 1)],
        ..Settings::default()
    });
    let kubeconfig = double.write_kubeconfig();
    let accounts: Vec<String> = (0..ACCOUNTS)
        .map(|number| format!("shop-{number}"))
        .collect();
    let kinds = "    kinds: { cached: [Pod], live: [] }\n";
    let yaml = |name: &String| account_yaml(name, &kubeconfig, kinds);
    let plan = Plan {
        accounts_yaml: accounts.iter().map(yaml).collect(),
        accounts,
        engines_yaml: String::new(),
        agent_ttl: "24h",
    };
    let mut stand = Stand::start(plan).await;
    let told = Instant::now();
    assert_eq!(stand.agent.stop().await, 0);
    println!("gone after {:?}", told.elapsed());
    assert!(told.elapsed() < GONE, "{:?}", told.elapsed());
}
