//! Finds the version of what was written in the first bytes of a filtered answer.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::resource::ResourceVersion;

/// Bytes of an answer that are looked at.
const SEEN_BYTES: usize = 64 * 1024;

/// Collects the beginning of an answer.
#[derive(Debug, Default)]
pub(super) struct VersionSeeker {
    seen: Vec<u8>,
}

impl VersionSeeker {
    /// Takes the next bytes of the answer.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        let room = SEEN_BYTES.saturating_sub(self.seen.len());
        self.seen.extend(bytes.iter().take(room));
    }

    /// `metadata.resourceVersion` of the object itself.
    ///
    /// Read where it stands: a text like it within the object is whatever its writer wanted, and
    /// the account's lists would wait for a version that never comes.
    pub(super) fn found(&self) -> Option<ResourceVersion> {
        let mut found = None;
        let mut json = serde_json::Deserializer::from_slice(&self.seen);
        // What is cut off after the metadata does not matter.
        let _cut = json.deserialize_map(Member {
            path: &["metadata", "resourceVersion"],
            found: &mut found,
        });
        ResourceVersion::parse(&found?)
    }
}

/// Reads the text at a path of members, and passes over everything else.
struct Member<'a> {
    path: &'a [&'a str],
    found: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            deserializer.deserialize_str(self)
        } else {
            deserializer.deserialize_map(self)
        }
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with metadata")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        *self.found = Some(text.to_owned());
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Some((wanted, path)) = self.path.split_first() else {
            return Ok(());
        };
        while let Some(key) = members.next_key::<String>()? {
            if key == *wanted {
                let found = &mut *self.found;
                members.next_value_seed(Member { path, found })?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(answer: &[u8], step: usize) -> Option<u64> {
        let mut seeker = VersionSeeker::default();
        for piece in answer.chunks(step) {
            seeker.look(piece);
        }
        seeker.found().map(|version| version.0)
    }

    #[test]
    fn the_version_is_that_of_the_object_itself() {
        let forged = r#"{ "resourceVersion":"99999", "metadata":{"resourceVersion":"99998"} }"#;
        let answer = format!(
            r#"{{"apiVersion":"x/v1","a":{forged},"kind":"X",
                "metadata":{{"annotations":{{"resourceVersion":"99997"}},"name":"x",
                "resourceVersion": "7"}},"spec":{forged}}}"#
        );
        for step in [1, 100, answer.len()] {
            assert_eq!(version(answer.as_bytes(), step), Some(7));
        }
    }

    #[test]
    fn what_is_cut_off_behind_it_does_not_matter() {
        let head = br#"{"metadata":{"resourceVersion":"7","name":"x"},"data":{"a":""#;
        let mut answer = head.to_vec();
        answer.resize(3 * SEEN_BYTES, b'x');
        assert_eq!(version(&answer, 4096), Some(7));
    }

    #[test]
    fn an_answer_without_a_version_tells_none() {
        for answer in [
            r#"{"kind":"Status","metadata":{},"details":{"resourceVersion":"7"}}"#,
            r#"{"metadata":{"resourceVersion":7}}"#,
            r#"{"metadata":"resourceVersion"}"#,
            r#"{"metadata":{"resourceVersion":""}}"#,
            r#"[{"metadata":{"resourceVersion":"7"}}]"#,
            "\"resourceVersion\":\"7\"",
            "",
        ] {
            assert_eq!(version(answer.as_bytes(), 5), None, "{answer}");
        }
    }
}
