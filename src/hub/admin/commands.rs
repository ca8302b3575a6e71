//! What each administrative command does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;

use super::super::Core;
use super::super::audit::Audit;
use super::super::backup;
use super::super::registry::{Client, Cluster, Registry, RegistryError, Tables, Token};
use super::super::session::directive;
use super::super::store::StoreError;
use super::{Answer, Banned, Request};
use crate::clock::unix_seconds;
use crate::entropy;
use crate::fault::Chain;
use crate::identity::service_account::TokenIssuer;
use crate::identity::{Name, Role, join};
use crate::policy::is_account_name;
use crate::wire::v1;

/// Longest life of a join token.
const TOKEN_TTL: Duration = Duration::from_mins(15);

/// Longest life of a client certificate.
const CLIENT_TTL: Duration = Duration::from_hours(72);

impl Core {
    pub(super) async fn command(self: &Arc<Self>, request: Request) -> Answer {
        if let Request::Get { what } = request {
            // Changes nothing: not worth a record, at five a second.
            return self.list(what);
        }
        let audit = Audit::new("administer", "admin").with("request", describe(&request));
        let answer = self.execute(request).await;
        match &answer {
            Answer::Error { message } => audit.with("message", message).refuse("Refused"),
            Answer::Done { .. }
            | Answer::List { .. }
            | Answer::Changes { .. }
            | Answer::Token { .. }
            | Answer::Certificate { .. } => audit.admit(),
        }
        answer
    }

    async fn execute(self: &Arc<Self>, request: Request) -> Answer {
        let outcome = match request {
            Request::Get { what } | Request::Watch { what } => Ok(self.list(what)),
            Request::CreateToken {
                agent,
                accounts,
                ttl_seconds,
            } => self.create_token(agent, accounts, ttl_seconds).await,
            Request::DeleteToken { id } => {
                let message = format!("token {id} deleted");
                change(&self.registry, message, move |tables| {
                    if tables.tokens.remove(&id) {
                        Ok(())
                    } else {
                        refuse(format!("no token {id}; see `sortie get tokens`"))
                    }
                })
                .await
            }
            Request::AddCluster {
                name,
                issuer,
                jwks,
                allow,
            } => self.add_cluster(name, issuer, jwks, allow).await,
            Request::RemoveCluster { name } => {
                let message = format!("cluster {name} removed");
                change(&self.registry, message, move |tables| {
                    if tables.clusters.remove(&name) {
                        Ok(())
                    } else {
                        refuse(format!("no cluster {name}; see `sortie get clusters`"))
                    }
                })
                .await
            }
            Request::ApproveAccount { name } => self.approve(name).await,
            Request::SuspendAccount { name } => self.suspend_by_hand(name).await,
            Request::RemoveAccount { name } => self.remove_account(name).await,
            Request::CreateClient { name, accounts } => self.create_client(name, accounts).await,
            Request::CertifyClient {
                name,
                account,
                csr,
                ttl_seconds,
            } => self.certify(name, account, csr, ttl_seconds).await,
            Request::Revoke { role, name } => self.revoke(role, name).await,
            Request::Restore { role, name } => self.restore(role, name).await,
            Request::Backup { out } => self.backup(out).await,
            Request::Rotate { agent } => self.rotate(&agent),
        };
        outcome.unwrap_or_else(|message| Answer::Error { message })
    }

    async fn backup(&self, out: PathBuf) -> Result<Answer, String> {
        let stored = self.checkpoint().await;
        stored.map_err(|error| Chain(&error).to_string())?;
        let (store, folder) = (Arc::clone(&self.store), out.clone());
        let now = self.clock.now();
        let writing = tokio::task::spawn_blocking(move || backup::write(&store, &folder, now));
        match writing.await {
            Ok(Ok(bytes)) => Ok(Answer::Done {
                message: format!("backup written to `{}`, {bytes} bytes", out.display()),
            }),
            Ok(Err(error)) => Err(Chain(&error).to_string()),
            Err(_panicked) => Err(Chain(&StoreError::Panicked).to_string()),
        }
    }

    // ------------------------------------------------------------ joining

