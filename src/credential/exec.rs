//! Tokens and client certificates that a command of the operator makes.
//!
//! Run without a shell, a terminal, an environment, a place in the file system or a way to say
//! anything but its answer; killed with everything that it started.
//!
//! # Sources
//! - Kubernetes `client.authentication.k8s.io/v1`, `ExecCredential`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout};
use zeroize::{Zeroize, Zeroizing};

use super::certificate::{self, Unusable};
use super::fetch::{Asking, Failure};
use super::minted::{Made, Minter};
use crate::clock::SharedClock;
use crate::secret::{SecretBytes, clear_traces};

/// Largest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// Time that a command may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// For how long a token is used whose end the command did not tell.
const UNTOLD: Duration = Duration::from_mins(5);

/// A command that makes tokens or client certificates.
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
    client_certificate_data: Option<String>,
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

    async fn run(&self) -> Result<Made, Failure> {
        let answered = tokio::time::timeout(DEADLINE, self.answer()).await;
        let answer =
            answered.unwrap_or(Err(Failure::unavailable("the command did not end in time")))?;
        let read = self.read(&answer);
        // Pieces of tokens and keys that the parser and the decoders left there.
        clear_traces();
        read
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

    #[inline(never)]
    fn read(&self, answer: &[u8]) -> Result<Made, Failure> {
        let malformed = Failure::corrupt("the command's answer is not an ExecCredential");
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(answer) else {
            return Err(malformed);
        };
        if answer.kind != "ExecCredential" || answer.version != self.version {
            return Err(malformed);
        }
        let mut status = answer.status;
        let told = match &status.expiration_timestamp {
            None => None,
            Some(text) => Some(OffsetDateTime::parse(text, &Rfc3339).map_err(|_error| malformed)?),
        };
        let certificate = status.certificate()?;
        let token = status
            .token
            .as_mut()
            .map(|token| std::mem::take(&mut token.0));
        let token = token.filter(|token| !token.is_empty());
        let untold = self.clock.now() + UNTOLD;
        let ends_at = match (&certificate, &token, told.map(SystemTime::from)) {
            (None, None, _) => {
                return Err(Failure::corrupt(
                    "the command gave neither a token nor a client certificate",
                ));
            }
            (None, Some(_), told) => told.unwrap_or(untold),
            (Some((_, ends_at)), None, told) => told.map_or(*ends_at, |told| told.min(*ends_at)),
            (Some((_, ends_at)), Some(_), told) => told.unwrap_or(untold).min(*ends_at),
        };
        Ok(Made {
            token: token.map(|token| SecretBytes::new(token.into_bytes())),
            certificate: certificate.map(|(key, _)| Arc::new(key)),
            ends_at,
        })
    }
}

impl Status {
    /// The client certificate with its key, and when it ends.
    fn certificate(&self) -> Result<Option<(CertifiedKey, SystemTime)>, Failure> {
        let chain = self.client_certificate_data.as_deref().unwrap_or_default();
        let key = self.client_key_data.as_ref();
        let key = key.map_or("", |key| key.0.as_str());
        match (chain.is_empty(), key.is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => {}
            (false, true) => {
                return Err(Failure::corrupt(
                    "the command gave a client certificate without its key",
                ));
            }
            (true, false) => {
                return Err(Failure::corrupt(
                    "the command gave a client key without its certificate",
                ));
            }
        }
        let pair = certificate::pair(chain.as_bytes(), key.as_bytes());
        let pair = pair.map_err(|unusable| {
            Failure::corrupt(match unusable {
                Unusable::Chain(_) => "the command's client certificate is not one in PEM",
                Unusable::Key(_) => "the command's client key is not that of its certificate",
            })
        })?;
        let leaf = pair
            .cert
            .first()
            .and_then(|leaf| certificate::ends_at(leaf));
        let ends_at = leaf.ok_or(Failure::corrupt(
            "the end of the command's client certificate cannot be read",
        ))?;
        Ok(Some((pair, ends_at)))
    }
}

impl Minter for Command {
    fn mint(&self) -> Asking<'_, Made> {
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
    use std::path::Path;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::clock;
    use crate::credential::FetchErrorKind;
    use crate::credential::testkit::Authority;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn command(folder: &Path, script: &str) -> Command {
        let path = folder.join("plugin");
        fs::write(&path, script).unwrap();
        // Read by a shell: a file just written cannot be run (ETXTBSY) while a process that another
        // test is starting still has it open.
        let argv = vec![
            "/bin/sh".to_owned(),
            path.to_string_lossy().into_owned(),
            "an argument".to_owned(),
        ];
        Command::new(argv, V1, clock::system())
    }

