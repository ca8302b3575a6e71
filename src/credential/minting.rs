//! Tokens of EKS and GKE, from the connections of the configuration.

use std::sync::Arc;

use super::Minter;
use super::kubeconfig::Minting;
use super::settings::EngineSettings;
use crate::clock::SharedClock;

/// What mints the tokens of a kubeconfig; none for a connection to another store.
#[cfg_attr(
    not(feature = "google"),
    expect(unused_variables, reason = "of the two, only Google needs the clock")
)]
pub(super) fn source(
    minting: &Minting,
    settings: &EngineSettings,
    clock: &SharedClock,
) -> Option<Arc<dyn Minter>> {
    match (minting, settings) {
        #[cfg(feature = "aws")]
        (Minting::Eks { cluster, .. }, EngineSettings::SecretsManager(aws)) => {
            Some(Arc::new(of_aws::Eks::new(aws, cluster.clone())))
        }
        #[cfg(feature = "google")]
        (Minting::Gke { .. }, EngineSettings::GoogleSecretsManager(google)) => {
            Some(Arc::new(of_google::Gke::new(google, clock)))
        }
        _ => None,
    }
}

#[cfg(feature = "aws")]
mod of_aws {
    use crate::credential::fetch::Waiting;
    use crate::credential::{Asking, Made, Minter, aws};

    #[derive(Debug)]
    pub(super) struct Eks {
        minter: aws::Eks,
        cluster: String,
        /// Tells this connection from others that are for the same cluster.
        settings: String,
    }

    impl Eks {
        pub(super) fn new(settings: &aws::Settings, cluster: String) -> Self {
            Self {
                minter: aws::Eks::new(settings.clone()),
                cluster,
                settings: format!("{settings:?}"),
            }
        }
    }

    impl Minter for Eks {
        fn mint(&self) -> Asking<'_, Made> {
            Box::pin(async {
                let (token, ends_at) = self.minter.token(&self.cluster).await?;
                Ok(Made::token(token, ends_at))
            })
        }

        /// A token is no better than the login that it is made of.
        fn forget(&self) -> Waiting<'_> {
            Box::pin(self.minter.forget())
        }

        fn kind(&self) -> &'static str {
            "eks"
        }

        fn identity(&self, add: &mut dyn FnMut(&[u8])) {
            add(self.cluster.as_bytes());
            add(self.settings.as_bytes());
        }
    }
}

#[cfg(feature = "google")]
mod of_google {
    use crate::clock::SharedClock;
    use crate::credential::fetch::Waiting;
    use crate::credential::google::{self, gke};
    use crate::credential::{Asking, Made, Minter};

    #[derive(Debug)]
    pub(super) struct Gke {
        minter: gke::Tokens,
        /// Tells this connection from others.
        settings: String,
    }

    impl Gke {
        pub(super) fn new(settings: &google::Settings, clock: &SharedClock) -> Self {
            Self {
                minter: gke::Tokens::new(settings.auth.clone(), SharedClock::clone(clock)),
                settings: format!("{settings:?}"),
            }
        }
    }

    impl Minter for Gke {
        fn mint(&self) -> Asking<'_, Made> {
            Box::pin(async {
                let (token, ends_at) = self.minter.token().await?;
                Ok(Made::token(token, ends_at))
            })
        }

        fn forget(&self) -> Waiting<'_> {
            Box::pin(self.minter.forget())
        }

        fn kind(&self) -> &'static str {
            "gke"
        }

        fn identity(&self, add: &mut dyn FnMut(&[u8])) {
            add(self.settings.as_bytes());
        }
    }
}
