//! The sections of the board.

use std::collections::VecDeque;

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table, Widget};

use super::draw::{Look, section};
use super::text::{bytes, clock, count, cut, left, millis, shortened};
use super::{Board, Certificate, SECONDS, Voice};

/// Columns of one kind among the objects: five digits and most of a name.
const KIND_COLUMNS: u16 = 20;

/// Digits of a number of objects, and the gap after them.
const COUNT_COLUMNS: usize = 6;

fn put(line: Line<'_>, area: Rect, buffer: &mut Buffer) {
    Paragraph::new(line).render(area, buffer);
}

/// How a state is drawn, of an account or an agent.
fn state_style(state: &str, look: Look) -> Style {
    match state {
        "ACTIVE" => look.good(),
        "FAILED" | "SUSPENDED" | "ORPHANED" | "BANNED" => look.bad(),
        _ => look.fair(),
    }
}

fn or_dash(text: &str) -> String {
    let text = if text.is_empty() { "-" } else { text };
    text.to_owned()
}

/// Time, addresses, agent, link.
pub(super) fn header(board: &Board, look: Look, area: Rect, buffer: &mut Buffer) {
    let [title, hub, agent] = Layout::vertical([Constraint::Length(1); 3]).areas(area);
    let running = format!("running {} ", clock(board.running));
    Paragraph::new(" sortie demo")
        .style(Look::edge())
        .render(title, buffer);
    Paragraph::new(running)
        .alignment(Alignment::Right)
        .style(Look::edge())
        .render(
            Rect {
                x: title.x + title.width / 2,
                width: title.width - title.width / 2,
                ..title
            },
            buffer,
        );
    let doors = match board.hub {
        Some(doors) => format!("agents {}   facade {}", doors.agents, doors.clients),
        None => "starting".to_owned(),
    };
    let line = Line::from(vec![
        Span::styled(" hub    ", Look::label()),
        Span::raw(doors),
    ]);
    put(line, hub, buffer);
    let (link, style) = if board.agent.connected {
        ("link open", look.good())
    } else {
        ("no link", look.fair())
    };
    let line = Line::from(vec![
        Span::styled(" agent  ", Look::label()),
        Span::raw(board.agent.name.clone()),
        Span::raw("   "),
        Span::styled(link, style),
        Span::raw("   "),
        Span::styled(
            board.agent.state.clone(),
            state_style(&board.agent.state, look),
        ),
    ]);
    put(line, agent, buffer);
}

/// The accounts as the hub serves them.
pub(super) fn accounts(board: &Board, look: Look, area: Rect, buffer: &mut Buffer) {
    let inside = section("accounts", area, buffer);
    let right = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let rows = board.accounts.iter().map(|account| {
        let lag = |of: fn(&super::Lag) -> f64| match &account.lag {
            Some(lag) => millis(of(lag)),
            None => "-".to_owned(),
        };
        Row::new([
            Cell::from(format!(" {}", account.name)),
            Cell::from(account.state.clone()).style(state_style(&account.state, look)),
            Cell::from(or_dash(&account.reason)),
            right(count(account.objects)),
            right(lag(|lag| lag.p50)),
            right(lag(|lag| lag.p99)),
        ])
    });
    let widths = [
        Constraint::Length(14),
        Constraint::Length(10),
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let header = Row::new([
        Cell::from(" name"),
        Cell::from("state"),
        Cell::from("reason"),
        right("objects".to_owned()),
        right("lag p50".to_owned()),
        right("p99".to_owned()),
    ]);
    let table = Table::new(rows, widths).header(header.style(Look::label()));
    Widget::render(table, inside, buffer);
}

/// Objects by kind, the most frequent first.
pub(super) fn objects(board: &Board, look: Look, area: Rect, buffer: &mut Buffer) {
    let inside = section("objects in the hub's view", area, buffer);
    let mut kinds: Vec<(&str, usize)> = board
        .objects
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(kind, count)| (kind.as_str(), *count))
        .collect();
    kinds.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let needed = u16::try_from(kinds.len().div_ceil(usize::from(inside.height).max(1)));
    let columns = (inside.width / KIND_COLUMNS).clamp(1, needed.unwrap_or(1).max(1));
    let places = usize::from(columns) * usize::from(inside.height);
    let all = kinds.len();
    if all > places {
        kinds.truncate(places.saturating_sub(1));
    }
    let width = inside.width / columns;
    let name_width = usize::from(width).saturating_sub(COUNT_COLUMNS + 1);
    let mut entries: Vec<Line<'_>> = kinds
        .iter()
        .map(|(kind, number)| {
            let number = count(*number as u64);
            Line::from(vec![
                Span::styled(format!("{number:>COUNT_COLUMNS$} "), look.figure()),
                Span::raw(shortened(kind, name_width)),
            ])
        })
        .collect();
    if all > kinds.len() {
        let more = format!("       and {} more", all - kinds.len());
        entries.push(Line::from(more));
    }
    let height = usize::from(inside.height).max(1);
    let columns = inside.columns().step_by(usize::from(width.max(1)));
    for (column, entries) in columns.zip(entries.chunks(height)) {
        let place = Rect { width, ..column }.intersection(inside);
        Paragraph::new(entries.to_vec()).render(place, buffer);
    }
}

