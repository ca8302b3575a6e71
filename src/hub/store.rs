//! The embedded transactional store: registry, cursors and objects in one file.
//!
//! A transaction is on disk when it is committed. The file carries a format number: a newer one
//! is refused, never reset.
//!
//! # Failure
//! - A full disk, or any other error of the file: the transaction is rolled back and its caller
//!   told. The engine then refuses everything until the file is opened anew, which the next access
//!   does; what was committed before is there (test: `tests/path/disk.rs`).

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable,
    TableDefinition, TableError,
};
use thiserror::Error;

use crate::fault::{self, Advised};
use crate::telemetry::metrics::Tally;

/// Format of the store that this build writes and reads.
const FORMAT: u64 = 1;

/// Name of the file within the state folder.
pub const FILE: &str = "sortie.redb";

/// Bytes of keys and values that a copy takes along in one transaction.
const COPY_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of the file that the engine keeps in memory; its own default is a gigabyte. The views
/// hold what is asked for, so this only has to carry the writing, and sixteen times as much did not
/// make that faster. It fills with every page that was ever written, those that are gone included.
const CACHE_BYTES: usize = 2 * 1024 * 1024;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REGISTRY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("registry");
const CURSORS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cursors");
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");

/// Key in [`META`] of the time when a copy was made.
const COPIED: &str = "copied";

/// What went wrong with the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("another hub uses the store `{}`; stop it, or give this one a `state-dir` of its own", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open the store `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the file system or the engine said.
        #[source]
        source: Box<Advised<redb::Error>>,
    },
    /// It was written by a newer version.
    #[error("the store `{}` has format {found}, this version reads {FORMAT}; use a newer sortie, or restore a backup made with this one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format found.
        found: u64,
    },
    /// Reading or writing failed.
    #[error("cannot {what} the store")]
    Access {
        /// What was attempted.
        what: &'static str,
        /// What the engine said.
        #[source]
        source: Box<Advised<redb::Error>>,
    },
    /// The engine panicked.
    #[error("the store's engine failed on the way")]
    Panicked,
}

fn access<E: Into<redb::Error>>(what: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Access {
        what,
        source: Box::new(advised(source.into())),
    }
}

/// What an operator can do about an error of the engine.
fn advised(error: redb::Error) -> Advised<redb::Error> {
    let advice = match &error {
        redb::Error::Io(io) => fault::full(io.kind()),
        _ => "",
    };
    Advised::new(error, advice)
}

/// One change of the registry: the whole new value of a key, or its removal.
pub(super) type Change = (String, Option<Vec<u8>>);

/// What a checkpoint writes of one stream.
#[derive(Debug)]
pub(super) struct StreamCheckpoint {
    /// `account/stream`, without the object part.
    pub(super) key: String,
    /// The cursor, or `None` if the stream is gone and takes its objects along.
    pub(super) cursor: Option<Vec<u8>>,
    /// Objects that changed: key within the stream, new value or removal.
    pub(super) objects: Vec<(String, Option<Vec<u8>>)>,
    /// Whether every stored object of the stream goes first.
    pub(super) purge: bool,
}

impl StreamCheckpoint {
    /// Bytes of the objects that changed.
    pub(super) fn bytes(&self) -> usize {
        let values = self.objects.iter().filter_map(|(_, value)| value.as_ref());
        values.map(Vec::len).sum()
    }
}

/// What a store holds that nobody has opened.
#[derive(Debug)]
pub(super) struct Inspected {
    /// Its format.
    pub(super) format: u64,
    /// Every entry of the registry.
    pub(super) registry: Vec<Entry>,
}

/// A key with its value.
pub(super) type Entry = (String, Vec<u8>);

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// None after an error, until the next access opens it.
    database: Mutex<Option<Database>>,
    /// Transactions that write, by what they write and outcome.
    writes: Tally<2>,
    /// Held by whoever makes a copy, which takes memory and room on the disk.
    copying: Mutex<()>,
    /// When this copy was made, in seconds since the Unix epoch, if it is one that nobody used before.
    copied: Option<u64>,
}

