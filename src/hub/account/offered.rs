//! The streams that a feed offers, checked.

use std::collections::HashSet;

use super::Refusal;
use crate::limits;
use crate::resource::{Gvr, Scope};
use crate::view::StreamKey;
use crate::wire::v1;

/// Kinds and streams of one account that were there and are remembered, besides those that are there.
const REMEMBERED: usize = 4 * limits::STREAMS_PER_ACCOUNT;

/// The streams that are offered, by their keys; refused as a whole if one has none, or if they are
/// too many with those `present`, or with what is `remembered` of others.
pub(super) fn keyed(
    present: usize,
    remembered: usize,
    offered: &[v1::StreamState],
) -> Result<Vec<(StreamKey, &v1::StreamState)>, Refusal> {
    if present + offered.len() > limits::STREAMS_PER_ACCOUNT {
        return Err(Refusal::Fenced("too many streams".into()));
    }
    if remembered + offered.len() > REMEMBERED {
        return Err(Refusal::Fenced("too many streams that come and go".into()));
    }
    let numbers: HashSet<u32> = offered.iter().map(|offer| offer.stream).collect();
    if numbers.len() < offered.len() {
        return Err(Refusal::Fenced("two streams of one number".into()));
    }
    let keyed = offered.iter().map(|offer| Some((key_of(offer)?, offer)));
    let keyed: Option<Vec<_>> = keyed.collect();
    keyed.ok_or_else(|| {
        Refusal::Fenced(
            "a stream without resource or scope, or with one that nothing can have".into(),
        )
    })
}

fn key_of(offer: &v1::StreamState) -> Option<StreamKey> {
    let gvr = offer.resource.as_ref()?;
    let namespace = match offer.scope.as_ref()?.scope.as_ref()? {
        v1::scope::Scope::Cluster(_) => None,
        v1::scope::Scope::Namespace(namespace) => Some(namespace),
    };
    let texts = [&gvr.group, &gvr.version, &gvr.resource, &offer.kind];
    let mut texts = texts.into_iter().chain(namespace);
    if texts.any(|text| text.len() > limits::IDENTITY_BYTES) {
        return None;
    }
    let scope = namespace.map_or(Scope::Cluster, |name| Scope::Namespace(name.clone()));
    Some(StreamKey {
        gvr: Gvr::new(&gvr.group, &gvr.version, &gvr.resource),
        scope,
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::batches::PARTS_BYTES;
    use super::super::{Account, Outcome, Owner, Surface};
    use super::*;
    use crate::{clock, entropy};

    fn account() -> Account {
        let (clock, entropy) = (clock::system(), entropy::system());
        Account::new("shop", "00", Surface::default(), clock, entropy)
    }

    fn owner() -> Owner {
        Owner {
            agent: "a".into(),
            instance: [1; 16],
            generation: 1,
        }
    }

    /// Streams of `resource` in the namespaces of these numbers.
    fn streams(resource: &str, namespaces: std::ops::Range<u32>) -> Vec<v1::StreamState> {
        let stream = |number: u32| {
            let namespace = v1::scope::Scope::Namespace(format!("n{number}"));
            v1::StreamState {
                stream: number,
                resource: Some(v1::Gvr {
                    group: String::new(),
                    version: "v1".into(),
                    resource: resource.into(),
                }),
                kind: "Pod".into(),
                scope: Some(v1::Scope {
                    scope: Some(namespace),
                }),
                ..v1::StreamState::default()
            }
        };
        namespaces.map(stream).collect()
    }

    fn attach(
        account: &Account,
        streams: Vec<v1::StreamState>,
    ) -> Result<Vec<v1::StreamResume>, Refusal> {
        let attach = v1::Attach {
            cluster_uid: "cluster-1".into(),
            streams,
            ..v1::Attach::default()
        };
        account.attach(owner(), &attach)
    }

    #[test]
    fn names_that_nothing_can_have_are_refused() {
        let account = account();
        let long = "x".repeat(limits::IDENTITY_BYTES + 1);
        attach(&account, streams(&long, 0..1)).unwrap_err();
        let mut of_long_kind = streams("pods", 0..1);
        of_long_kind[0].kind.clone_from(&long);
        attach(&account, of_long_kind).unwrap_err();
        let mut of_long_namespace = streams("pods", 0..1);
        let namespace = v1::scope::Scope::Namespace(long);
        of_long_namespace[0].scope = Some(v1::Scope {
            scope: Some(namespace),
        });
        attach(&account, of_long_namespace).unwrap_err();
        attach(&account, streams("pods", 0..1)).unwrap();
    }

    #[test]
    fn streams_that_come_and_go_are_remembered_up_to_a_bound() {
        let account = account();
        let most = u32::try_from(limits::STREAMS_PER_ACCOUNT).unwrap();
        let fresh = |round: u32| streams("pods", round * most..(round + 1) * most);
        for round in 0..4 {
            attach(&account, fresh(round)).unwrap();
        }
        attach(&account, fresh(4)).unwrap_err();
        // The store has heard of it.
        account.changes();
        attach(&account, fresh(4)).unwrap();
        let refused = (0..20).any(|round| {
            let every = (0..1000).flat_map(|at| {
                let number = round * 1000 + at;
                streams(&format!("kind-{number}"), number..number + 1)
            });
            let refused = attach(&account, every.collect()).is_err();
            account.changes();
            refused
        });
        assert!(refused);
    }

    #[test]
    fn objects_under_way_in_many_streams_are_bounded_together() {
        const PART: usize = 60_000;
        let account = account();
        let resumes = attach(&account, streams("pods", 0..20)).unwrap();
        let part = v1::ObjectPart {
            bytes: vec![b' '; PART].into(),
            ..v1::ObjectPart::default()
        };
        let event = v1::Event {
            event: Some(v1::event::Event::Part(part)),
        };
        let events = vec![event];
        let payload = v1::Events { events }.encode_to_vec();
        let parts = (0..).flat_map(|round| resumes.iter().map(move |resume| (round, resume)));
        let broken = parts.enumerate().find_map(|(at, (round, resume))| {
            let batch = v1::Batch {
                stream: resume.stream,
                epoch: resume.epoch,
                first_sequence: round + 1,
                count: 1,
                compression: v1::Compression::None.into(),
                inflated_bytes: u32::try_from(payload.len()).unwrap(),
                payload: payload.clone().into(),
                ..v1::Batch::default()
            };
            match account.apply(&owner(), &batch) {
                Outcome::Acknowledge(_) => None,
                other => Some((at, other)),
            }
        });
        let (at, why) = broken.unwrap();
        assert_eq!(at, PARTS_BYTES / PART, "{why:?}");
        let kept = account.lock().bytes_of_parts();
        assert!(
            kept < PARTS_BYTES - 50 * PART,
            "what ended it is dropped: {kept}"
        );
    }
}
