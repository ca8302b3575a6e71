//! A scripted AWS: STS, Secrets Manager and S3 behind one address.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::clock::{ManualClock, from_unix_seconds};
use crate::credential::aws::{Settings, WebIdentity};
use crate::credential::testkit::{Authority, Reply, Scripted};
use crate::credential::{Fetched, Key, Locator, Reference};

/// 2100-01-01T00:00:00Z: whatever the clock of the machine says, a login is good by it.
pub(super) const NOW: u64 = 4_102_444_800;

pub(super) const SECRET: &str = r#"{"ARN":"arn:aws:secretsmanager:eu-west-1:1:secret:shop-x","CreatedDate":1.0,"Name":"shop","SecretString":"{\"kubeconfig\":\"planted-kubeconfig\",\"other\":\"planted-other\",\"number\":7,\"encoded\":\"cGxhbnRlZA==\"}","VersionId":"11111111-1111-1111-1111-111111111111","VersionStages":["AWSCURRENT"]}"#;

pub(super) struct Bench {
    pub(super) server: Scripted,
    pub(super) clock: Arc<ManualClock>,
    pub(super) folder: TempDir,
}

impl Bench {
    /// STS lends for an hour; everything else is answered by `script`.
    pub(super) async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_sts(|_| lent(), script).await
    }

    pub(super) async fn with_sts(
        sts: impl Fn(&str) -> Reply + Send + Sync + 'static,
        script: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new();
        let answer = move |request: &str| {
            if request.contains("Action=AssumeRole") {
                sts(request)
            } else {
                script(request)
            }
        };
        let server = Scripted::start(authority.tls(&[]), answer).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("token"), "planted-jwt\n").unwrap();
        Self {
            server,
            clock: Arc::new(ManualClock::new(from_unix_seconds(NOW))),
            folder,
        }
    }

    pub(super) fn settings(&self) -> Settings {
        let address = format!("https://127.0.0.1:{}", self.server.address.port());
        Settings {
            region: "eu-west-1".to_owned(),
            endpoint: Some(address.clone()),
            sts_endpoint: Some(address),
            ca_file: Some(self.folder.path().join("ca.pem")),
            role: None,
            web_identity: Some(WebIdentity {
                role_arn: "arn:aws:iam::123456789012:role/agent".to_owned(),
                token_file: self.folder.path().join("token"),
            }),
            instance_metadata: false,
        }
    }

    /// How many requests had this in them.
    pub(super) fn count(&self, part: &str) -> usize {
        let requests = self.server.requests();
        requests.iter().filter(|text| text.contains(part)).count()
    }
}

/// What STS says to a token, good until an hour after [`NOW`].
pub(super) fn lent() -> Reply {
    lent_by("AssumeRoleWithWebIdentity", "first")
}

/// What STS says to `action`.
pub(super) fn lent_by(action: &str, session: &str) -> Reply {
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <{action}Result><Credentials><AccessKeyId>ASIA{session}</AccessKeyId>\
         <SecretAccessKey>planted-secret-key</SecretAccessKey>\
         <SessionToken>planted-session-token</SessionToken>\
         <Expiration>{}</Expiration></Credentials></{action}Result>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>",
        crate::clock::rfc3339(expiry())
    );
    xml(200, &body)
}

pub(super) fn expiry() -> SystemTime {
    from_unix_seconds(NOW) + Duration::from_hours(1)
}

pub(super) fn xml(status: u16, body: &str) -> Reply {
    answer(status, "content-type: text/xml\r\n", body)
}

/// A complete answer with these header lines.
pub(super) fn answer(status: u16, headers: &str, body: &str) -> Reply {
    Reply::Bytes(
        format!(
            "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

pub(super) fn secret(key: Key) -> Reference {
    Reference {
        profile: None,
        base64: key == Key::Named("encoded".to_owned()),
        locator: Locator::AwsSecret {
            region: None,
            name: "team/shop".to_owned(),
            version: None,
            stage: None,
        },
        key,
    }
}

pub(super) fn object(key: Key) -> Reference {
    Reference {
        profile: None,
        base64: false,
        locator: Locator::S3 {
            region: None,
            bucket: "configs".to_owned(),
            object: "team/shop 1.yaml".to_owned(),
        },
        key,
    }
}

pub(super) fn named(field: &str) -> Key {
    Key::Named(field.to_owned())
}

pub(super) fn text(fetched: &Fetched) -> &[u8] {
    #[expect(clippy::disallowed_methods, reason = "a test compares it")]
    fetched.document.expose_secret()
}
