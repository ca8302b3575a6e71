//! What a request is for: a path that is accepted is the one that is printed, and reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::resource::Target;

fuzz_target!(|line: &str| {
    let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
    let Ok(read) = Target::parse(method, target) else {
        return;
    };
    let path = target.split('?').next().unwrap_or_default();
    assert_eq!(read.path(), path);
    assert_eq!(Target::parse(method, target), Ok(read));
});
