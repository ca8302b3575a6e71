//! Builds and supervises one hub: listeners, sessions, admission, registry, dispatch, store.
