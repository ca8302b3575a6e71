//! References to secrets, in Spinnaker's form and in ours.

use std::fmt;

use thiserror::Error;

/// A reference that has been understood. Naming a secret is all it does: no host, no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A field of a secret in Vault or OpenBao.
    Vault {
        /// The connection in our configuration; `None` is the default one.
        profile: Option<String>,
        /// What to read there.
        locator: Locator,
    },
}

/// A field of a secret in a key-value store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Where the store is mounted, e.g. `secret`.
    pub mount: String,
    /// Path below the mount, e.g. `spinnaker/shop`.
    pub path: String,
    /// The field.
    pub key: String,
    /// A version other than the newest.
    pub version: Option<u64>,
    /// Whether the field holds base64.
    pub base64: bool,
}

/// A text that is not a reference, or not one that this version can follow.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// An engine that exists elsewhere.
    #[error("engine `{0}` is not available in this version")]
    Engine(String),
    /// Not of a known form.
    #[error("secret reference {0}")]
    Form(&'static str),
}

/// Longest reference that is read, in bytes.
const REFERENCE_BYTES: usize = 4096;

impl Reference {
    /// Reads `sec+vault://PROFILE/mount/path[?version=N][&encoding=base64]#key`,
    /// `encrypted:vault!e:mount!p:path!k:key[!b:true]` or the same with `encryptedFile:`.
    ///
    /// `n` is the old name of `p`. An empty PROFILE, and every `encrypted:` reference, means the
    /// default connection.
    ///
    /// # Errors
    /// Everything else; a text that only resembles a reference is never taken literally.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let is_uri_byte = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
        if text.len() > REFERENCE_BYTES {
            return Err(ReferenceError::Form("is too long"));
        }
        if !text.bytes().all(is_uri_byte) {
            return Err(ReferenceError::Form(
                "has characters that a URI cannot have",
            ));
        }
        if let Some(rest) = text.strip_prefix("sec+") {
            let (engine, rest) = rest
                .split_once("://")
                .ok_or(ReferenceError::Form("has no `://` after its engine"))?;
            return vault_only(engine).and_then(|()| modern(rest));
        }
        for prefix in ["encrypted:", "encryptedFile:"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (engine, rest) = rest
                    .split_once('!')
                    .ok_or(ReferenceError::Form("has no parameters"))?;
                return vault_only(engine).and_then(|()| classic(rest));
            }
        }
        for prefix in ["secret://", "boot-secret://"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let engine = rest.split('?').next().unwrap_or_default();
                return Err(engine_missing(engine));
            }
        }
        Err(ReferenceError::Form("has no known scheme"))
    }

    /// The one form of this reference: `sec+vault://PROFILE/mount/path?query#key`.
    pub fn canonical(&self) -> String {
        let Self::Vault { profile, locator } = self;
        format!(
            "sec+vault://{}/{locator}",
            profile.as_deref().unwrap_or_default()
        )
    }
}

impl fmt::Display for Locator {
    /// `mount/path?query#key`, percent-encoded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", encode(&self.mount))?;
        for segment in self.path.split('/') {
            write!(f, "/{}", encode(segment))?;
        }
        match (self.version, self.base64) {
            (None, false) => {}
            (Some(version), false) => write!(f, "?version={version}")?,
            (None, true) => f.write_str("?encoding=base64")?,
            (Some(version), true) => write!(f, "?version={version}&encoding=base64")?,
        }
        write!(f, "#{}", encode(&self.key))
    }
}

fn vault_only(engine: &str) -> Result<(), ReferenceError> {
    match engine {
        "vault" => Ok(()),
        _ => Err(engine_missing(engine)),
    }
}

fn engine_missing(engine: &str) -> ReferenceError {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=32).contains(&engine.len()) && engine.bytes().all(is_name) {
        ReferenceError::Engine(engine.to_owned())
    } else {
        ReferenceError::Form("names no engine")
    }
}

/// What stands after `sec+vault://`.
fn modern(rest: &str) -> Result<Reference, ReferenceError> {
    let (rest, key) = rest
        .split_once('#')
        .ok_or(ReferenceError::Form("names no field after `#`"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut segments = rest.split('/');
    let profile = segments.next().unwrap_or_default();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !profile.bytes().all(is_name) {
        return Err(ReferenceError::Form(
            "needs the name of a configured engine, not a host, port or user, after `//`",
        ));
    }
    let mut decoded = segments
        .map(decode)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter();
    let mount = decoded
        .next()
        .ok_or(ReferenceError::Form("names no mount"))?;
    let segments: Vec<String> = decoded.collect();
    if segments.iter().any(|segment| segment.contains('/')) {
        return Err(ReferenceError::Form("has an encoded `/` in its path"));
    }
    let mut locator = Locator {
        mount,
        path: segments.join("/"),
        key: decode(key)?,
        version: None,
        base64: false,
    };
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        match pair.split_once('=') {
            Some(("version", number)) if locator.version.is_none() => {
                locator.version = Some(version(number)?);
            }
            Some(("encoding", "base64")) if !locator.base64 => locator.base64 = true,
            _ => return Err(ReferenceError::Form("has an unknown or repeated query key")),
        }
    }
    let profile = (!profile.is_empty()).then(|| profile.to_owned());
    checked(profile, locator)
}

/// What stands after `encrypted:vault!`: `key:value` pairs, separated by `!`; the first colon
/// splits.
fn classic(rest: &str) -> Result<Reference, ReferenceError> {
    let [mut mount, mut path, mut key, mut base64] = [None, None, None, None];
    for pair in rest.split('!') {
        let (name, value) = pair
            .split_once(':')
            .ok_or(ReferenceError::Form("has a parameter without `:`"))?;
        let slot = match name {
            "e" => &mut mount,
            "p" | "n" => &mut path,
            "k" => &mut key,
            "b" => &mut base64,
            _ => return Err(ReferenceError::Form("has an unknown parameter")),
        };
        if slot.replace(value).is_some() {
            return Err(ReferenceError::Form("has a parameter twice"));
        }
    }
    let need = |value: Option<&str>, problem| {
        let value = value.filter(|value| !value.is_empty());
        value
            .map(str::to_owned)
            .ok_or(ReferenceError::Form(problem))
    };
    let base64 = match base64 {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            return Err(ReferenceError::Form(
                "has a `b` that is neither true nor false",
            ));
        }
    };
    let locator = Locator {
        mount: need(mount, "names no mount (`e`)")?,
        path: need(path, "names no path (`p`)")?,
        key: need(key, "names no field (`k`)")?,
        version: None,
        base64,
    };
    checked(None, locator)
}

