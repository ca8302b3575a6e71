//! Reads the rules that are built into the program.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::{KindPattern, Levels, MaskedKind, PatternError, ScrubRules};
use crate::resource::Gvr;
use crate::yaml::{self, Entry, Node, YamlError};

const LEVELS: &str = include_str!("../../policies/levels.yaml");
const SCRUB: &str = include_str!("../../policies/scrub.yaml");

/// The version of the rules' shape that this program reads.
const SHAPE: u64 = 1;

/// Everything under `policies/`.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Levels of kinds where the configuration does not say otherwise.
    pub levels: Levels,
    /// What the byte filter removes.
    pub scrub: Arc<ScrubRules>,
}

/// Rules that cannot be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Not YAML.
    #[error("reading `policies/{file}`")]
    Yaml {
        /// Which of the files.
        file: &'static str,
        /// What is wrong with it.
        source: YamlError,
    },
    /// A key is missing, or of the wrong type.
    #[error("`{key}` near line {line} of the rules is missing or not what it should be")]
    Key {
        /// The key that was looked for.
        key: &'static str,
        /// Line of the mapping it belongs to.
        line: usize,
    },
    /// A kind that cannot be read.
    #[error("reading a kind in line {line} of the rules")]
    Kind {
        /// Where.
        line: usize,
        /// What is wrong with it.
        source: PatternError,
    },
    /// A mask that base64 would pad, that JSON would escape, or that is too short to be told from
    /// an honest value.
    #[error("the mask must be 24 to 40 printable ASCII bytes, and a multiple of 3")]
    Mask,
    /// The floor: Secrets are always masked.
    #[error("the rules must mask `data` and `stringData` of the core group's `secrets`")]
    SecretsNotMasked,
}

/// Reads the rules that are built into the program, and holds them against the floor.
pub fn load() -> Result<Rules, LoadError> {
    let rules = Rules::from_texts(LEVELS, SCRUB)?;
    floor(&rules.scrub)?;
    Ok(rules)
}

/// What no rules of the program may go without.
fn floor(rules: &ScrubRules) -> Result<(), LoadError> {
    let has = |fields: &[String], field: &str| fields.iter().any(|known| known == field);
    match rules.masked(&Gvr::new("", "v1", "secrets")) {
        Some(secrets)
            if has(&secrets.base64_values, "data") && has(&secrets.plain_values, "stringData") =>
        {
            Ok(())
        }
        Some(_) | None => Err(LoadError::SecretsNotMasked),
    }
}

impl Rules {
    /// Reads other rules than those that ship. They need not mask anything: this is how one sees
    /// what the demonstration says when a mask is missing. Neither `sortie agent` nor
    /// `sortie hub` has a way here.
    pub fn from_texts(levels_yaml: &str, scrub_yaml: &str) -> Result<Self, LoadError> {
        Ok(Self {
            levels: levels(levels_yaml)?,
            scrub: Arc::new(scrub(scrub_yaml)?),
        })
    }
}

fn levels(text: &str) -> Result<Levels, LoadError> {
    let root = document("levels.yaml", text)?;
    Ok(Levels {
        cached: patterns(&root, "cached")?,
        live: patterns(&root, "live")?,
        reviews: patterns(&root, "reviews")?,
    })
}

fn scrub(text: &str) -> Result<ScrubRules, LoadError> {
    let root = document("scrub.yaml", text)?;
    let mask = string(&root, "mask")?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if !(24..=40).contains(&mask.len()) || mask.len() % 3 != 0 || !mask.bytes().all(is_plain) {
        return Err(LoadError::Mask);
    }
    let entries = list(&root, "masked")?;
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    Ok(ScrubRules {
        mask_base64: STANDARD.encode(&mask),
        mask,
        feed_drops: strings(&root, "feed-drops")?,
        masked: entries.iter().map(masked).collect::<Result<_, _>>()?,
        digest,
    })
}

