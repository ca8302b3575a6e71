use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::*;
use crate::credential::testkit::Logged;
use crate::credential::{Key, Locator};
use crate::retry::pause_unless;
use crate::tasks::Tasks;

struct Bench {
    folder: TempDir,
    engine: Files,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let engine = Files::new(Settings { root }, &*entropy::system());
        Self { folder, engine }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root().join(path), text).unwrap();
    }

    /// Writes these files as a kubelet would: a new folder, and one link that is renamed.
    fn swap(&self, generation: &str, files: &[(&str, &str)]) {
        let root = self.root();
        let folder = format!("..2026_{generation}");
        fs::create_dir(root.join(&folder)).unwrap();
        for (name, text) in files {
            fs::write(root.join(&folder).join(name), text).unwrap();
        }
        let old = fs::read_link(root.join("..data")).ok();
        symlink(&folder, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        for (name, _) in files {
            // There since the first time.
            drop(symlink(format!("..data/{name}"), root.join(name)));
        }
        if let Some(old) = old {
            fs::remove_dir_all(root.join(old)).unwrap();
        }
    }
}

fn reference(path: &str, key: Key) -> Reference {
    Reference {
        profile: None,
        locator: Locator::File {
            path: path.to_owned(),
        },
        key,
        base64: false,
    }
}

fn whole(path: &str) -> Reference {
    reference(path, Key::Whole)
}

fn named(path: &str, key: &str) -> Reference {
    reference(path, Key::Named(key.to_owned()))
}

fn text(fetched: &Fetched) -> String {
    #[expect(clippy::disallowed_methods, reason = "a test compares it")]
    let bytes = fetched.document.expose_secret();
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_file_is_read_whole_or_as_a_key_of_its_folder() {
    let bench = Bench::new();
    fs::create_dir(bench.root().join("team")).unwrap();
    bench.write("team/shop", "planted");
    bench.write("top", "cGxhbnRlZA==\n");
    let read = async |reference: &Reference| bench.engine.fetch(reference).await.unwrap();
    assert_eq!(text(&read(&whole("team/shop")).await), "planted");
    assert_eq!(text(&read(&named("team", "shop")).await), "planted");
    let mut encoded = named("", "top");
    encoded.base64 = true;
    let fetched = read(&encoded).await;
    assert_eq!(text(&fetched), "planted");
    assert!(!format!("{fetched:?} {:?}", bench.engine).contains("planted"));
    let version = fetched.version.unwrap();
    let is_current = async |version: &str| bench.engine.is_current(&encoded, version).await;
    assert_eq!(is_current(&version).await, Ok(Some(true)));
    bench.write("top", "cGxhbnRlZA==\n");
    assert_eq!(is_current(&version).await, Ok(Some(false)));
}

#[tokio::test]
async fn nothing_outside_the_root_is_read() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("outside"), "planted").unwrap();
    symlink("../outside", bench.root().join("link")).unwrap();
    symlink(bench.folder.path(), bench.root().join("away")).unwrap();
    symlink("/etc/passwd", bench.root().join("absolute")).unwrap();
    for (reference, kind) in [
        (whole("../outside"), FetchErrorKind::NotFound),
        (whole("a/../../outside"), FetchErrorKind::NotFound),
        (whole("/etc/passwd"), FetchErrorKind::NotFound),
        (named("", "../outside"), FetchErrorKind::NotFound),
        (named("", ".."), FetchErrorKind::NotFound),
        (whole("link"), FetchErrorKind::Denied),
        (whole("away/outside"), FetchErrorKind::Denied),
        (whole("absolute"), FetchErrorKind::Denied),
    ] {
        let failure = bench.engine.fetch(&reference).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{reference:?}");
    }
    let names = bench.engine.keys(&reference("", Key::Each)).await.unwrap();
    assert_eq!(names, [] as [&str; 0]);
}

#[tokio::test]
async fn what_is_not_there_or_no_file_is_told_apart() {
    let bench = Bench::new();
    fs::create_dir(bench.root().join("team")).unwrap();
    let field = "shop".to_owned();
    let large = "x".repeat(crate::limits::YAML_BYTES + 1);
    bench.write("large", &large);
    bench.write("file", "planted");
    for (reference, kind) in [
        (whole("gone"), FetchErrorKind::NotFound),
        (named("gone", "shop"), FetchErrorKind::NotFound),
        (named("team", "shop"), FetchErrorKind::Invalid { field }),
        (named("file", "shop"), FetchErrorKind::NotFound),
        (whole("team"), FetchErrorKind::Corrupt),
        (whole("large"), FetchErrorKind::Corrupt),
    ] {
        let failure = bench.engine.fetch(&reference).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{reference:?}");
    }
    let pipe = bench.root().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let failure = bench.engine.fetch(&whole("pipe")).await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Corrupt);
    let each = bench.engine.keys(&reference("file", Key::Each)).await;
    assert_eq!(each.unwrap_err().kind, FetchErrorKind::Corrupt);
    assert_eq!(bench.engine.probe().await, Ok(()));
    fs::remove_dir_all(bench.root()).unwrap();
    let failure = bench.engine.probe().await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
    let failure = bench.engine.fetch(&whole("file")).await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
}

