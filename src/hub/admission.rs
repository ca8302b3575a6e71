//! Which agent may register which account: certificate ↔ agent name ↔ account names.

use std::sync::Arc;

use prost::Message as _;

use super::audit::Audit;
use super::registry::{Account, Registry, RegistryError, Tables};
use crate::entropy::{self, Entropy};
use crate::limits::ACCOUNTS_HELD_PER_AGENT;
use crate::policy::is_account_name;
use crate::view::Few;
use crate::wire::v1;

/// What the hub makes of an offered account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) admission: v1::Admission,
    pub(super) message: String,
    pub(super) id: String,
}

/// By account name.
pub(super) type Decisions = Few<String, Decision>;

/// What an agent says of its accounts, by their names; shared with the accounts.
pub(super) type Offers = Few<String, Arc<v1::AccountOffer>>;

/// Reason of an account that is served from another cluster than before.
pub(super) const CLUSTER_CHANGED: &str = "ClusterChanged";

/// What an agent may tell of one account, in bytes as it is sent. It is kept for as long as the account
/// is, offered or not.
const OFFER_BYTES: usize = 8 * 1024;

/// An offer as it is kept: of one that tells too much, the name and the state.
pub(super) fn bounded(offer: v1::AccountOffer) -> v1::AccountOffer {
    if offer.encoded_len() <= OFFER_BYTES {
        return offer;
    }
    v1::AccountOffer {
        name: offer.name,
        state: offer.state,
        since: offer.since,
        next_retry: offer.next_retry,
        message: "its agent tells more of it than a hub keeps".to_owned(),
        ..v1::AccountOffer::default()
    }
}

/// Judges the accounts that an instance of `agent` offers, and notes those that are new, as long as
/// it may hold more.
pub(super) async fn decide(
    registry: &Arc<Registry>,
    entropy: &dyn Entropy,
    agent: &str,
    offers: &Offers,
    standby: bool,
) -> Result<Decisions, RegistryError> {
    let new: Vec<(String, String)> = registry.read(|tables| {
        let unknown = offers
            .keys()
            .filter(|name| tables.accounts.get(name).is_none());
        let mut named = unknown.filter(|name| is_account_name(name)).peekable();
        // Without a change where there is no room: each change makes every session judge again.
        let room = named.peek().map_or(0, |_| room(tables, agent));
        named
            .take(room)
            .map(|name| (name.clone(), hex::encode(entropy::bytes::<16>(entropy))))
            .collect()
    });
    if !new.is_empty() {
        let agent = agent.to_owned();
        registry
            .update(move |tables| {
                let room = room(tables, &agent);
                for (name, id) in new.into_iter().take(room) {
                    register(tables, &agent, &name, id);
                }
                Ok(())
            })
            .await?;
    }
    Ok(registry.read(|tables| {
        let judged = offers
            .keys()
            .map(|name| (name.clone(), judge(tables, agent, name, standby)));
        judged.collect()
    }))
}

/// Tells of each account that is refused, unless that was told `before`.
pub(super) fn tell_refused(agent: &str, decisions: &Decisions, before: &Decisions) {
    let news = decisions
        .iter()
        .filter(|(name, decision)| before.get(*name) != Some(decision));
    for (name, decision) in news {
        if decision.admission != v1::Admission::Taken {
            continue;
        }
        let has_no_room = decision.id.is_empty() && is_account_name(name);
        let reason = if has_no_room {
            "TooManyAccounts"
        } else {
            "AccountTaken"
        };
        Audit::new("register account", &format!("agent/{agent}"))
            .with("account", name)
            .refuse(reason);
    }
}

