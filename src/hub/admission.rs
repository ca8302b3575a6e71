//! Which agent may register which account: certificate ↔ agent name ↔ account names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::audit::Audit;
use super::registry::{Account, Registry, RegistryError, Tables};
use super::session::Session;
use crate::entropy::{self, Entropy};
use crate::wire::v1;

/// What the hub makes of an offered account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) admission: v1::Admission,
    pub(super) message: String,
    pub(super) id: String,
}

/// By account name.
pub(super) type Decisions = BTreeMap<String, Decision>;

/// Reason of an account that is served from another cluster than before.
pub(super) const CLUSTER_CHANGED: &str = "ClusterChanged";

/// Longest name of an account, in bytes.
const NAME_BYTES: usize = 128;

/// Whether `name` can be an account's: letters, digits, `-`, `_` and `.`, not at its ends.
pub fn is_account_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= NAME_BYTES
        && name.bytes().all(inner)
        && edge(name.bytes().next())
        && edge(name.bytes().next_back())
}

/// Judges the accounts that `session` offers, and notes those that are new.
pub(super) async fn decide(
    registry: &Arc<Registry>,
    entropy: &dyn Entropy,
    session: &Session,
    offers: &BTreeMap<String, v1::AccountOffer>,
    standby: bool,
) -> Result<Decisions, RegistryError> {
    let new: Vec<(String, String)> = registry.read(|tables| {
        let unknown = offers
            .keys()
            .filter(|name| tables.accounts.get(name).is_none());
        let named = unknown.filter(|name| is_account_name(name));
        named
            .map(|name| (name.clone(), hex::encode(entropy::bytes::<16>(entropy))))
            .collect()
    });
    if !new.is_empty() {
        let agent = session.agent.clone();
        registry
            .update(move |tables| {
                for (name, id) in new {
                    register(tables, &agent, &name, id);
                }
                Ok(())
            })
            .await?;
    }
    let decisions = registry.read(|tables| {
        let judged = offers
            .keys()
            .map(|name| (name.clone(), judge(tables, session, name, standby)));
        judged.collect::<Decisions>()
    });
    for (name, decision) in &decisions {
        if decision.admission == v1::Admission::Taken {
            Audit::new("register account", &format!("agent/{}", session.agent))
                .with("account", name)
                .refuse("AccountTaken");
        }
    }
    Ok(decisions)
}

fn register(tables: &mut Tables, agent: &str, name: &str, id: String) {
    if tables.accounts.get(name).is_some() {
        return;
    }
    let approved = tables
        .agents
        .get(agent)
        .is_some_and(|agent| agent.accounts.contains(name));
    let account = Account {
        id,
        agent: agent.to_owned(),
        approved,
        ..Account::default()
    };
    tables.accounts.put(name, account);
    Audit::new("register account", &format!("agent/{agent}"))
        .with("account", name)
        .with("approved", approved)
        .admit();
}

fn judge(tables: &Tables, session: &Session, name: &str, standby: bool) -> Decision {
    let Some(account) = tables.accounts.get(name) else {
        let message = format!("`{name}` cannot be the name of an account");
        return Decision {
            admission: v1::Admission::Taken,
            message,
            id: String::new(),
        };
    };
    let id = account.id.clone();
    let (admission, message) = if account.agent != session.agent {
        let holder = &account.agent;
        (
            v1::Admission::Taken,
            format!("agent `{holder}` holds the account `{name}`"),
        )
    } else if !account.approved {
        let message = format!("waits for `sortie account approve {name}` at the hub");
        (v1::Admission::Pending, message)
    } else if let Some(reason) = &account.suspended {
        let message = format!("suspended ({reason}); `sortie account approve {name}` ends it");
        (v1::Admission::Suspended, message)
    } else if standby {
        (
            v1::Admission::Standby,
            "another instance of this agent serves it".to_owned(),
        )
    } else {
        (v1::Admission::Accepted, String::new())
    };
    Decision {
        admission,
        message,
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_accounts_fit_into_paths_and_keys() {
        for good in ["shop", "prod-eu", "Prod_1", "a.b"] {
            assert!(is_account_name(good), "{good}");
        }
        for bad in ["", "-a", "a/b", "a b", "a\0", "é", ".", "a-"] {
            assert!(!is_account_name(bad), "{bad}");
        }
    }
}
