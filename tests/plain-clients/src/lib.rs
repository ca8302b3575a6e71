//! For comparison: what each client has in common.
//!
//! Where its service is and who it is comes from the environment, as far as its SDK reads it there. It
//! says what it has come to, and waits for a line there, so that its memory can be looked through.

use std::env;
use std::error::Error;
use std::io::stdin;

/// How often the secret is fetched.
pub const FETCHES: usize = 20;

/// What a client ends with.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Where the service is, for an SDK that reads no variable of its own: the only argument.
pub fn url() -> Outcome<String> {
    Ok(env::args().nth(1).ok_or("needed: the URL of the service")?)
}

/// Says where it is, and waits for a line.
pub fn waits(point: &str) -> Outcome {
    println!("{point}");
    stdin().read_line(&mut String::new())?;
    Ok(())
}
