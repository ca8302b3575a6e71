//! For comparison: the same secret fetched with a client library as its documentation has it.

mod sdks;
mod vault;

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::eventually::bounded;

/// What the plain client says when it has come to a point, and waits there.
const POINTS: [&str; 3] = ["held", "dropped", "closed"];

/// A plain client that runs.
struct Plain {
    pid: i32,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Plain {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            pid: child.id().unwrap().try_into().unwrap(),
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    /// Waits until it says that it has come to `point`, where it waits itself.
    async fn comes_to(&mut self, point: &str) {
        let mut line = String::new();
        while !line.ends_with(point) {
            let next = bounded("the plain client goes on", self.lines.next_line()).await;
            let next = next.unwrap();
            line = next.unwrap_or_else(|| panic!("ended before {point}"));
        }
    }

    async fn goes_on(&mut self) {
        self.stdin.write_all(b"\n").await.unwrap();
    }
}
