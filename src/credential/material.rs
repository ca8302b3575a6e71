//! What is needed to speak to one API server.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use http::header::{HeaderName, HeaderValue};
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::ExposeSecret;

use super::certificate::ends_at;
use super::{Auth, InUse, Proxy, Server};
use crate::secret::clear_traces;

/// What is needed to speak to one API server: where it is, whom to trust, who is asking.
///
/// Made by [`super::kubeconfig::read`] and for the pod's own account; its `Debug` shows the server
/// and the kind of user only.
pub struct Credential {
    pub(super) server: Server,
    pub(super) proxy: Option<Proxy>,
    pub(super) trust: Trust,
    pub(super) server_name: ServerName<'static>,
    pub(super) auth: Auth,
    pub(super) impersonation: Vec<(HeaderName, HeaderValue)>,
    pub(super) namespace: Option<String>,
    /// Where its store lends it: given back when nobody can use it any more.
    pub(super) lent: Option<InUse>,
}

/// Whom a connection to an API server trusts.
#[derive(Debug)]
pub enum Trust {
    /// Whoever answers, because the account says so.
    Anybody,
    /// Exactly what these certificate authorities vouch for; never empty.
    Authorities(Vec<CertificateDer<'static>>),
}

/// Tells two contents of a credential apart without keeping them; never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Credential {
    /// Where the API server is.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// The proxy on the way there.
    pub const fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The certificate authorities that may vouch for it; none where anybody is trusted.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        match &self.trust {
            Trust::Anybody => &[],
            Trust::Authorities(roots) => roots,
        }
    }

    /// Who may vouch for it.
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The name its certificate must have: `tls-server-name`, or the host.
    pub const fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// Who is asking.
    pub const fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Headers of each request, which say for whom it is made.
    pub fn impersonation(&self) -> &[(HeaderName, HeaderValue)] {
        &self.impersonation
    }

    /// The namespace that the context names.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// When its client certificate ends, if it has one.
    pub fn expires(&self) -> Option<SystemTime> {
        let key = match &self.auth {
            Auth::ClientCertificate(key) => Arc::clone(key),
            Auth::Minted(minted) => minted.certificate()?,
            _ => return None,
        };
        ends_at(key.cert.first()?)
    }

    /// HMAC-SHA-256 of everything that makes a connection differ. A token file counts by its path:
    /// it is read per request.
    pub(super) fn fingerprint(&self, key: &hmac::Key) -> Fingerprint {
        let digest = self.digest(key);
        // What of a token did not fill a block stands in the context, and wherever that was moved.
        clear_traces();
        digest
    }

    #[inline(never)]
    fn digest(&self, key: &hmac::Key) -> Fingerprint {
        let mut context = hmac::Context::with_key(key);
        let mut add = |part: &[u8]| {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        };
        add(self.server.to_string().as_bytes());
        add(self.server_name.to_str().as_bytes());
        add(self.namespace.as_deref().unwrap_or_default().as_bytes());
        add(self.auth.kind().as_bytes());
        match &self.trust {
            Trust::Anybody => add(b"anybody"),
            Trust::Authorities(roots) => {
                add(&roots.len().to_le_bytes());
                for root in roots {
                    add(root);
                }
            }
        }
        for (name, value) in &self.impersonation {
            add(name.as_str().as_bytes());
            add(value.as_bytes());
        }
        if let Some(proxy) = &self.proxy {
            add(format!("{:?}", proxy.kind()).as_bytes());
            add(proxy.server().to_string().as_bytes());
            for field in proxy
                .user()
                .iter()
                .flat_map(|user| [&user.name, &user.password])
            {
                #[expect(clippy::disallowed_methods, reason = "only its keyed digest is kept")]
                add(field.expose_secret());
            }
        }
        match &self.auth {
            Auth::Anonymous => {}
            Auth::Basic(secret) | Auth::Bearer(secret) => {
                #[expect(clippy::disallowed_methods, reason = "only its keyed digest is kept")]
                add(secret.expose_secret());
            }
            Auth::BearerFile(file) => add(file.path().as_os_str().as_encoded_bytes()),
            Auth::Minted(minted) => minted.minter().identity(&mut add),
            // The certificate binds its key.
            Auth::ClientCertificate(key) => key.cert.iter().for_each(|cert| add(cert)),
        }
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        Fingerprint(digest)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("server", &format_args!("{}", self.server))
            .field("user", &self.auth.kind())
            .finish_non_exhaustive()
    }
}
