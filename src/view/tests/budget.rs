//! What is charged to the budget of an account: all that grows with what its agent sends.

use super::*;

/// A pod with one label, whose JSON takes next to nothing when it is compressed.
fn labelled(view: &View, stream: &StreamKey, name: &str, at: u64, bytes: usize) {
    upsert(view, stream, identity(name, name, at), &"x".repeat(bytes));
}

/// A pod whose JSON is not compressed to less than `bytes`.
fn large(view: &View, stream: &StreamKey, name: &str, at: u64, bytes: usize) {
    let identity = identity(name, name, at);
    let mut noise = at;
    let text = std::iter::repeat_with(|| {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'0' + u8::try_from(noise >> 58).unwrap())
    });
    let text = text.filter(char::is_ascii_alphanumeric);
    let text: String = text.take(2 * bytes).collect();
    let before = format!(r#"{{"text":"{text}","metadata":{{"resourceVersion":""#);
    let json = Bytes::from(format!("{before}{at}\"}}}}"));
    let (from, digits) = (before.len(), at.to_string().len());
    let narrow = |value: usize| u32::try_from(value).unwrap();
    view.upsert(stream, identity, json, narrow(from), narrow(digits), false);
}

#[test]
fn the_texts_of_an_object_are_charged_however_well_they_compress() {
    const LABEL: usize = 100_000;
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    view.snapshot_begin(&stream);
    labelled(&view, &stream, "a", 5, LABEL);
    assert!(view.totals().bytes >= LABEL, "{:?}", view.totals());
    let mut named = identity(&"n".repeat(900), &"u".repeat(900), 6);
    named.namespace = "s".repeat(900);
    let before = view.totals().bytes;
    upsert(&view, &stream, named, "web");
    assert!(view.totals().bytes - before >= 5 * 900);
}

#[test]
fn what_the_history_keeps_of_objects_that_were_large_is_charged() {
    const BYTES: usize = 1_000_000;
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[], 9);
    let names: Vec<String> = (0..40).map(|at| format!("p{at}")).collect();
    for (name, at) in names.iter().zip(10..) {
        large(&view, &stream, name, at, BYTES);
    }
    assert!(view.totals().bytes >= 40 * BYTES);
    for (name, at) in names.iter().zip(100..) {
        labelled(&view, &stream, name, at, 1);
    }
    let state = view.lock();
    let history = &state.kinds.get(&pods()).unwrap().history;
    let (kept, last) = (history.bytes(), history.next());
    assert!(kept > 4 * BYTES && kept <= HISTORY_BYTES, "{kept}");
    assert!(history.since(last - 20).is_none(), "no more than fits");
}

#[test]
fn names_that_wait_for_a_checkpoint_which_does_not_come_stay_within_the_budget() {
    const BUDGET: usize = 100_000;
    let clock = Arc::new(ManualClock::new(from_unix_seconds(0)));
    let view = Arc::new(View::with_budget(clock, BUDGET));
    let stream = key(Scope::Cluster);
    view.attach(&stream, "Pod");
    snapshot(&view, &stream, &[("stays", "stays", 5)], 9);
    view.take_changes();
    for at in 0..5_000 {
        let name = format!("p{at}");
        upsert(&view, &stream, identity(&name, &name, 10 + 2 * at), "web");
        view.delete(&stream, &identity(&name, &name, 11 + 2 * at));
    }
    assert!(view.totals().bytes <= BUDGET, "{:?}", view.totals());
    let held: usize = {
        let state = view.lock();
        let stream = state
            .kinds
            .get(&pods())
            .unwrap()
            .streams
            .get(&Scope::Cluster);
        let dirty = &stream.unwrap().dirty;
        dirty.iter().map(|name| name.0.len() + name.1.len()).sum()
    };
    assert!(held <= BUDGET, "{held}");
    // The kind goes on; the next checkpoint stores it as it is.
    assert_eq!(names(&view), [("stays".to_owned(), 5)]);
    let changes = view.take_changes();
    assert_eq!(
        (changes[0].fate, changes[0].puts.len()),
        (Fate::Replaced, 1)
    );
    let before = view.totals().bytes;
    upsert(&view, &stream, identity("last", "last", 99_999), "web");
    view.delete(&stream, &identity("last", "last", 100_000));
    let changes = view.take_changes();
    assert_eq!(changes[0].deletes.len(), 1);
    view.untake_changes(changes);
    view.take_changes();
    // What is left is the history's.
    let history = view.lock().kinds.get(&pods()).unwrap().history.bytes();
    assert!(history > 0 && view.totals().bytes >= before);
    view.detach(&stream);
    assert_eq!(view.totals().bytes, 0);
}
