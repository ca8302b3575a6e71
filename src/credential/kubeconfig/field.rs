//! A place in a kubeconfig: its path and line for errors, its value for the reader.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::{KubeconfigError, Profile, Relaxation};
use crate::credential::document;
use crate::limits;
use crate::yaml::{Node, Value};

/// A value in a kubeconfig and the path that leads there.
///
/// The path is made of names that the reader asked for and of indices, never of names that the
/// document chose.
pub(super) struct At<'a> {
    path: String,
    line: usize,
    node: &'a Node,
    /// Whether fields that are not known are passed over.
    lenient: bool,
}

/// Bytes that a field holds or refers to, and the field.
pub(super) type Content<'a> = (At<'a>, Zeroizing<Vec<u8>>);

impl<'a> At<'a> {
    pub(super) fn top(node: &'a Node, profile: &Profile) -> Self {
        Self {
            path: "kubeconfig".to_owned(),
            line: node.line,
            node,
            lenient: profile.allows(Relaxation::UnknownFields),
        }
    }

    pub(super) const fn node(&self) -> &'a Node {
        self.node
    }

    pub(super) fn path(&self) -> String {
        self.path.clone()
    }

    pub(super) const fn line(&self) -> usize {
        self.line
    }

    /// The value of `key`; as kubectl does, an empty one is none.
    pub(super) fn find(&self, key: &str) -> Option<Self> {
        let entry = self.node.as_map()?.iter().find(|entry| entry.key == key)?;
        let is_empty = match &entry.node.value {
            Value::Null => true,
            Value::Scalar(scalar) => scalar.text.is_empty(),
            Value::List(_) | Value::Map(_) => false,
        };
        if is_empty {
            return None;
        }
        Some(Self {
            path: format!("{}.{key}", self.path),
            line: entry.line,
            node: &entry.node,
            lenient: self.lenient,
        })
    }

    pub(super) fn need(&self, key: &'static str) -> Result<Self, KubeconfigError> {
        self.find(key).ok_or_else(|| KubeconfigError::Field {
            path: format!("{}.{key}", self.path),
            line: self.line,
            problem: "is missing",
        })
    }

    pub(super) fn text(&self) -> Result<&'a str, KubeconfigError> {
        self.node
            .as_str()
            .ok_or_else(|| self.refuse("is not a text"))
    }

    pub(super) fn items(&self) -> Result<impl Iterator<Item = Self>, KubeconfigError> {
        let list = self
            .node
            .as_list()
            .ok_or_else(|| self.refuse("is not a list"))?;
        let (path, lenient) = (self.path.clone(), self.lenient);
        Ok(list.iter().enumerate().map(move |(at, node)| At {
            path: format!("{path}[{at}]"),
            line: node.line,
            node,
            lenient,
        }))
    }

    /// Refuses what is not a map, and keys that are not among `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), KubeconfigError> {
        let entries = self
            .node
            .as_map()
            .ok_or_else(|| self.refuse("is not a map"))?;
        match entries
            .iter()
            .find(|entry| !known.contains(&entry.key.as_str()))
        {
            None => Ok(()),
            Some(_) if self.lenient => Ok(()),
            Some(entry) => Err(KubeconfigError::Field {
                path: self.path.clone(),
                line: entry.line,
                problem: "has a field that is not known",
            }),
        }
    }

    /// Refuses another value of `key` than `wanted`.
    pub(super) fn is_one_of(&self, key: &str, wanted: &str) -> Result<(), KubeconfigError> {
        match self.find(key) {
            Some(field) if field.text()? != wanted => {
                Err(field.refuse("is not that of a kubeconfig"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// `true`; anything but `true` and `false` is refused.
    pub(super) fn is_true(&self, problem: &'static str) -> Result<bool, KubeconfigError> {
        self.node.as_bool().ok_or_else(|| self.refuse(problem))
    }

    pub(super) fn refuse(&self, problem: &'static str) -> KubeconfigError {
        KubeconfigError::Field {
            path: self.path.clone(),
            line: self.line,
            problem,
        }
    }

    /// The decoded `data_key`, else the file that `file_key` names; where it came from as well.
    pub(super) fn content(
        &self,
        data_key: &str,
        file_key: &str,
        profile: &Profile,
    ) -> Result<Option<Content<'a>>, KubeconfigError> {
        if let Some(data) = self.find(data_key) {
            let decoded = document::from_base64(data.text()?.as_bytes());
            let decoded = decoded.ok_or_else(|| data.refuse("is not base64"))?;
            return Ok(Some((data, decoded)));
        }
        let Some(file) = self.find(file_key) else {
            return Ok(None);
        };
        let path = file.file_path(profile)?;
        let bytes = read_file(&path).map_err(|source| KubeconfigError::File {
            path: file.path(),
            line: file.line,
            source,
        })?;
        Ok(Some((file, bytes)))
    }

    /// The file that this field names, if the profile allows files.
    pub(super) fn file_path(
        &self,
        profile: &Profile,
    ) -> Result<std::path::PathBuf, KubeconfigError> {
        let path = Path::new(self.text()?);
        match &profile.base {
            Some(base) => Ok(base.join(path)),
            None if !profile.allows(Relaxation::Files) => {
                Err(self.refuse("names a file; only inline data is accepted here"))
            }
            None if path.is_absolute() => Ok(path.to_owned()),
            None => Err(self.refuse("names a file by a path that is not absolute")),
        }
    }
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let limit = u64::try_from(limits::YAML_BYTES).unwrap_or(u64::MAX);
    let read = File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if read > limits::YAML_BYTES {
        return Err(io::Error::other("is larger than is read"));
    }
    Ok(bytes)
}
