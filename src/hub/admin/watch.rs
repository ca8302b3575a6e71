//! Lists that go on: everything of one sort, and then what changes of it, line by line.
//!
//! The hub compares what it lists with what it has told, at every change of the registry and twice
//! a second besides: sessions and feeds change without one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::MissedTickBehavior;

use super::super::Core;
use super::{Answer, AskError, LINE_BYTES, Request, Row, Sort};

/// How often what is listed is compared with what was told.
const EVERY: Duration = Duration::from_millis(500);

/// Watches of one hub at once; each compares every row twice a second.
pub(in crate::hub) const WATCHES: usize = 32;

/// Columns that move by themselves: a row in which nothing else is new is not told again.
const MOVING: [&str; 2] = ["age-seconds", "objects"];

/// What names a row: its name or id, and its instance, which only rows of agents have.
pub type Key = (String, String);

/// A list that goes on, as its reader has it.
#[derive(Debug)]
pub struct Watching {
    path: PathBuf,
    lines: BufReader<OwnedReadHalf>,
    /// The hub ends the watch when this half is closed.
    _open: OwnedWriteHalf,
}

/// Starts to watch everything of one sort at the hub whose socket is at `path`.
///
/// # Errors
/// The hub cannot be reached.
pub async fn watch(path: &Path, what: Sort) -> Result<Watching, AskError> {
    let unreachable = |source| AskError::Unreachable {
        path: path.to_owned(),
        source,
    };
    let mut line =
        serde_json::to_vec(&Request::Watch { what }).map_err(|_quotes| unreadable(path))?;
    line.push(b'\n');
    let socket = UnixStream::connect(path).await.map_err(unreachable)?;
    let (reader, mut open) = socket.into_split();
    open.write_all(&line).await.map_err(unreachable)?;
    Ok(Watching {
        path: path.to_owned(),
        lines: BufReader::new(reader),
        _open: open,
    })
}

fn unreadable(path: &Path) -> AskError {
    let path = path.to_owned();
    AskError::Unreadable { path }
}

impl Watching {
    /// The next answer: first [`Answer::List`], then [`Answer::Changes`] as they come.
    ///
    /// Not cancellation-safe: what was read of a line is lost with it.
    ///
    /// # Errors
    /// The hub is gone, or its answer cannot be read.
    pub async fn next(&mut self) -> Result<Answer, AskError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.lines).take(LINE_BYTES);
        let read = bounded.read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(count) if count > 0) || line.last() != Some(&b'\n') {
            let path = self.path.clone();
            return Err(AskError::Lost { path });
        }
        serde_json::from_slice(&line).map_err(|_quotes| unreadable(&self.path))
    }
}

impl Core {
    /// Tells a watch's lines until its reader is gone.
    pub(super) async fn tell_changes(
        self: &Arc<Self>,
        what: Sort,
        reader: impl AsyncBufRead + Unpin,
        mut writer: OwnedWriteHalf,
    ) -> io::Result<()> {
        let Ok(_place) = self.watches.try_acquire() else {
            let message = format!("{WATCHES} watches run already; end one of them");
            return tell(&mut writer, &Answer::Error { message }).await;
        };
        let telling = async {
            let mut changes = self.registry.changes();
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            let (version, rows) = self.rows(what);
            let mut told = by_key(&rows);
            tell(&mut writer, &Answer::List { version, rows }).await?;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    changed = changes.changed() => if changed.is_err() { return Ok(()) },
                }
                let (version, rows) = self.rows(what);
                let now = by_key(&rows);
                let (rows, gone) = compare(&told, &now);
                told = now;
                if !rows.is_empty() || !gone.is_empty() {
                    let changes = Answer::Changes {
                        version,
                        rows,
                        gone,
                    };
                    tell(&mut writer, &changes).await?;
                }
            }
        };
        tokio::select! {
            told = telling => told,
            () = hung_up(reader) => Ok(()),
        }
    }
}

/// Waits until the reader of a watch is gone; it has nothing more to say.
async fn hung_up(mut reader: impl AsyncRead + Unpin) {
    let _closed = reader.read(&mut [0; 1]).await;
}

async fn tell(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

fn by_key(rows: &[Row]) -> BTreeMap<Key, Row> {
    rows.iter().map(|row| (key(row), row.clone())).collect()
}

/// What names a row among those of its sort.
pub fn key(row: &Row) -> Key {
    let text = |column| row.get(column).and_then(Value::as_str).map(str::to_owned);
    let name = text("name").or_else(|| text("id"));
    (
        name.unwrap_or_default(),
        text("instance").unwrap_or_default(),
    )
}

/// Rows that are new or say something new, and rows that are gone.
fn compare(before: &BTreeMap<Key, Row>, now: &BTreeMap<Key, Row>) -> (Vec<Row>, Vec<Row>) {
    let changed = now
        .iter()
        .filter(|(key, row)| before.get(*key).is_none_or(|old| differ(old, row)));
    let gone = before.iter().filter(|(key, _)| !now.contains_key(*key));
    (
        changed.map(|(_, row)| row.clone()).collect(),
        gone.map(|(_, row)| row.clone()).collect(),
    )
}

fn differ(old: &Row, new: &Row) -> bool {
    let still = |row: &Row| {
        let mut row = row.clone();
        row.retain(|column, _| !MOVING.contains(&column.as_str()));
        row
    };
    still(old) != still(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(rows: &[Value]) -> BTreeMap<Key, Row> {
        let rows: Vec<Row> = rows
            .iter()
            .map(|row| serde_json::from_value(row.clone()).unwrap())
            .collect();
        by_key(&rows)
    }

    #[test]
    fn a_row_is_told_again_only_if_it_says_something_new() {
        let before = rows(&[
            json!({ "name": "a", "state": "ACTIVE", "objects": 1 }),
            json!({ "name": "b", "state": "ACTIVE", "objects": 1 }),
            json!({ "name": "c", "state": "ACTIVE" }),
        ]);
        let now = rows(&[
            json!({ "name": "a", "state": "ACTIVE", "objects": 2 }),
            json!({ "name": "b", "state": "STALE", "objects": 2 }),
            json!({ "name": "d", "state": "PENDING" }),
        ]);
        let (changed, gone) = compare(&before, &now);
        let names = |rows: Vec<Row>| rows.iter().map(|row| key(row).0).collect::<Vec<_>>();
        assert_eq!(names(changed), ["b", "d"]);
        assert_eq!(names(gone), ["c"]);
    }
}
