//! A certificate authority and a scripted TLS server on the loopback interface, for tests.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::tasks::Tasks;

/// A certificate authority of one test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key, both PEM, for these names.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A server's TLS for `127.0.0.1` and `localhost`, offering these protocols.
    pub(crate) fn tls(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
                .unwrap()
                .signed_by(&key, &self.issuer)
                .unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(tls)
    }
}

/// What a scripted server does with a request.
pub(crate) enum Reply {
    /// Writes these bytes and closes.
    Bytes(Vec<u8>),
    /// Writes these bytes and keeps the connection open.
    Hold(Vec<u8>),
    /// Writes nothing and keeps the connection open.
    Hang,
}

impl Reply {
    /// A complete answer with a JSON body.
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::Bytes(
            format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        )
    }
}

/// An HTTP/1.1 server that answers one request per connection as its script says.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    open: Arc<Open>,
    tasks: Tasks,
}

/// Connections that are open, and the most that were.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Scripted {
    /// Answers each request (head and body as one text) by `script`.
    pub(crate) async fn start(
        tls: Arc<ServerConfig>,
        script: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(any, tls, script).await
    }

    /// As [`Scripted::start`], at this address.
    pub(crate) async fn start_at(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        script: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, requests) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let open = Arc::new(Open::default());
        let (seen, script, counted) = (Arc::clone(&requests), Arc::new(script), Arc::clone(&open));
        let acceptor = TlsAcceptor::from(tls);
        let connections = tasks.clone();
        tasks.spawn("scripted-server", move |stop| async move {
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (acceptor, script, seen) =
                    (acceptor.clone(), Arc::clone(&script), Arc::clone(&seen));
                let open = Arc::clone(&counted);
                connections.spawn("scripted-connection", move |stop| async move {
                    let now = open.now.fetch_add(1, Ordering::Relaxed) + 1;
                    open.most.fetch_max(now, Ordering::Relaxed);
                    let serving = serve(acceptor, socket, &*script, &seen);
                    drop(stop.run_until_cancelled(serving).await);
                    open.now.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self {
            address,
            requests,
            open,
            tasks,
        }
    }

    /// The most connections that were open at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.open.most.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.now.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    script: &(impl Fn(&str) -> Reply + Sync),
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(socket).await?;
    let request = read_request(&mut stream).await?;
    seen.lock().unwrap().push(request.clone());
    match script(&request) {
        Reply::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Reply::Hold(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            // Until the client closes.
            stream.read_u8().await.map(|_| ())
        }
        Reply::Hang => stream.read_u8().await.map(|_| ()),
    }
}

async fn read_request(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_string();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_ascii_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0_usize);
            if body.len() >= length {
                return Ok(text);
            }
        }
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}

/// Everything that is logged on this thread, at the finest level, until the guard is dropped.
#[derive(Clone, Default)]
pub(crate) struct Logged(Arc<Mutex<Vec<u8>>>);

/// Ends the capture.
pub(crate) struct LogGuard;

thread_local! {
    static CAPTURED: RefCell<Option<Logged>> = const { RefCell::new(None) };
}

impl Logged {
    pub(crate) fn start() -> (Self, LogGuard) {
        // One subscriber for the whole process: with one per thread, what a place of the code logs
        // first while another test's subscriber comes or goes is switched off for both.
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            let captures = dynamic_filter_fn(|_, _| CAPTURED.with_borrow(Option::is_some));
            let layer = tracing_subscriber::fmt::layer()
                .with_span_events(FmtSpan::FULL)
                .with_writer(|| CAPTURED.with_borrow(|now| now.clone().unwrap_or_default()))
                .with_filter(captures);
            tracing_subscriber::registry().with(layer).init();
        });
        let logged = Self::default();
        CAPTURED.set(Some(logged.clone()));
        (logged, LogGuard)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        CAPTURED.set(None);
    }
}

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
