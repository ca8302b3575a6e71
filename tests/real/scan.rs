//! The memory scanner finds what is there, in each form, and nothing once it is gone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use base64::Engine as _;

use crate::support::cache::python;
use crate::support::scan::{Form, Needles};

/// Holds, on command, a value that it is told masked: the value itself lies in one buffer only.
const HOLDER: &str = r"
import sys
held = bytearray(4096)
for line in sys.stdin:
    for i in range(len(held)):
        held[i] = 0
    for i, masked in enumerate(bytes.fromhex(line)):
        held[64 + i] = masked ^ 0x5a
    print('done', flush=True)
";

struct Holder {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn start() -> std::io::Result<Self> {
        let mut child = python()
            .args(["-c", HOLDER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// Holds `value` in place of the one before.
    fn hold(&mut self, value: &[u8]) -> std::io::Result<()> {
        let masked: Vec<u8> = value.iter().map(|byte| byte ^ 0x5a).collect();
        writeln!(self.input, "{}", hex::encode(masked))?;
        self.output.read_line(&mut String::new()).map(drop)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

const VALUE: &[u8] = b"a planted value: 7f3b9c51e2d84a60";

#[test]
fn a_planted_value_is_found_and_is_gone_once_it_is_wiped() {
    let needles = Needles::new(&[VALUE, b"another value, never planted"]);
    let mut holder = Holder::start().unwrap();
    holder.hold(VALUE).unwrap();
    let found = needles.scan(holder.pid());
    assert_eq!(found.forms.get(&Form::Raw), Some(&1), "{found:?}");
    assert_eq!(found.forms.get(&Form::Fragment), Some(&3), "{found:?}");
    assert!(
        found.values.contains(&0) && !found.values.contains(&1),
        "{found:?}"
    );

    holder.hold(b"").unwrap();
    let found = needles.scan(holder.pid());
    assert_eq!(found.total(), 0, "{found:?}");
    assert!(found.scanned > 1 << 20, "{found:?}");
}

#[test]
fn every_encoding_is_found_at_every_alignment() {
    let needles = Needles::new(&[VALUE]);
    let mut holder = Holder::start().unwrap();
    for before in 0..3 {
        let text = [&b"..."[..before], VALUE, b"!"].concat();
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        holder.hold(encoded.as_bytes()).unwrap();
        let found = needles.scan(holder.pid());
        assert_eq!(
            found.forms.get(&Form::Base64),
            Some(&1),
            "{before}: {found:?}"
        );
    }
    for text in [hex::encode(VALUE), hex::encode_upper(VALUE)] {
        holder.hold(text.as_bytes()).unwrap();
        let found = needles.scan(holder.pid());
        assert_eq!(found.forms.get(&Form::Hex), Some(&1), "{found:?}");
    }
}

#[test]
fn a_fragment_is_found_without_the_rest() {
    let needles = Needles::new(&[VALUE]);
    let mut holder = Holder::start().unwrap();
    holder.hold(&VALUE[VALUE.len() - 16..]).unwrap();
    let found = needles.scan(holder.pid());
    assert_eq!(found.forms.get(&Form::Fragment), Some(&1), "{found:?}");
    assert_eq!(found.forms.get(&Form::Raw), None, "{found:?}");
}