/// Events of the last minute, masked values, bytes, planted values.
pub(super) fn events(board: &Board, look: Look, area: Rect, buffer: &mut Buffer) {
    let inside = section("events, last minute", area, buffer);
    let events = &board.events;
    let told = u16::from(board.planted.is_some()) + 1;
    let [rate, chart, below] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(told),
    ])
    .areas(inside);
    let now = events.per_second.back().copied().unwrap_or(0);
    let line = Line::from(vec![
        Span::styled(count(now), look.figure()),
        Span::raw(" per second, "),
        Span::styled(count(events.received), look.figure()),
        Span::raw(" in all"),
    ]);
    put(line, rate, buffer);
    let bars = bars(&events.per_second, usize::from(chart.width));
    Sparkline::default()
        .data(&bars)
        .style(look.figure())
        .render(chart, buffer);
    let mut lines = vec![Line::from(vec![
        Span::raw("masked "),
        Span::styled(count(events.masked), look.figure()),
        Span::raw(" values; "),
        Span::styled(bytes(events.bytes), look.figure()),
        Span::raw(" to the hub"),
    ])];
    if let Some(planted) = &board.planted {
        let style = if planted.found == 0 {
            look.good()
        } else {
            look.bad()
        };
        lines.push(Line::from(vec![
            Span::raw("found "),
            Span::styled(count(planted.found), style),
            Span::raw(format!(
                " of {} planted, in {}",
                count(planted.planted),
                bytes(planted.scanned_bytes)
            )),
        ]));
    }
    Paragraph::new(lines).render(below, buffer);
}

/// The last [`SECONDS`] samples as `width` bars, the newest at the right end; a bar that stands for
/// several samples is the largest of them.
fn bars(samples: &VecDeque<u64>, width: usize) -> Vec<u64> {
    let missing = SECONDS.saturating_sub(samples.len());
    let all: Vec<u64> = std::iter::repeat_n(0, missing)
        .chain(samples.iter().copied())
        .collect();
    let place = |bar: usize| bar * all.len() / width.max(1);
    (0..width)
        .map(|bar| {
            let (from, to) = (place(bar), place(bar + 1).max(place(bar) + 1));
            let samples = all.get(from..to).unwrap_or_default();
            samples.iter().copied().max().unwrap_or(0)
        })
        .collect()
}

/// Serial, life, rotations.
pub(super) fn certificate(board: &Board, look: Look, area: Rect, buffer: &mut Buffer) {
    let inside = section("certificate of the agent", area, buffer);
    let Some(certificate) = &board.certificate else {
        return put(Line::from(" not enrolled yet"), inside, buffer);
    };
    let [told, bar, changes] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(inside);
    let renewal = certificate.renewed_after.saturating_sub(certificate.age);
    let end = certificate.life.saturating_sub(certificate.age);
    let times = format!("renewal in {}, end in {} ", left(renewal), left(end));
    let room = usize::from(told.width).saturating_sub(9 + times.chars().count());
    let line = Line::from(vec![
        Span::styled(" serial ", Look::label()),
        Span::styled(shortened(&certificate.serial, room), look.figure()),
    ]);
    put(line, told, buffer);
    let times = Paragraph::new(times).alignment(Alignment::Right);
    let at_the_right = Rect {
        x: told.x + told.width / 3,
        width: told.width - told.width / 3,
        ..told
    };
    times.render(at_the_right, buffer);
    put(life_bar(certificate, look, bar.width), bar, buffer);
    let each = usize::from(changes.width).saturating_sub(20) / 2;
    let mut lead = format!(" rotated {:<4} ", format!("{}×", certificate.rotations));
    let mut lines = Vec::new();
    for change in certificate.changes.iter().rev() {
        lines.push(Line::from(vec![
            Span::styled(std::mem::replace(&mut lead, " ".repeat(14)), Look::label()),
            Span::raw(shortened(&change.old, each)),
            Span::raw(" → "),
            Span::styled(shortened(&change.new, each), look.figure()),
        ]));
    }
    if lines.is_empty() {
        lines.push(Line::from(Span::styled(" not rotated yet", Look::label())));
    }
    Paragraph::new(lines).render(changes, buffer);
}

