//! `sortie cluster`

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::args::{Cluster, Global};
use super::{Exit, admin, print};
use crate::hub::admin::Request;

/// Largest set of public keys that is read, in bytes; one key has about 500.
const JWKS_BYTES: u64 = 256 * 1024;

/// The public keys cannot be read.
#[derive(Debug, Error)]
#[error("cannot read the public keys `{}`", path.display())]
struct JwksError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

pub(super) fn run(what: Cluster, global: &Global) -> Exit {
    let request = match what {
        Cluster::Add {
            name,
            issuer,
            jwks,
            allow,
        } => {
            let jwks = match read(&jwks) {
                Ok(jwks) => jwks,
                Err(error) => return print::failed(&error),
            };
            Request::AddCluster {
                name,
                issuer,
                jwks,
                allow: allow.into_iter().collect(),
            }
        }
        Cluster::Remove { name } => Request::RemoveCluster { name },
    };
    admin::execute(global, &request)
}

fn read(path: &Path) -> Result<String, JwksError> {
    let mut text = String::new();
    let reading = File::open(path).and_then(|file| {
        let read = file.take(JWKS_BYTES + 1).read_to_string(&mut text)?;
        if read as u64 > JWKS_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(())
    });
    reading.map(|()| text).map_err(|source| JwksError {
        path: path.to_owned(),
        source,
    })
}
