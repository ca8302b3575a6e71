//! The forms of Spinnaker: `encrypted:ENGINE!k:v…` and `secret://ENGINE?k=v…`.

use super::check::{self, Empty};
use super::error::{Problem, Quoted, expected};
use super::parameters::{Parameters, Piece, Style};
use super::percent::decode;
use super::{EngineId, Key, Locator, Reference, ReferenceError};

/// The version of Google's secrets that is meant where none is written.
pub(super) const LATEST: &str = "latest";

/// What the reference is taken for, where Spinnaker makes a difference.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A whole file.
    File,
    /// A value.
    Value,
}

/// `encrypted:` and `encryptedFile:`. Nothing is decoded here: `%2F` in a value are three
/// characters of it.
const OPAQUE: Style = Style {
    between: '!',
    equals: ':',
    shape: "a parameter `name:value` after `!`",
    decode: |text, _at| Ok(text.to_owned()),
};

/// `secret://` and `boot-secret://`.
const QUERY: Style = Style {
    between: '&',
    equals: '=',
    shape: "a parameter `name=value` after `?` or `&`",
    decode,
};

/// What stands after `encrypted:`, from byte `at` of `text` on.
pub(super) fn opaque(text: &str, at: usize, wanted: Wanted) -> Result<Reference, ReferenceError> {
    check_characters(text)?;
    let rest = text.get(at..).unwrap_or_default();
    let Some((engine, parameters)) = rest.split_once('!') else {
        known_engine(rest, at)?;
        return Err(expected(text.len(), OPAQUE.shape));
    };
    let engine_id = known_engine(engine, at)?;
    let parameters = Parameters::split(parameters, at + engine.len() + 1, OPAQUE)?;
    read(engine_id, at, parameters, wanted)
}

/// What stands after `secret://`, from byte `at` of `text` on.
pub(super) fn hierarchical(text: &str, at: usize) -> Result<Reference, ReferenceError> {
    check_characters(text)?;
    let rest = text.get(at..).unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (engine, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let engine_id = known_engine(engine, at)?;
    let at_query = at + engine.len();
    let Some(query) = rest.strip_prefix('?') else {
        return Err(expected(at_query, "`?` and parameters after the engine"));
    };
    let parameters = Parameters::split(query, at_query + 1, QUERY)?;
    read(engine_id, at, parameters, Wanted::Value)
}

/// The characters of `java.net.URI`, which reads these texts in Spinnaker.
fn check_characters(text: &str) -> Result<(), ReferenceError> {
    let is_legal = |c: char| match c {
        '#' => false,
        c if c.is_ascii() => c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c),
        c => !c.is_control() && !c.is_whitespace(),
    };
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !is_legal(*c)) {
        let what = if c == '#' {
            "no `#`: a field is named by `k`"
        } else {
            "a character that a URI can have"
        };
        return Err(expected(at, what));
    }
    for (at, _) in text.match_indices('%') {
        let digits = text.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(expected(at, "two hexadecimal digits after `%`"));
        }
    }
    Ok(())
}

fn known_engine(name: &str, at: usize) -> Result<EngineId, ReferenceError> {
    if name.is_empty() {
        return Err(expected(at, "the name of an engine"));
    }
    EngineId::parse(name).ok_or_else(|| Problem::UnknownEngine(Quoted::new(name)).at(at))
}

fn read(
    engine: EngineId,
    at: usize,
    mut given: Parameters<'_>,
    wanted: Wanted,
) -> Result<Reference, ReferenceError> {
    let (known, locator) = match engine {
        EngineId::File => {
            return Err(expected(
                at,
                "`sec+file://PROFILE/path`: the engine `file` has this form only",
            ));
        }
        EngineId::Gcs => ("`b`, `f`, `k`", gcs(&mut given)?),
        EngineId::GoogleSecretsManager => ("`p`, `s`, `v`, `k`", google(&mut given)?),
        EngineId::Kubernetes => ("`n`, `k`, `ns`", kubernetes(&mut given)?),
        EngineId::Noop => ("`v`", noop(&mut given)?),
        EngineId::S3 => ("`b`, `r`, `f`, `k`", s3(&mut given)?),
        EngineId::SecretsManager => ("`s`, `r`, `k`", aws(&mut given)?),
        EngineId::Vault => ("`e`, `p` (or `n`), `k`, `b`", vault(&mut given)?),
    };
    let key = key(engine, &mut given, wanted)?;
    let base64 = engine == EngineId::Vault && base64(&mut given)?;
    given.finish(known)?;
    Ok(Reference {
        profile: None,
        locator,
        key,
        base64,
    })
}

