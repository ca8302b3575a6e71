//! PEM, written; `rustls_pki_types::pem` reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Characters in a line of PEM (RFC 7468 §2).
const LINE: usize = 64;

/// One PEM block.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let body = zeroize::Zeroizing::new(STANDARD.encode(der));
    // Reserved whole, so that a key is not left behind in outgrown blocks.
    let mut out = String::with_capacity(body.len() + body.len() / LINE + 2 * label.len() + 40);
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest: &str = &body;
    while let Some((line, later)) = rest.split_at_checked(LINE) {
        out.push_str(line);
        out.push('\n');
        rest = later;
    }
    if !rest.is_empty() {
        out.push_str(rest);
        out.push('\n');
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for length in [0, 1, 47, 48, 49, 96, 500] {
            let der: Vec<u8> = (0..length)
                .map(|at| u8::try_from(at % 256).unwrap())
                .collect();
            let text = encode("CERTIFICATE", &der);
            let again = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(again.as_ref(), der);
            assert!(text.lines().all(|line| line.len() <= LINE));
        }
    }
}
