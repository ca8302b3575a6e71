//! Administration over a Unix socket in the state folder: one JSON line in, one JSON line out; a
//! watch is answered by lines without end.
//!
//! Only the user that runs the hub, and root, may use it (socket mode 0600, and the peer's uid is
//! checked).

mod commands;
mod kubeconfig;
mod rows;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

pub use kubeconfig::{Granted, KubeconfigError, kubeconfig};
pub(super) use rows::ACCOUNT_STATES;
pub(super) use watch::WATCHES;
pub use watch::{Key, Watching, key, watch};

use super::Core;
use super::start::StartError;
use crate::fault::Advised;
use crate::telemetry::Accepting;

/// Name of the socket within the state folder.
pub const SOCKET: &str = "admin.sock";

/// Longest request or answer, in bytes.
const LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Columns of a list by name.
pub type Row = BTreeMap<String, serde_json::Value>;

/// What an administrator asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything of one sort.
    Get {
        /// Which sort.
        what: Sort,
    },
    /// As [`Request::Get`], and then what changes of it.
    Watch {
        /// Which sort.
        what: Sort,
    },
    /// A one-time join token.
    CreateToken {
        /// The name that the agent gets.
        agent: String,
        /// Accounts that need no approval.
        accounts: BTreeSet<String>,
        /// How long it may be used.
        ttl_seconds: u64,
    },
    /// Takes a token back.
    DeleteToken {
        /// Its public id.
        id: String,
    },
    /// Registers a cluster whose `ServiceAccount` tokens are accepted as proof.
    AddCluster {
        /// Name for people.
        name: String,
        /// `iss` of its tokens.
        issuer: String,
        /// Its public keys, as JSON.
        jwks: String,
        /// `namespace/serviceaccount` → name of the agent.
        allow: BTreeMap<String, String>,
    },
    /// Forgets a cluster.
    RemoveCluster {
        /// Which.
        name: String,
    },
    /// Serves an account that waits or is suspended.
    ApproveAccount {
        /// Which.
        name: String,
    },
    /// Stops serving an account.
    SuspendAccount {
        /// Which.
        name: String,
    },
    /// Forgets an account that no agent offers any more.
    RemoveAccount {
        /// Which.
        name: String,
    },
    /// Makes a user of the facade, or changes what it may use.
    CreateClient {
        /// Which.
        name: String,
        /// Accounts it may use.
        accounts: BTreeSet<String>,
    },
    /// Certifies a client's key, which never leaves the caller.
    CertifyClient {
        /// Which.
        name: String,
        /// The account it is for.
        account: String,
        /// PKCS#10, hex.
        csr: String,
        /// How long; the hub's `client-ttl` if not given.
        ttl_seconds: Option<u64>,
    },
    /// Bans a name with its keys and certificates, and cuts its connections.
    Revoke {
        /// Agent or client.
        role: Banned,
        /// Which.
        name: String,
    },
    /// Ends a ban.
    Restore {
        /// Agent or client.
        role: Banned,
        /// Which.
        name: String,
    },
    /// Copies the state folder, as it is now, to a new folder on the hub's machine.
    Backup {
        /// The new folder, an absolute path.
        out: PathBuf,
    },
    /// Tells an agent to renew its certificate now.
    Rotate {
        /// Which.
        agent: String,
    },
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Sort {
    Accounts,
    Agents,
    Clients,
    Clusters,
    Tokens,
}

/// Who can be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Banned {
    Agent,
    Client,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Done; a sentence for people.
    Done {
        /// What was done.
        message: String,
    },
    /// Rows.
    List {
        /// Version of the rows' shape.
        version: u32,
        /// The rows.
        rows: Vec<Row>,
    },
    /// What has changed of a list that is watched.
    Changes {
        /// Version of the rows' shape.
        version: u32,
        /// Rows that are new or say something new.
        rows: Vec<Row>,
        /// Rows that are gone, as they last were.
        gone: Vec<Row>,
    },
    /// A new token.
    Token {
        /// The join string: a secret.
        join: String,
        /// Its public id.
        id: String,
        /// Seconds since the Unix epoch.
        expires: u64,
    },
    /// A new client certificate.
    Certificate {
        /// PEM, leaf first.
        chain: String,
        /// The roots to trust, PEM.
        roots: String,
        /// URL of the account at the facade.
        server: String,
        /// Seconds since the Unix epoch.
        not_after: u64,
    },
    /// Not done; a sentence for people that says why and what to do.
    Error {
        /// Why.
        message: String,
    },
}

/// Why the hub could not be asked.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("cannot reach the hub at `{}`", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It was reached, and ended before it had told everything.
    #[error("the hub at `{}` has ended, or has closed the connection", path.display())]
    Lost {
        /// The socket.
        path: PathBuf,
    },
    /// It answered something else.
    #[error("what listens at `{}` does not answer as a hub of this version does", path.display())]
    Unreadable {
        /// The socket.
        path: PathBuf,
    },
}

/// Asks the hub whose socket is at `path`.
///
/// # Errors
/// The hub cannot be reached, or its answer cannot be read.
pub async fn ask(path: &Path, request: &Request) -> Result<Answer, AskError> {
    let unreachable = |source| AskError::Unreachable {
        path: path.to_owned(),
        source,
    };
    let unreadable = |_quotes_the_answer| AskError::Unreadable {
        path: path.to_owned(),
    };
    let mut line = serde_json::to_vec(request).map_err(unreadable)?;
    line.push(b'\n');
    let mut socket = UnixStream::connect(path).await.map_err(unreachable)?;
    socket.write_all(&line).await.map_err(unreachable)?;
    let mut answer = Vec::new();
    socket
        .take(LINE_BYTES)
        .read_to_end(&mut answer)
        .await
        .map_err(unreachable)?;
    serde_json::from_slice(&answer).map_err(unreadable)
}

/// The bound socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    pub(super) fn bind(folder: &Path) -> Result<Self, StartError> {
        let path = folder.join(SOCKET);
        let failed = |error| StartError::State {
            path: path.clone(),
            source: Advised::keeping(error),
        };
        // The store is open: no other hub uses this folder, so a socket in it is a leftover.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _gone = std::fs::remove_file(&self.path);
    }
}

impl Core {
    pub(super) async fn administer(self: Arc<Self>, socket: Socket, stop: CancellationToken) {
        let mut accepting = Accepting::at("admin");
        loop {
            let accept = async { accepting.take(socket.listener.accept().await).await };
            let Some(accepted) = stop.run_until_cancelled(accept).await else {
                return;
            };
            let Some((connection, _)) = accepted else {
                continue;
            };
            if !may_administer(&connection) {
                super::audit::Audit::new("administer", "admin.sock").refuse("OtherUser");
                continue;
            }
            let core = Arc::clone(&self);
            // A set of its own: what panics for one question ends that one alone.
            let tasks = self.tasks.child();
            tasks.spawn("admin-connection", move |stop| async move {
                let serving = core.serve_admin(connection);
                let _ended = stop.run_until_cancelled(serving).await;
            });
        }
    }

    async fn serve_admin(self: &Arc<Self>, connection: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = connection.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(LINE_BYTES));
        reader.read_line(&mut line).await?;
        let answer = match serde_json::from_str(&line) {
            Ok(Request::Watch { what }) => return self.tell_changes(what, reader, writer).await,
            Ok(request) => self.command(request).await,
            Err(error) => Answer::Error {
                message: format!("the request cannot be read: {error}"),
            },
        };
        writer.write_all(&serde_json::to_vec(&answer)?).await?;
        writer.shutdown().await
    }
}

fn may_administer(connection: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    connection
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}
