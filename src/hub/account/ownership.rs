//! Who feeds an account, and where its streams go on.

use std::collections::HashSet;

use super::lane::Lane;
use super::offered::keyed;
use super::{Account, Owner, Refusal, State};
use crate::entropy;
use crate::resource::ResourceVersion;
use crate::stream::Receiver;
use crate::view::StreamKey;
use crate::wire::v1;

impl Account {
    /// Gives the account to `owner`, whose feed says where it stands, and tells it where each
    /// stream goes on.
    pub(in crate::hub) fn attach(
        &self,
        owner: Owner,
        attach: &v1::Attach,
    ) -> Result<Vec<v1::StreamResume>, Refusal> {
        let mut state = self.lock();
        if let Some(present) = &state.owner {
            let same = present.agent == owner.agent && present.instance == owner.instance;
            if same && owner.generation < present.generation {
                return Err(Refusal::Fenced(
                    "a newer connection carries the account".into(),
                ));
            }
            if !same {
                let holder = &present.agent;
                return Err(Refusal::Fenced(format!(
                    "another instance of `{holder}` owns it"
                )));
            }
        }
        if !state.cluster_uid.is_empty() && state.cluster_uid != attach.cluster_uid {
            return Err(Refusal::ClusterChanged);
        }
        // A refusal changes nothing.
        let offered = keyed(0, self.view.remembered(), &attach.streams)?;
        let other_rules = state.policy_digest != attach.policy_digest.as_ref();
        state.cluster_uid.clone_from(&attach.cluster_uid);
        state.policy_digest = attach.policy_digest.to_vec();
        state.owner = Some(owner);
        state.numbers.clear();
        if other_rules {
            for key in self.view.streams() {
                self.view.purge(&key);
            }
            state.lanes.clear();
        }
        let resumes = self.add_streams(&mut state, offered);
        let offered: HashSet<&StreamKey> = state.numbers.values().collect();
        let gone: Vec<StreamKey> = self
            .view
            .streams()
            .into_iter()
            .filter(|key| !offered.contains(key))
            .collect();
        for key in gone {
            self.view.detach(&key);
            state.lanes.remove(&key);
        }
        self.tell_absent(&state);
        drop(state);
        Ok(resumes)
    }

    /// Takes the streams that came or went within an attached feed.
    pub(in crate::hub) fn change_streams(
        &self,
        owner: &Owner,
        streams: &v1::Streams,
    ) -> Result<Vec<v1::StreamResume>, Refusal> {
        let mut state = self.lock();
        if state.owner.as_ref() != Some(owner) {
            return Err(Refusal::Fenced("another feed owns the account".into()));
        }
        let offered = keyed(state.lanes.len(), self.view.remembered(), &streams.attach)?;
        for number in &streams.detach {
            if let Some(key) = state.numbers.remove(number) {
                self.view.detach(&key);
                state.lanes.remove(&key);
            }
        }
        let resumes = self.add_streams(&mut state, offered);
        self.tell_absent(&state);
        Ok(resumes)
    }

    fn add_streams(
        &self,
        state: &mut State,
        offered: Vec<(StreamKey, &v1::StreamState)>,
    ) -> Vec<v1::StreamResume> {
        let mut resumes = Vec::with_capacity(offered.len());
        for (key, offer) in offered {
            self.view.attach(&key, &offer.kind);
            self.view.mark(&key, ResourceVersion(offer.mark));
            resumes.push(self.resume(state, &key, offer));
            state.numbers.insert(offer.stream, key);
        }
        resumes
    }

    fn resume(
        &self,
        state: &mut State,
        key: &StreamKey,
        offer: &v1::StreamState,
    ) -> v1::StreamResume {
        if let Some(lane) = state.lanes.get_mut(key)
            && lane.receiver.continues(offer.epoch, offer.first_sequence)
        {
            state.counts.resumed += 1;
            return v1::StreamResume {
                stream: offer.stream,
                epoch: lane.receiver.epoch,
                applied: lane.receiver.applied,
                resource_version: 0,
            };
        }
        self.new_epoch(state, key, offer.stream)
    }

    /// Starts a stream over: from the version that is known, or with a snapshot.
    pub(super) fn new_epoch(
        &self,
        state: &mut State,
        key: &StreamKey,
        stream: u32,
    ) -> v1::StreamResume {
        let epoch = u64::from_le_bytes(entropy::bytes(&*self.entropy)) | 1;
        let mut lane = Lane::new(Receiver::new(epoch));
        // Until the agent says otherwise.
        lane.absent = state.lanes.get(key).is_some_and(|lane| lane.absent);
        state.lanes.insert(key.clone(), lane);
        self.view.snapshot_abandoned(key);
        let known = self.view.version(key).filter(|_| self.view.complete(key));
        state.counts.resumed += u64::from(known.is_some());
        let resource_version = known.map_or(0, |version| version.0);
        v1::StreamResume {
            stream,
            epoch,
            applied: 0,
            resource_version,
        }
    }

    /// Takes the account from the connections of `instance`, because it is gone; false if another
    /// feed owns it.
    pub(in crate::hub) fn release(&self, agent: &str, instance: [u8; 16]) -> bool {
        let mut state = self.lock();
        let held = state
            .owner
            .as_ref()
            .is_some_and(|owner| owner.agent == agent && owner.instance == instance);
        if held {
            state.owner = None;
            drop(state);
            for key in self.view.streams() {
                self.view.interrupted(&key);
            }
        }
        held
    }
}
