//! What a value may be, and how it is written.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::reader::{Field, Parsed, printable};

/// Units of durations, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Longest text of a value, in bytes.
const TEXT_BYTES: usize = 4096;

/// A text that is not empty.
pub(super) fn text(field: &Field<'_>) -> Parsed<String> {
    let text = field.node().as_str().ok_or("must be text")?;
    if text.is_empty() || text.len() > TEXT_BYTES || text.contains(char::is_control) {
        return Err(format!("must be 1 to {TEXT_BYTES} characters in one line"));
    }
    Ok(text.to_owned())
}

/// A text that `T` reads itself from.
pub(super) fn parsed<T: FromStr>(field: &Field<'_>) -> Parsed<T>
where
    T::Err: std::fmt::Display,
{
    let text = text(field)?;
    let wrong = |error: T::Err| format!("{error}, got `{}`", printable(&text));
    text.parse().map_err(wrong)
}

/// A file or folder; a relative one lies beside the configuration.
pub(super) fn path(field: &Field<'_>) -> Parsed<PathBuf> {
    Ok(field.beside_file(&text(field)?))
}

/// `true` or `false`.
pub(super) fn boolean(field: &Field<'_>) -> Parsed<bool> {
    let value = field.node().as_bool();
    value.ok_or_else(|| "must be `true` or `false`".to_owned())
}

/// An address to listen on.
pub(super) fn address(field: &Field<'_>) -> Parsed<SocketAddr> {
    let text = text(field)?;
    let wrong = |_error| {
        format!(
            "must be an address and a port, such as `0.0.0.0:9091`, got `{}`",
            printable(&text)
        )
    };
    text.parse().map_err(wrong)
}

/// A `host:port` to dial; an IPv6 address in brackets.
pub(super) fn host_port(field: &Field<'_>) -> Parsed<String> {
    let text = text(field)?;
    if is_host_port(&text) {
        return Ok(text);
    }
    Err(format!("must be host:port, got `{}`", printable(&text)))
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let port_fits = port.parse::<u16>().is_ok_and(|port| port > 0);
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host) && !host.contains(':'),
    };
    port_fits && host_fits
}

/// Whether a certificate can be for this host name or address.
pub(super) fn is_host(text: &str) -> bool {
    rustls_pki_types::ServerName::try_from(text).is_ok()
}

/// A whole number and a unit, within `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Field<'_>) -> Parsed<Duration> {
    move |field| {
        let text = field.node().as_str().unwrap_or_default();
        let (least, most) = (written(*range.start()), written(*range.end()));
        let found = read_duration(text);
        found.filter(|found| range.contains(found)).ok_or_else(|| {
            format!(
                "must be a duration from {least} to {most}, such as `15m`, got `{}`",
                printable(text)
            )
        })
    }
}

fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_millis(number.checked_mul(*millis)?))
}

/// A duration for the command line: a whole number and a unit, at least a second.
///
/// # Errors
/// What it has to look like.
pub fn argument(text: &str) -> Result<Duration, String> {
    read_duration(text)
        .filter(|found| *found >= Duration::from_secs(1))
        .ok_or_else(|| "write a number and a unit, such as `15m`, `90s` or `12h`".to_owned())
}

/// A duration in the largest unit that gives a whole number.
pub fn written(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut units = UNITS.iter();
    let fitting = units.find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    fitting.map_or_else(
        || format!("{millis}ms"),
        |(name, unit)| format!("{}{name}", millis / unit),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("15m", 900_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(read_duration(text), Some(Duration::from_millis(millis)));
            assert_eq!(
                read_duration(&written(Duration::from_millis(millis))),
                Some(Duration::from_millis(millis))
            );
        }
        for text in [
            "",
            "5",
            "m",
            "1.5h",
            "-1s",
            "1h30m",
            "5 m",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_host_and_a_port_can_be_dialled() {
        for good in [
            "hub.example.com:9091",
            "127.0.0.1:1",
            "[::1]:65535",
            "localhost:80",
        ] {
            assert!(is_host_port(good), "{good}");
        }
        for bad in [
            "hub",
            "hub:",
            "hub:0",
            "hub:65536",
            "::1:80",
            ":80",
            "a b:80",
            "https://hub:80",
        ] {
            assert!(!is_host_port(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0u64..1 << 50) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(read_duration(&written(duration)), Some(duration));
        }
    }
}
