//! Queries and `Accept` headers, as far as the facade answers by itself.

use http::HeaderMap;
use http::header::ACCEPT;

/// Most parameters of a query that are read.
const PARAMETERS: usize = 64;

/// A decoded query.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a raw query; what does not decode to UTF-8 is no parameter.
    pub(super) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.take(PARAMETERS).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        Self(decoded.collect())
    }

    /// The first value of a parameter, empty if it is missing.
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Whether a parameter is set to something that Go's `ParseBool` calls true.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }
}

fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                // `from_str_radix` takes a sign, a percent-encoding does not.
                if digits.starts_with('+') {
                    return None;
                }
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// What a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepts {
    /// Objects as JSON.
    pub(super) plain_json: bool,
    /// A form that only the API server can make (`as=Table`, `as=PartialObjectMetadata`).
    pub(super) transformed: bool,
}

impl Accepts {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut accepts = Self {
            plain_json: false,
            transformed: false,
        };
        let mut any = false;
        for kind in media_types(headers) {
            any = true;
            accepts.transformed |= parameter(kind, "as").is_some();
            accepts.plain_json |= parameter(kind, "as").is_none()
                && matches!(essence(kind), "application/json" | "application/*" | "*/*");
        }
        accepts.plain_json |= !any;
        accepts
    }
}

/// The media types of every `Accept` header, in order.
pub(super) fn media_types(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|kind| !kind.is_empty())
}

pub(super) fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

pub(super) fn parameter<'a>(kind: &'a str, name: &str) -> Option<&'a str> {
    kind.split(';').skip(1).find_map(|parameter| {
        let (known, value) = parameter.split_once('=')?;
        (known.trim() == name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = Query::parse("labelSelector=t+%3D+rs&watch=1&x=%zz&y=%+1&dryRun=");
        assert_eq!(query.get("labelSelector"), "t = rs");
        assert!(query.flag("watch"));
        assert_eq!((query.get("x"), query.get("y")), ("", ""));
    }

    #[test]
    fn what_kubectl_accepts_is_understood() {
        let of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            let accepts = Accepts::of(&headers);
            (accepts.plain_json, accepts.transformed)
        };
        assert_eq!(of("application/json"), (true, false));
        assert_eq!(
            of("application/vnd.kubernetes.protobuf, */*"),
            (true, false)
        );
        assert_eq!(of("application/vnd.kubernetes.protobuf"), (false, false));
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(of(table), (true, true));
        let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        assert_eq!(of(partial), (false, true));
    }
}
