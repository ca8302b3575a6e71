//! A TCP relay that delays, throttles, falls silent and cuts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use sortie::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Bytes read at once; small enough that a throttle is smooth.
const CHUNK_BYTES: usize = 8 * 1024;

/// Chunks under way in one direction while they are delayed.
const CHUNKS_UNDER_WAY: usize = 1024;

/// Chunks that wait in front of a throttle, as in a router: 128 KiB, a tenth of a second on a link
/// of 10 Mbit/s. What a connection begins with counts.
const CHUNKS_QUEUED: usize = 16;

/// What does not pass a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Silence {
    /// All passes.
    #[default]
    None,
    /// Nothing passes, and nothing connects.
    Both,
    /// What clients send does not reach the server.
    Up,
    /// What the server sends does not reach its clients.
    Down,
}

impl Silence {
    const fn holds(self, direction: Direction) -> bool {
        matches!(
            (self, direction),
            (Self::Both, _) | (Self::Up, Direction::Up) | (Self::Down, Direction::Down)
        )
    }
}

/// What the link between the two ends is like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// How long each byte is under way, each way.
    pub(crate) delay: Duration,
    /// Bytes a second from the client to the server; none: as fast as it goes.
    pub(crate) up: Option<u64>,
    /// Bytes a second from the server to the client.
    pub(crate) down: Option<u64>,
    /// Bytes of the sockets' buffers; only what a relay is started with counts.
    pub(crate) buffers: Option<usize>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    link: watch::Sender<Link>,
    silence: watch::Sender<Silence>,
    refusing: watch::Sender<bool>,
    cuts: watch::Sender<u64>,
    open: AtomicUsize,
    accepted: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// A running relay; it stops, and cuts, when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    runtime: Option<Runtime>,
    tasks: Tasks,
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Relay {
    /// In front of `target`, for now as if it were not there.
    pub(crate) fn to(target: SocketAddr) -> Self {
        Self::shaped(target, Link::default())
    }

    /// In front of `target`, with this link.
    pub(crate) fn shaped(target: SocketAddr, link: Link) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::new(Shared {
            target,
            link: watch::Sender::new(link),
            silence: watch::Sender::default(),
            refusing: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        });
        let tasks = Tasks::new();
        let address = {
            let _entered = runtime.enter();
            let listener = bind(link.buffers).expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let (owner, shared) = (tasks.clone(), Arc::clone(&shared));
            tasks.spawn("relay-accept", async move |stop| {
                stop.run_until_cancelled(accept(listener, owner, shared))
                    .await;
            });
            address
        };
        Self {
            runtime: Some(runtime),
            tasks,
            shared,
            address,
        }
    }

    /// Where clients connect.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the link, of open connections too.
    pub(crate) fn link(&self, link: Link) {
        self.shared.link.send_replace(link);
    }

    /// Resets every open connection, towards both ends.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Falls silent, as far as `silence` says: connections stay open, no end is told.
    ///
    /// What was sent meanwhile passes afterwards, as far as it fits into the buffers.
    pub(crate) fn silence(&self, silence: Silence) {
        self.shared.silence.send_replace(silence);
    }

    /// Resets new connections at once, as if nobody listened; false ends it.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.shared.refusing.send_replace(refusing);
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Connections that were let through since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Bytes passed on since the start: to the server, to the client.
    pub(crate) fn passed(&self) -> (u64, u64) {
        let passed = |direction: &AtomicU64| direction.load(Ordering::Relaxed);
        (passed(&self.shared.up), passed(&self.shared.down))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // a test's own runtime may not be blocked
        }
    }
}

/// A listener whose accepted sockets have these buffers.
fn bind(buffers: Option<usize>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    shrink(&SockRef::from(&socket), buffers)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn shrink(socket: &SockRef<'_>, buffers: Option<usize>) -> io::Result<()> {
    let Some(bytes) = buffers else { return Ok(()) };
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)
}

async fn accept(listener: TcpListener, owner: Tasks, shared: Arc<Shared>) {
    while let Ok((client, _peer)) = listener.accept().await {
        if *shared.refusing.borrow() {
            reset(&client);
            continue;
        }
        let shared = Arc::clone(&shared);
        owner.spawn("relay-connection", async move |stop| {
            shared.accepted.fetch_add(1, Ordering::Relaxed);
            shared.open.fetch_add(1, Ordering::Relaxed);
            let _ended_at_either_end = stop.run_until_cancelled(connection(client, &shared)).await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Lets the socket end with a reset instead of an orderly close.
fn reset(socket: &TcpStream) {
    let _it_is_closed_already = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

async fn connection(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut cuts = shared.cuts.subscribe();
    let before = *cuts.borrow_and_update();
    let buffers = shared.link.borrow().buffers;
    let mut server = {
        let socket = Socket::new(Domain::for_address(shared.target), Type::STREAM, None)?;
        shrink(&SockRef::from(&socket), buffers)?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
        shared.audible(Direction::Up).await;
        socket.connect(shared.target).await?
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let both = async {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::join!(
            pump(from_client, to_server, shared, Direction::Up),
            pump(from_server, to_client, shared, Direction::Down),
        )
    };
    let cut = tokio::select! {
        _ended = both => false,
        _ = cuts.wait_for(|cuts| *cuts != before) => true,
    };
    if cut {
        reset(&client);
        reset(&server);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Shared {
    async fn audible(&self, direction: Direction) {
        let mut silence = self.silence.subscribe();
        let seen = silence.wait_for(|silence| !silence.holds(direction)).await;
        seen.expect("the relay has its own sender");
    }

    fn rate(&self, direction: Direction) -> Option<u64> {
        let link = self.link.borrow();
        match direction {
            Direction::Up => link.up,
            Direction::Down => link.down,
        }
    }

    const fn passed(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

/// Passes one direction on, until its end; then closes the other end's half.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    direction: Direction,
) -> io::Result<()> {
    let room = match shared.rate(direction) {
        Some(_) => CHUNKS_QUEUED,
        None => CHUNKS_UNDER_WAY,
    };
    let (under_way, mut arriving) = mpsc::channel(room);
    let read = async {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let length = from.read(&mut chunk).await.unwrap_or(0);
            shared.audible(direction).await;
            chunk.truncate(length);
            let due = Instant::now() + shared.link.borrow().delay;
            let end = length == 0;
            if under_way.send((due, chunk)).await.is_err() || end {
                return;
            }
        }
    };
    let write = async {
        let mut free = Instant::now();
        while let Some((due, chunk)) = arriving.recv().await {
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            if let Some(rate) = shared.rate(direction) {
                let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                free = free.max(Instant::now()) + Duration::from_micros(bytes * 1_000_000 / rate);
            }
            sleep_until(due.max(free)).await;
            shared.audible(direction).await;
            to.write_all(&chunk).await?;
            shared
                .passed(direction)
                .fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    };
    tokio::select! {
        ended = write => ended,
        () = async { read.await; std::future::pending().await } => Ok(()),
    }
}
