//! `sortie get --watch`, over the socket of a hub of the built program.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::support::eventually::bounded;
use crate::support::sortie::Sortie;

/// A subcommand that goes on, and its lines so far.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(hub: &Sortie, arguments: &[&str]) -> Self {
        let mut child = hub.follow(arguments);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = bounded("the next line", self.lines.next_line()).await;
        line.unwrap().unwrap()
    }

    /// Its exit code, and what it said about its end.
    async fn ended(mut self) -> (Option<i32>, String) {
        let status = bounded("its end", self.child.wait()).await.unwrap();
        let mut told = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut told).await.unwrap();
        (status.code(), told)
    }
}

async fn make_token(hub: &Sortie, agent: &str) {
    let made = hub.command(&["token", "create", agent]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
}

#[tokio::test]
async fn a_watch_tells_each_row_once_and_ends_on_an_interrupt() {
    let hub = Sortie::hub(crate::hub::config);
    hub.ready().await;
    make_token(&hub, "first").await;
    let mut table = Following::start(&hub, &["get", "tokens", "--watch"]);
    let header = table.line().await;
    assert!(header.starts_with("ID "), "{header}");
    assert!(table.line().await.contains("first"));
    let mut json = Following::start(&hub, &["get", "tokens", "-w", "-o", "json"]);
    json.line().await;

    make_token(&hub, "second").await;
    let line = table.line().await;
    assert!(line.contains("second"), "{line}");
    assert_eq!(
        line.find("second"),
        header.find("AGENT"),
        "{header}\n{line}"
    );
    let told: Value = serde_json::from_str(&json.line().await).unwrap();
    assert_eq!(told["version"], 1);
    assert_eq!(
        (&told["change"], &told["item"]["agent"]),
        (&"set".into(), &"second".into())
    );

    let id = told["item"]["id"].as_str().unwrap();
    hub.command(&["token", "delete", id]).await;
    let line = table.line().await;
    assert!(line.starts_with(id) && line.ends_with("(gone)"), "{line}");
    let told: Value = serde_json::from_str(&json.line().await).unwrap();
    assert_eq!(
        (&told["change"], &told["item"]["id"]),
        (&"gone".into(), &id.into())
    );

    for following in [table, json] {
        let pid = Pid::from_raw(following.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        assert_eq!(following.ended().await, (Some(0), String::new()));
    }
}

#[tokio::test]
async fn a_watch_ends_with_69_when_the_hub_does() {
    let mut hub = Sortie::hub(crate::hub::config);
    hub.ready().await;
    make_token(&hub, "first").await;
    let mut following = Following::start(&hub, &["get", "tokens", "--watch"]);
    following.line().await;
    assert_eq!(hub.stop().await, 0, "{:?}", hub.log());
    let (code, told) = following.ended().await;
    assert_eq!(code, Some(69), "{told}");
    assert!(
        told.contains("has ended, or has closed the connection"),
        "{told}"
    );
}

#[tokio::test]
async fn watches_are_bounded_and_their_places_come_back() {
    let hub = Sortie::hub(crate::hub::config);
    hub.ready().await;
    make_token(&hub, "first").await;
    let mut all = Vec::new();
    for _ in 0..32 {
        let mut following = Following::start(&hub, &["get", "tokens", "--watch"]);
        following.line().await;
        all.push(following);
    }
    let (code, told) = Following::start(&hub, &["get", "tokens", "--watch"])
        .ended()
        .await;
    assert_eq!(
        (code, told.as_str()),
        (Some(1), "error: 32 watches run already; end one of them\n")
    );
    let mut one = all.pop().unwrap();
    one.child.kill().await.unwrap();
    crate::support::eventually::eventually_async("a place is free", async || {
        let mut next = Following::start(&hub, &["get", "tokens", "--watch"]);
        let line = bounded("its first line", next.lines.next_line())
            .await
            .unwrap();
        line.map(drop)
    })
    .await;
}
