//! The list scanner: however a list is cut, the same items and members are found in it; and in
//! what serde takes for a list, the items are those that serde finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sortie::limits::RAW_OBJECT_BYTES;
use sortie::scrub::{ListScanner, ListStep};
use sortie::secret::Buffer;
use sortie_fuzz::{control, pieces};

#[derive(Debug, Default, PartialEq)]
struct Found {
    items: Vec<Vec<u8>>,
    members: Vec<(Vec<u8>, Vec<u8>)>,
    done: bool,
    refused: bool,
}

fn scan(list: &[u8], cuts: &[u8]) -> Found {
    let mut scanner = ListScanner::new();
    let mut buffer = Buffer::new(RAW_OBJECT_BYTES);
    let mut found = Found::default();
    for piece in pieces(list, cuts) {
        assert!(buffer.push(piece));
        loop {
            let filled = buffer.filled();
            let consume = match scanner.step(filled) {
                Err(_refused) => {
                    found.refused = true;
                    return found;
                }
                Ok(ListStep::More) => break,
                Ok(ListStep::Progress { consume } | ListStep::ItemsBegin { consume }) => consume,
                Ok(ListStep::Item { at, consume }) => {
                    assert!(at.end <= consume);
                    found.items.push(filled[at].to_vec());
                    consume
                }
                Ok(ListStep::Member {
                    key,
                    value,
                    consume,
                }) => {
                    assert!(key.end <= value.start && value.end <= consume);
                    found
                        .members
                        .push((filled[key].to_vec(), filled[value].to_vec()));
                    consume
                }
                Ok(ListStep::End { consume, .. }) => consume,
            };
            assert!(consume > 0, "the scanner stands still");
            buffer.consume(consume);
        }
    }
    found.done = scanner.is_done();
    found
}

fuzz_target!(|input: &[u8]| {
    let Some((cuts, list)) = control(input) else {
        return;
    };
    let whole = scan(list, &[]);
    assert_eq!(scan(list, cuts), whole);
    let Ok(Value::Object(members)) = serde_json::from_slice(list) else {
        return;
    };
    if whole.refused || !whole.done {
        return;
    }
    let Some(Value::Array(items)) = members.get("items") else {
        return;
    };
    let found: Vec<Value> = whole
        .items
        .iter()
        .map(|item| serde_json::from_slice(item).expect("an item of JSON is JSON"))
        .collect();
    assert_eq!(&found, items);
});
