//! Process settings that keep memory from being dumped or read by others.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use thiserror::Error;

/// A setting that could not be made.
#[derive(Debug, Error)]
#[error("cannot switch off {what}; the memory of this process could be dumped")]
pub struct HardenError {
    what: &'static str,
    #[source]
    source: rustix::io::Errno,
}

/// Switches off core dumps and reading of this process's memory by its own user (ptrace).
///
/// prctl(2) `PR_SET_DUMPABLE`, setrlimit(2) `RLIMIT_CORE`. Only a privileged process can still
/// read the memory.
///
/// # Errors
/// Tells the setting that failed; the caller logs it and goes on.
pub fn harden() -> Result<(), HardenError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|source| HardenError {
        what: "core dumps",
        source,
    })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|source| HardenError {
        what: "memory inspection",
        source,
    })
}
