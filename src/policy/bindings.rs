//! Which client may use which account.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decision, Denial};
use crate::resource::Verb;

/// Clients and the accounts they are bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    accounts: BTreeMap<String, BTreeSet<String>>,
}

impl Bindings {
    /// Lets `client` use `account`.
    pub fn bind(&mut self, client: &str, account: &str) {
        let accounts = self.accounts.entry(client.to_owned()).or_default();
        accounts.insert(account.to_owned());
    }

    /// Takes every account from `client`.
    pub fn remove(&mut self, client: &str) {
        self.accounts.remove(client);
    }
}

/// Who wants to do what. Every request to the facade asks one of these.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Name of the client, from its certificate.
    pub client: &'a str,
    /// Name of the account.
    pub account: &'a str,
    /// What is to be done.
    pub verb: Verb,
    /// To which kind, as `resource.group`.
    pub kind: &'a str,
    /// In which namespace; `None` for all of them or none.
    pub namespace: Option<&'a str>,
}

/// Answers whether a client may do something; what no binding covers is denied.
///
/// Bindings decide by client and account alone; the account's own policy, in the agent, decides
/// by verb, kind and namespace.
pub fn authorize(bindings: &Bindings, question: &Question<'_>) -> Decision {
    let accounts = bindings.accounts.get(question.client);
    if accounts.is_some_and(|accounts| accounts.contains(question.account)) {
        return Decision::Allow;
    }
    Decision::Deny(Denial::Client {
        client: question.client.to_owned(),
        account: question.account.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(bindings: &Bindings, client: &str, account: &str) -> bool {
        let question = Question {
            client,
            account,
            verb: Verb::List,
            kind: "pods",
            namespace: None,
        };
        authorize(bindings, &question).is_allowed()
    }

    #[test]
    fn what_is_not_bound_is_denied() {
        let mut bindings = Bindings::default();
        assert!(!ask(&bindings, "clouddriver", "prod"));
        bindings.bind("clouddriver", "prod");
        assert!(ask(&bindings, "clouddriver", "prod"));
        assert!(!ask(&bindings, "clouddriver", "lab"));
        assert!(!ask(&bindings, "Clouddriver", "prod"));
        assert!(!ask(&bindings, "", ""));
        bindings.remove("clouddriver");
        assert!(!ask(&bindings, "clouddriver", "prod"));
    }
}
