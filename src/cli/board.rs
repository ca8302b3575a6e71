//! The board of `sortie demo` on a terminal: the alternate screen, keys, and the way back.

use std::io::{self, IsTerminal as _};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::time::MissedTickBehavior;
use tracing_subscriber::fmt::MakeWriter;

use super::args::{Color, Format, Global};
use super::print;
use crate::config::source::Environment;
use crate::demo::board::{Live, Look, Voice, draw};

/// How often the board is drawn, and keys are looked at.
const EVERY: Duration = Duration::from_millis(200);

/// Keys that are read before the board is drawn again: who leans on a key does not stop it.
const KEYS: usize = 64;

/// What is said: on the board while that is up, on the terminal before and after. A clone is the
/// same one.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    board: Live,
    up: Arc<AtomicBool>,
    /// Whether the log would otherwise go to the same terminal.
    takes_log: bool,
}

impl Lines {
    /// For a board, if this process has a terminal that can show one and nothing else was asked
    /// for.
    pub(super) fn for_board(global: &Global, environment: &Environment) -> Option<Self> {
        let able = io::stdout().is_terminal() && environment.terminal.as_deref() != Some("dumb");
        let plain = matches!(global.log_format, Format::Json);
        (able && !plain).then(|| Self {
            board: Live::default(),
            up: Arc::default(),
            takes_log: io::stderr().is_terminal(),
        })
    }

    /// The board that is filled.
    pub(super) fn live(&self) -> Live {
        self.board.clone()
    }

    /// One line of progress.
    pub(super) fn progress(&self, text: &str) {
        if self.up.load(Ordering::Acquire) {
            self.board.say(Voice::Progress, text);
        } else {
            print::progress(text);
        }
    }

    /// Takes the terminal over.
    fn enter(&self) -> io::Result<DefaultTerminal> {
        enable_raw_mode()?;
        self.up.store(true, Ordering::Release);
        execute!(io::stdout(), EnterAlternateScreen)?;
        ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))
    }

    /// Gives the terminal back as it was, once, and the lines to it that only the board has shown.
    fn leave(&self) {
        // To leave a second time would move the cursor back over what was written since.
        if !self.up.swap(false, Ordering::AcqRel) {
            return;
        }
        // Where the terminal is gone there is nothing to give back.
        let _gone = disable_raw_mode();
        let _gone = execute!(io::stdout(), LeaveAlternateScreen, Show);
        for line in self.board.take_lines() {
            match line.voice {
                Voice::Log => print::note(&line.text),
                Voice::Progress => print::progress(&line.text),
            }
        }
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.takes_log && self.up.load(Ordering::Acquire) {
            for line in String::from_utf8_lossy(bytes).lines() {
                self.board.say(Voice::Log, line);
            }
            return Ok(bytes.len());
        }
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self::Writer {
        self.clone()
    }
}

/// How the board came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Somebody pressed `q` or Ctrl-C.
    Asked,
    /// The terminal is gone, or belongs to a panic's message: the run goes on without the board.
    Broken,
}

/// The terminal while the board is up. Dropped, it is as it was before.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    look: Look,
    lines: Lines,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// It cannot be taken over, and is as it was.
    pub(super) fn open(lines: &Lines, color: Color) -> io::Result<Self> {
        let terminal = lines.enter().inspect_err(|_unusable| lines.leave())?;
        // Where a panic writes its message, and who goes on after it, there is no board any more.
        let (before, up) = (panic::take_hook(), lines.clone());
        panic::set_hook(Box::new(move |panic| {
            up.leave();
            before(panic);
        }));
        let look = match color {
            Color::Auto => Look::Colored,
            Color::Never => Look::Plain,
        };
        Ok(Self {
            terminal,
            look,
            lines: lines.clone(),
        })
    }

    /// Draws the board until that is over. Cancellation-safe.
    pub(super) async fn show(&mut self) -> Ended {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            if !self.lines.up.load(Ordering::Acquire) {
                return Ended::Broken;
            }
            match asked_to_end() {
                Ok(true) => return Ended::Asked,
                Ok(false) => {}
                Err(_no_terminal) => return Ended::Broken,
            }
            let (board, look) = (self.lines.board.board(), self.look);
            let drawn = self
                .terminal
                .draw(|frame| draw(&board, look, frame.area(), frame.buffer_mut()));
            if drawn.is_err() {
                return Ended::Broken;
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.lines.leave();
    }
}

/// Whether one of the keys that were pressed asks for the end. Raw mode makes Ctrl-C a key.
fn asked_to_end() -> io::Result<bool> {
    for _ in 0..KEYS {
        if !event::poll(Duration::ZERO)? {
            break;
        }
        if let Event::Key(key) = event::read()?
            && ends(key)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn ends(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind != KeyEventKind::Release
        && match key.code {
            KeyCode::Char('q') => true,
            KeyCode::Char('c') => control,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufReader, Read as _};
    use std::process::{Command, Stdio};

    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;
    use crate::tasks::Tasks;

    #[test]
    fn q_and_ctrl_c_end_and_nothing_else_does() {
        let key = |code, modifiers| KeyEvent::new(code, modifiers);
        assert!(ends(key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(ends(key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!ends(key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!ends(key(KeyCode::Esc, KeyModifiers::NONE)));
    }

    #[tokio::test]
    #[ignore = "the other half of the test below, which runs it on a terminal"]
    async fn somebody_panics_while_the_board_is_up() {
        let lines = Lines {
            board: Live::default(),
            up: Arc::default(),
            takes_log: true,
        };
        let mut screen = Screen::open(&lines, Color::Never).unwrap();
        lines.progress("said before");
        let tasks = Tasks::new();
        tasks.spawn("panicking", |_stop| async { panic!("on purpose") });
        tasks.died().await;
        lines.progress("said after");
        assert_eq!(screen.show().await, Ended::Broken);
    }

    #[test]
    fn a_panic_brings_the_terminal_back_before_its_message() {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let (name, flags) = (
            ptsname(&ours, Vec::new()).unwrap(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        );
        let terminal = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let mut command = Command::new("/proc/self/exe");
        let half = "cli::board::tests::somebody_panics_while_the_board_is_up";
        command.args(["--ignored", "--exact", "--nocapture", half]);
        let mut child = command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        drop((command, terminal));
        // A read fails when the last one who has the terminal has closed it.
        let bytes = BufReader::new(File::from(ours))
            .bytes()
            .map_while(Result::ok);
        let written = String::from_utf8(bytes.collect()).unwrap();
        assert!(child.wait().unwrap().success(), "{written}");
        let (board, after) = written.split_once("\x1b[?1049l").unwrap();
        assert!(board.contains("\x1b[?1049h"), "{written}");
        let places: Vec<_> = ["said before", "on purpose", "said after"]
            .iter()
            .map(|text| {
                after
                    .find(text)
                    .unwrap_or_else(|| panic!("{text}: {after}"))
            })
            .collect();
        assert!(places.is_sorted(), "{after}");
        assert!(!after.contains("\x1b[?1049h"), "{after}");
    }
}
