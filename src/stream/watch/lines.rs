//! The lines of a watch's body.

use super::Failure;
use crate::cluster::ApiBody;
use crate::secret::Buffer;

/// Where the next line ends; what is before `searched` has been looked through.
pub(super) fn find_newline(filled: &[u8], searched: usize) -> Option<usize> {
    let fresh = filled.get(searched..)?;
    memchr::memchr(b'\n', fresh).map(|at| searched + at)
}

/// Reads past the next newline, keeping nothing of it; false if the answer ended first.
pub(super) async fn skip_line(body: &mut ApiBody, buffer: &mut Buffer) -> Result<bool, Failure> {
    loop {
        if body.read(buffer).await? == 0 {
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
