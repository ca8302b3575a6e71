//! Keys, certificates and the checks on them: who a peer is, and how it gets and renews its proof.
