//! `sortie demo`

use std::process::ExitCode;

use super::args::Demo;
use super::{Exit, print};

pub(super) fn run(_demo: &Demo) -> ExitCode {
    print::error_text("the demo is not built yet");
    Exit::Failed.into()
}
