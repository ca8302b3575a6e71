//! The wiping HTTP/1.1 reader: heads, and the chunked coding however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::cluster::{ChunkStep, Chunked, Framing, parse_head};
use sortie_fuzz::{control, pieces};

/// The data, whether the end was seen, and whether the coding was sound.
fn decode(coded: &[u8], cuts: &[u8]) -> (Vec<u8>, bool, bool) {
    let mut chunked = Chunked::new();
    let (mut data, mut raw) = (Vec::new(), Vec::new());
    for piece in pieces(coded, cuts) {
        raw.extend_from_slice(piece);
        loop {
            match chunked.step(&raw) {
                Err(_broken) => return (data, false, false),
                Ok(ChunkStep::End) => return (data, true, true),
                Ok(ChunkStep::More { skip }) => {
                    raw.drain(..skip);
                    break;
                }
                Ok(ChunkStep::Data { skip, length }) => {
                    assert!(length > 0, "the decoder stands still");
                    let taken =
                        length.min(usize::from(cuts.first().copied().unwrap_or(255)).max(1));
                    data.extend_from_slice(&raw[skip..skip + taken]);
                    raw.drain(..skip + taken);
                    chunked.taken(taken);
                }
            }
        }
    }
    (data, false, true)
}

fuzz_target!(|input: &[u8]| {
    let Some((cuts, answer)) = control(input) else {
        return;
    };
    assert_eq!(decode(answer, cuts), decode(answer, &[]));
    let Ok(Some((head, length))) = parse_head(answer) else {
        return;
    };
    assert!(length <= answer.len());
    let lengths = head.headers.get_all("content-length").iter().count();
    let codings = head.headers.get_all("transfer-encoding").iter().count();
    match head.framing {
        // One statement about the end of the body, or none (RFC 9112 §6.3).
        Framing::Chunked(_) => assert_eq!((lengths, codings), (0, 1)),
        Framing::Length(_) => assert_eq!((lengths, codings), (1, 0)),
        Framing::UntilClose => assert_eq!((lengths, codings), (0, 0)),
        Framing::Done => {}
    }
});
