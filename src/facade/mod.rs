//! Offers each account as a Kubernetes API endpoint to unmodified clients.
