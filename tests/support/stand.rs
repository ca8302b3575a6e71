//! A hub and an agent of the built program, joined, around clusters that the test chose.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::eventually::eventually_async;
use super::kubectl::Ran;
use super::sortie::Sortie;

/// Time until an agent that was killed is back.
pub(crate) const BACK: Duration = Duration::from_secs(10);

/// What a stand is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Names of the accounts that the join token names.
    pub(crate) accounts: Vec<String>,
    /// The `accounts:` list of `agent.yaml`, indented by two.
    pub(crate) accounts_yaml: String,
    /// The `engines:` map of `agent.yaml`, indented by two; empty for none.
    pub(crate) engines_yaml: String,
    /// Lifetime of the agent's certificates.
    pub(crate) agent_ttl: &'static str,
}

impl Plan {
    /// One account on the cluster of `kubeconfig`, by default with every operation allowed.
    pub(crate) fn one(account: &str, kubeconfig: &Path, more: &str) -> Self {
        Self {
            accounts: vec![account.to_owned()],
            accounts_yaml: account_yaml(account, kubeconfig, more),
            engines_yaml: String::new(),
            agent_ttl: "24h",
        }
    }
}

/// One entry of `accounts:`, with every operation; `more` are further keys, indented by four.
pub(crate) fn account_yaml(account: &str, kubeconfig: &Path, more: &str) -> String {
    format!(
        "  - name: {account}\n    \
         credential: {{ kubeconfig-file: {} }}\n    \
         operations: [{{ verbs: [get, list, watch, create, update, patch, delete, deletecollection], \
         subresources: [scale, status, log], kinds: [\"*\"], namespaces: [\"*\"] }}]\n{more}",
        kubeconfig.display()
    )
}

/// A hub that listens on free ports of the loopback interface.
pub(crate) fn hub_yaml(folder: &Path, agent_ttl: &str) -> String {
    format!(
        "name: hub-1\n\
         trust-domain: test.sortie.example\n\
         names: [\"127.0.0.1\", localhost]\n\
         state-dir: {}\n\
         listen: {{ data: \"127.0.0.1:0\", enrol: \"127.0.0.1:0\", facade: \"127.0.0.1:0\", \
         health: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
         certificates: {{ agent-ttl: {agent_ttl}, client-ttl: 12h, hub-ttl: 24h }}\n",
        folder.join("state").display()
    )
}

/// A hub with one agent.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) hub: Sortie,
    pub(crate) agent: Sortie,
}

impl Stand {
    /// Starts both, and waits until every account of the plan is ACTIVE.
    pub(crate) async fn start(plan: Plan) -> Self {
        Self::start_with(&[], plan).await
    }

    /// As [`Stand::start`], both with these options.
    pub(crate) async fn start_with(options: &[&str], plan: Plan) -> Self {
        let hub = hub_with(options, plan.agent_ttl).await;
        let agent = agent_with(options, &hub, "lab", &plan, "").await;
        let stand = Self { hub, agent };
        for account in &plan.accounts {
            stand.wait(account, "ACTIVE").await;
        }
        stand
    }

    /// Starts both; nothing is waited for but the hub.
    pub(crate) async fn joining(plan: Plan) -> Self {
        let hub = hub(plan.agent_ttl).await;
        let agent = agent(&hub, "lab", &plan).await;
        Self { hub, agent }
    }

    /// Waits until an account has a state.
    pub(crate) async fn wait(&self, account: &str, state: &str) {
        wait(&self.hub, &self.agent, account, state).await;
    }

    /// A kubeconfig for `client`, which may use `account`; it goes with the hub's folder.
    pub(crate) async fn kubeconfig(&self, account: &str, client: &str) -> PathBuf {
        kubeconfig(&self.hub, account, client).await
    }

    /// The row of an account as `sortie get accounts NAME -o json` tells it.
    pub(crate) async fn account(&self, account: &str) -> serde_json::Value {
        let ran = ok(self
            .hub
            .command(&["get", "accounts", account, "-o", "json"])
            .await);
        let answer: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        answer["items"][0].clone()
    }
}

/// A hub that is ready.
pub(crate) async fn hub(agent_ttl: &str) -> Sortie {
    hub_with(&[], agent_ttl).await
}

