//! Every bound of the program, with its unit and the reason for its value.
//!
//! A bound that only one room knows may live there; one that two sides of a connection have to
//! agree on lives here.

use std::time::Duration;

/// Largest compressed payload of one feed batch, in bytes.
///
/// On a real link the latency of a deploy is the un-acknowledged feed bytes divided by the
/// bandwidth, so batches stay small.
pub const BATCH_COMPRESSED_BYTES: usize = 64 * 1024;

/// Largest inflated payload of one feed batch, in bytes; the hub stops inflating here.
pub const BATCH_INFLATED_BYTES: usize = 2 * 1024 * 1024;

/// Longest name, namespace and uid of an object, each, in bytes. Names of nearly all kinds end at 253;
/// those of roles have no end of their own.
pub const IDENTITY_BYTES: usize = 1024;

/// Largest object, in bytes of filtered JSON, that a feed carries (in parts).
///
/// etcd stores at most 1.5 MiB per request; the JSON form of such an object can be larger.
pub const OBJECT_BYTES: usize = 4 * 1024 * 1024;

/// Largest unfiltered object or watch line the agent buffers, in bytes.
///
/// `managedFields` were measured at 47 % of a pod, so an object that is 4 MiB filtered can be
/// about twice as large before.
pub const RAW_OBJECT_BYTES: usize = 8 * 1024 * 1024;

/// Deepest JSON nesting that is read, in levels.
pub const JSON_DEPTH: usize = 128;

/// Largest request body that is tunnelled, in bytes.
///
/// kube-apiserver itself refuses bodies over 3 MiB (`MaxRequestBodyBytes`).
pub const REQUEST_BODY_BYTES: usize = 3 * 1024 * 1024;

/// Bytes of a tunnelled body in one message, at most.
///
/// Small, so that many streams of one connection take turns on a slow link.
pub const BODY_CHUNK_BYTES: usize = 4 * 1024;

/// Bytes that all answers of an agent together put into one round of turns.
///
/// What a small answer waits for is a round or two; 64 KiB are 50 ms at 10 Mbit/s.
pub const ROUND_BYTES: usize = 64 * 1024;

/// Bytes of a tunnelled body in one message, however many answers there are: below, the framing
/// would cost more than it saves.
pub const LEAST_CHUNK_BYTES: usize = 512;

/// Bytes of one HTTP/2 stream that an agent hands over before they are sent.
///
/// What waits there is memory that no budget counts.
pub const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Bytes of a body, asked or answered, that travel in one message with its head.
///
/// With the head they fit into one HTTP/2 frame of 16 KiB, which is one turn.
pub const HEAD_BODY_BYTES: usize = 15 * 1024;

/// Operations that may run at once through one agent; the next is answered 429.
///
/// (96 + 1) × 128 KiB stream window ≤ 16 MiB connection window: a stalled reader of every
/// operation cannot freeze the connection.
pub const OPERATIONS_PER_AGENT: usize = 96;

/// Un-acknowledged compressed feed bytes per connection, shared by all its feeds.
pub const FEED_CREDIT_BYTES: usize = 256 * 1024;

/// Events read from the API server and not yet numbered, in bytes per account.
pub const PENDING_BYTES: usize = 4 * 1024 * 1024;

/// The same for all accounts of an agent together: eight that are as full as they may be.
pub const PENDING_BYTES_PER_AGENT: usize = 32 * 1024 * 1024;

/// What of it every account has for itself: with 100 accounts that nobody reads, 25 MiB more.
pub const PENDING_BYTES_SHARE: usize = 256 * 1024;

/// Snapshots of one agent under way at once, over all its accounts.
///
/// Two cores and one link to the hub are full with fewer; more would only hold more memory.
pub const SNAPSHOTS_PER_AGENT: usize = 8;

/// Streams of one account: kinds × scopes.
pub const STREAMS_PER_ACCOUNT: usize = 4096;

