//! Tokens that a command of the operator makes.
//!
//! Run without a shell, a terminal, an environment, a place in the file system or a way to say
//! anything but its answer; killed with everything that it started.
//!
//! # Sources
//! - Kubernetes `client.authentication.k8s.io/v1`, `ExecCredential`.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout};
use zeroize::{Zeroize, Zeroizing};

use super::fetch::{Asking, Failure};
use super::minted::TokenSource;
use crate::clock::SharedClock;
use crate::secret::SecretBytes;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// Time that a command may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// For how long a token is used whose end the command did not tell.
const UNTOLD: Duration = Duration::from_mins(5);

/// A command that makes tokens.
#[derive(Debug)]
pub(super) struct Command {
    argv: Vec<String>,
    version: &'static str,
    clock: SharedClock,
}

/// `ExecCredential`.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(rename = "apiVersion")]
    version: &'a str,
    kind: &'a str,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    token: Option<Wiped>,
    #[serde(default)]
    client_key_data: Option<Wiped>,
    #[serde(default)]
    expiration_timestamp: Option<String>,
}

/// Text that is wiped when it is dropped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Wiped(String);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Kills a process and its group when dropped.
struct Group {
    /// Reaped by the runtime if it is dropped before its end.
    child: Child,
    id: Option<Pid>,
}

impl Command {
    /// The command `argv[0]` with its arguments, whose answers have this version.
    pub(super) const fn new(argv: Vec<String>, version: &'static str, clock: SharedClock) -> Self {
        Self {
            argv,
            version,
            clock,
        }
    }

    async fn run(&self) -> Result<(SecretBytes, SystemTime), Failure> {
        let answered = tokio::time::timeout(DEADLINE, self.answer()).await;
        let answer =
            answered.unwrap_or(Err(Failure::unavailable("the command did not end in time")))?;
        self.read(&answer)
    }

    async fn answer(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let (mut group, stdout) = self.start()?;
        let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES + 1));
        let limit = u64::try_from(ANSWER_BYTES).unwrap_or(u64::MAX) + 1;
        let read = stdout.take(limit).read_to_end(&mut answer).await;
        read.map_err(|_error| Failure::unavailable("the command's answer cannot be read"))?;
        if answer.len() > ANSWER_BYTES {
            return Err(Failure::corrupt("the command's answer is too large"));
        }
        let ended = group.child.wait().await;
        match ended {
            Ok(status) if status.success() => Ok(answer),
            _ => Err(Failure::unavailable(
                "the command failed; run it by hand to see what it says",
            )),
        }
    }

    fn start(&self) -> Result<(Group, ChildStdout), Failure> {
        let missing = Failure::unavailable("the command cannot be started");
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err(missing);
        };
        let info = format!(
            r#"{{"apiVersion":"{}","kind":"ExecCredential","spec":{{"interactive":false}}}}"#,
            self.version
        );
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("KUBERNETES_EXEC_INFO", info)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|_error| missing.clone())?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let stdout = child.stdout.take().ok_or(missing)?;
        let group = Group {
            child,
            id: id.and_then(Pid::from_raw),
        };
        Ok((group, stdout))
    }

    fn read(&self, answer: &[u8]) -> Result<(SecretBytes, SystemTime), Failure> {
        let malformed = Failure::corrupt("the command's answer is not an ExecCredential");
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(answer) else {
            return Err(malformed);
        };
        if answer.kind != "ExecCredential" || answer.version != self.version {
            return Err(malformed);
        }
        let status = answer.status;
        if status.client_key_data.is_some() {
            return Err(Failure::corrupt(
                "the command gave a client certificate, and only tokens are used",
            ));
        }
        let mut token = status
            .token
            .ok_or(Failure::corrupt("the command gave no token"))?;
        let ends_at = match &status.expiration_timestamp {
            None => self.clock.now() + UNTOLD,
            Some(text) => OffsetDateTime::parse(text, &Rfc3339)
                .map_err(|_error| malformed)?
                .into(),
        };
        let token = std::mem::take(&mut token.0).into_bytes();
        Ok((SecretBytes::new(token), ends_at))
    }
}

