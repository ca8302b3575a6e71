//! Checks the body of a tunnelled write: what was read masked must not be written back.

use std::fmt::Write as _;

use thiserror::Error;

use super::json::{Flaw, Reader};
use super::needles::Needles;
use super::{patch, restore};
use crate::policy::ScrubRules;
use crate::resource::{Target, Verb};
use crate::yaml::{self, Node, Value};

/// What to do with a request whose body was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPlan {
    /// Send it on as it is.
    SendOn,
    /// Fetch the live object and send [`super::restore_last_applied`] of both instead.
    RestoreLastApplied,
}

/// A body that is not sent on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BodyRefused {
    /// Not JSON or YAML, although it says so (400).
    #[error("request body cannot be read as the JSON or YAML that its content type promises")]
    Malformed,
    /// It would write the mask where a value belongs (422).
    #[error(
        "`{field_path}` holds the mask of a value that was not shown; leave the field out to keep the value"
    )]
    MaskedContent {
        /// Where.
        field_path: String,
    },
    /// A JSON patch that reads what is masked (422).
    #[error("a JSON patch may not copy, move or test `{pointer}` of a masked kind")]
    PatchTouchesMasked {
        /// Where.
        pointer: String,
    },
    /// A format that cannot be looked into, for a masked kind (415).
    #[error(
        "a masked kind is written as JSON or YAML, as `kubectl apply` does; Helm keeps its releases elsewhere with HELM_DRIVER=configmap"
    )]
    UnsupportedMediaType,
}

/// Longest field path that is told, in bytes.
const PATH_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Apply,
    Json,
    JsonPatch,
    Other,
    Yaml,
}

impl Format {
    fn of(content_type: Option<&str>) -> Self {
        let essence = content_type.unwrap_or("application/json").split(';').next();
        match essence
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/json-patch+json" => Self::JsonPatch,
            "application/apply-patch+yaml" => Self::Apply,
            "application/yaml" => Self::Yaml,
            "application/json" => Self::Json,
            other if other.ends_with("+json") => Self::Json,
            _ => Self::Other,
        }
    }
}

/// Checks the body of a request for `target` with the query `query` (without `?`).
///
/// Bodies of every kind are searched for the mask, since a masked value can be copied anywhere;
/// formats that cannot be looked into are searched as bytes, and refused for masked kinds.
pub fn check_request(
    rules: &ScrubRules,
    target: &Target,
    query: &str,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<RequestPlan, BodyRefused> {
    if body.is_empty() {
        return Ok(RequestPlan::SendOn);
    }
    let masked = rules.masked(&target.gvr);
    let format = Format::of(content_type);
    let needles = Needles::new(rules.mask());
    if let (Some(kind), Format::JsonPatch) = (masked, format) {
        let pointer = patch::masked_pointer(kind, body).map_err(|_flaw| BodyRefused::Malformed)?;
        if let Some(pointer) = pointer {
            return Err(BodyRefused::PatchTouchesMasked { pointer });
        }
    }
    let found = match format {
        Format::Json | Format::JsonPatch => in_json(&needles, body)?,
        // kubectl sends JSON under this type, which YAML readers understand as well.
        Format::Apply | Format::Yaml => match in_json(&needles, body) {
            Ok(found) => found,
            Err(_) => in_yaml(&needles, body)?,
        },
        Format::Other if masked.is_some() => return Err(BodyRefused::UnsupportedMediaType),
        Format::Other => needles
            .are_in(body)
            .then(|| vec![Step::Key("body".to_owned())]),
    };
    let Some(steps) = found else {
        return Ok(RequestPlan::SendOn);
    };
    if let Some(kind) = masked
        && format == Format::Apply
        && target.verb == Verb::Patch
        && target.subresource.is_none()
        && is_last_applied_manager(query)
        && restore::annotation_patch(&kind.last_applied, body).is_some()
    {
        return Ok(RequestPlan::RestoreLastApplied);
    }
    Err(BodyRefused::MaskedContent {
        field_path: path(&steps),
    })
}

fn is_last_applied_manager(query: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair == "fieldManager=kubectl-last-applied")
}

/// One step of a path, collected from the inside out.
#[derive(Debug)]
enum Step {
    Index(usize),
    Key(String),
}

type Found = Option<Vec<Step>>;

fn in_json(needles: &Needles, body: &[u8]) -> Result<Found, BodyRefused> {
    let search = || -> Result<Found, Flaw> {
        let mut reader = Reader::new(body)?;
        let found = json_value(needles, &mut reader)?;
        if found.is_none() {
            reader.finish()?;
        }
        Ok(found)
    };
    search().map_err(|_flaw| BodyRefused::Malformed)
}

fn json_value(needles: &Needles, reader: &mut Reader<'_>) -> Result<Found, Flaw> {
    match reader.peek()? {
        b'"' => {
            let text = reader.string()?;
            Ok(needles.are_in(&reader.decoded(text)).then(Vec::new))
        }
        b'{' => {
            reader.enter(b'{')?;
            let mut first = true;
            while let Some(member) = reader.member(&mut first)? {
                let is_in_key = needles.are_in(&reader.decoded(member.key));
                let found = if is_in_key {
                    Some(Vec::new())
                } else {
                    json_value(needles, reader)?
                };
                if let Some(mut steps) = found {
                    steps.push(Step::Key(reader.owned(member.key)));
                    return Ok(Some(steps));
                }
            }
            Ok(None)
        }
        b'[' => {
            reader.enter(b'[')?;
            let mut count = 0;
            while let Some(index) = reader.element(&mut count)? {
                if let Some(mut steps) = json_value(needles, reader)? {
                    steps.push(Step::Index(index));
                    return Ok(Some(steps));
                }
            }
            Ok(None)
        }
        _ => reader.skip().map(|()| None),
    }
}

fn in_yaml(needles: &Needles, body: &[u8]) -> Result<Found, BodyRefused> {
    let text = std::str::from_utf8(body).map_err(|_foreign| BodyRefused::Malformed)?;
    let root = yaml::parse(text).map_err(|_foreign| BodyRefused::Malformed)?;
    Ok(yaml_value(needles, &root))
}

fn yaml_value(needles: &Needles, node: &Node) -> Found {
    let inside = |node: &Node, step: Step| {
        let mut steps = yaml_value(needles, node)?;
        steps.push(step);
        Some(steps)
    };
    match &node.value {
        Value::Null => None,
        Value::Scalar(scalar) => needles.are_in(scalar.text.as_bytes()).then(Vec::new),
        Value::List(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| inside(item, Step::Index(index)))
        }
        Value::Map(entries) => entries.iter().find_map(|entry| {
            let key = Step::Key(entry.key.clone());
            if needles.are_in(entry.key.as_bytes()) {
                return Some(vec![key]);
            }
            inside(&entry.node, key)
        }),
    }
}

/// Writes steps as a field path: `spec.containers[0].env`, `metadata.annotations["a/b"]`.
fn path(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps.iter().rev() {
        let is_plain = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let written = match step {
            Step::Index(index) => write!(path, "[{index}]"),
            Step::Key(key) if is_plain(key) && path.is_empty() => write!(path, "{key}"),
            Step::Key(key) if is_plain(key) => write!(path, ".{key}"),
            Step::Key(key) => write!(path, "[{key:?}]"),
        };
        if written.is_err() || path.len() > PATH_BYTES {
            break;
        }
    }
    let end = (0..=PATH_BYTES.min(path.len()))
        .rev()
        .find(|at| path.is_char_boundary(*at));
    path.truncate(end.unwrap_or(0));
    path
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
