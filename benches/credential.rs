//! How long it takes to have a credential that is known already, and its header.
//!
//! `cargo bench --bench credential` has 1,000 kubeconfigs in a folder, each read again every second,
//! and asks for them one after the other and from 64 tasks at once. The bar is for the slowest of a
//! hundred: it holds beside the keepers.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a benchmark stops at the first surprise, prints its figures, measures real time and owns its tasks"
)]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sortie::credential::{
    EngineSettings, Engines, MAX_STALE, Reference, Rules, Settings, Source, Store, Surroundings,
    file,
};
use sortie::tasks::Tasks;
use sortie::{clock, entropy};
use tempfile::TempDir;

/// Kubeconfigs that are kept.
const SOURCES: usize = 1_000;

/// Times that one is asked for, in all.
const HITS: usize = 320_000;

/// Tasks that ask at once.
const TASKS: usize = 64;

/// How often each kubeconfig is read again.
const REFRESH: Duration = Duration::from_secs(1);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let folder = TempDir::new().expect("a folder");
        let sources = write(&folder);
        let tasks = Tasks::new();
        let store = Arc::new(store(&folder, tasks.clone()));
        let mut followed = Vec::new();
        for source in &*sources {
            followed.push(store.follow(source));
        }
        for source in &*sources {
            store.get(source).await.expect("a kubeconfig");
        }
        println!("{SOURCES} sources, each read again every {REFRESH:?}; microseconds");
        println!(
            "{:<28}{:>10}{:>10}{:>10}{:>10}",
            "", "p50", "p99", "max", "bar, p99"
        );
        tell("one after the other", hits(&store, &sources, 0, HITS).await);
        let mut asking = Vec::new();
        for first in 0..TASKS {
            let (store, sources) = (Arc::clone(&store), Arc::clone(&sources));
            asking.push(tokio::spawn(async move {
                hits(&store, &sources, first, HITS / TASKS).await
            }));
        }
        let mut all = Vec::new();
        for task in asking {
            all.extend(task.await.expect("it does not panic"));
        }
        tell("from 64 tasks at once", all);
        drop(followed);
        assert!(tasks.drain(Duration::from_secs(5)).await, "all keepers end");
    });
}

/// A folder with kubeconfigs, and where they are found.
fn write(folder: &TempDir) -> Arc<[Source]> {
    let authority = rcgen::generate_simple_self_signed(vec!["authority".to_owned()]);
    let authority = STANDARD.encode(authority.expect("a certificate").cert.pem());
    let sources = (0..SOURCES).map(|number| {
        let name = format!("cluster-{number}");
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://{name}.example.com', \
             certificate-authority-data: {authority}}}}}]\n\
             users: [{{name: u, user: {{token: token-{number}}}}}]\n"
        );
        fs::write(folder.path().join(&name), text).expect("it is written");
        let reference = Reference::parse(&format!("sec+file://files/{name}"));
        Source::Secret {
            reference: reference.expect("a reference"),
            context: None,
            rules: Rules::default(),
            max_stale: None,
        }
    });
    sources.collect()
}

fn store(folder: &TempDir, tasks: Tasks) -> Store {
    let engines = Engines::new(
        vec![Settings {
            name: "files".to_owned(),
            default: false,
            refresh: REFRESH,
            max_stale: MAX_STALE,
            engine: EngineSettings::File(file::Settings {
                root: folder.path().to_owned(),
            }),
        }],
        Surroundings::of_system(),
    );
    Store::new(Arc::new(engines), clock::system(), entropy::system(), tasks)
}

/// The time of each hit, in microseconds.
async fn hits(store: &Store, sources: &[Source], first: usize, count: usize) -> Vec<f64> {
    let mut times = Vec::with_capacity(count);
    let turn = sources.iter().cycle().skip(first * 7);
    for source in turn.take(count) {
        let start = Instant::now();
        let credential = store.get(source).await.expect("it is known");
        let header = credential.auth().header().await.expect("it can be made");
        times.push(start.elapsed().as_secs_f64() * 1e6);
        assert!(header.is_some(), "a token goes with every request");
    }
    times
}

fn tell(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get((times.len() - 1) * share / 100).copied();
    let [middle, slow, slowest] = [50, 99, 100].map(|share| at(share).expect("there are hits"));
    println!(
        "{what:<28}{middle:>10.2}{slow:>10.2}{slowest:>10.1}{:>10}",
        50
    );
}
