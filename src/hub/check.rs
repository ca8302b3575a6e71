//! Whether a hub could start here: ports, state folder, certificates. Nothing is changed.

use std::net;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Settings;
use super::admin::SOCKET;
use super::backup::AUTHORITY;
use super::own::hosts;
use super::registry::Tables;
use super::start::bind_one;
use super::store::{Store, StoreError};
use crate::clock::SharedClock;
use crate::fault::Chain;
use crate::identity::{Authority, AuthorityError, Ends};
use crate::telemetry::finding::{CHECK_TIMEOUT, Finding, spoken};

/// Life of the root below which it is time to think of the next one.
const ROOT_LEFT: Duration = Duration::from_hours(90 * 24);

/// Looks at everything that a start needs, and tells what it found.
pub async fn check(settings: &Settings, clock: &SharedClock) -> Vec<Finding> {
    let mut findings = vec![names(settings)];
    let listen = &settings.listen;
    for (door, address) in [
        ("data", listen.data),
        ("enrol", listen.enrol),
        ("facade", listen.facade),
        ("health", listen.health),
        ("metrics", listen.metrics),
    ] {
        findings.push(port(door, address));
    }
    let (folder, ttl) = (settings.state_dir.clone(), settings.certificates.hub);
    let now = clock.now();
    // A disk that hangs may not hold the check.
    let looking = tokio::task::spawn_blocking(move || state(&folder, ttl, now));
    match tokio::time::timeout(CHECK_TIMEOUT, looking).await {
        Ok(Ok(found)) => findings.extend(found),
        Ok(Err(_)) | Err(_) => findings.push(Finding::bad(
            "state-dir",
            format!("could not be looked at within {CHECK_TIMEOUT:?}"),
            "look at the disk",
        )),
    }
    findings
}

fn names(settings: &Settings) -> Finding {
    match hosts(&settings.names) {
        Ok(_) => Finding::good("names", settings.names.join(", ")),
        Err(error) => Finding::bad(
            "names",
            error.to_string(),
            "write what agents and clients dial, without a port",
        ),
    }
}

/// Binds a port and lets it go.
fn port(door: &'static str, address: net::SocketAddr) -> Finding {
    let what = format!("listen.{door} {address}");
    match bind_one(door, address) {
        Ok(_) => Finding::good(what, "can be bound"),
        Err(error) => Finding::bad(
            what,
            Chain(&error).to_string(),
            "stop what listens there, or choose another address",
        ),
    }
}

fn state(folder: &Path, hub_ttl: Duration, now: SystemTime) -> Vec<Finding> {
    let mut findings = vec![folder_itself(folder)];
    if !folder.exists() {
        return findings;
    }
    findings.push(store(folder));
    match Authority::inspect(&folder.join(AUTHORITY), now) {
        Ok(Some(ends)) => findings.extend(certificates(ends, hub_ttl, now)),
        Ok(None) => findings.push(Finding::good("certificates", "are made at the first start")),
        Err(error) => {
            let seen = Chain(&error).to_string();
            findings.push(Finding::bad("certificates", seen, of_authority(&error)));
        }
    }
    findings
}

/// What to do about an authority that does not open.
fn of_authority(error: &AuthorityError) -> &'static str {
    match error {
        AuthorityError::File(_) => "let the user that runs the hub read it, and nobody else",
        AuthorityError::NotYetValid { .. } => "set the clock by NTP",
        AuthorityError::Ended { path } if path.ends_with("root.pem") => {
            "make a new authority; every agent has to join anew"
        }
        AuthorityError::Ended { .. } => REPLACE,
        AuthorityError::Content { .. }
        | AuthorityError::Entropy
        | AuthorityError::Key(_)
        | AuthorityError::Sign(_)
        | AuthorityError::Trust(_) => "restore the folder `ca` from a backup",
    }
}

/// What to do about an intermediate that nobody can renew here.
const REPLACE: &str = "put `root.pem` with its key into `ca`, or replace `intermediate.pem`";

fn folder_itself(folder: &Path) -> Finding {
    let what = format!("state-dir {}", folder.display());
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    if let Err(error) = SocketAddr::from_pathname(folder.join(SOCKET)) {
        let seen = format!("its `{SOCKET}` cannot be made: {error}");
        return Finding::bad(what, seen, "choose a folder with a shorter path");
    }
    let Some(present) = absolute.ancestors().find(|place| place.exists()) else {
        return Finding::bad(what, "is nowhere", "choose another folder");
    };
    if !present.is_dir() {
        let seen = format!("`{}` is no folder", present.display());
        return Finding::bad(what, seen, "choose another folder");
    }
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    match rustix::fs::access(present, wanted) {
        Ok(()) if present == absolute => Finding::good(what, "can be written"),
        Ok(()) => Finding::good(what, "is made at the first start"),
        Err(error) => Finding::bad(
            what,
            format!("`{}` cannot be written: {error}", present.display()),
            "give it to the user that runs the hub",
        ),
    }
}

fn store(folder: &Path) -> Finding {
    match Store::inspect(folder) {
        Ok(Some(seen)) => match Tables::read(seen.registry) {
            Ok(_) => Finding::good("store", format!("has format {}", seen.format)),
            Err(error) => {
                let seen = Chain(&error).to_string();
                Finding::bad("store", seen, "use a newer sortie, or restore a backup")
            }
        },
        Ok(None) => Finding::good(
            "store",
            "is made, or repaired after a crash, at the next start",
        ),
        Err(StoreError::InUse { path }) => Finding::bad(
            "store",
            format!("another hub uses `{}`", path.display()),
            "stop it, or give this one a `state-dir` of its own",
        ),
        Err(error) => {
            let seen = Chain(&error).to_string();
            Finding::bad("store", seen, "restore a backup")
        }
    }
}

