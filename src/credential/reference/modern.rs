//! `sec+ENGINE://PROFILE/path?query#key`.

use super::percent::decode;
use super::{Reference, ReferenceError, vault};

/// What stands after `sec+vault://`.
pub(super) fn parse(rest: &str) -> Result<Reference, ReferenceError> {
    let (rest, key) = rest
        .split_once('#')
        .ok_or(ReferenceError::Form("names no field after `#`"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut segments = rest.split('/');
    let profile = segments.next().unwrap_or_default();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !profile.bytes().all(is_name) {
        return Err(ReferenceError::Form(
            "needs the name of a configured engine, not a host, port or user, after `//`",
        ));
    }
    let mut decoded = segments
        .map(decode)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter();
    let mount = decoded
        .next()
        .ok_or(ReferenceError::Form("names no mount"))?;
    let segments: Vec<String> = decoded.collect();
    if segments.iter().any(|segment| segment.contains('/')) {
        return Err(ReferenceError::Form("has an encoded `/` in its path"));
    }
    let (mut number, mut base64) = (None, false);
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        match pair.split_once('=') {
            Some(("version", text)) if number.is_none() => number = Some(version(text)?),
            Some(("encoding", "base64")) if !base64 => base64 = true,
            _ => return Err(ReferenceError::Form("has an unknown or repeated query key")),
        }
    }
    let profile = (!profile.is_empty()).then(|| profile.to_owned());
    vault(
        profile,
        (mount, segments.join("/")),
        number,
        (decode(key)?, base64),
    )
}

fn version(number: &str) -> Result<u64, ReferenceError> {
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse() {
        Ok(version) if is_number && version > 0 => Ok(version),
        _ => Err(ReferenceError::Form(
            "has a version that is no positive number",
        )),
    }
}
