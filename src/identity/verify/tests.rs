//! Chains that must and must not pass.
