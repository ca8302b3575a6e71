//! Batches from a peer: as protobuf, and the payload by itself in each compression.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use sortie::limits::BATCH_INFLATED_BYTES;
use sortie::stream::open_batch;
use sortie::wire::v1;

fn check(batch: &v1::Batch) {
    if let Ok(events) = open_batch(batch) {
        assert_eq!(events.len(), batch.count as usize);
        assert!(batch.inflated_bytes as usize <= BATCH_INFLATED_BYTES);
    }
}

fuzz_target!(|input: &[u8]| {
    if let Ok(batch) = v1::Batch::decode(input) {
        check(&batch);
    }
    let Some((head, payload)) = input.split_first_chunk::<5>() else {
        return;
    };
    let [count, compression, inflated @ ..] = *head;
    let [low, middle, high] = inflated;
    check(&v1::Batch {
        count: count.into(),
        compression: i32::from(compression % 4),
        inflated_bytes: u32::from_le_bytes([low, middle, high, 0]),
        payload: payload.to_vec().into(),
        ..v1::Batch::default()
    });
    if let Ok(events) = v1::Events::decode(payload) {
        check(&v1::Batch {
            count: u32::try_from(events.events.len()).unwrap_or(u32::MAX),
            compression: v1::Compression::None.into(),
            inflated_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload: payload.to_vec().into(),
            ..v1::Batch::default()
        });
    }
});
