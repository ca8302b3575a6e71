//! Logs are searched as they are written.

use crate::support::capture::Log;

const TEXT: &str = "\
thread 'main' is no JSON
{\"level\":\"INFO\",\"message\":\"listening\",\"data\":\"127.0.0.1:9091\"}
{\"level\":\"INFO\",\"fields\":{\"message\":\"connected\",\"hub\":\"hub-1\"}}
{\"level\":\"INFO\",\"message\":\"cut o";

#[test]
fn fields_are_found_at_either_place_and_half_a_line_does_not_count() {
    let log = Log::of(TEXT.to_owned());
    assert_eq!(log.entries().count(), 2);
    assert_eq!(
        log.find("listening").unwrap().text("data"),
        Some("127.0.0.1:9091")
    );
    assert_eq!(log.find("connected").unwrap().text("hub"), Some("hub-1"));
    assert!(log.find("cut o").is_none());
    log.assert_without(&["not there"]);
}

#[test]
#[should_panic(expected = "planted value 1 stands in this line")]
fn a_planted_value_in_a_log_is_a_failure() {
    Log::of(TEXT.to_owned()).assert_without(&["absent", "no JSON"]);
}
