//! The lines of a watch's body.

use std::time::Duration;

use super::Failure;
use crate::cluster::ApiBody;
use crate::secret::Buffer;

/// Where the next line ends; what is before `searched` has been looked through.
pub(super) fn find_newline(filled: &[u8], searched: usize) -> Option<usize> {
    let fresh = filled.get(searched..)?;
    memchr::memchr(b'\n', fresh).map(|at| searched + at)
}

/// Reads past the next newline, keeping nothing of it; false if the answer ended first, or if
/// nothing came for as long as `silence`.
pub(super) async fn skip_line(
    body: &mut ApiBody,
    buffer: &mut Buffer,
    silence: Duration,
) -> Result<bool, Failure> {
    loop {
        let Ok(read) = tokio::time::timeout(silence, body.read(buffer)).await else {
            return Ok(false);
        };
        if read? == 0 {
            return Ok(false);
        }
        match memchr::memchr(b'\n', buffer.filled()) {
            Some(at) => {
                buffer.consume(at + 1);
                return Ok(true);
            }
            None => buffer.clear(),
        }
    }
}
