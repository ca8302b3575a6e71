//! Figures and texts as people read them.

use std::time::Duration;

/// Minutes and seconds; hours before them where there are any.
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// Seconds below two minutes, [`clock`] above.
pub(super) fn left(time: Duration) -> String {
    if time < Duration::from_mins(2) {
        format!("{} s", time.as_secs())
    } else {
        clock(time)
    }
}

/// With a comma between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With one decimal, in the largest unit of 1000 that leaves something before it.
pub(super) fn bytes(number: u64) -> String {
    let (unit, name) = match number {
        0..1000 => return format!("{number} B"),
        1000..1_000_000 => (1000, "kB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    format!("{}.{} {name}", number / unit, number % unit * 10 / unit)
}

/// Milliseconds, with as many decimals as say something.
pub(super) fn millis(millis: f64) -> String {
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

/// At most `width` characters; what is cut in the middle leaves a `…`.
pub(super) fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let (head, tail) = (kept / 2, kept - kept / 2);
    let beginning = text.chars().take(head);
    let end = text.chars().skip(length - tail);
    beginning.chain(['…']).chain(end).take(width).collect()
}

/// At most `width` characters; what is cut at the end leaves a `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let beginning = text.chars().take(width.saturating_sub(1));
    beginning.chain(['…']).take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(clock(Duration::from_secs(61)), "1:01");
        assert_eq!(clock(Duration::from_hours(1)), "1:00:00");
        assert_eq!(left(Duration::from_secs(119)), "119 s");
        assert_eq!(left(Duration::from_secs(125)), "2:05");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_250_000), "1.2 MB");
        assert_eq!(millis(0.84), "0.8 ms");
        assert_eq!(millis(12.6), "13 ms");
    }

    #[test]
    fn what_is_too_long_keeps_both_ends() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "ab…efg");
        assert_eq!(shortened("abcdefg", 1), "…");
        assert_eq!(shortened("abcdefg", 0), "");
    }

    #[test]
    fn a_sentence_that_is_too_long_keeps_its_beginning() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("abcdefg", 0), "");
    }
}
