//! `sec+ENGINE://PROFILE/path?query#key`.

use super::check::{self, Empty};
use super::classic::LATEST;
use super::error::{Problem, Quoted, expected};
use super::parameters::{Parameters, Piece, Style};
use super::percent::decode;
use super::{EngineId, Key, Locator, PROFILE_BYTES, Reference, ReferenceError};

/// The stage of AWS that is meant where none is written.
const CURRENT: &str = "AWSCURRENT";

const QUERY: Style = Style {
    between: '&',
    equals: '=',
    shape: "a parameter `name=value` after `?` or `&`",
    decode,
};

/// What stands between the slashes after the profile.
struct Path {
    segments: Vec<Piece>,
    /// Where the path starts.
    at: usize,
}

/// What stands after `sec+`, from byte `at` of `text` on.
pub(super) fn parse(text: &str, at: usize) -> Result<Reference, ReferenceError> {
    check_characters(text)?;
    let rest = text.get(at..).unwrap_or_default();
    let Some((name, rest)) = rest.split_once("://") else {
        return Err(expected(at, "ENGINE://PROFILE/path"));
    };
    let engine =
        EngineId::parse(name).ok_or_else(|| Problem::UnknownEngine(Quoted::new(name)).at(at))?;
    let at = at + name.len() + "://".len();
    let (rest, fragment) = cut(rest, '#');
    let (rest, query) = cut(rest, '?');
    let profile = profile(rest, at)?;
    let at_path = at + profile.len();
    let path = rest.get(profile.len()..).unwrap_or_default();
    let mut path = Path::split(path, at_path)?;
    let at_query = at + rest.len();
    let mut given = match query {
        None => Parameters::none(at_query),
        Some(query) => Parameters::split(query, at_query + 1, QUERY)?,
    };
    let (known, locator) = locator(engine, &mut path, &mut given)?;
    let base64 = engine != EngineId::Noop && base64(&mut given)?;
    given.finish(known)?;
    let at_key = text.len() - fragment.map_or(0, str::len);
    Ok(Reference {
        profile: (!profile.is_empty()).then(|| profile.to_owned()),
        locator,
        key: key(engine, fragment, at_key)?,
        base64,
    })
}