/// A life from its issue to its end: what has passed, the renewal, what is to come.
fn life_bar(certificate: &Certificate, look: Look, width: u16) -> Line<'static> {
    let (lead, legend) = (" issued ", " end ");
    let cells = usize::from(width).saturating_sub(lead.len() + legend.len());
    let at = |time: std::time::Duration| {
        let millis = |time: std::time::Duration| usize::try_from(time.as_millis()).unwrap_or(0);
        let share = millis(time).min(millis(certificate.life)) * cells;
        share / millis(certificate.life).max(1)
    };
    let renewal = at(certificate.renewed_after).min(cells.saturating_sub(1));
    let passed = at(certificate.age);
    let run = |from: usize, to: usize, cell: &str| cell.repeat(to.saturating_sub(from));
    let style = if certificate.age <= certificate.renewed_after {
        look.good()
    } else {
        look.fair()
    };
    Line::from(vec![
        Span::styled(lead, Look::label()),
        Span::styled(run(0, passed.min(renewal), "█"), style),
        Span::styled(run(passed.min(renewal), renewal, "░"), style),
        Span::styled("┃", Look::title()),
        Span::styled(run(renewal + 1, passed, "█"), style),
        Span::styled(run(passed.max(renewal + 1), cells, "░"), style),
        Span::styled(legend, Look::label()),
    ])
}

/// What clients did last.
pub(super) fn operations(board: &Board, look: Look, area: Rect, buffer: &mut Buffer) {
    let operations = &board.operations;
    let title = format!(
        "operations through the facade: {} reads, {} writes, {} failed",
        count(operations.reads),
        count(operations.writes),
        count(operations.failed)
    );
    let inside = section(&title, area, buffer);
    let newest = operations.last.iter().rev().take(inside.height.into());
    let rows: Vec<Row<'_>> = newest
        .rev()
        .map(|operation| {
            let style = if operation.status < 400 {
                look.good()
            } else {
                look.bad()
            };
            let took = millis(operation.duration.as_secs_f64() * 1000.0);
            Row::new([
                Cell::from(format!(" {}", operation.client)),
                Cell::from(operation.verb),
                Cell::from(operation.status.to_string()).style(style),
                Cell::from(operation.served),
                Cell::from(Line::from(took).alignment(Alignment::Right)),
                Cell::from(shortened(
                    &or_dash(&operation.path),
                    path_width(inside.width),
                )),
            ])
        })
        .collect();
    Widget::render(Table::new(rows, OPERATION), inside, buffer);
}

/// Columns of an operation: client, verb, status, where the answer came from, time, path.
const OPERATION: [Constraint; 6] = [
    Constraint::Length(10),
    Constraint::Length(8),
    Constraint::Length(3),
    Constraint::Length(6),
    Constraint::Length(8),
    Constraint::Fill(1),
];

/// What the other columns of an operation leave, with a gap after each of them.
fn path_width(width: u16) -> usize {
    usize::from(width).saturating_sub(10 + 8 + 3 + 6 + 8 + 5)
}

/// What was said last.
pub(super) fn lines(board: &Board, look: Look, area: Rect, buffer: &mut Buffer) {
    let inside = section("what happened", area, buffer);
    let newest = board.lines.iter().rev().take(inside.height.into());
    let lines: Vec<Line<'_>> = newest
        .rev()
        .map(|line| {
            let (lead, style) = match line.voice {
                Voice::Log => (" log  ", look.fair()),
                Voice::Progress => (" ", Style::new()),
            };
            let text = format!("{lead}{}", line.text);
            Line::from(cut(&text, inside.width.into())).style(style)
        })
        .collect();
    Paragraph::new(lines).render(inside, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_fills_the_width_and_ends_at_the_right() {
        let samples: VecDeque<u64> = (1..=60).collect();
        assert_eq!(VecDeque::from(bars(&samples, 60)), samples);
        assert_eq!(bars(&samples, 30).last(), Some(&60));
        assert_eq!(bars(&samples, 30).first(), Some(&2));
        assert_eq!(bars(&samples, 100).last(), Some(&60));
        assert_eq!(bars(&samples, 0), Vec::<u64>::new());
        let one = VecDeque::from([7]);
        assert_eq!(bars(&one, 3), [0, 0, 7]);
    }
}