/// Judges what is left of the certificates of an authority that opens, at `now`.
fn certificates(ends: Ends, hub_ttl: Duration, now: SystemTime) -> Vec<Finding> {
    let left = |end: SystemTime| end.duration_since(now).unwrap_or_default();
    let root = left(ends.root);
    let root = if root < ROOT_LEFT {
        Finding::bad(
            "root certificate",
            format!("ends in {}", spoken(root)),
            "plan a new authority: every agent has to join anew",
        )
    } else {
        Finding::good("root certificate", format!("ends in {}", spoken(root)))
    };
    let Some(intermediate) = ends.intermediate.map(left) else {
        let made = Finding::good("intermediate certificate", "is made at the next start");
        return vec![root, made, hub_certificate(hub_ttl)];
    };
    let ends_in = format!("ends in {}", spoken(intermediate));
    if ends.has_root_key {
        let seen = format!("{ends_in}, renewed here at half of its life");
        let renewed = Finding::good("intermediate certificate", seen);
        return vec![root, renewed, hub_certificate(hub_ttl)];
    }
    let seen = format!("{ends_in}; the root's key is not here to renew it");
    let kept = if ends.soon {
        Finding::bad("intermediate certificate", seen, REPLACE)
    } else {
        Finding::good("intermediate certificate", seen)
    };
    vec![root, kept, hub_certificate(hub_ttl.min(intermediate))]
}

fn hub_certificate(life: Duration) -> Finding {
    let seen = format!("is made at the start, for {}", spoken(life));
    Finding::good("hub certificate", seen)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::super::registry::Registry;
    use super::*;
    use crate::clock::{ManualClock, from_unix_seconds};
    use crate::entropy;

    const DAY: Duration = Duration::from_hours(24);
    const NOW: u64 = 2_000_000_000;

    fn judged(root: u32, intermediate: Option<u32>, has_root_key: bool) -> Vec<(String, bool)> {
        let now = from_unix_seconds(NOW);
        let ends = Ends {
            root: now + DAY * root,
            has_root_key,
            intermediate: intermediate.map(|days| now + DAY * days),
            soon: intermediate.is_some_and(|days| days < 30),
        };
        let findings = certificates(ends, DAY, now);
        findings
            .into_iter()
            .map(|finding| (finding.to_string(), finding.is_good()))
            .collect()
    }

    #[test]
    fn a_young_authority_is_as_it_has_to_be() {
        let found = judged(3650, Some(90), true);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|(_, good)| *good), "{found:?}");
        assert_eq!(
            found[2].0,
            "ok   hub certificate: is made at the start, for 1 d 0 h"
        );
    }

    #[test]
    fn a_root_that_ends_soon_is_told_in_time() {
        let soon = judged(89, Some(40), true);
        assert!(
            soon[0]
                .0
                .starts_with("FAIL root certificate: ends in 89 d 0 h; "),
            "{soon:?}"
        );
    }

    #[test]
    fn an_intermediate_that_nobody_can_renew_is_told_in_the_last_third_of_its_life() {
        assert!(judged(3650, None, true)[1].1);
        assert!(judged(3650, Some(1), true)[1].1);
        for (intermediate, wanted) in [(1, false), (29, false), (30, true)] {
            let found = judged(3650, Some(intermediate), false);
            assert_eq!(found[1].1, wanted, "{found:?}");
        }
    }

    /// Whether a look at the state folder finds it good, and whether the parts in it open.
    fn looked(folder: &Path) -> (bool, bool) {
        let clock: SharedClock = Arc::new(ManualClock::new(from_unix_seconds(NOW)));
        let found = state(folder, DAY, clock.now());
        let opened = Authority::open(
            &folder.join(AUTHORITY),
            "spinnaker.example".parse().unwrap(),
            clock,
            entropy::system(),
        );
        let registry = Store::open(folder).map(Arc::new).map(Registry::open);
        let opens = opened.is_ok() && matches!(registry, Ok(Ok(_)));
        (found.iter().all(Finding::is_good), opens)
    }

    #[test]
    fn a_state_that_is_found_good_opens_and_one_that_is_not_does_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(looked(folder.path()), (true, true));
        assert_eq!(looked(folder.path()), (true, true));
        let ca = folder.path().join(AUTHORITY);
        let set = |mode| std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(mode));
        set(0o750).unwrap();
        assert_eq!(looked(folder.path()), (false, false));
        set(0o700).unwrap();
        assert_eq!(looked(folder.path()), (true, true));
        let root = ca.join("root.pem");
        std::fs::rename(&root, ca.join("elsewhere")).unwrap();
        assert_eq!(looked(folder.path()), (false, false));
        std::fs::rename(ca.join("elsewhere"), &root).unwrap();
        // An entry of a version that writes agents in another way.
        let store = Store::open(folder.path()).unwrap();
        let entry = ("agent/lab".to_owned(), Some(b"7".to_vec()));
        store.write_registry(&[entry]).unwrap();
        drop(store);
        assert_eq!(looked(folder.path()), (false, false));
    }

    #[test]
    fn an_empty_store_left_by_a_full_disk_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(super::super::STORE_FILE), "").unwrap();
        assert_eq!(looked(folder.path()), (true, true));
    }

    #[test]
    fn a_folder_too_deep_for_the_socket_is_told() {
        let deep = Path::new("/tmp").join("deep/".repeat(20));
        let told = folder_itself(&deep).to_string();
        assert!(
            told.starts_with("FAIL ") && told.contains("`admin.sock` cannot be made"),
            "{told}"
        );
    }
}