    fn credential(status: &str) -> String {
        format!(
            "cat <<'END'\n{{\"apiVersion\":\"{V1}\",\"kind\":\"ExecCredential\",\"status\":{{{status}}}}}\nEND\n"
        )
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
        let made = command(folder.path(), &look).mint().await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test planted it")]
        let token = made.token.as_ref().unwrap().expose_secret();
        assert_eq!(token, b"planted");
        assert!(made.certificate.is_none());
        let left = made.ends_at.duration_since(clock::system().now()).unwrap();
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

    /// The two fields of a client certificate, whose texts have many lines.
    fn certificate(chain: &str, key: &str) -> String {
        let fields = serde_json::json!({ "clientCertificateData": chain, "clientKeyData": key });
        let fields = fields.to_string();
        fields.trim_matches(['{', '}']).to_owned()
    }

    #[tokio::test]
    async fn a_client_certificate_lasts_until_the_earlier_of_its_end_and_what_the_command_says() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = Authority::new().issue(&["agent"]);
        let alone = certificate(&chain, &key);
        let made = async |status: String| {
            let command = command(folder.path(), &credential(&status));
            command.mint().await.unwrap()
        };
        let until = |text: &str| format!(r#"{alone},"expirationTimestamp":"{text}""#);
        // What the certificates of the tests say themselves.
        let at_its_end = "4096-01-01T00:00:00Z";
        let parsed = |text: &str| SystemTime::from(OffsetDateTime::parse(text, &Rfc3339).unwrap());
        for (status, ends_at) in [
            (alone.clone(), at_its_end),
            (until("5000-01-01T00:00:00Z"), at_its_end),
            (until("2100-01-01T00:00:00Z"), "2100-01-01T00:00:00Z"),
        ] {
            let made = made(status).await;
            assert_eq!(made.ends_at, parsed(ends_at));
            assert!(made.token.is_none() && made.certificate.is_some());
        }
        let both = made(format!(r#"{alone},"token":"planted""#)).await;
        assert!(both.token.is_some() && both.certificate.is_some());
        let untold = clock::system().now() + UNTOLD;
        assert!(both.ends_at <= untold && both.ends_at + DEADLINE > untold);
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_told_without_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (chain, _) = authority.issue(&["planted"]);
        let (_, other_key) = authority.issue(&["planted"]);
        for (script, hint) in [
            ("echo planted; exit 0".to_owned(), "not an ExecCredential"),
            ("echo planted >&2; exit 1".to_owned(), "run it by hand"),
            (credential(""), "neither a token nor a client certificate"),
            (
                credential(r#""token":"","clientCertificateData":"""#),
                "neither a token nor a client certificate",
            ),
            (
                credential(r#""token":["planted"]"#),
                "not an ExecCredential",
            ),
            (
                credential(r#""token":"planted","expirationTimestamp":"planted""#),
                "not an ExecCredential",
            ),
            (
                credential(r#""token":"t","clientCertificateData":"planted""#),
                "certificate without its key",
            ),
            (
                credential(r#""token":"t","clientKeyData":"planted""#),
                "key without its certificate",
            ),
            (
                credential(r#""clientCertificateData":"planted","clientKeyData":"planted""#),
                "client certificate is not one in PEM",
            ),
            (
                credential(&certificate(&chain, "planted")),
                "client key is not that of its certificate",
            ),
            (
                credential(&certificate(&chain, &other_key)),
                "client key is not that of its certificate",
            ),
            (
                credential(r#""token":"planted""#).replace(V1, "other/v1"),
                "not an ExecCredential",
            ),
            ("while :; do echo planted; done".to_owned(), "too large"),
        ] {
            let failure = command(folder.path(), &script).mint().await.unwrap_err();
            assert!(failure.hint.contains(hint), "{script}: {failure:?}");
            assert!(!format!("{failure:?}").contains("planted"));
        }
        let missing = Command::new(vec!["/nowhere".to_owned()], V1, clock::system());
        let failure = missing.mint().await.unwrap_err();
        assert!(failure.hint.contains("cannot be started"));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}\nwait", pid.display());
        let command = command(folder.path(), &script);
        let asking = command.mint();
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
            .mint()
            .await
            .unwrap_err();
        assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
        assert!(failure.hint.contains("in time"));
    }
}
