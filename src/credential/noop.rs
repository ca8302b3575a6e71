//! The engine whose references hold their value themselves; for tests.
//!
//! Such a value stands in the configuration, so it is as public as that. An engine has to be
//! configured all the same, so that a reference alone never makes a secret out of a text.

use super::fetch::{Asking, Engine, Failure, FetchErrorKind, Fetched};
use super::{Key, Locator, Reference, document};
use crate::secret::SecretBytes;

/// Gives the value of a reference.
#[derive(Debug)]
pub(super) struct Noop;

impl Engine for Noop {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(std::future::ready(value(reference)))
    }

    fn keys<'a>(&'a self, _reference: &'a Reference) -> Asking<'a, Vec<String>> {
        let failure = Failure::corrupt("a value has no fields");
        Box::pin(std::future::ready(Err(failure)))
    }

    /// A value does not change.
    fn is_current<'a>(&'a self, _: &'a Reference, _: &'a str) -> Asking<'a, Option<bool>> {
        Box::pin(std::future::ready(Ok(Some(true))))
    }

    fn probe(&self) -> Asking<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn value(reference: &Reference) -> Result<Fetched, Failure> {
    let Locator::Noop { value } = &reference.locator else {
        return Err(Failure::other_engine());
    };
    if let Key::Named(field) = &reference.key {
        let field = field.clone();
        return Err(Failure::new(FetchErrorKind::Invalid { field }, ""));
    }
    let document = SecretBytes::new(value.clone().into_bytes());
    Ok(Fetched {
        document: document::as_meant(document, reference)?,
        version: Some("0".to_owned()),
        lease: None,
        gone_at: None,
    })
}