    async fn create_token(
        &self,
        agent: String,
        accounts: BTreeSet<String>,
        ttl_seconds: u64,
    ) -> Result<Answer, String> {
        let agent: Name = agent.parse().map_err(|error| Chain(&error).to_string())?;
        known_names(&accounts)?;
        let ttl = Duration::from_secs(ttl_seconds);
        if ttl.is_zero() || ttl > TOKEN_TTL {
            return Err("a join token lives at most 15 minutes".to_owned());
        }
        let pin = self
            .issuer
            .roots()
            .pins()
            .next()
            .ok_or("the hub has no root")?;
        let secret = join::new_secret(&*self.entropy);
        let id = hex::encode(entropy::bytes::<8>(&*self.entropy));
        let expires = unix_seconds(self.clock.now() + ttl);
        let token = Token {
            agent: agent.as_str().to_owned(),
            accounts,
            secret_sha256: hex::encode(join::secret_digest(&secret)),
            expires,
            spent_on: None,
        };
        let (row, now) = (id.clone(), unix_seconds(self.clock.now()));
        let added = self.registry.update(move |tables| {
            let gone: Vec<String> = tables
                .tokens
                .iter()
                .filter(|(_, token)| token.expires <= now)
                .map(|(id, _)| id.clone())
                .collect();
            for id in gone {
                tables.tokens.remove(&id);
            }
            tables.tokens.put(&row, token);
            Ok(())
        });
        added.await.map_err(|error| told(&error))?;
        let host = self.hosts.first().cloned().unwrap_or_default();
        let join = join::Join {
            data: join_address(&host, self.addresses.data.port()),
            enrol: join_address(&host, self.addresses.enrol.port()),
            root_spki_sha256: pin,
            id: id.clone(),
            secret,
        };
        let text = join.to_text();
        #[expect(
            clippy::disallowed_methods,
            reason = "handed to the administrator, once"
        )]
        let text = String::from_utf8_lossy(text.expose_secret()).into_owned();
        Ok(Answer::Token {
            join: text,
            id,
            expires,
        })
    }

    async fn add_cluster(
        &self,
        name: String,
        issuer: String,
        jwks: String,
        allow: BTreeMap<String, String>,
    ) -> Result<Answer, String> {
        TokenIssuer::new(&issuer, jwks.as_bytes(), &self.trust_domain)
            .map_err(|error| error.to_string())?;
        for (subject, agent) in &allow {
            agent
                .parse::<Name>()
                .map_err(|error| Chain(&error).to_string())?;
            if subject.split('/').filter(|part| !part.is_empty()).count() != 2 {
                return Err(format!("`{subject}` is not NAMESPACE/SERVICEACCOUNT"));
            }
        }
        let message = format!("cluster {name} added");
        change(&self.registry, message, move |tables| {
            let same = {
                let mut others = tables.clusters.iter().filter(|(other, _)| **other != name);
                others
                    .find(|(_, row)| row.issuer == issuer)
                    .map(|(other, _)| other.clone())
            };
            if let Some(other) = same {
                return refuse(format!("cluster {other} has the same issuer"));
            }
            tables.clusters.put(
                &name,
                Cluster {
                    issuer,
                    jwks,
                    allow,
                },
            );
            Ok(())
        })
        .await
    }

    // ------------------------------------------------------------ accounts

    async fn approve(&self, name: String) -> Result<Answer, String> {
        if let Some(account) = self.accounts.get(&name) {
            let suspended = self.registry.read(|tables| {
                tables
                    .accounts
                    .get(&name)
                    .is_some_and(|row| row.suspended.is_some())
            });
            if suspended {
                // Whatever cluster serves it now is the right one.
                account.set_provenance("", &[]);
            }
        }
        let message = format!("account {name} approved");
        change(&self.registry, message, move |tables| {
            let Some(mut row) = tables.accounts.get(&name).cloned() else {
                return refuse(format!("no account {name}; see `sortie get accounts`"));
            };
            if row.suspended.take().is_some() {
                row.cluster_uid = String::new();
            }
            row.approved = true;
            tables.accounts.put(&name, row);
            Ok(())
        })
        .await
    }

    async fn suspend_by_hand(&self, name: String) -> Result<Answer, String> {
        let message = format!("account {name} suspended");
        change(&self.registry, message, move |tables| {
            let Some(mut row) = tables.accounts.get(&name).cloned() else {
                return refuse(format!("no account {name}; see `sortie get accounts`"));
            };
            row.suspended = Some(String::new());
            tables.accounts.put(&name, row);
            Ok(())
        })
        .await
    }

    async fn remove_account(self: &Arc<Self>, name: String) -> Result<Answer, String> {
        let removable = self
            .registry
            .read(|tables| self.check_removable(tables, &name));
        removable.map_err(|error| told(&error))?;
        let held = self.accounts.get(&name);
        if let Some(account) = &held {
            // What is stored of it goes first: a hub that is killed on the way would give it to
            // the next account of this name.
            account.forget();
            let stored = self.checkpoint().await;
            stored.map_err(|error| Chain(&error).to_string())?;
        }
        let (core, message) = (Arc::clone(self), format!("account {name} removed"));
        let removed = change(&self.registry, message, move |tables| {
            // Its agent may have come in between.
            core.check_removable(tables, &name)?;
            tables.accounts.remove(&name);
            Ok(())
        });
        let answer = removed.await?;
        if let Some(account) = held {
            self.accounts.remove(&account);
        }
        Ok(answer)
    }

    /// Refuses to remove an account that there is not, or that its agent offers.
    fn check_removable(&self, tables: &Tables, name: &str) -> Result<(), RegistryError> {
        let Some(row) = tables.accounts.get(name) else {
            return refuse(format!("no account {name}; see `sortie get accounts`"));
        };
        let agent = &row.agent;
        let sessions = self.sessions.all();
        let mut of_agent = sessions.iter().filter(|session| session.agent == *agent);
        if of_agent.any(|session| session.serves(name)) {
            return refuse(format!(
                "agent {agent} offers account {name}; take it out of the agent's configuration \
                 first, or stop or revoke the agent"
            ));
        }
        Ok(())
    }

    // ------------------------------------------------------------ clients

    async fn create_client(
        &self,
        name: String,
        accounts: BTreeSet<String>,
    ) -> Result<Answer, String> {
        name.parse::<Name>()
            .map_err(|error| Chain(&error).to_string())?;
        known_names(&accounts)?;
        let message = format!("client {name} may use {}", list(&accounts));
        change(&self.registry, message, move |tables| {
            let known = tables.clients.get(&name).cloned().unwrap_or_default();
            tables.clients.put(&name, Client { accounts, ..known });
            Ok(())
        })
        .await
    }

    async fn certify(
        self: &Arc<Self>,
        name: String,
        account: String,
        csr: String,
        ttl_seconds: Option<u64>,
    ) -> Result<Answer, String> {
        let held = self
            .accounts
            .get(&account)
            .ok_or_else(|| format!("no account {account}; see `sortie get accounts`"))?;
        let bound = self.registry.read(|tables| {
            tables
                .clients
                .get(&name)
                .is_some_and(|row| row.accounts.contains(&account))
        });
        if !bound {
            return Err(format!(
                "client {name} may not use {account}; `sortie client create {name} --account {account}` allows it"
            ));
        }
        let ttl = ttl_seconds.map(Duration::from_secs);
        if ttl.is_some_and(|ttl| ttl.is_zero() || ttl > CLIENT_TTL) {
            return Err("a client certificate lives at most 72 hours".to_owned());
        }
        let csr =
            hex::decode(csr).map_err(|_malformed| "the request for a certificate is not hex")?;
        let (chain, not_after) = self.certify_client(&name, &csr, ttl).await?;
        let pem = |der: &Vec<u8>| {
            let body = STANDARD.encode(der);
            let lines: Vec<&str> = (0..body.len())
                .step_by(64)
                .filter_map(|at| body.get(at..(at + 64).min(body.len())))
                .collect();
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                lines.join("\n")
            )
        };
        let host = self.hosts.first().cloned().unwrap_or_default();
        let facade = join_address(&host, self.addresses.facade.port());
        Ok(Answer::Certificate {
            chain: chain.iter().map(pem).collect(),
            roots: self.issuer.roots().to_pem(),
            server: format!("https://{facade}/accounts/{}", held.id),
            not_after: unix_seconds(not_after),
        })
    }

    // ------------------------------------------------------------ bans

    async fn revoke(&self, role: Banned, name: String) -> Result<Answer, String> {
        let now = unix_seconds(self.clock.now());
        self.set_revoked(role, name.clone(), Some(now)).await?;
        self.bans.load(&self.registry);
        let wanted = role_of(role);
        let cut = self
            .live
            .cut(|peer| peer.id().role == wanted && peer.id().name.as_str() == name);
        Ok(Answer::Done {
            message: format!("{name} revoked, {cut} connections cut"),
        })
    }

    async fn restore(&self, role: Banned, name: String) -> Result<Answer, String> {
        self.set_revoked(role, name.clone(), None).await?;
        self.bans.load(&self.registry);
        Ok(Answer::Done {
            message: format!("{name} restored"),
        })
    }

    async fn set_revoked(
        &self,
        role: Banned,
        name: String,
        revoked: Option<u64>,
    ) -> Result<(), String> {
        let changed = self.registry.update(move |tables| {
            let unknown =
                |what: &str| refuse(format!("no {what} {name}; see `sortie get {what}s`"));
            match role {
                Banned::Agent => {
                    let Some(mut row) = tables.agents.get(&name).cloned() else {
                        return unknown("agent");
                    };
                    row.revoked = revoked;
                    tables.agents.put(&name, row);
                }
                Banned::Client => {
                    let Some(mut row) = tables.clients.get(&name).cloned() else {
                        return unknown("client");
                    };
                    row.revoked = revoked;
                    tables.clients.put(&name, row);
                }
            }
            Ok(())
        });
        changed.await.map_err(|error| told(&error))
    }

    fn rotate(&self, agent: &str) -> Result<Answer, String> {
        let session = self.sessions.active(agent);
        let rotate = v1::directive::Directive::Rotate(v1::Rotate {});
        if session.is_some_and(|session| session.tell(directive(rotate))) {
            Ok(Answer::Done {
                message: format!("{agent} told to rotate"),
            })
        } else {
            Err(format!("agent {agent} is not connected"))
        }
    }
}

