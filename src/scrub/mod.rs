//! Removes Secret values from Kubernetes JSON while the bytes pass; the only maker of `Scrubbed`.