/// Makes the addresses that the hub has now those of its next starts.
pub(crate) async fn keep_addresses(hub: &Sortie) {
    let mut listen = Vec::new();
    for door in ["data", "enrol", "facade", "health", "metrics"] {
        listen.push(format!("{door}: \"{}\"", hub.address(door).await));
    }
    let text = fs::read_to_string(hub.config_file()).expect("readable");
    let lines = text.lines().map(|line| {
        if line.starts_with("listen:") {
            format!("listen: {{ {} }}\n", listen.join(", "))
        } else {
            format!("{line}\n")
        }
    });
    fs::write(hub.config_file(), lines.collect::<String>()).expect("writable");
}

/// A hub that is ready, started with these options.
pub(crate) async fn hub_with(options: &[&str], agent_ttl: &str) -> Sortie {
    let hub = Sortie::start("hub", options, |folder| hub_yaml(folder, agent_ttl));
    hub.ready().await;
    hub
}

/// An agent of `hub` named `name`, joined by a token that names the accounts of the plan.
pub(crate) async fn agent(hub: &Sortie, name: &str, plan: &Plan) -> Sortie {
    agent_with(&[], hub, name, plan, "").await
}

/// As [`agent`], started with these options, and with more top-level keys of `agent.yaml`, such as
/// another way to the hub.
pub(crate) async fn agent_with(
    options: &[&str],
    hub: &Sortie,
    name: &str,
    plan: &Plan,
    more: &str,
) -> Sortie {
    agent_in(&[], options, hub, name, plan, more).await
}

/// As [`agent_with`], with further variables in its environment.
pub(crate) async fn agent_in(
    variables: &[(String, String)],
    options: &[&str],
    hub: &Sortie,
    name: &str,
    plan: &Plan,
    more: &str,
) -> Sortie {
    let join = hub.folder().join(format!("{name}.join"));
    let join = join.display().to_string();
    let mut arguments = vec!["token", "create", name, "--out", &join];
    for account in &plan.accounts {
        arguments.extend(["--account", account]);
    }
    ok(hub.command(&arguments).await);
    let engines = match plan.engines_yaml.as_str() {
        "" => String::new(),
        engines => format!("engines:\n{engines}"),
    };
    let accounts = &plan.accounts_yaml;
    Sortie::start_in("agent", options, variables, |_folder| {
        format!(
            "name: {name}\n\
             listen: {{ health: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
             identity:\n  join: {{ method: token, join-file: {join} }}\n\
             {more}{engines}\
             accounts:\n{accounts}"
        )
    })
}

/// Another instance of the agent `name`, joined by a token of its own, once it stands by.
pub(crate) async fn standby(hub: &Sortie, name: &str, plan: &Plan, more: &str) -> Sortie {
    let spent = hub.folder().join(format!("{name}.join"));
    fs::remove_file(spent).expect("the token of the instance before");
    let standby = agent_with(&[], hub, name, plan, more).await;
    eventually_async("the second instance stands by", async || {
        instances(hub)
            .await
            .contains(&"STANDBY".to_owned())
            .then_some(())
    })
    .await;
    standby
}

/// The states of all agents' instances.
pub(crate) async fn instances(hub: &Sortie) -> Vec<String> {
    let listed = ok(hub.command(&["get", "agents", "-o", "json"]).await);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let rows = listed["items"].as_array().expect("a list").iter();
    rows.filter_map(|row| Some(row["state"].as_str()?.to_owned()))
        .collect()
}

/// Waits until an account has a state at the hub; the agent's log tells why it has not.
pub(crate) async fn wait(hub: &Sortie, agent: &Sortie, account: &str, state: &str) {
    let arguments = [
        "get",
        "accounts",
        account,
        "--wait",
        state,
        "--timeout",
        "60s",
    ];
    let waited = hub.command(&arguments).await;
    assert_eq!(waited.code, Some(0), "{waited:?}\nagent: {:?}", agent.log());
}

/// A kubeconfig for `client`, which may use `account`; it goes with the hub's folder.
pub(crate) async fn kubeconfig(hub: &Sortie, account: &str, client: &str) -> PathBuf {
    ok(hub
        .command(&["client", "create", client, "--account", account])
        .await);
    let path = hub.folder().join(format!("{account}-{client}.kubeconfig"));
    let out = path.display().to_string();
    ok(hub
        .command(&["kubeconfig", account, "--client", client, "--out", &out])
        .await);
    path
}

/// A subcommand that has to succeed.
pub(crate) fn ok(ran: Ran) -> Ran {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}
