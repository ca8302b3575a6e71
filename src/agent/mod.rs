//! Builds and supervises one agent: a worker per account, the identity task, the session with the hub.