fn masked(entry: &Node) -> Result<MaskedKind, LoadError> {
    Ok(MaskedKind {
        kind: string(entry, "kind")?,
        group: string(entry, "group")?,
        resource: string(entry, "resource")?,
        base64_values: strings(entry, "base64-values")?,
        plain_values: strings(entry, "plain-values")?,
        fields: strings(entry, "fields")?,
        metadata: strings(entry, "metadata")?,
        columns: strings(entry, "columns")?,
        last_applied: string(entry, "last-applied")?,
        annotations: strings(entry, "annotations")?,
    })
}

pub(super) fn document(file: &'static str, text: &str) -> Result<Node, LoadError> {
    let root = yaml::parse(text).map_err(|source| LoadError::Yaml { file, source })?;
    match root.get("version").and_then(Node::as_u64) {
        Some(SHAPE) => Ok(root),
        Some(_) | None => Err(missing(&root, "version")),
    }
}

pub(super) const fn missing(node: &Node, key: &'static str) -> LoadError {
    LoadError::Key {
        key,
        line: node.line,
    }
}

pub(super) fn string(node: &Node, key: &'static str) -> Result<String, LoadError> {
    let text = node.get(key).and_then(Node::as_str);
    text.map(str::to_owned).ok_or_else(|| missing(node, key))
}

fn list<'a>(node: &'a Node, key: &'static str) -> Result<&'a [Node], LoadError> {
    let items = node.get(key).and_then(Node::as_list);
    items.ok_or_else(|| missing(node, key))
}

pub(super) fn strings(node: &Node, key: &'static str) -> Result<Vec<String>, LoadError> {
    texts(node.get(key).ok_or_else(|| missing(node, key))?, key)
}

/// The items of the list that `key` names, which is `node`.
pub(super) fn texts(node: &Node, key: &'static str) -> Result<Vec<String>, LoadError> {
    let items = node.as_list().ok_or_else(|| missing(node, key))?;
    let texts = items.iter().map(Node::as_str);
    texts
        .map(|text| text.map(str::to_owned).ok_or_else(|| missing(node, key)))
        .collect()
}

pub(super) fn entries<'a>(node: &'a Node, key: &'static str) -> Result<&'a [Entry], LoadError> {
    let entries = node.get(key).and_then(Node::as_map);
    entries.ok_or_else(|| missing(node, key))
}

fn patterns(node: &Node, key: &'static str) -> Result<Vec<KindPattern>, LoadError> {
    list(node, key)?
        .iter()
        .map(|item| {
            let text = item.as_str().ok_or_else(|| missing(node, key))?;
            KindPattern::parse(text).map_err(|source| LoadError::Kind {
                line: item.line,
                source,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_rules_load_and_mask_secrets_of_every_version() {
        let rules = load().unwrap().scrub;
        assert!(rules.masked(&Gvr::new("", "v2", "secrets")).is_some());
        assert!(rules.masked(&Gvr::new("apps", "v1", "secrets")).is_none());
        assert_eq!(rules.mask().len() % 3, 0);
        assert!(!rules.mask_base64().contains('='));
    }

    #[test]
    fn rules_without_the_floor_are_refused() {
        let weaker = SCRUB.replace("[stringData]", "[other]");
        let refused = |text: &str| floor(&scrub(text).unwrap());
        assert!(matches!(refused(&weaker), Err(LoadError::SecretsNotMasked)));
        let elsewhere = SCRUB.replace("resource: secrets", "resource: others");
        assert!(matches!(
            refused(&elsewhere),
            Err(LoadError::SecretsNotMasked)
        ));
        let padded = SCRUB.replace("masked:v1", "masked:v10");
        assert!(matches!(scrub(&padded), Err(LoadError::Mask)));
        let escaped = SCRUB.replace("sortie.dev/", "sortie.de\\/");
        assert!(matches!(scrub(&escaped), Err(LoadError::Mask)));
    }
}
