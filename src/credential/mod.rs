//! Resolves an account's kubeconfig, from a secret engine, a file or the pod, into sealed memory.