/// Paths are taken as they are; what a server could read in another way is refused.
fn checked(profile: Option<String>, locator: Locator) -> Result<Reference, ReferenceError> {
    let is_odd = |text: &str| {
        text.split('/')
            .any(|segment| matches!(segment, "" | "." | ".."))
            || text.chars().any(char::is_control)
    };
    if is_odd(&locator.mount) || is_odd(&locator.path) {
        return Err(ReferenceError::Form(
            "has an empty or dot segment in its path",
        ));
    }
    if locator.key.is_empty() {
        return Err(ReferenceError::Form("names no field"));
    }
    Ok(Reference::Vault { profile, locator })
}

fn version(number: &str) -> Result<u64, ReferenceError> {
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse() {
        Ok(version) if is_number && version > 0 => Ok(version),
        _ => Err(ReferenceError::Form(
            "has a version that is no positive number",
        )),
    }
}

fn decode(text: &str) -> Result<String, ReferenceError> {
    let broken = ReferenceError::Form("has broken percent-encoding");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(broken);
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_error| broken)
}

/// Percent-encodes everything but the unreserved characters of RFC 3986 §2.3.
fn encode(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else if write!(out, "%{byte:02X}").is_err() {
            break; // a String takes everything
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Reference::parse(text).unwrap().canonical()
    }

    #[test]
    fn both_forms_name_the_same_secret() {
        for (text, expected) in [
            (
                "sec+vault://prod-vault/secret/spinnaker/shop#kubeconfig",
                "sec+vault://prod-vault/secret/spinnaker/shop#kubeconfig",
            ),
            (
                "sec+vault://p/team%2Fkv/a%20b?version=3#k",
                "sec+vault://p/team%2Fkv/a%20b?version=3#k",
            ),
            (
                "encrypted:vault!e:secret!p:spinnaker/shop!k:kubeconfig",
                "sec+vault:///secret/spinnaker/shop#kubeconfig",
            ),
            (
                "encryptedFile:vault!e:secret!n:kubernetes!k:a:b!b:true",
                "sec+vault:///secret/kubernetes?encoding=base64#a%3Ab",
            ),
        ] {
            assert_eq!(canonical(text), expected);
            assert_eq!(canonical(expected), expected);
        }
    }

    #[test]
    fn what_is_not_exactly_a_reference_is_an_error() {
        for text in [
            "",
            "plain",
            "sec+vault:secret/a#k",
            "sec+vault://user@p/secret/a#k",
            "sec+vault://p:8200/secret/a#k",
            "sec+vault://p/secret/a",
            "sec+vault://p/secret/a#",
            "sec+vault://p/secret#k",
            "sec+vault://p/secret/../sys/a#k",
            "sec+vault://p/secret/%2e%2e/a#k",
            "sec+vault://p/secret/a%2Fb#k",
            "sec+vault://p/secret/a//b#k",
            "sec+vault://p/secret/a?version=0#k",
            "sec+vault://p/secret/a?version=+1#k",
            "sec+vault://p/secret/a?version=1&version=2#k",
            "sec+vault://p/secret/a?x=1#k",
            "sec+vault://p/secret/a%4#k",
            "sec+vault://p/secret/a b#k",
            "encrypted:vault",
            "encrypted:vault!",
            "encrypted:vault!e:secret!p:a",
            "encrypted:vault!e:secret!p:a!n:a!k:k",
            "encrypted:vault!e:secret!p:a!k:k!x:y",
            "encrypted:vault!e:secret!p:a!k",
            "encrypted:vault!e:secret!p:a!k:k!b:yes",
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(matches!(error, ReferenceError::Form(_)), "{text}");
        }
    }

    #[test]
    fn an_engine_of_another_version_is_named() {
        for (text, engine) in [
            ("sec+aws://p/a#k", "aws"),
            ("encrypted:s3!b:x!f:y", "s3"),
            ("encryptedFile:k8s!n:a!k:b", "k8s"),
            ("secret://secrets-manager?s=a", "secrets-manager"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert_eq!(error, ReferenceError::Engine(engine.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_read_back_as_itself(
            mount in "[a-z/%]{1,8}", path in "[a-z/% .]{1,12}", key in "[ -~]{1,8}",
            version in proptest::option::of(1..u64::MAX), base64: bool,
        ) {
            let locator = Locator { mount, path, key, version, base64 };
            if let Ok(reference) = checked(Some("p".to_owned()), locator) {
                prop_assert_eq!(Reference::parse(&reference.canonical()), Ok(reference));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(sec\\+vault://|encrypted:vault!)?[ -~]{0,60}") {
            drop(Reference::parse(&text));
        }
    }
}