fn key(
    engine: EngineId,
    given: &mut Parameters<'_>,
    wanted: Wanted,
) -> Result<Key, ReferenceError> {
    match engine {
        EngineId::Noop => return Ok(Key::Whole),
        EngineId::Vault | EngineId::Kubernetes => {
            return Ok(Key::Named(given.need("k", "the field")?.text));
        }
        EngineId::SecretsManager | EngineId::GoogleSecretsManager if wanted == Wanted::File => {
            return given.take("k").map_or(Ok(Key::Whole), |key| {
                let why = "`encryptedFile:` means the whole secret; use `encrypted:`";
                Err(Problem::Misplaced("k", why).at(key.at))
            });
        }
        _ => {}
    }
    Ok(given
        .take("k")
        .map_or(Key::Whole, |key| Key::Named(key.text)))
}

fn vault(given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let mount = given.need("e", "the mount")?;
    let path = match (given.take("p"), given.take("n")) {
        (Some(_), Some(old)) => {
            let why = "it is the old name of `p`, which is there";
            return Err(Problem::Misplaced("n", why).at(old.at));
        }
        (Some(path), None) | (None, Some(path)) => path,
        (None, None) => given.need("p", "the path")?,
    };
    Ok(Locator::Vault {
        mount: check::path(mount, Empty::Refused)?,
        path: check::path(path, Empty::Refused)?,
        version: None,
    })
}

fn base64(given: &mut Parameters<'_>) -> Result<bool, ReferenceError> {
    let Some(Piece { text, at }) = given.take("b") else {
        return Ok(false);
    };
    match text.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(expected(at, "`true` or `false`")),
    }
}

fn s3(given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let bucket = given.need("b", "the bucket")?;
    let region = given.need("r", "the region")?;
    let object = given.need("f", "the object")?;
    Ok(Locator::S3 {
        region: Some(check::region(region)?),
        bucket: check::bucket(bucket)?,
        object: check::path(object, Empty::Kept)?,
    })
}

fn gcs(given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let bucket = given.need("b", "the bucket")?;
    let object = given.need("f", "the object")?;
    Ok(Locator::Gcs {
        bucket: check::bucket(bucket)?,
        object: check::path(object, Empty::Kept)?,
    })
}

fn aws(given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let name = given.need("s", "the name or ARN")?;
    let region = given.need("r", "the region")?;
    Ok(Locator::AwsSecret {
        region: Some(check::region(region)?),
        name: check::aws_name(name)?,
        version: None,
        stage: None,
    })
}

fn google(given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let project = given.need("p", "the project")?;
    let secret = given.need("s", "the secret's id")?;
    let version = given.take("v").map(check::id).transpose()?;
    Ok(Locator::GoogleSecret {
        project: check::project(project)?,
        secret: check::id(secret)?,
        version: version.filter(|version| version != LATEST),
    })
}

/// The name is lower-cased, as Spinnaker does.
fn kubernetes(given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let Piece { text, at } = given.need("n", "the Secret's name")?;
    let text = text.to_ascii_lowercase();
    let namespace = given.take("ns").map(check::namespace).transpose()?;
    Ok(Locator::KubernetesSecret {
        namespace,
        name: check::secret_name(Piece { text, at })?,
    })
}

fn noop(given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let value = given.need("v", "the value")?.text;
    Ok(Locator::Noop { value })
}
