//! The whole board: which sections fit, and where they go.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Widget, Wrap};

use super::shape::{Wish, shares};
use super::text::clock;
use super::{Board, panels};

/// Columns and rows below which there is only a short text.
const SMALLEST: (u16, u16) = (60, 15);

/// Sections from top to bottom.
const SECTIONS: usize = 8;

/// Whether colours are used. What they say is also said in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// With colours.
    Colored,
    /// Without.
    Plain,
}

impl Look {
    const fn color(self, color: Color) -> Style {
        match self {
            Self::Colored => Style::new().fg(color),
            Self::Plain => Style::new(),
        }
    }

    /// Of what is as it should be.
    pub(super) const fn good(self) -> Style {
        self.color(Color::Green)
    }

    /// Of what is on its way, or degraded.
    pub(super) const fn fair(self) -> Style {
        self.color(Color::Yellow)
    }

    /// Of what is broken.
    pub(super) const fn bad(self) -> Style {
        self.color(Color::Red)
    }

    /// Of figures that move.
    pub(super) const fn figure(self) -> Style {
        self.color(Color::Cyan)
    }

    /// Of titles.
    pub(super) const fn title() -> Style {
        Style::new()
            .add_modifier(Modifier::BOLD)
            .remove_modifier(Modifier::DIM)
    }

    /// Of the first and the last row.
    pub(super) const fn edge() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of names of figures.
    pub(super) const fn label() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

/// Draws `board` into `area`: all of it where there is room for 80×24, more of it in a larger one,
/// the important sections in a smaller one, and a short text below 60×15.
pub fn draw(board: &Board, look: Look, area: Rect, buffer: &mut Buffer) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return draw_short(board, area, buffer);
    }
    let heights = shares(area.height, &wishes(board, area.width));
    let sections = Layout::vertical(heights.map(Constraint::Length)).areas::<SECTIONS>(area);
    let [
        header,
        accounts,
        middle,
        certificate,
        operations,
        lines,
        attempt,
        _,
    ] = sections;
    panels::header(board, look, header, buffer);
    panels::accounts(board, look, accounts, buffer);
    let half = [Constraint::Fill(1), Constraint::Fill(1)];
    let [objects, events] = Layout::horizontal(half).spacing(1).areas(middle);
    panels::objects(board, look, objects, buffer);
    panels::events(board, look, events, buffer);
    panels::certificate(board, look, certificate, buffer);
    panels::operations(board, look, operations, buffer);
    panels::lines(board, look, lines, buffer);
    let inside = section("try it in another terminal", attempt, buffer);
    let command = Paragraph::new(command(board)).wrap(Wrap { trim: false });
    command.render(inside, buffer);
    let last = area.rows().next_back().unwrap_or(area);
    let footer = Line::from(" q or Ctrl-C ends the demonstration").style(Look::edge());
    Paragraph::new(footer)
        .style(Look::edge())
        .render(last, buffer);
}

/// What each section would like; see [`SECTIONS`].
fn wishes(board: &Board, width: u16) -> [Wish; SECTIONS] {
    let wish = |rank, least, most| Wish { rank, least, most };
    let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let command = rows(command(board).chars().count()).div_ceil(width.max(1));
    let accounts = rows(board.accounts.len()).max(1);
    let changes = board.certificate.as_ref().map_or(0, |c| c.changes.len());
    let operations = rows(board.operations.last.len()).saturating_add(1);
    [
        wish(0, 3, 3),
        wish(1, 3, accounts.saturating_add(2)),
        wish(5, 5, 9),
        wish(4, 4, rows(changes).saturating_add(3).max(4)),
        wish(6, 3, operations.clamp(3, 12)),
        wish(7, 3, rows(super::live::LINES)),
        wish(3, 1 + command.max(1), 1 + command.max(1)),
        wish(2, 1, 1),
    ]
}

/// A titled place over the whole width; what is left inside of it.
pub(super) fn section(title: &str, area: Rect, buffer: &mut Buffer) -> Rect {
    let title = Line::from(format!(" {title} ")).style(Look::title());
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(Look::label())
        .title(title);
    let inside = block.inner(area);
    block.render(area, buffer);
    inside
}

/// What to type in another terminal.
fn command(board: &Board) -> String {
    match &board.kubeconfig {
        Some(path) => format!("kubectl --kubeconfig {} get pods -A", path.display()),
        None => "(once synced)".to_owned(),
    }
}

/// The essence, where nothing else fits.
fn draw_short(board: &Board, area: Rect, buffer: &mut Buffer) {
    let mut text = vec![format!("sortie demo {}", clock(board.running))];
    for account in &board.accounts {
        let (name, state) = (&account.name, &account.state);
        text.push(format!("{name} {state}, {} objects", account.objects));
    }
    let rotations = board.certificate.as_ref().map_or(0, |c| c.rotations);
    text.push(format!("certificate rotated {rotations} times"));
    text.push(command(board));
    text.push("q ends; the board needs 60x15".to_owned());
    let lines: Vec<Line<'_>> = text.into_iter().map(Line::from).collect();
    let short = Paragraph::new(lines).wrap(Wrap { trim: false });
    short.render(area, buffer);
}
