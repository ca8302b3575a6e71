//! The board of the built program on a terminal, and that the terminal is left as it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tempfile::TempDir;

use super::{LIMIT, command, left};
use crate::support::eventually::{eventually, within};

/// Size of the terminal.
const COLUMNS: NonZero<u16> = NonZero::new(100).unwrap();
const ROWS: NonZero<u16> = NonZero::new(30).unwrap();

const ENTERS: &str = "\x1b[?1049h";
const LEAVES: &str = "\x1b[?1049l";
const SHOWS_CURSOR: &str = "\x1b[?25h";

/// A program on a pseudo-terminal.
struct OnTerminal {
    child: Child,
    /// Our end.
    keyboard: File,
    /// Its end, held open so that what it was set to can be seen.
    terminal: File,
    seen: Arc<Mutex<Seen>>,
}

/// What a program has written, and what the terminal shows of it.
struct Seen {
    written: Vec<u8>,
    screen: vt100::Parser,
}

impl OnTerminal {
    fn start(
        arguments: &[&str],
        temporary: &Path,
        set: impl FnOnce(&mut std::process::Command),
    ) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        let size = Winsize {
            ws_col: COLUMNS.get(),
            ws_row: ROWS.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let mut command = command(arguments, temporary);
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        command.stdin(end()).stdout(end()).stderr(end());
        set(&mut command);
        let child = command.spawn().unwrap();
        let keyboard = File::from(ours);
        let mut output = keyboard.try_clone().unwrap();
        let seen = Arc::new(Mutex::new(Seen {
            written: Vec::new(),
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }));
        let sees = Arc::clone(&seen);
        // Ends when nobody holds the other end any more: neither the program nor we.
        tokio::task::spawn_blocking(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let mut seen = sees.lock().unwrap();
                seen.written.extend_from_slice(&buffer[..count]);
                seen.screen.process(&buffer[..count]);
            }
        });
        Self {
            child,
            keyboard,
            terminal,
            seen,
        }
    }

    /// Everything that was written so far, control sequences included.
    fn written(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().written).into_owned()
    }

    /// What is on the screen.
    fn screen(&self) -> vt100::Screen {
        self.seen.lock().unwrap().screen.screen().clone()
    }

    /// Waits until `text` is on the board.
    async fn board_shows(&self, text: &str) {
        let shown = async || {
            let screen = self.screen();
            let written = self.written();
            assert!(!written.contains(LEAVES), "no {text:?}: {written}");
            screen.contents().contains(text).then_some(())
        };
        within(LIMIT, &format!("{text:?} is on the board"), shown).await;
    }

    /// Waits until `text` was written in one piece.
    async fn says(&self, text: &str) {
        let said = || self.written().contains(text).then_some(());
        eventually(&format!("{text:?} is written"), said).await;
    }

    /// Whether anything on the screen has a colour.
    fn is_colored(&self) -> bool {
        let screen = self.screen();
        let mut cells = (0..ROWS.get()).flat_map(|row| (0..COLUMNS.get()).map(move |at| (row, at)));
        cells.any(|(row, at)| {
            let cell = screen.cell(row, at);
            cell.is_some_and(|cell| cell.fgcolor() != vt100::Color::Default)
        })
    }

    /// Whether what is typed is echoed, as it is on a terminal that nobody has taken over.
    fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    async fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let status = within(LIMIT, "the program ends", async || {
            child.try_wait().unwrap()
        })
        .await;
        status.code()
    }

    /// What was written after the board was left, once the last line of it is there.
    async fn afterwards(&self) -> String {
        assert!(self.echoes(), "the terminal is as it was");
        self.says(LEAVES).await;
        assert!(!self.screen().hide_cursor(), "the cursor is back");
        let written = self.written();
        let (before, after) = written.rsplit_once(LEAVES).unwrap();
        assert!(before.contains(ENTERS), "{written}");
        let after = after.replace(SHOWS_CURSOR, "");
        assert!(!after.contains('\x1b'), "{after:?}");
        after
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It has ended, or the test has failed.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn folder() -> TempDir {
    TempDir::with_prefix("sortie-demo-test-").unwrap()
}

/// What a demonstration says on a terminal or a pipe, each line without what differs.
fn sorts_of_lines(said: &str) -> Vec<&str> {
    let words = said.lines().filter_map(|line| line.split(' ').next());
    words.map(|word| word.trim_end_matches('\r')).collect()
}

#[tokio::test]
async fn a_demonstration_on_a_terminal_shows_a_board_and_then_what_a_pipe_gets() {
    let folder = folder();
    let mut demo = OnTerminal::start(&["--once"], folder.path(), |_| {});
    for text in [
        "objects in the hub's view",
        "link open",
        "ACTIVE",
        "auditor",
        "rotated 1×",
    ] {
        demo.board_shows(text).await;
    }
    assert!(!demo.echoes(), "keys are the board's");
    assert_eq!(demo.ended().await, Some(0), "{}", demo.written());
    demo.says("everything holds").await;
    let after = demo.afterwards().await;
    let said = sorts_of_lines(&after);
    let expected = [
        "cluster", "hub", "enrolled", "synced", "masked", "try", "rotated", "rotated",
    ];
    assert!(said.starts_with(&expected), "{after}");
    assert!(after.contains("\"ok\": true"), "{after}");
    assert_eq!(left(folder.path()), 0, "its folder has gone");
}

#[tokio::test]
async fn a_key_ends_the_board_and_the_demonstration() {
    for key in ["q", "\x03"] {
        let folder = folder();
        let mut demo = OnTerminal::start(&[], folder.path(), |_| {});
        demo.board_shows("link open").await;
        demo.keyboard.write_all(b"x").unwrap(); // says nothing to it
        demo.keyboard.write_all(key.as_bytes()).unwrap();
        assert_eq!(demo.ended().await, Some(0), "{}", demo.written());
        let after = demo.afterwards().await;
        assert!(after.contains("hub      listening"), "{after}");
        assert_eq!(left(folder.path()), 0, "its folder has gone");
    }
}

#[tokio::test]
async fn a_signal_brings_the_terminal_back() {
    let folder = folder();
    let mut demo = OnTerminal::start(&[], folder.path(), |_| {});
    demo.board_shows("link open").await;
    kill_process(Pid::from_child(&demo.child), Signal::TERM).unwrap();
    assert_eq!(demo.ended().await, Some(0), "{}", demo.written());
    demo.afterwards().await;
}

#[tokio::test]
async fn a_demonstration_that_fails_brings_the_terminal_back_before_it_says_why() {
    let folder = folder();
    let mut demo = OnTerminal::start(&["--once", "--timeout", "1s"], folder.path(), |_| {});
    assert_eq!(demo.ended().await, Some(1), "{}", demo.written());
    demo.says("error: ").await;
    let after = demo.afterwards().await;
    assert!(after.contains("error: "), "{after}");
}

#[tokio::test]
async fn colours_are_not_written_when_nobody_wants_them() {
    for (arguments, colored) in [(&[][..], true), (&["--color", "never"], false)] {
        let folder = folder();
        let mut demo = OnTerminal::start(arguments, folder.path(), |_| {});
        demo.board_shows("link open").await;
        assert_eq!(demo.is_colored(), colored, "{arguments:?}");
        demo.keyboard.write_all(b"q").unwrap();
        assert_eq!(demo.ended().await, Some(0), "{}", demo.written());
    }
}

#[tokio::test]
async fn plain_lines_stay_where_a_board_is_not_wanted_or_cannot_be() {
    for (arguments, term) in [(&[][..], "dumb"), (&["--log-format", "json"], "xterm")] {
        let folder = folder();
        let mut demo = OnTerminal::start(arguments, folder.path(), |command| {
            command.env("TERM", term);
        });
        demo.says("\ntry ").await;
        kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
        assert_eq!(demo.ended().await, Some(0), "{}", demo.written());
        assert!(!demo.written().contains('\x1b'), "{:?}", demo.written());
    }
}
