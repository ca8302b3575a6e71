use super::stores::{PLAIN, engine};
use super::*;

/// An engine that lends, each time under another number, and answers `taken` to what is given back.
async fn lending(taken: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Bench {
    let (lent, given_back) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let next = |count: &AtomicUsize| count.fetch_add(1, Ordering::Relaxed) + 1;
    Bench::bare(move |request| {
        if request.contains("/ui/mounts/") {
            return Reply::json(200, &MOUNT.replace("\"kv\"", "\"database\""));
        }
        if request.starts_with("POST /v1/sys/leases/revoke ") {
            return taken(next(&given_back));
        }
        let id = format!(r#""lease_id":"planted-lease-{}""#, next(&lent));
        Reply::json(200, &PLAIN.replace(r#""lease_id":"""#, &id))
    })
    .await
}

/// What was asked to be taken back, by its number.
fn given_back(bench: &Bench) -> Vec<String> {
    let requests = bench.requests();
    let leases = requests
        .iter()
        .filter_map(|request| request.split_once(r#"{"lease_id":"planted-lease-"#));
    leases
        .map(|(_, number)| number.trim_end_matches("\"}").to_owned())
        .collect()
}

/// Lets the background go on until `done`.
async fn until(done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    let soon = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert!(soon.is_ok());
}

#[tokio::test]
async fn a_lease_is_told_and_its_answer_shows_nothing() {
    let bench = lending(|_| Reply::json(200, "{}")).await;
    let (logged, _guard) = Logged::start();
    let vault = engine(&bench);
    let fetched = vault.fetch(&field("kubeconfig")).await.unwrap();
    let time = fetched.lease.as_ref().map(|lease| lease.time);
    assert_eq!(time, Some(Duration::from_hours(768)));
    assert!(!format!("{vault:?} {fetched:?}").contains("planted"));
    vault.close().await;
    let asked = bench.requests().pop().unwrap();
    assert!(asked.starts_with("POST /v1/sys/leases/revoke "), "{asked}");
    assert!(
        asked.ends_with(r#"{"lease_id":"planted-lease-1"}"#),
        "{asked}"
    );
    assert!(!logged.text().contains("planted"));
}

#[tokio::test]
async fn what_is_over_is_given_back_at_once_and_the_rest_at_the_end() {
    let bench = lending(|_| Reply::json(204, "")).await;
    let vault = engine(&bench);
    let lend = async || vault.fetch(&field("kubeconfig")).await.unwrap();
    let (first, second, third) = (lend().await, lend().await, lend().await);
    drop(second);
    until(|| given_back(&bench) == ["2"]).await;
    // Those that are looked at for the names of their fields are over at once.
    vault.keys(&field("kubeconfig")).await.unwrap();
    until(|| given_back(&bench) == ["2", "4"]).await;
    until(|| format!("{vault:?}").contains("Leases(2)")).await;
    vault.close().await;
    let mut all = given_back(&bench);
    all.sort();
    assert_eq!(all, ["1", "2", "3", "4"]);
    drop((first, third));
    vault.close().await;
    assert_eq!(given_back(&bench).len(), 4);
}

#[tokio::test]
async fn what_is_over_and_not_taken_back_is_told_and_given_back_at_the_end() {
    let bench = lending(|times| match times {
        1 => Reply::json(403, DENIED),
        _ => Reply::json(204, ""),
    })
    .await;
    let (logged, _guard) = Logged::start();
    let vault = engine(&bench);
    drop(vault.fetch(&field("kubeconfig")).await.unwrap());
    until(|| logged.text().contains("leases could not be given back")).await;
    assert_eq!(given_back(&bench), ["1"]);
    // It is not asked for again and again.
    let second = vault.fetch(&field("kubeconfig")).await.unwrap();
    drop(second);
    until(|| given_back(&bench).len() == 2 && format!("{vault:?}").contains("Leases(1)")).await;
    vault.close().await;
    assert_eq!(given_back(&bench), ["1", "2", "1"]);
}

#[tokio::test]
async fn an_engine_that_does_not_take_back_what_is_over_lends_all_the_same() {
    let bench = lending(|_| Reply::Hang).await;
    let vault = engine(&bench);
    for _ in 0..3 {
        drop(vault.fetch(&field("kubeconfig")).await.unwrap());
        until(|| !given_back(&bench).is_empty()).await;
    }
    drop(vault);
    until(|| bench.server.open() == 0).await;
}