#[tokio::test]
async fn the_files_of_a_volume_are_its_keys_and_a_swap_is_seen_within_two_seconds() {
    let places = Places::default();
    let bench = Bench::new();
    bench.swap("one", &[("shop", "planted-1"), ("lab", "planted-2")]);
    bench.write(".hidden", "planted");
    fs::create_dir(bench.root().join("folder")).unwrap();
    let each = reference("", Key::Each);
    assert_eq!(bench.engine.keys(&each).await.unwrap(), ["lab", "shop"]);
    let shop = named("", "shop");
    let fetched = bench.engine.fetch(&shop).await.unwrap();
    assert_eq!(text(&fetched), "planted-1");
    let names = bench.engine.version(&each).await.unwrap().unwrap();

    let version = fetched.version.unwrap();
    let swapped = async {
        bench.swap(
            "two",
            &[("shop", "planted-3"), ("lab", "planted-2"), ("new", "x")],
        );
        Instant::now()
    };
    let shop_changed = bench.engine.changed(&shop, &version, &places).unwrap();
    let names_changed = bench.engine.changed(&each, &names, &places).unwrap();
    let (began, (), ()) = tokio::join!(swapped, shop_changed, names_changed);
    assert!(began.elapsed() < Duration::from_secs(2));
    let fetched = bench.engine.fetch(&shop).await.unwrap();
    assert_eq!(text(&fetched), "planted-3");
    let keys = bench.engine.keys(&each).await.unwrap();
    assert_eq!(keys, ["lab", "new", "shop"]);
}

#[tokio::test]
async fn an_edit_in_place_and_a_removal_are_seen_within_two_seconds() {
    let places = Places::default();
    let bench = Bench::new();
    bench.write("shop", "planted-1");
    let reference = whole("shop");
    let steps: [&dyn Fn(); 3] = [
        &|| bench.write("shop", "planted-2"),
        &|| {
            // The same size, and a time of modification that was set back.
            let path = bench.root().join("shop");
            let before = fs::metadata(&path).unwrap().modified().unwrap();
            bench.write("shop", "planted-3");
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(before).unwrap();
        },
        &|| fs::remove_file(bench.root().join("shop")).unwrap(),
    ];
    for change in steps {
        let version = bench
            .engine
            .fetch(&reference)
            .await
            .unwrap()
            .version
            .unwrap();
        let changed = bench.engine.changed(&reference, &version, &places).unwrap();
        change();
        timeout(Duration::from_secs(2), changed).await.unwrap();
    }
    let failure = bench.engine.fetch(&reference).await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_that_stays_as_it_is_does_not_change() {
    let places = Places::default();
    let bench = Bench::new();
    bench.write("shop", "planted");
    let version = bench.engine.fetch(&whole("shop")).await.unwrap().version;
    let reference = whole("shop");
    let version = version.unwrap();
    let changed = bench.engine.changed(&reference, &version, &places).unwrap();
    assert!(timeout(Duration::from_secs(3), changed).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_never_seen_half_written() {
    let bench = Bench::new();
    let whole_text = |letter: char| letter.to_string().repeat(200_000);
    bench.write("shop", &whole_text('a'));
    let path = bench.root().join("shop");
    let tasks = Tasks::new();
    // Writes a piece, a moment later the next one: longer than it takes to read, shorter than it
    // takes to count as still.
    tasks.spawn("writer", |stop| async move {
        for letter in "bcdefgh".chars().cycle() {
            let mut file = fs::File::create(&path).unwrap();
            for piece in whole_text(letter).as_bytes().chunks(50_000) {
                file.write_all(piece).unwrap();
                if !pause_unless(&stop, Duration::from_millis(10)).await {
                    return;
                }
            }
            drop(file);
            if !pause_unless(&stop, Duration::from_millis(200)).await {
                return;
            }
        }
    });
    for _ in 0..30 {
        let fetched = bench.engine.fetch(&whole("shop")).await.unwrap();
        let text = text(&fetched);
        let first = text.chars().next().unwrap();
        assert_eq!(text.len(), 200_000);
        assert!(text.chars().all(|letter| letter == first));
    }
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_swapped_all_the_time_is_always_there_and_whole() {
    let bench = Arc::new(Bench::new());
    let file = |number: u32| format!("{number:03}").repeat(1000);
    bench.swap("0", &[("shop", &file(0))]);
    let tasks = Tasks::new();
    let swapping = Arc::clone(&bench);
    tasks.spawn("kubelet", move |stop| async move {
        for number in 1..1000 {
            swapping.swap(&number.to_string(), &[("shop", &file(number))]);
            if !pause_unless(&stop, Duration::from_millis(120)).await {
                return;
            }
        }
    });
    for _ in 0..30 {
        let fetched = bench.engine.fetch(&named("", "shop")).await.unwrap();
        let text = text(&fetched);
        assert_eq!(text.len(), 3000);
        assert!(
            text.as_bytes()
                .chunks(3)
                .all(|piece| piece == &text.as_bytes()[..3])
        );
    }
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_file_that_never_keeps_still_is_given_up() {
    let bench = Bench::new();
    bench.write("shop", "planted");
    let path = bench.root().join("shop");
    let tasks = Tasks::new();
    tasks.spawn("writer", |stop| async move {
        while pause_unless(&stop, Duration::from_millis(5)).await {
            fs::write(&path, "planted").unwrap();
        }
    });
    let failure = bench.engine.fetch(&whole("shop")).await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
    assert!(failure.hint.contains("keeps changing"));
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_file_that_others_may_read_is_told_once_and_nothing_planted_is_logged() {
    let (logged, _guard) = Logged::start();
    let bench = Bench::new();
    bench.write("shop", "planted");
    let set = |mode| {
        let path = bench.root().join("shop");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o600);
    bench.engine.fetch(&whole("shop")).await.unwrap();
    assert!(!logged.text().contains("every user"));
    set(0o644);
    for _ in 0..2 {
        bench.engine.fetch(&whole("shop")).await.unwrap();
    }
    let text = logged.text();
    assert_eq!(text.matches("every user").count(), 1);
    assert!(!text.contains("planted"), "{text}");
}
