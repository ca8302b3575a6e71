//! A small in-memory Kubernetes API and an auditor around a real agent and a real hub.
