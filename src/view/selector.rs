//! Label and field selectors, as the API server reads them.

use thiserror::Error;

use super::object::{Object, selectable};
use crate::resource::Gvr;

/// Longest selector that is read, in bytes.
///
/// A request line does not get longer than the listener's header limit; this keeps parsing cheap.
const SELECTOR_BYTES: usize = 16 * 1024;

/// Which objects a list or watch asks for. The default selects every object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelTerm {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    field: String,
    value: String,
    equal: bool,
}

/// A selector that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectorError {
    /// It does not follow the grammar.
    #[error("unable to parse requirement: {0}")]
    Grammar(&'static str),
    /// Objects of this kind are not selected by this field.
    #[error("field label not supported: {0}")]
    Unsupported(String),
}

impl Selector {
    /// Reads the decoded values of `labelSelector` and `fieldSelector` for `gvr`; an empty text
    /// selects everything. Blanks around everything are ignored.
    ///
    /// # Errors
    /// The grammar, and fields that the kind is not selected by.
    pub fn parse(gvr: &Gvr, labels: &str, fields: &str) -> Result<Self, SelectorError> {
        if labels.len() > SELECTOR_BYTES || fields.len() > SELECTOR_BYTES {
            return Err(SelectorError::Grammar("selector is too long"));
        }
        let known = |field: &str| {
            matches!(field, "metadata.name" | "metadata.namespace")
                || selectable(gvr).contains(&field)
        };
        let fields = parse_fields(fields)?;
        if let Some(term) = fields.iter().find(|term| !known(&term.field)) {
            let shown = term.field.chars().take(253).collect();
            return Err(SelectorError::Unsupported(shown));
        }
        Ok(Self {
            labels: parse_labels(labels)?,
            fields,
        })
    }

    /// Whether it selects every object.
    pub const fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether it selects `object`.
    pub fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|term| term.matches(object))
            && self.fields.iter().all(|term| {
                let value = object.field(&term.field).unwrap_or_default();
                (value == term.value) == term.equal
            })
    }
}

fn holds(values: &[String], value: &str) -> bool {
    values.iter().any(|known| known == value)
}

impl LabelTerm {
    fn matches(&self, object: &Object) -> bool {
        match self {
            Self::In(key, values) => object.label(key).is_some_and(|value| holds(values, value)),
            // An object without the label is "not in", as the API server has it.
            Self::NotIn(key, values) => object.label(key).is_none_or(|value| !holds(values, value)),
            Self::Exists(key) => object.label(key).is_some(),
            Self::Absent(key) => object.label(key).is_none(),
        }
    }
}

fn parse_labels(text: &str) -> Result<Vec<LabelTerm>, SelectorError> {
    let mut terms = Vec::new();
    for requirement in outside_parentheses(text)? {
        terms.push(parse_label(requirement.trim())?);
    }
    Ok(terms)
}

/// Splits at the commas that are not within parentheses. An empty text has no parts.
fn outside_parentheses(text: &str) -> Result<Vec<&str>, SelectorError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut within = false;
    let mut fault = false;
    let parts = text
        .split(|symbol: char| {
            match symbol {
                '(' => {
                    fault |= within;
                    within = true;
                }
                ')' => {
                    fault |= !within;
                    within = false;
                }
                _ => {}
            }
            symbol == ',' && !within
        })
        .collect();
    if fault || within {
        return Err(SelectorError::Grammar("parentheses do not match"));
    }
    Ok(parts)
}

fn parse_label(text: &str) -> Result<LabelTerm, SelectorError> {
    if let Some(key) = text.strip_prefix('!') {
        return Ok(LabelTerm::Absent(label_key(key)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(LabelTerm::NotIn(label_key(key)?, vec![label_value(value)?]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(LabelTerm::In(label_key(key)?, vec![label_value(value)?]));
    }
    let Some((head, set)) = text.split_once('(') else {
        return Ok(LabelTerm::Exists(label_key(text)?));
    };
    let set = set
        .trim_end()
        .strip_suffix(')')
        .ok_or(SelectorError::Grammar("expected `)` at the end of a set"))?;
    let values = set.split(',').map(label_value).collect::<Result<_, _>>()?;
    let mut words = head.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(key), Some("in"), None) => Ok(LabelTerm::In(label_key(key)?, values)),
        (Some(key), Some("notin"), None) => Ok(LabelTerm::NotIn(label_key(key)?, values)),
        _ => Err(SelectorError::Grammar("expected `in` or `notin`")),
    }
}

const fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn label_key(text: &str) -> Result<String, SelectorError> {
    let key = text.trim();
    let fits = !key.is_empty() && key.bytes().all(|byte| is_label_byte(byte) || byte == b'/');
    if fits {
        Ok(key.to_owned())
    } else {
        Err(SelectorError::Grammar("expected the key of a label"))
    }
}

fn label_value(text: &str) -> Result<String, SelectorError> {
    let value = text.trim();
    if value.bytes().all(is_label_byte) {
        Ok(value.to_owned())
    } else {
        Err(SelectorError::Grammar("expected the value of a label"))
    }
}

fn parse_fields(text: &str) -> Result<Vec<FieldTerm>, SelectorError> {
    let mut terms = Vec::new();
    for term in text.split(',').filter(|term| !term.trim().is_empty()) {
        let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('='))
        {
            (field, value, true)
        } else {
            return Err(SelectorError::Grammar("expected `=` in a field selector"));
        };
        terms.push(FieldTerm {
            field: field.trim().to_owned(),
            value: value.trim().to_owned(),
            equal,
        });
    }
    Ok(terms)
}
