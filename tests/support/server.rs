//! A server process under a supervisor that ends it with us.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::Signal;

use super::cache;
use super::eventually::eventually;

/// A running server; dropping it stops the server and waits until it is gone.
///
/// A handle in a `static` is never dropped: then the supervisor sees its input close when the
/// test process ends, however that ends.
#[derive(Debug)]
pub(crate) struct Server {
    supervisor: Child,
    commands: Option<ChildStdin>,
    pid: i32,
    stem: PathBuf,
}

impl Server {
    /// Starts `command`; its output goes to `STEM.out` and `STEM.err`.
    ///
    /// `remove` is a folder that goes away with the server. Of `command`, the program, its
    /// arguments, its environment changes and its folder count.
    pub(crate) fn start(command: &Command, stem: &Path, remove: Option<&Path>) -> Self {
        let mut supervised = cache::python();
        supervised
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/support/supervise.py"
            ))
            .arg(stem)
            .arg(remove.map_or_else(OsString::new, Into::into))
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => supervised.env(name, value),
                None => supervised.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            supervised.current_dir(folder);
        }
        let program = command.get_program().display();
        let mut supervisor = supervised.spawn().expect("the supervisor starts");
        let commands = supervisor.stdin.take();
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().expect("its output is a pipe"))
            .read_line(&mut line)
            .expect("the supervisor writes text");
        let pid = line
            .trim()
            .strip_prefix("pid ")
            .and_then(|pid| pid.parse().ok());
        Self {
            supervisor,
            commands,
            pid: pid.unwrap_or_else(|| panic!("{program} could not be started")),
            stem: stem.to_owned(),
        }
    }

    /// The server's process id.
    pub(crate) const fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal; nothing happens when the server has ended already.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.command(&format!("signal {}", signal.as_raw()));
    }

    /// Lets the folder stay that would go away with the server.
    pub(crate) fn keep_folder(&mut self) {
        self.command("keep");
    }

    fn command(&mut self, line: &str) {
        let commands = self.commands.as_mut().expect("taken only when dropped");
        writeln!(commands, "{line}").expect("the supervisor listens");
    }

    /// What the server has written to its standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.read("out")
    }

    /// What the server has written to its standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.read("err")
    }

    fn read(&self, extension: &str) -> String {
        let bytes = fs::read(self.stem.with_added_extension(extension)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exit code once the server has ended; negative: the signal that ended it.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        let text = fs::read_to_string(self.stem.with_added_extension("exit")).ok()?;
        Some(text.parse().expect("the supervisor writes a number"))
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(&self) -> i32 {
        eventually("the server ends", || self.exit_code()).await
    }

    /// Kills the server at once, as `kill -9` does, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Waits until `find` sees something in the output and the log; fails when the server ends.
    pub(crate) async fn wait_for<T>(&self, what: &str, find: impl Fn(&Self) -> Option<T>) -> T {
        eventually(what, || {
            find(self).or_else(|| {
                let code = self.exit_code()?;
                panic!("ended with {code} before {what}: {}", tail(&self.stderr()))
            })
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _already_gone = self.supervisor.wait();
    }
}

/// The end of a log, enough to see why a server ended.
fn tail(log: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
