//! The `sortie` binary: installs the crypto provider and the wiping allocator, runs a subcommand.

use std::process::ExitCode;

use sortie::identity::tls;
use sortie::secret::WipingAllocator;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    tls::install_provider();
    sortie::cli::run()
}
