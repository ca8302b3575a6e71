//! Private files: 0600 in a folder 0700, replaced atomically.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use thiserror::Error;

use crate::secret::{Buffer, SecretBytes};

/// Largest private file that is read, in bytes.
const PRIVATE_FILE_BYTES: usize = 256 * 1024;

/// Why a private file could not be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file system said no.
    #[error("could not {attempted} `{}`", path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Others can read or write it.
    #[error(
        "`{}` has mode {mode:04o}: others could read a private key; set it with `chmod {wanted:o}`",
        path.display()
    )]
    Mode {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// Over [`PRIVATE_FILE_BYTES`].
    #[error("`{}` is larger than {PRIVATE_FILE_BYTES} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Makes the folder if it is missing, and checks that only its owner can enter it.
pub(super) fn open_folder(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(at("make the folder", path))?;
    check_folder(path).map(drop)
}

/// Checks that only its owner can enter the folder; false if there is none.
pub(super) fn check_folder(path: &Path) -> Result<bool, FileError> {
    match fs::metadata(path) {
        Ok(facts) => check_mode(path, &facts, 0o700).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at("look at", path)(error)),
    }
}

/// Reads a private file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<SecretBytes>, FileError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("open", path)(error)),
    };
    let facts = file.metadata().map_err(at("look at", path))?;
    check_mode(path, &facts, 0o600)?;
    let mut buffer = Buffer::new(PRIVATE_FILE_BYTES);
    loop {
        let space = buffer.space();
        if space.is_empty() {
            return Err(FileError::TooLong {
                path: path.to_owned(),
            });
        }
        match file.read(space).map_err(at("read", path))? {
            0 => return Ok(Some(SecretBytes::new(buffer.filled().to_vec()))),
            count => buffer.advance(count),
        }
    }
}

/// Puts `content` in place of the file: whoever reads sees the old or the new, whole.
#[expect(
    clippy::disallowed_methods,
    reason = "writing is what the bytes are for"
)]
pub(super) fn replace(path: &Path, content: &SecretBytes) -> Result<(), FileError> {
    let draft = path.with_extension("new");
    // A draft that a crash left behind is only ever a draft.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at("remove", &draft)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let opened = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft);
    let mut file = opened.map_err(at("create", &draft))?;
    file.write_all(content.expose_secret())
        .map_err(at("write", &draft))?;
    file.sync_all().map_err(at("sync", &draft))?;
    fs::rename(&draft, path).map_err(at("replace", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(at("sync", folder))
}

fn check_mode(path: &Path, facts: &fs::Metadata, wanted: u32) -> Result<(), FileError> {
    let mode = facts.permissions().mode() & 0o7777;
    // Bits of group and others.
    if mode.trailing_zeros() >= 6 {
        return Ok(());
    }
    Err(FileError::Mode {
        path: path.to_owned(),
        mode,
        wanted,
    })
}

fn at<'a>(attempted: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FileError + 'a {
    move |source| FileError::Io {
        attempted,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "tests look at the secrets they made"
    )]
    fn a_private_file_reads_back_and_others_cannot_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state").join("key.pem");
        open_folder(path.parent().unwrap()).unwrap();
        assert!(read(&path).unwrap().is_none());
        fs::write(path.with_extension("new"), b"left by a crash").unwrap();
        for content in [b"one".as_slice(), b"two"] {
            replace(&path, &SecretBytes::new(content.to_vec())).unwrap();
            assert_eq!(read(&path).unwrap().unwrap().expose_secret(), content);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("0640") && error.contains("chmod 600"),
            "{error}"
        );
        let parent = path.parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            open_folder(parent),
            Err(FileError::Mode { wanted: 0o700, .. })
        ));
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        replace(&path, &SecretBytes::new(vec![0; PRIVATE_FILE_BYTES + 1])).unwrap();
        assert!(matches!(read(&path), Err(FileError::TooLong { .. })));
    }
}
