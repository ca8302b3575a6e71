//! `encrypted:ENGINE!k:v…` and `encryptedFile:ENGINE!k:v…`.

use super::{Reference, ReferenceError, vault};

/// What stands after `encrypted:vault!`: `key:value` pairs, separated by `!`; the first colon
/// splits.
pub(super) fn parse(rest: &str) -> Result<Reference, ReferenceError> {
    let [mut mount, mut path, mut key, mut base64] = [None, None, None, None];
    for pair in rest.split('!') {
        let (name, value) = pair
            .split_once(':')
            .ok_or(ReferenceError::Form("has a parameter without `:`"))?;
        let slot = match name {
            "e" => &mut mount,
            "p" | "n" => &mut path,
            "k" => &mut key,
            "b" => &mut base64,
            _ => return Err(ReferenceError::Form("has an unknown parameter")),
        };
        if slot.replace(value).is_some() {
            return Err(ReferenceError::Form("has a parameter twice"));
        }
    }
    let need = |value: Option<&str>, problem| {
        let value = value.filter(|value| !value.is_empty());
        value
            .map(str::to_owned)
            .ok_or(ReferenceError::Form(problem))
    };
    let base64 = match base64 {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            return Err(ReferenceError::Form(
                "has a `b` that is neither true nor false",
            ));
        }
    };
    let mount = need(mount, "names no mount (`e`)")?;
    let path = need(path, "names no path (`p`)")?;
    let key = need(key, "names no field (`k`)")?;
    vault(None, (mount, path), None, (key, base64))
}