fn refuse<T>(why: String) -> Result<T, RegistryError> {
    Err(RegistryError::Refused(why))
}

fn told(error: &RegistryError) -> String {
    Chain(error).to_string()
}

async fn change(
    registry: &Arc<Registry>,
    message: String,
    change: impl FnOnce(&mut Tables) -> Result<(), RegistryError> + Send + 'static,
) -> Result<Answer, String> {
    registry
        .update(change)
        .await
        .map_err(|error| told(&error))?;
    Ok(Answer::Done { message })
}

fn known_names(accounts: &BTreeSet<String>) -> Result<(), String> {
    match accounts.iter().find(|name| !is_account_name(name)) {
        Some(bad) => Err(format!("`{bad}` cannot be the name of an account")),
        None => Ok(()),
    }
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "no account".to_owned();
    }
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

const fn role_of(role: Banned) -> Role {
    match role {
        Banned::Agent => Role::Agent,
        Banned::Client => Role::Client,
    }
}

fn join_address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The request without anything secret, for the audit record.
fn describe(request: &Request) -> String {
    match request {
        Request::Get { what } | Request::Watch { what } => format!("get {what:?}"),
        Request::CreateToken { agent, .. } => format!("create-token {agent}"),
        Request::DeleteToken { id } => format!("delete-token {id}"),
        Request::AddCluster { name, .. } => format!("add-cluster {name}"),
        Request::RemoveCluster { name } => format!("remove-cluster {name}"),
        Request::ApproveAccount { name } => format!("approve-account {name}"),
        Request::SuspendAccount { name } => format!("suspend-account {name}"),
        Request::RemoveAccount { name } => format!("remove-account {name}"),
        Request::CreateClient { name, .. } => format!("create-client {name}"),
        Request::CertifyClient { name, account, .. } => format!("certify-client {name} {account}"),
        Request::Revoke { role, name } => format!("revoke {role:?} {name}"),
        Request::Restore { role, name } => format!("restore {role:?} {name}"),
        Request::Backup { out } => format!("backup {}", out.display()),
        Request::Rotate { agent } => format!("rotate {agent}"),
    }
}
