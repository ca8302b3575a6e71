//! What a person sees who watches while an agent comes and goes.

use std::collections::BTreeMap;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::support::eventually::bounded;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

/// A watch whose rows are read by column.
struct Table {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    header: Vec<String>,
}

impl Table {
    async fn of(stand: &Stand, what: &str) -> Self {
        let mut child = stand.hub.follow(&["get", what, "--watch"]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let header = bounded("the header", lines.next_line())
            .await
            .unwrap()
            .unwrap();
        let header = header.split("  ").filter(|name| !name.is_empty());
        Self {
            header: header.map(|name| name.trim().to_owned()).collect(),
            _child: child,
            lines,
        }
    }

    /// The next row, by name of column.
    async fn row(&mut self) -> Row {
        let line = bounded("the next row", self.lines.next_line()).await;
        let line = line.unwrap().unwrap();
        let cells = line.split("  ").filter(|cell| !cell.is_empty());
        let cells = cells.map(|cell| cell.trim().to_owned());
        Row(self.header.iter().cloned().zip(cells).collect())
    }

    /// Reads rows until one has this state.
    async fn until(&mut self, state: &str) -> Row {
        loop {
            let row = self.row().await;
            if row.cell("STATE") == state {
                return row;
            }
        }
    }
}

/// Cells by name of column.
struct Row(BTreeMap<String, String>);

impl Row {
    fn cell(&self, column: &str) -> &str {
        &self.0[column]
    }
}

#[tokio::test]
async fn an_agent_that_goes_and_comes_back_is_seen_without_asking_again() {
    let testbed = Testbed::shared().await;
    let plan = Plan::one("lab", &testbed.cluster().kubeconfig, "");
    let mut stand = Stand::start(plan).await;
    let (mut accounts, mut agents) =
        tokio::join!(Table::of(&stand, "accounts"), Table::of(&stand, "agents"));
    let (account, agent) = tokio::join!(accounts.row(), agents.row());
    assert_eq!(
        ["NAME", "STATE", "REASON", "AGENT"].map(|column| account.cell(column)),
        ["lab", "ACTIVE", "-", "lab"]
    );
    assert_eq!(
        ["NAME", "STATE", "VERSION", "ACCOUNTS"].map(|column| agent.cell(column)),
        ["lab", "ACTIVE", env!("CARGO_PKG_VERSION"), "lab"]
    );
    let (instance, serial) = (agent.cell("INSTANCE"), agent.cell("CERTIFICATE SERIAL"));
    assert_eq!((instance.len(), serial.len()), (32, 34));

    assert_eq!(stand.agent.stop().await, 0);
    let (stale, away) = tokio::join!(accounts.until("STALE"), agents.until("AWAY"));
    assert_eq!(stale.cell("REASON"), "AgentAway");
    assert_eq!(
        ["INSTANCE", "CERTIFICATE SERIAL", "ACCOUNTS"].map(|column| away.cell(column)),
        ["-", serial, "lab"]
    );

    // Another process of the same name, with a token of its own.
    std::fs::remove_file(stand.hub.folder().join("lab.join")).unwrap();
    let plan = Plan::one("lab", &testbed.cluster().kubeconfig, "");
    let again = crate::support::stand::agent(&stand.hub, "lab", &plan).await;
    let (account, agent) = tokio::join!(accounts.until("ACTIVE"), agents.until("ACTIVE"));
    assert_eq!(account.cell("NAME"), "lab");
    assert_ne!(agent.cell("INSTANCE"), instance, "{:?}", again.log());
}
