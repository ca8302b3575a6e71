//! Where a secret is written that the user asked for.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::print;

/// A secret cannot be written.
#[derive(Debug, Error)]
pub(super) enum OutputError {
    /// Only new files are written.
    #[error("`{}` exists; it is not overwritten", path.display())]
    Exists { path: PathBuf },
    /// Any other reason.
    #[error("cannot write `{}`", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Standard output.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

/// Standard output, or a new file with mode 0600 that goes away again unless it is written.
#[derive(Debug)]
pub(super) enum Output {
    File {
        file: File,
        path: PathBuf,
        kept: bool,
    },
    Stdout,
}

impl Output {
    /// Prepares the place, so that nothing is asked for that could not be written.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, OutputError> {
        let Some(path) = path else {
            return Ok(Self::Stdout);
        };
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok(Self::File {
                file,
                path,
                kept: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(OutputError::Exists { path })
            }
            Err(source) => Err(OutputError::File { path, source }),
        }
    }

    /// Writes `text`.
    pub(super) fn write(mut self, text: &str) -> Result<(), OutputError> {
        match &mut self {
            Self::Stdout => print::data(text).map_err(OutputError::Stdout),
            Self::File { file, path, kept } => {
                let written = file
                    .write_all(text.as_bytes())
                    .and_then(|()| file.sync_all());
                written.map_err(|source| OutputError::File {
                    path: path.clone(),
                    source,
                })?;
                *kept = true;
                Ok(())
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::File {
            path, kept: false, ..
        } = self
        {
            // Ours and empty, or half written; somebody may have removed it already.
            let _gone = std::fs::remove_file(path);
        }
    }
}

/// Puts `text` in place of what the file holds: whoever reads sees the old or the new, whole. A
/// link is followed; the mode stays.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), OutputError> {
    let failed = |source| OutputError::File {
        path: path.to_owned(),
        source,
    };
    let target = path.canonicalize().map_err(failed)?;
    let mode = std::fs::metadata(&target).map_err(failed)?.permissions();
    let mut draft = target.clone().into_os_string();
    draft.push(".new");
    let output = Output::open(Some(draft.clone().into()))?;
    let Output::File { file, .. } = &output else {
        return Ok(());
    };
    file.set_permissions(mode).map_err(failed)?;
    output.write(text)?;
    if let Err(source) = std::fs::rename(&draft, &target) {
        let _gone = std::fs::remove_file(&draft);
        return Err(failed(source));
    }
    let folder = target.parent().unwrap_or(Path::new("/"));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_goes_to_a_new_file_of_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("join");
        let output = Output::open(Some(path.clone())).unwrap();
        output.write("text\n").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "text\n");
        let again = Output::open(Some(path)).unwrap_err();
        assert!(matches!(again, OutputError::Exists { .. }));
    }

    #[test]
    fn nothing_is_left_when_there_is_nothing_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("join");
        drop(Output::open(Some(path.clone())).unwrap());
        assert!(!path.exists());
    }
}
