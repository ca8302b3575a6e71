//! The last known objects of an account, their watchers and fences.
