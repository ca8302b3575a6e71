//! The `sortie` binary: installs the crypto provider, hardens the process, runs a subcommand.

fn main() {}
