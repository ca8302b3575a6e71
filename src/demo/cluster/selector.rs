//! Label and field selectors.

use serde_json::Value;

use super::refusal::Refusal;

/// Requirements per selector that are read; the rest is refused.
const REQUIREMENTS: usize = 64;

/// Field paths that the cluster can select by.
const FIELDS: [&str; 14] = [
    "metadata.name",
    "metadata.namespace",
    "status.phase",
    "spec.nodeName",
    "type",
    "reason",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "spec.restartPolicy",
];

#[derive(Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

/// Which objects of a collection a list or watch is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, Test)>,
}

impl Selector {
    /// Reads the two query parameters; empty text selects everything.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, Refusal> {
        let fields = requirements(fields)?;
        if let Some((path, _)) = fields
            .iter()
            .find(|(path, _)| !FIELDS.contains(&path.as_str()))
        {
            let why = format!("field label not supported: {path}");
            return Err(Refusal::bad_request(why));
        }
        Ok(Self {
            labels: requirements(labels)?,
            fields,
        })
    }

    /// Whether `object` is selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.labels.iter().all(|(key, test)| {
            let value = labels.and_then(|all| all.get(key)).and_then(Value::as_str);
            test.holds(value)
        }) && self.fields.iter().all(|(path, test)| {
            let pointer = format!("/{}", path.replace('.', "/"));
            // An absent field is selected as the empty string.
            let value = object.pointer(&pointer).and_then(Value::as_str);
            test.holds(Some(value.unwrap_or_default()))
        })
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let among = |set: &[String]| value.is_some_and(|v| set.iter().any(|one| one == v));
        match self {
            Self::In(set) => among(set),
            Self::NotIn(set) => !among(set),
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
        }
    }
}

fn requirements(text: &str) -> Result<Vec<(String, Test)>, Refusal> {
    let parts = split_outside_parentheses(text);
    if parts.len() > REQUIREMENTS {
        return Err(Refusal::bad_request("selector has too many requirements"));
    }
    parts.iter().map(|part| requirement(part.trim())).collect()
}

fn requirement(text: &str) -> Result<(String, Test), Refusal> {
    let set = |text: &str| -> Option<Vec<String>> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|one| one.trim().to_owned()).collect())
    };
    let bad = || Refusal::bad_request(format!("unable to parse requirement `{text}`"));
    let (key, test) = if let Some((key, values)) = text.split_once(" notin ") {
        (key, Test::NotIn(set(values).ok_or_else(bad)?))
    } else if let Some((key, values)) = text.split_once(" in ") {
        (key, Test::In(set(values).ok_or_else(bad)?))
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Test::In(vec![value.trim().to_owned()]))
    } else if let Some(key) = text.strip_prefix('!') {
        (key, Test::Missing)
    } else {
        (text, Test::Exists)
    };
    let key = key.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(bad());
    }
    Ok((key.to_owned(), test))
}

fn split_outside_parentheses(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let (mut depth, mut part) = (0_usize, String::new());
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if character == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(character);
        }
    }
    if !part.trim().is_empty() || !parts.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn selectors_select_as_kubernetes_documents_them() {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "cart", "tier": "web"}},
            "status": {"phase": "Running"},
        });
        for (labels, fields, selected) in [
            ("", "", true),
            ("app=cart", "", true),
            ("app==cart,tier!=db", "", true),
            ("app in (cart, till),tier notin (db)", "", true),
            ("app in (till)", "", false),
            ("!missing,app", "", true),
            ("missing", "", false),
            ("missing!=x", "", true),
            ("", "metadata.name=a,status.phase=Running", true),
            ("", "spec.nodeName=", true),
            ("", "metadata.namespace!=shop", false),
        ] {
            let selector = Selector::parse(labels, fields).expect(labels);
            assert_eq!(selector.matches(&pod), selected, "{labels} {fields}");
        }
    }

    proptest! {
        #[test]
        fn any_selector_is_read_or_refused(labels in "[a-z!=,() ]{0,40}", fields in "[a-z.=,]{0,40}") {
            if let Ok(selector) = Selector::parse(&labels, &fields) {
                selector.matches(&json!({}));
            }
        }
    }

    #[test]
    fn a_selector_that_is_not_understood_is_refused() {
        for (labels, fields) in [
            ("a b", ""),
            ("a in b", ""),
            ("=", ""),
            ("", "spec.secret=a"),
        ] {
            assert!(
                Selector::parse(labels, fields).is_err(),
                "{labels} {fields}"
            );
        }
    }
}