/// The characters of RFC 3986 outside of hosts.
fn check_characters(text: &str) -> Result<(), ReferenceError> {
    let is_legal = |c: char| c.is_ascii_graphic() && !"\"<>[\\]^`{|}".contains(c);
    let wrong = text.char_indices().find(|(_, c)| !is_legal(*c));
    wrong.map_or(Ok(()), |(at, _)| {
        let what = "a character that a URI can have; others are percent-encoded";
        Err(expected(at, what))
    })
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The name up to the first slash; empty is the default one.
fn profile(rest: &str, at: usize) -> Result<&str, ReferenceError> {
    let (name, path) = cut(rest, '/');
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some((index, _)) = name.char_indices().find(|(_, c)| !is_name(*c)) {
        return Err(expected(
            at + index,
            "the name of a connection under `engines`, not a host, port or user",
        ));
    }
    if name.len() > PROFILE_BYTES {
        return Err(expected(at, "the name of a connection of at most 64 bytes"));
    }
    if path.is_none() {
        return Err(expected(
            at + name.len(),
            "`/` and a path after the profile",
        ));
    }
    Ok(name)
}

impl Path {
    /// `text` starts with a slash, at byte `at`.
    fn split(text: &str, at: usize) -> Result<Self, ReferenceError> {
        let mut segments = Vec::new();
        let mut start = at + 1;
        for segment in text.split('/').skip(1) {
            segments.push(Piece {
                text: decode(segment, start)?,
                at: start,
            });
            start += segment.len() + 1;
        }
        Ok(Self {
            segments,
            at: at + 1,
        })
    }

    /// Takes the first segment, which may have encoded slashes.
    fn first(&mut self, what: &'static str) -> Result<Piece, ReferenceError> {
        if self.segments.is_empty() {
            return Err(expected(self.at, what));
        }
        let first = self.segments.remove(0);
        self.at = first.at + first.text.len();
        if first.text.is_empty() {
            return Err(expected(first.at, what));
        }
        Ok(first)
    }

    /// Takes what is left, whose segments have no slashes in them.
    fn rest(&mut self, what: &'static str) -> Result<Piece, ReferenceError> {
        let at = self.segments.first().map(|first| first.at);
        let at = at.ok_or_else(|| expected(self.at, what))?;
        let encoded = self
            .segments
            .iter()
            .find(|segment| segment.text.contains('/'));
        if let Some(segment) = encoded {
            return Err(expected(segment.at, "a path without encoded slashes"));
        }
        let segments = self.segments.drain(..);
        let texts: Vec<String> = segments.map(|segment| segment.text).collect();
        let text = texts.join("/");
        Ok(Piece { text, at })
    }

    /// Refuses what is left.
    fn end(&self, what: &'static str) -> Result<(), ReferenceError> {
        let first = self.segments.first();
        first.map_or(Ok(()), |segment| Err(expected(segment.at, what)))
    }
}

fn locator(
    engine: EngineId,
    path: &mut Path,
    given: &mut Parameters<'_>,
) -> Result<(&'static str, Locator), ReferenceError> {
    Ok(match engine {
        EngineId::File => ("`encoding`", file(path)?),
        EngineId::Gcs => ("`encoding`", gcs(path)?),
        EngineId::GoogleSecretsManager => ("`version`, `encoding`", google(path, given)?),
        EngineId::Kubernetes => ("`encoding`", kubernetes(path)?),
        EngineId::Noop => ("none", noop(path)?),
        EngineId::S3 => ("`region`, `encoding`", s3(path, given)?),
        EngineId::SecretsManager => {
            let known = "`region`, `version`, `stage`, `encoding`";
            (known, aws(path, given)?)
        }
        EngineId::Vault => ("`version`, `encoding`", vault(path, given)?),
    })
}

fn file(path: &mut Path) -> Result<Locator, ReferenceError> {
    let path = path.rest("a path")?;
    let is_folder = path.text.is_empty();
    Ok(Locator::File {
        path: if is_folder {
            path.text
        } else {
            check::path(path, Empty::Refused)?
        },
    })
}

fn gcs(path: &mut Path) -> Result<Locator, ReferenceError> {
    Ok(Locator::Gcs {
        bucket: check::bucket(path.first("a bucket")?)?,
        object: check::path(path.rest("`/` and an object")?, Empty::Kept)?,
    })
}

fn s3(path: &mut Path, given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    Ok(Locator::S3 {
        region: given.take("region").map(check::region).transpose()?,
        bucket: check::bucket(path.first("a bucket")?)?,
        object: check::path(path.rest("`/` and an object")?, Empty::Kept)?,
    })
}

fn aws(path: &mut Path, given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let stage = given.take("stage").map(check::stage).transpose()?;
    Ok(Locator::AwsSecret {
        region: given.take("region").map(check::region).transpose()?,
        name: check::aws_name(path.rest("a name or ARN")?)?,
        version: given.take("version").map(check::id).transpose()?,
        stage: stage.filter(|stage| stage != CURRENT),
    })
}

fn google(path: &mut Path, given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let version = given.take("version").map(check::id).transpose()?;
    let project = check::project(path.first("a project")?)?;
    let secret = check::id(path.first("`/` and the id of a secret")?)?;
    path.end("no more than PROJECT/SECRET")?;
    Ok(Locator::GoogleSecret {
        project,
        secret,
        version: version.filter(|version| version != LATEST),
    })
}

/// `namespace/name`, or `name` in the namespace of the connection.
fn kubernetes(path: &mut Path) -> Result<Locator, ReferenceError> {
    let first = path.first("a namespace, `/` and the name of a Secret")?;
    if path.segments.is_empty() {
        let name = check::secret_name(first)?;
        return Ok(Locator::KubernetesSecret {
            namespace: None,
            name,
        });
    }
    let name = path.first("the name of a Secret")?;
    path.end("no more than NAMESPACE/NAME")?;
    Ok(Locator::KubernetesSecret {
        namespace: Some(check::namespace(first)?),
        name: check::secret_name(name)?,
    })
}

fn noop(path: &mut Path) -> Result<Locator, ReferenceError> {
    let value = path.first("the value")?.text;
    path.end("the value in one segment, with its `/` as `%2F`")?;
    Ok(Locator::Noop { value })
}

/// The mount is one segment, with its slashes as `%2F`.
fn vault(path: &mut Path, given: &mut Parameters<'_>) -> Result<Locator, ReferenceError> {
    let version = given.take("version");
    Ok(Locator::Vault {
        mount: check::path(path.first("a mount")?, Empty::Refused)?,
        path: check::path(path.rest("`/` and a path below the mount")?, Empty::Refused)?,
        version: version.as_ref().map(check::number).transpose()?,
    })
}

fn base64(given: &mut Parameters<'_>) -> Result<bool, ReferenceError> {
    match given.take("encoding") {
        None => Ok(false),
        Some(piece) if piece.text == "base64" => Ok(true),
        Some(piece) => Err(expected(piece.at, "`base64`")),
    }
}

fn key(engine: EngineId, fragment: Option<&str>, at: usize) -> Result<Key, ReferenceError> {
    let Some(fragment) = fragment else {
        return match engine {
            EngineId::Vault | EngineId::Kubernetes => {
                Err(expected(at, "`#` and a field, or `#*` for each field"))
            }
            _ => Ok(Key::Whole),
        };
    };
    if engine == EngineId::Noop {
        return Err(expected(at, "no `#`: the value has no fields"));
    }
    match fragment {
        "" => Err(expected(at, "a field after `#`")),
        "*" => Ok(Key::Each),
        text if text.contains('#') => Err(expected(at, "a field with its `#` as `%23`")),
        text => decode(text, at).map(Key::Named),
    }
}