/// How many more accounts `agent` may hold.
fn room(tables: &Tables, agent: &str) -> usize {
    let all = tables.accounts.iter();
    let held = all.filter(|(_, account)| account.agent == agent).count();
    ACCOUNTS_HELD_PER_AGENT.saturating_sub(held)
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

fn judge(tables: &Tables, agent: &str, name: &str, standby: bool) -> Decision {
    let Some(account) = tables.accounts.get(name) else {
        let message = if is_account_name(name) {
            format!(
                "agent `{agent}` holds {ACCOUNTS_HELD_PER_AGENT} accounts; `sortie account remove` \
                 at the hub takes away one that it no longer offers"
            )
        } else {
            format!("`{name}` cannot be the name of an account")
        };
        return Decision {
            admission: v1::Admission::Taken,
            message,
            id: String::new(),
        };
    };
    let id = account.id.clone();
    let (admission, message) = if account.agent != agent {
        let holder = &account.agent;
        (
            v1::Admission::Taken,
            format!("agent `{holder}` holds the account `{name}`; give this one another name"),
        )
    } else if !account.approved {
        let message = format!("waits for `sortie account approve {name}` at the hub");
        (v1::Admission::Pending, message)
    } else if let Some(reason) = &account.suspended {
        let why = if reason.is_empty() { "by hand" } else { reason };
        let message = format!("suspended ({why}); `sortie account approve {name}` ends it");
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
    use super::super::registry::Agent;
    use super::super::store::Store;
    use super::*;

    /// A registry in which `shop` is approved for agent `a`.
    async fn registry(folder: &tempfile::TempDir) -> Arc<Registry> {
        let registry = Registry::open(Arc::new(Store::open(folder.path()).unwrap())).unwrap();
        registry
            .update(|tables| {
                let named = Agent {
                    accounts: ["shop".to_owned()].into(),
                    ..Agent::default()
                };
                tables.agents.put("a", named);
                Ok(())
            })
            .await
            .unwrap();
        registry
    }

    async fn judged(registry: &Arc<Registry>, agent: &str, name: &str, standby: bool) -> Decision {
        let offers = Few::from_iter([(name.to_owned(), Arc::default())]);
        let entropy = entropy::system();
        let mut decisions = decide(registry, &*entropy, agent, &offers, standby)
            .await
            .unwrap();
        decisions.remove(name).unwrap()
    }

    #[tokio::test]
    async fn an_account_that_the_evidence_named_needs_no_approval() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder).await;
        let accepted = judged(&registry, "a", "shop", false).await;
        assert_eq!(accepted.admission, v1::Admission::Accepted);
        assert_eq!(accepted.id.len(), 32);
        let again = judged(&registry, "a", "shop", false).await;
        assert_eq!(again, accepted, "an account keeps its path");
    }

    #[tokio::test]
    async fn other_accounts_wait_until_a_person_approves_them() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder).await;
        let pending = judged(&registry, "a", "lab", false).await;
        assert_eq!(pending.admission, v1::Admission::Pending);
        assert!(pending.message.contains("sortie account approve lab"));
        registry
            .update(|tables| {
                let mut row = tables.accounts.get("lab").cloned().unwrap();
                row.approved = true;
                tables.accounts.put("lab", row);
                Ok(())
            })
            .await
            .unwrap();
        let accepted = judged(&registry, "a", "lab", false).await;
        assert_eq!(accepted.admission, v1::Admission::Accepted);
    }

    #[tokio::test]
    async fn a_taken_name_is_refused_with_its_holder_and_stays_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder).await;
        judged(&registry, "a", "shop", false).await;
        let taken = judged(&registry, "b", "shop", false).await;
        assert_eq!(taken.admission, v1::Admission::Taken);
        assert!(taken.message.contains("agent `a` holds"));
        let held = judged(&registry, "a", "shop", false).await;
        assert_eq!(held.admission, v1::Admission::Accepted);
    }

    #[tokio::test]
    async fn an_impossible_name_is_refused_and_not_noted() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder).await;
        let refused = judged(&registry, "a", "../etc", false).await;
        assert_eq!(refused.admission, v1::Admission::Taken);
        assert!(refused.id.is_empty());
        assert_eq!(registry.read(|tables| tables.accounts.iter().count()), 0);
    }

    #[tokio::test]
    async fn accounts_beyond_what_an_agent_may_hold_are_refused_and_not_noted() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder).await;
        judged(&registry, "b", "of-another", false).await;
        let entropy = entropy::system();
        let mut changes = registry.changes();
        let mut offer = async |names: std::ops::Range<usize>| {
            let named = names.map(|at| (format!("n{at:03}"), Arc::default()));
            let offers = named.collect::<Offers>();
            changes.mark_unchanged();
            let decided = decide(&registry, &*entropy, "a", &offers, false).await;
            (decided.unwrap(), changes.has_changed().unwrap())
        };
        offer(0..200).await;
        offer(200..400).await;
        let (decided, changed) = offer(400..600).await;
        assert!(changed);
        let refused = |decided: &Decisions| {
            let taken = |decision: &&Decision| decision.admission == v1::Admission::Taken;
            decided.values().filter(taken).count()
        };
        assert_eq!(refused(&decided), 600 - ACCOUNTS_HELD_PER_AGENT);
        let last = decided.get("n599").unwrap();
        assert!(last.message.contains("holds 512 accounts"), "{last:?}");
        assert!(last.message.contains("sortie account remove"), "{last:?}");
        let (decided, changed) = offer(400..600).await;
        assert_eq!(refused(&decided), 600 - ACCOUNTS_HELD_PER_AGENT);
        assert!(!changed, "or all sessions would judge again, for ever");
        let held = registry.read(|tables| tables.accounts.iter().count());
        assert_eq!(held, ACCOUNTS_HELD_PER_AGENT + 1);
        // Those that are held are served as before, and there is room where one goes.
        let (decided, _) = offer(0..1).await;
        assert_eq!(refused(&decided), 0);
        let remove = registry.update(|tables| {
            tables.accounts.remove("n000");
            Ok(())
        });
        remove.await.unwrap();
        let (decided, _) = offer(599..600).await;
        assert_eq!(refused(&decided), 0);
    }

    #[test]
    fn of_an_offer_that_tells_too_much_the_name_and_the_state_are_kept() {
        let offer = |message: usize, roles: usize| v1::AccountOffer {
            name: "shop".into(),
            state: v1::AccountState::Failed.into(),
            message: "m".repeat(message),
            read_roles: vec![String::new(); roles],
            ..v1::AccountOffer::default()
        };
        let usual = offer(1000, 100);
        assert_eq!(bounded(usual.clone()), usual);
        for much in [offer(OFFER_BYTES, 0), offer(0, OFFER_BYTES)] {
            let kept = bounded(much);
            assert_eq!(
                (kept.name.as_str(), kept.state()),
                ("shop", v1::AccountState::Failed)
            );
            assert!(kept.message.contains("tells more"), "{kept:?}");
            assert!(kept.encoded_len() < 100);
        }
    }

    #[tokio::test]
    async fn a_standby_serves_nothing_and_a_suspension_is_told_to_it_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder).await;
        let standby = judged(&registry, "a", "shop", true).await;
        assert_eq!(standby.admission, v1::Admission::Standby);
        registry
            .update(|tables| {
                let mut row = tables.accounts.get("shop").cloned().unwrap();
                row.suspended = Some(CLUSTER_CHANGED.to_owned());
                tables.accounts.put("shop", row);
                Ok(())
            })
            .await
            .unwrap();
        for standby in [false, true] {
            let suspended = judged(&registry, "a", "shop", standby).await;
            assert_eq!(suspended.admission, v1::Admission::Suspended);
            assert!(suspended.message.contains(CLUSTER_CHANGED));
        }
    }
}
