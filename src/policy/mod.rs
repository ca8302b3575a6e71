//! What may be read, done and seen: levels of kinds, operations, client bindings, scrub rules.
