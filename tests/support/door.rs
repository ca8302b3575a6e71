//! A door before a server: counts the calls that the server has under way.
//!
//! It ends the client's TLS and asks the server itself, so that it knows a call from a connection. A
//! call begins when its request has come and ends when its answer has, before the client reads it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use sortie::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::flights::{Flight, Flights};
use super::pki::{self, Authority, Leaf};

/// Calls of however many doors.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    under_way: Arc<Flights>,
    total: AtomicUsize,
    watches: AtomicUsize,
}

impl Calls {
    /// The most that were under way at once.
    pub(crate) fn most(&self) -> usize {
        self.under_way.most()
    }

    /// How many there were.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }

    /// How many watches there were besides: they last for as long as somebody watches.
    pub(crate) fn watches(&self) -> usize {
        self.watches.load(Ordering::SeqCst)
    }

    /// One more, until what this gives is dropped.
    fn begin(&self) -> Flight {
        self.total.fetch_add(1, Ordering::SeqCst);
        self.under_way.begin()
    }
}

/// A running door; it closes when dropped.
#[derive(Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    /// Calls of this door.
    pub(crate) calls: Arc<Calls>,
    tasks: Tasks,
}

/// What a door's connections need.
struct Behind {
    target: SocketAddr,
    tls: TlsConnector,
    /// Of this door, and of all doors together.
    calls: [Arc<Calls>; 2],
    tasks: Tasks,
}

impl Door {
    /// Before the server at `target`, whose certificate one of `roots` issued; its own is of
    /// `authority`. Its calls count for `all` as well.
    pub(crate) async fn before(
        target: SocketAddr,
        roots: Vec<CertificateDer<'static>>,
        authority: &Authority,
        all: &Arc<Calls>,
    ) -> Self {
        let client: ClientConfig = pki::client_config(roots, None);
        let server = pki::server_config(&authority.issue(&Leaf::server()), &[]);
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let calls = Arc::<Calls>::default();
        let tasks = Tasks::new();
        let behind = Arc::new(Behind {
            target,
            tls: TlsConnector::from(Arc::new(client)),
            calls: [Arc::clone(&calls), Arc::clone(all)],
            tasks: tasks.clone(),
        });
        tasks.spawn("door", move |stop| async move {
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (acceptor, behind) = (acceptor.clone(), Arc::clone(&behind));
                let tasks = behind.tasks.clone();
                tasks.spawn("door-connection", move |stop| async move {
                    let serving = serve(&acceptor, socket, &behind);
                    let _gone = stop.run_until_cancelled(serving).await;
                });
            }
        });
        Self {
            address,
            calls,
            tasks,
        }
    }

    /// `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn serve(acceptor: &TlsAcceptor, socket: TcpStream, behind: &Behind) {
    let Ok(stream) = acceptor.accept(socket).await else {
        return; // the client went away
    };
    let service = service_fn(|request| async {
        let answer = pass(request, behind).await;
        Ok::<_, Infallible>(answer.expect("the server answers"))
    });
    let _gone = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Asks the server, and gives its answer as soon as that is complete; of a watch, as it comes.
async fn pass(
    request: Request<Incoming>,
    behind: &Behind,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Failed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let query = head.uri.query().unwrap_or_default();
    let is_watch = query.contains("watch=true");
    let request = Request::from_parts(head, Full::new(body));
    if is_watch {
        for calls in &behind.calls {
            calls.watches.fetch_add(1, Ordering::SeqCst);
        }
        let (head, body) = ask(request, behind).await?.into_parts();
        return Ok(Response::from_parts(head, body.boxed()));
    }
    let under_way = behind.calls.each_ref().map(|calls| calls.begin());
    let (mut head, body) = ask(request, behind).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    drop(under_way);
    for of_the_connection in [CONNECTION, TRANSFER_ENCODING] {
        head.headers.remove(of_the_connection);
    }
    let body = Full::new(body).map_err(|never| match never {});
    Ok(Response::from_parts(head, body.boxed()))
}

async fn ask(request: Request<Full<Bytes>>, behind: &Behind) -> Result<Response<Incoming>, Failed> {
    let tcp = TcpStream::connect(behind.target).await?;
    let name = ServerName::from(behind.target.ip());
    let tls = behind.tls.connect(name, tcp).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    behind.tasks.spawn("door-server", |stop| async move {
        let _gone = stop.run_until_cancelled(connection).await;
    });
    Ok(sender.send_request(request).await?)
}