impl Store {
    /// Opens the store in `folder`, or makes it.
    ///
    /// # Errors
    /// It is in use, not readable, or newer than this build.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        make_private(&path)?;
        let database = open(&path)?;
        let copied = take_mark(&database)?;
        let database = Mutex::new(Some(database));
        let writes = Tally::default();
        Ok(Self {
            path,
            database,
            writes,
            copying: Mutex::default(),
            copied,
        })
    }

    /// When the backup was made that this store was until it was opened, in seconds since the Unix
    /// epoch.
    pub(super) const fn copied(&self) -> Option<u64> {
        self.copied
    }

    /// What a start would find in the store in `folder`; nothing is made, repaired or changed. None if
    /// there is no store, or if it has to be repaired before it can be read, as after a crash.
    ///
    /// # Errors
    /// It is in use, not readable, or newer than this build.
    pub(super) fn inspect(folder: &Path) -> Result<Option<Inspected>, StoreError> {
        let path = folder.join(FILE);
        // A start that found no room leaves an empty file.
        if std::fs::metadata(&path).map_or(0, |facts| facts.len()) == 0 {
            return Ok(None);
        }
        let database = match ReadOnlyDatabase::open(&path) {
            Ok(database) => database,
            Err(DatabaseError::RepairAborted) => return Ok(None),
            Err(error) => return Err(not_opened(&path, error)),
        };
        let transaction = database.begin_read().map_err(access("read"))?;
        let meta = match transaction.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(access("read")(error)),
        };
        let found = meta.get("format").map_err(access("read"))?;
        let format = found.map_or(FORMAT, |found| found.value());
        if format > FORMAT {
            return Err(StoreError::Newer {
                path,
                found: format,
            });
        }
        let registry = read_all(&database, REGISTRY)?;
        Ok(Some(Inspected { format, registry }))
    }

    /// Transactions that wrote, by what they wrote (`registry`, `checkpoint`) and outcome (`ok`,
    /// `failed`).
    pub(super) const fn writes(&self) -> &Tally<2> {
        &self.writes
    }

    /// Size of its file, in bytes; zero if the file cannot be looked at.
    pub(super) fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |facts| facts.len())
    }

    fn write(
        &self,
        what: &'static str,
        work: impl FnOnce(&Database) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let written = self.with(work);
        let outcome = if written.is_ok() { "ok" } else { "failed" };
        self.writes.add([what, outcome]);
        written
    }

    /// The state folder.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Runs `work` on the open database. After an error, the next call opens it anew.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut open_one = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        // Out of its place meanwhile, so that a panic of the engine leaves none behind.
        let database = match open_one.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let done = work(&database)?;
        *open_one = Some(database);
        Ok(done)
    }

    /// Writes what is stored at this moment, `now`, to a new file at `path`. The store is read and
    /// written meanwhile; it grows by what is written, since what is being copied has to stay.
    pub(super) fn copy_to(&self, path: &Path, now: u64) -> Result<(), StoreError> {
        let _one_at_a_time = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = self.with(|database| database.begin_read().map_err(access("read")))?;
        let copy = make_copy(path)?;
        for table in [REGISTRY, CURSORS, OBJECTS] {
            copy_table(&moment, &copy, table)?;
        }
        mark(&copy, Some(now))
    }

    /// A disk that does not answer, until the guard is dropped.
    #[cfg(test)]
    pub(super) fn hang(&self) -> std::sync::MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every entry of the registry.
    pub(super) fn registry(&self) -> Result<Vec<Entry>, StoreError> {
        self.with(|database| read_all(database, REGISTRY))
    }

    /// Every cursor.
    pub(super) fn cursors(&self) -> Result<Vec<Entry>, StoreError> {
        self.with(|database| read_all(database, CURSORS))
    }

    /// Every object of a stream: key within the stream, and value.
    pub(super) fn objects(&self, stream: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(access("read"))?;
            let table = transaction.open_table(OBJECTS).map_err(access("read"))?;
            let prefix = format!("{stream}\0");
            let mut found = Vec::new();
            for entry in table.range(prefix.as_str()..).map_err(access("read"))? {
                let (key, value) = entry.map_err(access("read"))?;
                let Some(object) = key.value().strip_prefix(&prefix) else {
                    break;
                };
                found.push((object.to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// Writes changes of the registry in one transaction.
    pub(super) fn write_registry(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.write("registry", |database| {
            let transaction = database.begin_write().map_err(access("write to"))?;
            {
                let mut table = transaction
                    .open_table(REGISTRY)
                    .map_err(access("write to"))?;
                for (key, value) in changes {
                    put(&mut table, key, value.as_deref())?;
                }
            }
            transaction.commit().map_err(access("write to"))
        })
    }

    /// Writes objects and cursors in one transaction.
    pub(super) fn checkpoint(&self, streams: &[StreamCheckpoint]) -> Result<(), StoreError> {
        self.write("checkpoint", |database| {
            let transaction = database.begin_write().map_err(access("write to"))?;
            {
                let mut cursors = transaction
                    .open_table(CURSORS)
                    .map_err(access("write to"))?;
                let mut objects = transaction
                    .open_table(OBJECTS)
                    .map_err(access("write to"))?;
                for stream in streams {
                    write_stream(&mut cursors, &mut objects, stream)?;
                }
            }
            transaction.commit().map_err(access("write to"))
        })
    }
}

fn not_opened(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        error => {
            let source = Box::new(advised(error.into()));
            StoreError::Open { path, source }
        }
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    let database = opened.map_err(|error| not_opened(path, error))?;
    let found = prepare(&database)?;
    if found > FORMAT {
        let path = path.to_owned();
        return Err(StoreError::Newer { path, found });
    }
    Ok(database)
}

/// Makes the tables of a new store and tells the format of this one.
fn prepare(database: &Database) -> Result<u64, StoreError> {
    let transaction = database.begin_write().map_err(access("write to"))?;
    let found = {
        let mut meta = transaction.open_table(META).map_err(access("write to"))?;
        let found = meta
            .get("format")
            .map_err(access("write to"))?
            .map(|found| found.value());
        if found.is_none() {
            meta.insert("format", FORMAT).map_err(access("write to"))?;
        }
        if found.is_none_or(|found| found <= FORMAT) {
            for table in [REGISTRY, CURSORS, OBJECTS] {
                transaction.open_table(table).map_err(access("write to"))?;
            }
        }
        found.unwrap_or(FORMAT)
    };
    transaction.commit().map_err(access("write to"))?;
    Ok(found)
}

/// When a copy was made that nobody has used yet; from here on it is used.
fn take_mark(database: &Database) -> Result<Option<u64>, StoreError> {
    let transaction = database.begin_read().map_err(access("read"))?;
    let meta = transaction.open_table(META).map_err(access("read"))?;
    let found = meta.get(COPIED).map_err(access("read"))?;
    let Some(copied) = found.map(|found| found.value()) else {
        return Ok(None);
    };
    mark(database, None)?;
    Ok(Some(copied))
}

/// Marks a copy, or takes the mark off.
fn mark(database: &Database, copied: Option<u64>) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(access("write to"))?;
    {
        let mut meta = transaction.open_table(META).map_err(access("write to"))?;
        match copied {
            Some(at) => meta.insert(COPIED, at).map(drop),
            None => meta.remove(COPIED).map(drop),
        }
        .map_err(access("write to"))?;
    }
    transaction.commit().map_err(access("write to"))
}

fn read_all(
    database: &impl ReadableDatabase,
    table: TableDefinition<'_, &str, &[u8]>,
) -> Result<Vec<Entry>, StoreError> {
    let transaction = database.begin_read().map_err(access("read"))?;
    let table = transaction.open_table(table).map_err(access("read"))?;
    let entries = table.iter().map_err(access("read"))?;
    entries
        .map(|entry| {
            let (key, value) = entry.map_err(access("read"))?;
            Ok((key.value().to_owned(), value.value().to_vec()))
        })
        .collect()
}

/// A new store, readable by its owner only.
fn make_copy(path: &Path) -> Result<Database, StoreError> {
    let mut options = std::fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|source| access("copy")(redb::Error::Io(source)))?;
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    let copy = opened.map_err(access("copy"))?;
    prepare(&copy)?;
    Ok(copy)
}

/// Copies a table in pieces of [`COPY_BYTES`].
fn copy_table(
    from: &ReadTransaction,
    to: &Database,
    table: TableDefinition<'_, &'static str, &'static [u8]>,
) -> Result<(), StoreError> {
    let source = from.open_table(table).map_err(access("copy"))?;
    let mut entries = source.iter().map_err(access("copy"))?.peekable();
    while entries.peek().is_some() {
        let transaction = to.begin_write().map_err(access("copy"))?;
        {
            let mut target = transaction.open_table(table).map_err(access("copy"))?;
            let mut bytes = 0;
            while bytes < COPY_BYTES {
                let Some(entry) = entries.next() else {
                    break;
                };
                let (key, value) = entry.map_err(access("copy"))?;
                bytes += key.value().len() + value.value().len();
                let inserted = target.insert(key.value(), value.value());
                inserted.map(drop).map_err(access("copy"))?;
            }
        }
        transaction.commit().map_err(access("copy"))?;
    }
    Ok(())
}

fn write_stream(
    cursors: &mut redb::Table<'_, &'static str, &'static [u8]>,
    objects: &mut redb::Table<'_, &'static str, &'static [u8]>,
    stream: &StreamCheckpoint,
) -> Result<(), StoreError> {
    if stream.purge || stream.cursor.is_none() {
        let (from, until) = (format!("{}\0", stream.key), format!("{}\u{1}", stream.key));
        objects
            .retain_in(from.as_str()..until.as_str(), |_, _| false)
            .map_err(access("write to"))?;
    }
    for (key, value) in &stream.objects {
        put(objects, &format!("{}\0{key}", stream.key), value.as_deref())?;
    }
    put(cursors, &stream.key, stream.cursor.as_deref())
}

/// Makes the file, readable by its owner only, if it is not there.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let mut options = std::fs::OpenOptions::new();
    let made = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    made.map(drop).map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source: Box::new(advised(redb::Error::Io(source))),
    })
}

fn put(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), StoreError> {
    match value {
        Some(value) => table
            .insert(key, value)
            .map(drop)
            .map_err(access("write to")),
        None => table.remove(key).map(drop).map_err(access("write to")),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
