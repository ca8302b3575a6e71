//! A copy of the state folder, made while the hub runs.
//!
//! ```text
//! OUT.partial/ (0700) ◀─ ca/ (0700, files 0600)
//!                     ◀─ sortie.redb (0600): one read transaction, into a new file
//! OUT.partial/ ──rename──▶ OUT/: whoever sees OUT sees all of it
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use super::store::{self, Store, StoreError};
use crate::clock::unix_seconds;
use crate::identity::{Authority, AuthorityError};

/// Name of the authority's folder within the state folder.
pub(super) const AUTHORITY: &str = "ca";

/// Why there is no backup.
#[derive(Debug, Error)]
pub(super) enum BackupError {
    /// The certificate authority.
    #[error("cannot copy the certificate authority")]
    Authority(#[from] AuthorityError),
    /// Something is there already.
    #[error("`{}` exists: a backup is written to a new folder", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("cannot {attempted} `{}`", path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A path that means another place to whoever asked.
    #[error("`{}` is not an absolute path on the hub's machine", path.display())]
    Relative {
        /// As it was given.
        path: PathBuf,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes a backup to the new folder `out` at `now`; gives the size of its store in bytes. Nothing is left
/// behind on failure.
pub(super) fn write(store: &Store, out: &Path, now: SystemTime) -> Result<u64, BackupError> {
    if !out.is_absolute() {
        let path = out.to_owned();
        return Err(BackupError::Relative { path });
    }
    if fs::symlink_metadata(out).is_ok() {
        let path = out.to_owned();
        return Err(BackupError::Exists { path });
    }
    let draft = Draft::make(out)?;
    let folder = &draft.path;
    Authority::copy(&store.folder().join(AUTHORITY), &folder.join(AUTHORITY))?;
    let file = folder.join(store::FILE);
    store.copy_to(&file, unix_seconds(now))?;
    let size = fs::metadata(&file).map_err(at("look at", &file))?.len();
    sync(folder)?;
    draft.keep(out)?;
    sync(out.parent().unwrap_or(out))?;
    Ok(size)
}

/// The folder under a name of its own, removed again unless it is kept.
struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Draft {
    fn make(out: &Path) -> Result<Self, BackupError> {
        let mut path = out.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path, kept: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(BackupError::Exists { path })
            }
            Err(error) => Err(at("make the folder", &path)(error)),
        }
    }

    fn keep(mut self, out: &Path) -> Result<(), BackupError> {
        fs::rename(&self.path, out).map_err(at("make the folder", out))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // Ours, and of no use; what is left of it carries `.partial` in its name.
            let _gone = fs::remove_dir_all(&self.path);
        }
    }
}

fn sync(folder: &Path) -> Result<(), BackupError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(at("sync", folder))
}

fn at<'a>(attempted: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io {
        attempted,
        path: path.to_owned(),
        source,
    }
}
