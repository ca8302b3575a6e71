//! The board of `sortie demo` is the one in `tests/golden/board`, at each size.
//!
//! `SORTIE_GOLDEN=write cargo test --test cli` writes it anew.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use sortie::demo::audit::{CanaryFigures, Lag};
use sortie::demo::board::{
    Account, Agent, Board, Certificate, Change, Doors, Events, Line, Look, Voice, draw,
};
use sortie::hub::{Operation, Operations};

/// Size, and name of the golden file.
const SIZES: [((u16, u16), &str); 5] = [
    ((80, 24), "80x24"),
    ((120, 40), "120x40"),
    ((60, 15), "60x15"),
    ((59, 14), "short"),
    ((200, 60), "200x60"),
];

/// What the terminal shows when `board` is drawn on it.
fn drawn(board: &Board, look: Look, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(board, look, frame.area(), frame.buffer_mut()))
        .unwrap();
    terminal.backend().buffer().clone()
}

/// The rows of a screen, without the blanks at their ends.
fn text(screen: &Buffer) -> String {
    let width = usize::from(screen.area.width);
    let mut text = String::new();
    for row in screen.content.chunks(width) {
        let row: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn serial(number: u8) -> String {
    hex::encode([number; 16])
}

fn operation(client: &str, verb: &'static str, path: &str, status: u16, millis: u64) -> Operation {
    Operation {
        client: client.into(),
        account: "demo".into(),
        verb,
        path: path.into(),
        status,
        served: if verb == "list" { "view" } else { "live" },
        duration: Duration::from_millis(millis),
    }
}

fn operations() -> Operations {
    let pods = "/api/v1/namespaces/shop/pods";
    let long = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/from-the-front-only";
    Operations {
        reads: 1204,
        writes: 2,
        failed: 1,
        last: VecDeque::from([
            operation("auditor", "list", "/api/v1/pods", 200, 2),
            operation("visitor", "list", pods, 200, 3),
            operation("visitor", "get", long, 200, 12),
            operation("visitor", "delete", &format!("{pods}/cart-0"), 200, 9),
            operation("visitor", "create", pods, 422, 4),
        ]),
    }
}

fn certificate() -> Certificate {
    Certificate {
        serial: serial(0xc3),
        life: Duration::from_mins(1),
        renewed_after: Duration::from_secs(33),
        age: Duration::from_secs(19),
        rotations: 2,
        changes: VecDeque::from([
            Change {
                old: serial(0xa1),
                new: serial(0xb2),
            },
            Change {
                old: serial(0xb2),
                new: serial(0xc3),
            },
        ]),
    }
}

fn objects() -> BTreeMap<String, usize> {
    let objects = [
        ("CronJob", 2),
        ("CustomResourceDefinition", 1),
        ("DaemonSet", 3),
        ("Deployment", 24),
        ("Ingress", 0),
        ("Job", 5),
        ("Namespace", 6),
        ("NetworkPolicy", 4),
        ("Pod", 1072),
        ("ReplicaSet", 48),
        ("Secret", 80),
        ("Service", 24),
        ("StatefulSet", 7),
    ];
    objects.map(|(kind, count)| (kind.to_owned(), count)).into()
}

/// A board on which everything is to be seen.
fn full() -> Board {
    let said = |voice, text: &str| Line {
        voice,
        text: text.into(),
    };
    Board {
        running: Duration::from_secs(83),
        hub: Some(Doors {
            agents: ([127, 0, 0, 1], 40001).into(),
            clients: ([127, 0, 0, 1], 40003).into(),
        }),
        agent: Agent {
            name: "demo".into(),
            state: "ACTIVE".into(),
            connected: true,
        },
        accounts: vec![Account {
            name: "demo".into(),
            state: "ACTIVE".into(),
            reason: String::new(),
            objects: 1276,
            lag: Some(Lag {
                p50: 0.84,
                p99: 12.6,
            }),
        }],
        objects: objects(),
        events: Events {
            received: 12_345,
            per_second: (0..50).map(|second| 40 + second * 7 % 90).collect(),
            masked: 4096,
            bytes: 1_250_000,
        },
        planted: Some(CanaryFigures {
            planted: 80,
            found: 0,
            scanned_bytes: 23_400_000,
            control_found: true,
        }),
        certificate: Some(certificate()),
        operations: operations(),
        lines: VecDeque::from([
            said(
                Voice::Progress,
                "cluster  embedded, at https://127.0.0.1:40000",
            ),
            said(
                Voice::Progress,
                "synced   account demo: Pod 1072, Secret 80",
            ),
            said(Voice::Log, "WARN sortie::hub: something to look at"),
            said(Voice::Progress, "rotated  b2b2 → c3c3"),
        ]),
        kubeconfig: Some(PathBuf::from(
            "/tmp/sortie-demo-0123456789ab/demo.kubeconfig",
        )),
    }
}

#[test]
fn the_board_is_as_agreed_at_every_size() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/board"));
    let mut drifted = Vec::new();
    let mut check = |name: &str, shown: String| {
        let file = folder.join(format!("{name}.txt"));
        if env::var_os("SORTIE_GOLDEN").is_some_and(|what| what == "write") {
            fs::write(&file, &shown).unwrap();
        }
        if fs::read_to_string(&file).unwrap_or_default() != shown {
            drifted.push(file);
        }
    };
    for (size, name) in SIZES {
        check(name, text(&drawn(&full(), Look::Colored, size)));
    }
    let start = drawn(&Board::default(), Look::Colored, (80, 24));
    check("start", text(&start));
    assert!(drifted.is_empty(), "not what is drawn: {drifted:?}");
}

#[test]
fn colours_are_left_out_when_nobody_wants_them_and_nothing_else_is() {
    let (colored, plain) = (
        drawn(&full(), Look::Colored, (80, 24)),
        drawn(&full(), Look::Plain, (80, 24)),
    );
    let colors = |screen: &Buffer| {
        let cells = screen.content.iter();
        cells
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
            .count()
    };
    assert!(colors(&colored) > 0);
    assert_eq!(colors(&plain), 0);
    assert_eq!(text(&colored), text(&plain));
}

#[test]
fn no_size_is_too_small_or_too_odd() {
    for width in [1, 2, 8, 59, 60, 61, 300] {
        for height in [1, 2, 14, 15, 16, 100] {
            for board in [Board::default(), full()] {
                let screen = drawn(&board, Look::Plain, (width, height));
                assert!(
                    text(&screen).trim().len() > 1 || width < 8,
                    "{width}×{height}"
                );
            }
        }
    }
}

#[test]
fn a_planted_value_that_was_found_is_told_in_words() {
    let mut board = full();
    board.planted = board.planted.map(|planted| CanaryFigures {
        found: 3,
        ..planted
    });
    let shown = text(&drawn(&board, Look::Plain, (80, 24)));
    assert!(shown.contains("found 3 of 80 planted"), "{shown}");
}