/// Instances of one agent that a hub knows at once; the next is refused.
///
/// Two are a rolling update. Each that crashed is known until its connection is found dead, 18 s
/// later: sixteen are crashes a second apart.
pub const INSTANCES_PER_AGENT: usize = 16;

/// Accounts one agent may offer.
pub const ACCOUNTS_PER_AGENT: usize = 256;

/// Accounts that a hub notes for one agent, those included that it no longer offers; what it offers
/// beyond is refused.
///
/// An agent that changes all of its accounts once still fits.
pub const ACCOUNTS_HELD_PER_AGENT: usize = 2 * ACCOUNTS_PER_AGENT;

/// Bytes that the hub keeps per account: objects as they are held, compressed, and their index.
pub const VIEW_BYTES_PER_ACCOUNT: usize = 512 * 1024 * 1024;

/// HTTP/2 stream window the hub grants, in bytes.
pub const HUB_STREAM_WINDOW: u32 = 128 * 1024;

/// HTTP/2 connection window the hub grants, in bytes; never adaptive.
pub const HUB_CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// HTTP/2 streams one agent may have open at the hub.
pub const HUB_STREAMS: u32 = 512;

/// HTTP/2 stream window the agent grants, in bytes.
pub const AGENT_STREAM_WINDOW: u32 = 256 * 1024;

/// HTTP/2 connection window the agent grants, in bytes.
pub const AGENT_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes that a socket between agent and hub takes before they are on their way.
///
/// More of them would be a queue that no later answer can pass: without this bound the kernel
/// takes megabytes, which are seconds on a link of 10 Mbit/s. What is on its way does not count,
/// so a fast link with a long delay is still filled.
pub const SOCKET_UNSENT_BYTES: u32 = 32 * 1024;

/// Largest header list a listener reads, in bytes.
pub const HEADER_LIST_BYTES: u32 = 16 * 1024;

/// Streams opened on one HTTP/2 connection to an API server.
///
/// kube-apiserver allows 100; the 101st was seen to hang silently.
pub const API_STREAMS_PER_CONNECTION: usize = 90;

/// TLS handshakes that may be under way at once on one listener.
pub const HANDSHAKES: usize = 64;

/// TLS handshakes under way from one address; its next connections wait for their turn.
pub const HANDSHAKES_PER_ADDRESS: usize = 32;

/// Connections of one listener that wait for the turn of their address: two addresses as full as
/// they may be. What has come and is not waiting is bounded by [`HANDSHAKES`].
pub const HANDSHAKES_WAITING: usize = 2 * CONNECTIONS_PER_ADDRESS;

/// Time a connection waits for its turn before it is closed.
///
/// An agent gives up dialling after 5 s and kubectl after 10 (Go's `TLSHandshakeTimeout`): nobody
/// is handed a turn that it no longer wants.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(4);

/// Connections one address may hold on one listener.
pub const CONNECTIONS_PER_ADDRESS: usize = 1024;

/// Time a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time until the first byte of an answer from an API server.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a request for kinds waits while an agent asks for newer ones: a second until it asks,
/// and the API server's answers.
pub const NEWER_KINDS: Duration = Duration::from_secs(5);

/// Time a live read may take before the facade answers from the view.
pub const LIVE_READ_TIMEOUT: Duration = Duration::from_millis(800);

/// Time between application heartbeats on the control stream, both ways.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// Silence on the control stream after which a peer is taken for dead.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest certificate chain a peer may present, in certificates.
///
/// Chain building over 100 presented intermediates was measured at 0.2 s; a Sortie chain has 2.
pub const CHAIN_CERTIFICATES: usize = 4;

/// Largest certificate chain a peer may present, in bytes.
pub const CHAIN_BYTES: usize = 16 * 1024;

/// Largest document that is parsed as YAML, in bytes.
pub const YAML_BYTES: usize = 1024 * 1024;

/// Time a drain may take before connections are cut.
pub const DRAIN: Duration = Duration::from_secs(20);
