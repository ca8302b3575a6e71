//! Finds, looks at and reads a file below a root; blocking.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::hmac;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::credential::{Key, Locator, Reference};
use crate::limits;
use crate::secret::SecretBytes;

/// Most entries of a folder that are looked at.
const ENTRIES: usize = 4096;

/// Bytes of a version, of its digest; it only has to tell two states apart.
const VERSION_BYTES: usize = 8;

/// Where a reference points, below the root.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// The file in the folder at `path`; otherwise `path` itself.
    key: Option<String>,
}

/// What was read, and what the file system said of it.
pub(super) struct Attempt {
    pub(super) found: Found,
    pub(super) bytes: SecretBytes,
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Not even a tool that sets the time of modification back can set this one.
    changed: (i64, i64),
    mode: u32,
}

impl Place {
    pub(super) fn of(reference: &Reference) -> Result<Self, Failure> {
        let Locator::File { path } = &reference.locator else {
            return Err(Failure::other_engine());
        };
        let key = match &reference.key {
            Key::Named(name) => Some(name.clone()),
            Key::Whole | Key::Each => None,
        };
        let is_below = |path: &str| {
            let mut parts = Path::new(path).components();
            parts.all(|part| matches!(part, Component::Normal(_))) && !path.contains('\0')
        };
        let is_file_name = |key: &String| is_below(key) && !key.contains('/') && !key.is_empty();
        if !is_below(path) || !key.iter().all(is_file_name) {
            return Err(Failure::new(
                FetchErrorKind::NotFound,
                "a path goes down from the `root` of its connection, without `..`",
            ));
        }
        Ok(Self {
            path: PathBuf::from(path),
            key,
        })
    }

    pub(super) fn root() -> Self {
        Self {
            path: PathBuf::new(),
            key: None,
        }
    }
}

impl Found {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        }
    }

    pub(super) const fn readable_by_others(&self) -> bool {
        self.mode & 0o004 != 0
    }

    /// A keyed digest, so that nobody learns the size.
    pub(super) fn version(&self, key: &hmac::Key) -> String {
        let parts = [
            self.device.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.size.to_le_bytes(),
            self.modified.0.to_le_bytes(),
            self.modified.1.to_le_bytes(),
            self.changed.0.to_le_bytes(),
            self.changed.1.to_le_bytes(),
        ];
        digest(key, parts.iter().map(<[u8; 8]>::as_slice))
    }
}

/// A keyed digest of parts, short, in hex.
pub(super) fn digest<'a>(key: &hmac::Key, parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    let tag = context.sign();
    hex::encode(tag.as_ref().get(..VERSION_BYTES).unwrap_or_default())
}

/// Reads the file.
pub(super) fn read(root: &Path, place: &Place) -> Result<Attempt, Failure> {
    let (file, metadata) = open(root, place)?;
    let most = limits::YAML_BYTES;
    let too_large = Failure::corrupt("the file is larger than a kubeconfig can be");
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if size > most {
        return Err(too_large);
    }
    // One byte more than it has: a file that grows is found without a larger block.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|_error| Failure::unavailable("the file cannot be read to its end"))?;
    if bytes.len() > most {
        return Err(too_large);
    }
    Ok(Attempt {
        found: Found::of(&metadata),
        bytes: SecretBytes::new(std::mem::take(&mut *bytes)),
    })
}

/// Looks at the file without reading it.
pub(super) fn look(root: &Path, place: &Place) -> Result<Found, Failure> {
    let (_file, metadata) = open(root, place)?;
    Ok(Found::of(&metadata))
}

/// The names of the files of the folder, sorted; hidden ones are not there.
pub(super) fn names(root: &Path, place: &Place) -> Result<Vec<String>, Failure> {
    let folder = resolve(root, &place.path)?;
    let root = resolve(root, Path::new(""))?;
    let entries = fs::read_dir(&folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => {
            Failure::corrupt("`#*` needs a folder, and this is a file; leave `#*` out")
        }
        _ => told(&error),
    })?;
    let mut names = Vec::new();
    for (seen, entry) in entries.enumerate() {
        if seen == ENTRIES {
            return Err(Failure::corrupt("the folder has too many files"));
        }
        let entry = entry.map_err(|error| told(&error))?;
        // A name that is not text cannot be that of an account.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !name.starts_with('.') && is_file_below(&root, &folder.join(&name)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether the root itself is there.
pub(super) fn is_folder(root: &Path, _place: &Place) -> Result<(), Failure> {
    let metadata = fs::metadata(root);
    match metadata {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        _ => Err(Failure::unavailable(
            "its `root` is not a folder that can be read",
        )),
    }
}

fn is_file_below(root: &Path, path: &Path) -> bool {
    let resolved = fs::canonicalize(path).ok();
    resolved.is_some_and(|path| path.starts_with(root) && path.is_file())
}

fn open(root: &Path, place: &Place) -> Result<(File, Metadata), Failure> {
    let below = match &place.key {
        Some(key) => place.path.join(key),
        None => place.path.clone(),
    };
    let path = resolve(root, &below).map_err(|failure| match &place.key {
        // The folder is there, the file in it is not.
        Some(key) if failure.kind == FetchErrorKind::NotFound && is_there(root, place) => {
            let field = key.clone();
            Failure::new(FetchErrorKind::Invalid { field }, "")
        }
        _ => failure,
    })?;
    // Whatever lies there instead of a file must not hold us: a pipe would.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(&path)
        .map_err(|error| told(&error))?;
    let metadata = file.metadata().map_err(|error| told(&error))?;
    if !metadata.is_file() {
        return Err(Failure::corrupt(if metadata.is_dir() {
            "this is a folder; name a file of it as `#key`, or all of them as `#*`"
        } else {
            "this is not a file"
        }));
    }
    Ok((file, metadata))
}

fn is_there(root: &Path, place: &Place) -> bool {
    resolve(root, &place.path).is_ok_and(|folder| folder.is_dir())
}

/// The real path below the real root, with every link followed.
///
/// Whoever may write below the root decides what a kubeconfig says anyway, so a link that is
/// replaced between this look and the opening wins nothing: what is no kubeconfig is never shown.
fn resolve(root: &Path, below: &Path) -> Result<PathBuf, Failure> {
    let root = fs::canonicalize(root)
        .map_err(|_error| Failure::unavailable("its `root` is not a folder that can be read"))?;
    let path = fs::canonicalize(root.join(below)).map_err(|error| told(&error))?;
    if !path.starts_with(&root) {
        return Err(Failure::new(
            FetchErrorKind::Denied,
            "a symbolic link leads out of the `root` of its connection",
        ));
    }
    Ok(path)
}

fn told(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::new(
            FetchErrorKind::NotFound,
            "look at the path, and at the mount",
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            FetchErrorKind::Denied,
            "the agent's user may not read it; look at owner and mode",
        ),
        _ => Failure::unavailable("the file system does not give it"),
    }
}
