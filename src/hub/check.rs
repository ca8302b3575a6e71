//! Whether a hub could start here: ports, state folder, certificates. Nothing is changed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Settings;
use super::own::hosts;
use super::start::bind_one;
use super::store::{Store, StoreError};
use crate::clock::SharedClock;
use crate::fault::Chain;
use crate::identity::{Authority, Ends};
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
fn port(door: &'static str, address: SocketAddr) -> Finding {
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
    match Authority::inspect(&folder.join("ca")) {
        Ok(Some(ends)) => findings.extend(certificates(ends, hub_ttl, now)),
        Ok(None) => findings.push(Finding::good("certificates", "are made at the first start")),
        Err(error) => findings.push(Finding::bad(
            "certificates",
            Chain(&error).to_string(),
            "restore the folder `ca` from a backup",
        )),
    }
    findings
}

fn folder_itself(folder: &Path) -> Finding {
    let what = format!("state-dir {}", folder.display());
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
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
        Ok(Some(format)) => Finding::good("store", format!("has format {format}")),
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

/// Judges what is left of the certificates at `now`.
fn certificates(ends: Ends, hub_ttl: Duration, now: SystemTime) -> Vec<Finding> {
    let left = |end: SystemTime| end.duration_since(now).unwrap_or_default();
    let root = left(ends.root);
    let mut findings = Vec::new();
    findings.push(match root {
        Duration::ZERO => Finding::bad(
            "root certificate",
            "has ended",
            "make a new authority; every agent has to join anew",
        ),
        left if left < ROOT_LEFT => Finding::bad(
            "root certificate",
            format!("ends in {}", spoken(left)),
            "plan a new authority: every agent has to join anew",
        ),
        left => Finding::good("root certificate", format!("ends in {}", spoken(left))),
    });
    let renewed = ends.has_root_key && !root.is_zero();
    let intermediate = ends.intermediate.map(left).unwrap_or_default();
    let replace = "put `root.pem` with its key into `ca`, or replace `intermediate.pem`";
    findings.push(match (intermediate, renewed) {
        (_, true) => Finding::good(
            "intermediate certificate",
            format!(
                "ends in {}, renewed here at half of its life",
                spoken(intermediate)
            ),
        ),
        (Duration::ZERO, false) => Finding::bad(
            "intermediate certificate",
            "is missing or has ended, and the root's key is not here",
            replace,
        ),
        (left, false) if left < hub_ttl => Finding::bad(
            "intermediate certificate",
            format!("ends in {}, before what it would sign", spoken(left)),
            replace,
        ),
        (left, false) => Finding::good(
            "intermediate certificate",
            format!(
                "ends in {}; the root's key is not here to renew it",
                spoken(left)
            ),
        ),
    });
    if renewed || !intermediate.is_zero() {
        let life = if renewed {
            hub_ttl
        } else {
            hub_ttl.min(intermediate)
        };
        let seen = format!("is made at the start, for {}", spoken(life));
        findings.push(Finding::good("hub certificate", seen));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_unix_seconds;

    const DAY: Duration = Duration::from_hours(24);

    fn judged(root: u32, intermediate: Option<u32>, has_root_key: bool) -> Vec<(String, bool)> {
        let now = from_unix_seconds(2_000_000_000);
        let ends = Ends {
            root: now + DAY * root,
            has_root_key,
            intermediate: intermediate.map(|days| now + DAY * days),
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
    fn a_root_that_ends_soon_is_told_in_time_and_one_that_has_ended_as_such() {
        let soon = judged(89, Some(40), true);
        assert!(
            soon[0]
                .0
                .starts_with("FAIL root certificate: ends in 89 d 0 h; "),
            "{soon:?}"
        );
        let ended = judged(0, Some(40), true);
        assert!(
            ended[0].0.starts_with("FAIL root certificate: has ended; "),
            "{ended:?}"
        );
    }

    #[test]
    fn an_intermediate_that_nobody_can_renew_has_to_outlive_what_it_signs() {
        assert!(judged(3650, None, true)[1].1);
        for (intermediate, wanted) in [(None, false), (Some(0), false), (Some(2), true)] {
            let found = judged(3650, intermediate, false);
            assert_eq!(found[1].1, wanted, "{found:?}");
        }
    }
}