impl TokenSource for Command {
    fn token(&self) -> Asking<'_, (SecretBytes, SystemTime)> {
        Box::pin(self.run())
    }

    fn kind(&self) -> &'static str {
        "exec"
    }

    fn identity(&self, add: &mut dyn FnMut(&[u8])) {
        self.argv.iter().for_each(|word| add(word.as_bytes()));
        add(self.version.as_bytes());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What it started may have outlived it. A group that is empty is answered by an error: its
        // number has not been given to others in the moment since the command was waited for.
        if let Some(id) = self.id {
            let _may_be_gone = kill_process_group(id, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::clock;
    use crate::credential::FetchErrorKind;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn command(folder: &Path, script: &str) -> Command {
        let path = folder.join("plugin");
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let argv = vec![
            path.to_string_lossy().into_owned(),
            "an argument".to_owned(),
        ];
        Command::new(argv, V1, clock::system())
    }

    fn credential(status: &str) -> String {
        format!(r#"echo '{{"apiVersion":"{V1}","kind":"ExecCredential","status":{{{status}}}}}'"#)
    }

    #[tokio::test]
    async fn a_token_and_its_end_are_read_and_nothing_is_handed_to_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        let look = format!(
            "{{ echo \"$1\"; pwd; /usr/bin/env; read line || echo no-input; }} > {}\n{}",
            seen.display(),
            credential(r#""token":"planted","expirationTimestamp":"2100-01-01T00:00:00Z""#)
        );
        let (token, ends_at) = command(folder.path(), &look).token().await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test planted it")]
        let token = token.expose_secret();
        assert_eq!(token, b"planted");
        let left = ends_at.duration_since(clock::system().now()).unwrap();
        assert!(left > Duration::from_hours(24));
        let seen = fs::read_to_string(seen).unwrap();
        assert!(
            seen.starts_with("an argument\n/\n") && seen.contains("no-input"),
            "{seen}"
        );
        assert!(
            seen.contains("KUBERNETES_EXEC_INFO={") && !seen.contains("HOME"),
            "{seen}"
        );
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_told_without_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        for (script, hint) in [
            ("echo planted; exit 0".to_owned(), "not an ExecCredential"),
            ("echo planted >&2; exit 1".to_owned(), "run it by hand"),
            (credential(""), "no token"),
            (
                credential(r#""token":["planted"]"#),
                "not an ExecCredential",
            ),
            (
                credential(r#""token":"planted","expirationTimestamp":"planted""#),
                "not an ExecCredential",
            ),
            (
                credential(r#""clientCertificateData":"planted","clientKeyData":"planted""#),
                "client certificate",
            ),
            (
                credential(r#""token":"planted""#).replace(V1, "other/v1"),
                "not an ExecCredential",
            ),
            ("while :; do echo planted; done".to_owned(), "too large"),
        ] {
            let failure = command(folder.path(), &script).token().await.unwrap_err();
            assert!(failure.hint.contains(hint), "{script}: {failure:?}");
            assert!(!format!("{failure:?}").contains("planted"));
        }
        let missing = Command::new(vec!["/nowhere".to_owned()], V1, clock::system());
        let failure = missing.token().await.unwrap_err();
        assert!(failure.hint.contains("cannot be started"));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}\nwait", pid.display());
        let command = command(folder.path(), &script);
        let asking = command.token();
        let started = async {
            loop {
                let known = fs::read_to_string(&pid).unwrap_or_default();
                if known.ends_with('\n') {
                    return known.trim().to_owned();
                }
                tokio::task::yield_now().await;
            }
        };
        let child = tokio::select! {
            made = asking => panic!("{made:?}"),
            child = started => child,
        };
        // Dropped with the question.
        let state = || fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        while !(state().is_empty() || state().contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_has_ten_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let failure = command(folder.path(), "exec sleep 600")
            .token()
            .await
            .unwrap_err();
        assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
        assert!(failure.hint.contains("in time"));
    }
}
