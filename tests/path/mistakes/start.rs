//! What keeps a hub or an agent from starting, and a command from reaching its hub.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use redb::{Database, TableDefinition};
use sortie::tasks::Tasks;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::process::Command;

use super::page::{Page, compare};
use crate::support::kubectl::Ran;
use crate::support::matrix::FULL_DISK;
use crate::support::sortie::{Sortie, program, run};
use crate::support::stand::{self, hub_yaml};

/// The user `nobody` of every Linux.
const NOBODY: u32 = 65534;

/// The folder of one mistake, that its configuration lies in.
fn folder() -> TempDir {
    let folder = TempDir::with_prefix("sortie-mistake-").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Writes `hub.yaml` into `folder`, and runs it to its end.
async fn start_hub(name: &'static str, folder: &Path, yaml: &str) -> Page {
    fs::write(folder.join("hub.yaml"), yaml).unwrap();
    let path = folder.join("hub.yaml").display().to_string();
    let ran = run(&["hub", "--config", &path], "").await;
    let page = Page::new(name).within(folder);
    page.ended("sortie hub --config hub.yaml", ran)
}

/// Runs the program as somebody who may do nothing here; where the tests run as nobody special,
/// modes are enough for that.
async fn run_as_stranger(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = if rustix::process::geteuid().is_root() {
        // What was built may lie where only root can go.
        let reachable = folder.join("sortie");
        fs::copy(program(), &reachable).unwrap();
        let mut command = Command::new(reachable);
        command.uid(NOBODY).gid(NOBODY);
        command
    } else {
        Command::new(program())
    };
    let output = command.args(arguments).kill_on_drop(true).output().await;
    output.unwrap().into()
}

async fn unwritable_folder() -> Page {
    let folder = folder();
    let path = folder.path().join("hub.yaml");
    fs::write(&path, hub_yaml(folder.path(), "24h")).unwrap();
    let path = path.display().to_string();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
    let ran = run_as_stranger(folder.path(), &["hub", "--config", &path]).await;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let page = Page::new("state-folder-unwritable").within(folder.path());
    page.ended("sortie hub --config hub.yaml", ran)
}

async fn newer_format() -> Page {
    let mut hub = Sortie::hub(|folder| hub_yaml(folder, "24h"));
    hub.ready().await;
    assert_eq!(hub.stop().await, 0);
    {
        let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
        let store = Database::open(hub.folder().join("state/sortie.redb")).unwrap();
        let transaction = store.begin_write().unwrap();
        let mut table = transaction.open_table(meta).unwrap();
        table.insert("format", 7).unwrap();
        drop(table);
        transaction.commit().unwrap();
    }
    let yaml = hub_yaml(hub.folder(), "24h");
    start_hub("state-folder-newer", hub.folder(), &yaml).await
}

async fn wrong_modes() -> Page {
    let mut hub = Sortie::hub(|folder| hub_yaml(folder, "24h"));
    hub.ready().await;
    assert_eq!(hub.stop().await, 0);
    let ca = hub.folder().join("state/ca");
    fs::set_permissions(&ca, Permissions::from_mode(0o755)).unwrap();
    let yaml = hub_yaml(hub.folder(), "24h");
    start_hub("ca-modes", hub.folder(), &yaml).await
}

/// A disk that is full before the first start damages nothing: with room, the same folder works.
async fn full_disk() -> Page {
    let folder = folder();
    let path = folder.path().join("hub.yaml");
    fs::write(&path, hub_yaml(folder.path(), "24h")).unwrap();
    // In blocks of 512 bytes, as POSIX has it.
    let script = format!("ulimit -f {}; exec \"$@\"", FULL_DISK / 512);
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(program());
    shell.args(["hub", "--config"]).arg(&path);
    let ran = shell.kill_on_drop(true).output().await.unwrap().into();
    let page = Page::new("disk-full").within(folder.path());
    let page = page.ended("sortie hub --config hub.yaml", ran);
    let mut hub = Sortie::hub(|_own| hub_yaml(folder.path(), "24h"));
    hub.ready().await;
    assert_eq!(hub.stop().await, 0);
    page
}

/// Asks a socket that is none of a hub, or none at all.
async fn ask(name: &'static str, prepare: impl AsyncFn(&Path, &Tasks)) -> Page {
    let folder = folder();
    let socket = folder.path().join("admin.sock");
    let tasks = Tasks::new();
    prepare(&socket, &tasks).await;
    let path = socket.display().to_string();
    let ran = run(&["--hub", &path, "get", "accounts"], "").await;
    let page = Page::new(name).within(folder.path());
    page.ran("sortie --hub admin.sock get accounts", &ran)
}

/// Something that listens, and says what no hub says.
async fn not_a_hub(socket: &Path, tasks: &Tasks) {
    let listener = UnixListener::bind(socket).unwrap();
    tasks.spawn("not-a-hub", async move |_stop| {
        let (mut connection, _peer) = listener.accept().await.unwrap();
        let mut asked = [0; 64];
        let read = connection.read(&mut asked).await.unwrap();
        assert!(read < asked.len(), "the whole question was read");
        connection.write_all(b"220 smtp ready\r\n").await.unwrap();
    });
}

/// What a running hub keeps others from, and what it is asked in vain.
async fn beside_a_hub() -> Vec<Page> {
    let hub = stand::hub("24h").await;
    let data = hub.address("data").await;
    let taken = folder();
    let yaml =
        hub_yaml(taken.path(), "24h").replace("data: \"127.0.0.1:0", &format!("data: \"{data}"));
    let port = start_hub("port-taken", taken.path(), &yaml).await;

    let agent = folder();
    let path = agent.path().join("agent.yaml");
    let health = hub.address("health").await;
    let pin = "0".repeat(64);
    let yaml = format!(
        "name: lab\nlisten: {{ health: \"{health}\" }}\n\
         hub: {{ data: \"hub:9091\", enrol: \"hub:9092\" }}\n\
         identity: {{ trust: {{ root-spki-sha256: \"{pin}\" }}, \
         join: {{ method: kubernetes, token-file: token }} }}\n\
         accounts: [{{ name: lab, credential: {{ kubeconfig-file: lab.yaml }} }}]\n"
    );
    fs::write(&path, yaml).unwrap();
    let path = path.display().to_string();
    let ran = run(&["agent", "--config", &path], "").await;
    let agent_port = Page::new("port-taken-agent").ended("sortie agent --config agent.yaml", ran);

    let yaml = hub_yaml(hub.folder(), "24h");
    let in_use = start_hub("state-folder-in-use", hub.folder(), &yaml).await;

    let socket = hub.folder().join("state/admin.sock");
    let asked = async |name, line: &str| {
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        Page::new(name).ran(line, &hub.command(&words).await)
    };
    let unknown = [
        asked("unknown-account", "sortie get accounts shop").await,
        asked("approve-unknown-account", "sortie account approve shop").await,
        asked("revoke-unknown-agent", "sortie revoke agent lab").await,
        asked("kubeconfig-of-nobody", "sortie kubeconfig lab --client me").await,
    ];
    let stranger = folder();
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).unwrap();
    let path = socket.display().to_string();
    let ran = run_as_stranger(stranger.path(), &["--hub", &path, "get", "accounts"]).await;
    let refused = Page::new("socket-permission").within(socket.parent().unwrap());
    let refused = refused.ran("sortie --hub admin.sock get accounts", &ran);
    [port, agent_port, in_use, refused]
        .into_iter()
        .chain(unknown)
        .collect()
}

#[tokio::test]
async fn what_keeps_a_hub_from_starting_and_a_command_from_reaching_it() {
    let (beside, unwritable, newer, modes, full, missing, other) = tokio::join!(
        beside_a_hub(),
        unwritable_folder(),
        newer_format(),
        wrong_modes(),
        full_disk(),
        ask("socket-missing", async |_socket, _tasks| {}),
        ask("socket-of-another", not_a_hub),
    );
    let mut pages = vec![unwritable, newer, modes, full, missing, other];
    pages.extend(beside);
    compare("start", &pages);
}
