//! Asks the facade for the same lists again and again, and counts what came back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use sortie::tasks::Tasks;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_rustls::TlsConnector;

use crate::support::fake::Client;

/// Time between two rounds of all paths.
const EVERY: Duration = Duration::from_millis(100);

/// Answers that take longer are counted as slow.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// How often, by status; what was not answered by what broke.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Lists without an item.
    pub(crate) empty: Vec<String>,
    /// Answers slower than [`SLOW`].
    pub(crate) slow: Vec<(String, Duration)>,
    /// The slowest answer.
    pub(crate) slowest: Duration,
}

/// Polls until dropped.
#[derive(Debug)]
pub(crate) struct Poller {
    table: Arc<Mutex<Table>>,
    tasks: Tasks,
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Poller {
    /// Asks the account of `kubeconfig` for `paths`, none of which is ever empty at the cluster.
    pub(crate) fn start(kubeconfig: &Path, paths: &'static [&'static str]) -> Self {
        let table = Arc::<Mutex<Table>>::default();
        let tasks = Tasks::new();
        let (client, seen, owner) = (Client::read(kubeconfig), Arc::clone(&table), tasks.clone());
        tasks.spawn("poller", async move |stop| {
            stop.run_until_cancelled(poll(client, paths, &seen, &owner))
                .await;
        });
        Self { table, tasks }
    }

    /// What came back since the last call.
    pub(crate) fn take(&self) -> Table {
        std::mem::take(&mut self.table.lock().expect("not poisoned"))
    }
}

async fn poll(client: Client, paths: &[&str], table: &Mutex<Table>, tasks: &Tasks) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        ticks.tick().await;
        for path in paths {
            let start = Instant::now();
            let answer = ask(&mut connection, &client, path, tasks).await;
            let took = start.elapsed();
            note(&mut table.lock().expect("not poisoned"), path, answer, took);
        }
    }
}

fn note(table: &mut Table, path: &str, answer: Result<(u16, Bytes), Error>, took: Duration) {
    let outcome = match answer {
        Ok((status, body)) => {
            // As every serializer of lists writes it.
            if status == 200 && memchr::memmem::find(&body, b"\"items\":[]").is_some() {
                table.empty.push(path.to_owned());
            }
            table.slowest = table.slowest.max(took);
            if took > SLOW {
                table.slow.push((path.to_owned(), took));
            }
            status.to_string()
        }
        Err(_) => "not connected".to_owned(),
    };
    *table.outcomes.entry(outcome).or_default() += 1;
}

async fn ask(
    connection: &mut Option<SendRequest<Empty<Bytes>>>,
    client: &Client,
    path: &str,
    tasks: &Tasks,
) -> Result<(u16, Bytes), Error> {
    let mut sender = match connection.take().filter(|sender| !sender.is_closed()) {
        Some(sender) => sender,
        None => connect(client, tasks).await?,
    };
    sender.ready().await?;
    let authority = client.url.trim_start_matches("https://");
    let request = Request::get(format!("{}{path}", client.path))
        .header("host", authority)
        .header("accept", "application/json")
        .body(Empty::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    *connection = Some(sender);
    Ok((status, body))
}

async fn connect(client: &Client, tasks: &Tasks) -> Result<SendRequest<Empty<Bytes>>, Error> {
    let authority = client.url.trim_start_matches("https://");
    let tcp = TcpStream::connect(authority).await?;
    tcp.set_nodelay(true)?;
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let tls = TlsConnector::from(Arc::new(client.tls(&[b"http/1.1"])))
        .connect(ServerName::try_from(host.to_owned())?, tcp)
        .await?;
    let (sender, serving) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tasks.spawn("poller-connection", |stop| async move {
        let _seen_by_the_request = stop.run_until_cancelled(serving).await;
    });
    Ok(sender)
}
