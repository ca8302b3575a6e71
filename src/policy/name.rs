//! What an account may be called.

/// Longest name of an account, in bytes.
const NAME_BYTES: usize = 128;

/// Whether `name` can be an account's: letters, digits, `-`, `_` and `.`, not at its ends.
pub fn is_account_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= NAME_BYTES
        && name.bytes().all(inner)
        && edge(name.bytes().next())
        && edge(name.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_accounts_fit_into_paths_and_keys() {
        for good in ["shop", "prod-eu", "Prod_1", "a.b"] {
            assert!(is_account_name(good), "{good}");
        }
        for bad in ["", "-a", "a/b", "a b", "a\0", "é", ".", "a-"] {
            assert!(!is_account_name(bad), "{bad}");
        }
    }
}
