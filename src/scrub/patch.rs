//! Finds JSON patch operations that could read masked values.

use super::filter::each;
use super::json::{Flaw, Reader};
use crate::policy::MaskedKind;

/// Operations whose outcome depends on a value that is already there (RFC 6902 §4.4 to §4.6).
const READING: [&str; 3] = ["copy", "move", "test"];

/// The first pointer of a reading operation that is not certain to stay off masked values.
pub(super) fn masked_pointer(kind: &MaskedKind, body: &[u8]) -> Result<Option<String>, Flaw> {
    let mut reader = Reader::new(body)?;
    reader.enter(b'[')?;
    let mut touched = None;
    let mut count = 0;
    while reader.element(&mut count)?.is_some() {
        let mut reads = false;
        let mut pointers = Vec::new();
        each(&mut reader, &mut |reader, key| {
            match key {
                // A key that occurs twice is judged by each of its values.
                b"op" => {
                    let operation = reader.string()?;
                    let mut reading = READING.iter();
                    reads |= reading.any(|known| reader.is(operation, known));
                }
                b"path" | b"from" => {
                    let pointer = reader.string()?;
                    pointers.push(reader.owned(pointer));
                }
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        if reads && touched.is_none() {
            touched = pointers
                .into_iter()
                .find(|pointer| !is_harmless(kind, pointer));
        }
    }
    reader.finish()?;
    Ok(touched)
}

/// Whether a pointer (RFC 6901) leads to a place that is never masked.
fn is_harmless(kind: &MaskedKind, pointer: &str) -> bool {
    let has = |known: &[String], token: &str| known.iter().any(|known| known == token);
    let mut tokens = pointer
        .split('/')
        .map(|token| token.replace("~1", "/").replace("~0", "~"));
    // An RFC 6901 pointer starts with a slash; lenient readers ignore whatever stands before it.
    if tokens.next().is_none_or(|start| !start.is_empty()) {
        return false;
    }
    match (tokens.next().as_deref(), tokens.next().as_deref()) {
        (Some("metadata"), Some(field)) => {
            has(&kind.metadata, field) && !matches!(field, "annotations" | "managedFields")
        }
        (Some(field), None) => has(&kind.fields, field),
        (_, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::load;
    use crate::resource::Gvr;

    fn touches(operation: &str) -> bool {
        let rules = load().unwrap().scrub;
        let kind = rules.masked(&Gvr::new("", "v1", "secrets")).unwrap();
        let body = format!(r#"[{{"op":"add","path":"/data/a","value":"eA=="}},{operation}]"#);
        masked_pointer(kind, body.as_bytes()).unwrap().is_some()
    }

    #[test]
    fn no_operation_reads_a_masked_place() {
        for pointer in [
            "",
            "/",
            "/data",
            "/data/a",
            "/stringData/a",
            "/metadata",
            "/metadata/",
            "/metadata/annotations",
            "/metadata/annotations/a~1b",
            "/metadata/managedFields/0",
            "/d~01ta",
            "x/data/a",
            "data/a",
            "/unknown",
            "/\\u0064ata/a",
            "/type/x",
        ] {
            for operation in [
                format!(r#"{{"op":"copy","from":"{pointer}","path":"/metadata/labels/a"}}"#),
                format!(r#"{{"op":"move","from":"{pointer}","path":"/metadata/labels/a"}}"#),
                format!(r#"{{"op":"test","path":"{pointer}","value":"x"}}"#),
                format!(r#"{{"op":"\u0074est","path":"{pointer}","value":"x"}}"#),
                format!(r#"{{"op":"add","op":"test","path":"{pointer}","value":"x"}}"#),
                format!(r#"{{"op":"copy","from":"/type","path":"{pointer}"}}"#),
            ] {
                assert!(touches(&operation), "{operation}");
            }
        }
    }

    #[test]
    fn what_does_not_read_or_reads_elsewhere_passes() {
        for operation in [
            r#"{"op":"replace","path":"/data/a","value":"eA=="}"#,
            r#"{"op":"remove","path":"/metadata/annotations/a"}"#,
            r#"{"op":"test","path":"/metadata/resourceVersion","value":"1"}"#,
            r#"{"op":"copy","from":"/metadata/labels/a","path":"/metadata/labels/b"}"#,
            r#"{"op":"test","path":"/type","value":"Opaque"}"#,
        ] {
            assert!(!touches(operation), "{operation}");
        }
    }
}
