//! What engines gave and what they were asked with is looked for where it has no business: copies
//! in memory, a core dump, the environment, files, logs, metrics, output, errors.
//!
//! Values are planted by servers that the agent does not know to be a test's, and looked for from
//! outside, raw, in base64 at every alignment, in hexadecimal and in pieces of sixteen bytes.

mod answers;
#[cfg(feature = "aws")]
mod aws;
mod copies;
mod documents;
mod failures;
mod fault;
mod looks;
#[cfg(feature = "google")]
mod panics;
mod plain;
