//! The built program as hub, agent and command line.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::capture::{Entry, Log};
use super::eventually::{bounded, eventually_async};
use super::kubectl::Ran;
use super::server::Server;

/// The program: `$SORTIE_PROGRAM`, or what was built beside the tests.
pub(crate) fn program() -> OsString {
    let built = || env!("CARGO_BIN_EXE_sortie").into();
    std::env::var_os("SORTIE_PROGRAM").unwrap_or_else(built)
}

/// A hub or an agent, with a folder of its own.
#[derive(Debug)]
pub(crate) struct Sortie {
    role: &'static str,
    server: Server,
    folder: TempDir,
    options: Vec<String>,
    variables: Vec<(String, String)>,
    starts: u32,
}

impl Sortie {
    /// Runs `sortie hub`; `config` makes its YAML from the folder it may write to.
    pub(crate) fn hub(config: impl FnOnce(&Path) -> String) -> Self {
        Self::start("hub", &[], config)
    }

    /// Runs `sortie agent`, likewise.
    pub(crate) fn agent(config: impl FnOnce(&Path) -> String) -> Self {
        Self::start("agent", &[], config)
    }

    /// Runs `sortie hub` or `sortie agent` with further options, as `--allow-dump`.
    pub(crate) fn start(
        role: &'static str,
        options: &[&str],
        config: impl FnOnce(&Path) -> String,
    ) -> Self {
        Self::start_in(role, options, &[], config)
    }

    /// As [`Sortie::start`], with further variables in its environment.
    pub(crate) fn start_in(
        role: &'static str,
        options: &[&str],
        variables: &[(String, String)],
        config: impl FnOnce(&Path) -> String,
    ) -> Self {
        let folder = TempDir::with_prefix(format!("sortie-{role}-")).expect("a folder");
        fs::write(folder.path().join("config.yaml"), config(folder.path())).expect("written");
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let server = launch(role, &options, variables, folder.path(), 0);
        Self {
            role,
            server,
            folder,
            options,
            variables: variables.to_vec(),
            starts: 1,
        }
    }

    /// Its folder, which holds `config.yaml` and what the configuration puts there.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Path of its configuration.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// Its process id.
    pub(crate) const fn pid(&self) -> i32 {
        self.server.pid()
    }

    /// What it has logged since it was last started.
    pub(crate) fn log(&self) -> Log {
        Log::of(self.server.stderr())
    }

    /// Its log as it was written since it was last started.
    pub(crate) fn stderr(&self) -> String {
        self.server.stderr()
    }

    /// Bytes that its log has since it was last started.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.server.stderr().len() as u64
    }

    /// What it has printed since it was last started.
    pub(crate) fn stdout(&self) -> String {
        self.server.stdout()
    }

    /// Waits until it has logged `message`.
    pub(crate) async fn logged(&self, message: &str) -> Entry {
        self.server
            .wait_for(message, |server| Log::of(server.stderr()).find(message))
            .await
    }

    /// The address it listens on as `name`: `data`, `enrol`, `facade`, `health`, `metrics`.
    pub(crate) async fn address(&self, name: &str) -> SocketAddr {
        let entry = self.logged("listening").await;
        let text = entry
            .text(name)
            .unwrap_or_else(|| panic!("no `{name}` in {entry:?}"));
        text.parse().expect("an address with a port")
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn ready(&self) {
        let health = self.address("health").await;
        let what = format!("the {} is ready", self.role);
        eventually_async(&what, async || {
            let code = self.server.exit_code();
            assert_eq!(code, None, "ended: {}", self.server.stderr());
            let answer = http_get(health, "/readyz").await?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
    }

    /// Asks it to drain, as SIGTERM does, and gives its exit code.
    pub(crate) async fn stop(&mut self) -> i32 {
        self.server.signal(Signal::TERM);
        self.server.ended().await
    }

    /// Kills it at once, as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await;
    }

    /// Stops or lets go on, as SIGSTOP and SIGCONT do.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.server
            .signal(if paused { Signal::STOP } else { Signal::CONT });
    }

    /// Starts it again after its end, with the same folder and configuration.
    pub(crate) fn start_again(&mut self) {
        assert!(
            self.server.exit_code().is_some(),
            "the {} still runs",
            self.role
        );
        self.server = launch(
            self.role,
            &self.options,
            &self.variables,
            self.folder.path(),
            self.starts,
        );
        self.starts += 1;
    }

    /// Waits for its own end; gives the exit code.
    pub(crate) async fn ended(&self) -> i32 {
        self.server.ended().await
    }

    /// Starts a subcommand against this hub's administration socket; its output is piped.
    pub(crate) fn follow(&self, arguments: &[&str]) -> tokio::process::Child {
        tokio::process::Command::new(program())
            .arg("--hub")
            .arg(self.folder.path().join("state").join("admin.sock"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program was built")
    }

    /// Runs a subcommand against this hub's administration socket below its folder.
    pub(crate) async fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        let socket = self.folder.path().join("state").join("admin.sock");
        let hub = [OsStr::new("--hub"), socket.as_os_str()];
        let all: Vec<&OsStr> = hub
            .into_iter()
            .chain(arguments.iter().map(AsRef::as_ref))
            .collect();
        run(&all, "").await
    }
}

fn launch(
    role: &str,
    options: &[String],
    variables: &[(String, String)],
    folder: &Path,
    start: u32,
) -> Server {
    let mut command = Command::new(program());
    command
        .arg(role)
        .arg("--config")
        .arg(folder.join("config.yaml"));
    if !options.iter().any(|option| option == "--log-format") {
        command.args(["--log-format", "json"]);
    }
    command.args(options).current_dir(folder);
    // What it does may not depend on the shell that runs the tests.
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "no_proxy",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    Server::start(&command, &folder.join(format!("{role}-{start}")), None)
}

/// Runs a subcommand to its end, with `input` on its standard input.
pub(crate) async fn run<A: AsRef<OsStr>>(arguments: &[A], input: &str) -> Ran {
    let mut child = tokio::process::Command::new(program())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program was built");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    let feed = async {
        // One that does not read its input closes it; its exit code tells the rest.
        let _not_read = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let ran = async { tokio::join!(feed, child.wait_with_output()).1 };
    bounded("the subcommand ends", ran)
        .await
        .expect("it was started")
        .into()
}

/// The whole answer to a plain HTTP request; none if nobody answered.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
