//! Kubeconfigs that want to run, read, reach, or use up more than they may.
#![expect(
    clippy::disallowed_types,
    reason = "the time of a synchronous function, without a runtime"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sortie::clock;
use sortie::credential::kubeconfig;
use sortie::credential::{Engines, Profile, Rules, Source, Surroundings};
use sortie::fault::Chain;
use sortie::limits;

use crate::support::golden;
use crate::support::pki::Authority;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/kubeconfigs");

/// Most memory that one document may make the process grow by, in KiB.
const GROWTH_KIB: u64 = 5 * 1024;

/// Longest time for one document, in a build without optimization on a busy machine.
const LONGEST: Duration = Duration::from_secs(10);

/// Bytes of the file that nobody may try to read whole.
const HUGE_BYTES: u64 = 100 * 1024 * 1024;

/// The files of the corpus, with an authority in the place that is kept for one.
fn written(authority: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let documents = entries.filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        (name, text.replace("@CA@", authority).into_bytes())
    };
    documents.map(read).collect()
}

/// What is too large, or not text, to be kept in a file that people read.
fn made(authority: &str) -> Vec<(&'static str, Vec<u8>)> {
    let good = good(authority);
    let with = |part: &str| [good.as_str(), part].concat().into_bytes();
    let full = |piece: &str| {
        let times = (limits::YAML_BYTES - 64) / piece.len();
        format!("a: [{}]\n", piece.repeat(times)).into_bytes()
    };
    let keys = |range: std::ops::Range<u32>| {
        range.fold(String::new(), |mut text, number| {
            writeln!(text, "k{number}:").unwrap();
            text
        })
    };
    vec![
        (
            "made-100-mb",
            vec![b'a'; usize::try_from(HUGE_BYTES).unwrap()],
        ),
        (
            "made-broken-utf-8",
            with("planted: \u{0}")
                .into_iter()
                .map(|b| if b == 0 { 0xff } else { b })
                .collect(),
        ),
        ("made-byte-order-mark-inside", with("\u{feff}planted: x\n")),
        ("made-control-character", with("planted: \u{7}\n")),
        ("made-deep-flow", "[".repeat(500_000).into_bytes()),
        ("made-deep-flow-maps", "{a: ".repeat(200_000).into_bytes()),
        ("made-deep-block", "- ".repeat(500_000).into_bytes()),
        (
            "made-deep-indentation",
            (0..700)
                .fold(String::new(), |mut text, at| {
                    writeln!(text, "{}a:", " ".repeat(at)).unwrap();
                    text
                })
                .into_bytes(),
        ),
        (
            "made-huge-key",
            format!("{}: x\n", "k".repeat(limits::YAML_BYTES - 64)).into_bytes(),
        ),
        (
            "made-huge-quoted",
            format!(
                "planted: \"{}\"\n",
                "\\x41".repeat(limits::YAML_BYTES / 4 - 32)
            )
            .into_bytes(),
        ),
        (
            "made-huge-scalar",
            format!("planted: {}\n", "v".repeat(limits::YAML_BYTES - 64)).into_bytes(),
        ),
        ("made-many-empty-lists", full("[],")),
        ("made-many-keys", keys(0..90_000).into_bytes()),
        ("made-many-maps", full("{a},")),
        ("made-many-numbers", full("1,")),
        ("made-nul", with("planted: \u{0}\n")),
        (
            "made-one-byte-too-large",
            vec![b'#'; limits::YAML_BYTES + 1],
        ),
        (
            "made-utf-16",
            good.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
    ]
}

fn good(authority: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         contexts: [{{ name: lab, context: {{ cluster: c, user: u }} }}]\n\
         clusters: [{{ name: c, cluster: {{ server: 'https://10.0.0.1', \
         certificate-authority-data: {authority} }} }}]\n\
         users: [{{ name: u, user: {{ token: planted-token }} }}]\n"
    )
}

/// Highest resident memory of this process since it was last forgotten, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    figure.unwrap().parse().unwrap()
}

/// Makes the kernel forget the highest resident memory (proc(5), `clear_refs`).
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Reads one document as if it came from an engine; its refusal and what it took.
fn refusal(bytes: &[u8]) -> (String, u64, Duration) {
    forget_peak();
    let (before, began) = (peak_kib(), Instant::now());
    let read = kubeconfig::read(bytes, None, &Profile::sealed());
    let (took, grown) = (began.elapsed(), peak_kib() - before);
    let text = match read {
        Ok(_) => "ACCEPTED".to_owned(),
        Err(error) => {
            let shown = format!("{} {error:?}", Chain(&error));
            assert!(!shown.to_lowercase().contains("planted"), "{shown}");
            error.to_string()
        }
    };
    (text, grown, took)
}

#[test]
#[ignore = "measures its whole process; run alone by `hostile_kubeconfigs_are_refused_in_bounds`"]
fn each_alone() {
    let authority = STANDARD.encode(Authority::root("lab").pem());
    // What is loaded once, such as tables of the TLS library, is not the documents' doing.
    assert!(kubeconfig::read(good(&authority).as_bytes(), None, &Profile::sealed()).is_ok());
    for good in [
        format!("\u{feff}{}", good(&authority)),
        good(&authority).replace('\n', "\r\n"),
    ] {
        assert_eq!(refusal(good.as_bytes()).0, "ACCEPTED");
    }
    let made = made(&authority).into_iter();
    let all = written(&authority)
        .into_iter()
        .chain(made.map(|(name, bytes)| (name.to_owned(), bytes)));
    let (mut told, mut most, mut longest) = (String::new(), (0, String::new()), Duration::ZERO);
    for (name, bytes) in all {
        let (text, grown, took) = refusal(&bytes);
        writeln!(told, "{name}: {text}").unwrap();
        most = most.max((grown, name));
        longest = longest.max(took);
    }
    println!("kubeconfigs: {} refused", told.lines().count());
    println!(
        "most growth: {} KiB ({}), longest: {longest:?}",
        most.0, most.1
    );
    let accepted: Vec<&str> = told
        .lines()
        .filter(|line| line.ends_with("ACCEPTED"))
        .collect();
    assert_eq!(accepted, Vec::<&str>::new());
    assert!(told.lines().count() >= 60);
    golden::check(&Path::new(FOLDER).join("refused.txt"), &told);
    assert!(most.0 <= GROWTH_KIB, "{most:?}");
    assert!(longest <= LONGEST, "{longest:?}");
    a_huge_file_is_not_read_whole();
}

fn a_huge_file_is_not_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.yaml");
    fs::File::create(&path)
        .unwrap()
        .set_len(HUGE_BYTES)
        .unwrap();
    let source = Source::KubeconfigFile {
        path,
        context: None,
        rules: Rules::default(),
    };
    let engines = Engines::new(Vec::new(), Surroundings::of_system());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    forget_peak();
    let before = peak_kib();
    let (_, message) = runtime
        .block_on(source.resolve(&engines, &clock::system()))
        .unwrap_err();
    assert!(message.contains("is larger than is read"), "{message}");
    assert!(peak_kib() - before <= GROWTH_KIB, "{}", peak_kib() - before);
}

#[test]
fn hostile_kubeconfigs_are_refused_in_bounds() {
    let program = std::env::current_exe().unwrap();
    let test = [
        "--exact",
        "kubeconfigs::each_alone",
        "--ignored",
        "--nocapture",
    ];
    let ran = Command::new(program).args(test).output().unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    println!("{said}");
}
