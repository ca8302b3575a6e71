//! What changes together: certificate, key and roots.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::TlsError;
use crate::identity::id::SpiffeId;
use crate::identity::key::KeyPair;
use crate::identity::profile::profile;
use crate::identity::trust::TrustBundle;
use crate::identity::verify::{self, Wanted};

/// One certificate with its key, and the roots to trust: what changes together.
#[derive(Debug)]
pub struct Material {
    id: SpiffeId,
    not_after: SystemTime,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) with_root: Arc<CertifiedKey>,
    trust: TrustBundle,
}

/// The material of the moment.
pub type Published = Arc<ArcSwap<Material>>;

impl Material {
    /// Checks that `chain` (leaf first) is for `key` and would pass a peer's checks at `now`.
    pub fn new(
        key: &KeyPair,
        chain: &[CertificateDer<'static>],
        trust: TrustBundle,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let role = verify::claimed_role(chain).map_err(TlsError::Chain)?;
        let usage = profile(role).usage;
        let wanted = Wanted {
            usage,
            roles: &[role],
            trust_domain: None,
        };
        let peer = verify::peer(chain, &trust, wanted, now).map_err(TlsError::Chain)?;
        if peer.spki_sha256() != key.spki_sha256() {
            return Err(TlsError::KeyMismatch);
        }
        let root = verify::anchor_of(chain, trust.roots(), usage, now).map_err(TlsError::Chain)?;
        let mut longer = chain.to_vec();
        if !longer.contains(&root.der) {
            longer.push(root.der.clone());
        }
        Ok(Self {
            id: peer.id().clone(),
            not_after: peer.not_after(),
            certified: Arc::new(CertifiedKey::new(chain.to_vec(), key.tls_key())),
            with_root: Arc::new(CertifiedKey::new(longer, key.tls_key())),
            trust,
        })
    }

    /// Ready to be shared and swapped.
    pub fn publish(self) -> Published {
        Arc::new(ArcSwap::from_pointee(self))
    }

    /// Whose certificate this is.
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When the chain ends: the earliest end of any certificate in it.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The roots to trust.
    pub const fn trust(&self) -> &TrustBundle {
        &self.trust
    }
}
