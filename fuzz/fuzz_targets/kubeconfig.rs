//! The reader of sealed kubeconfigs. Behind a document that holds a token, whatever follows, the
//! token is not in what is shown of the outcome.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::credential::Profile;
use sortie::credential::kubeconfig::read;
use sortie::fault::Chain;
use sortie_fuzz::{PLANTED, leaks};

fuzz_target!(|input: &[u8]| {
    let alone = read(input, None, &Profile::sealed());
    if let Err(error) = &alone {
        assert!(!Chain(error).to_string().is_empty());
    }
    if leaks(input) {
        return;
    }
    let mut document = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         users: [{{name: u, user: {{token: {PLANTED}}}}}]\n"
    )
    .into_bytes();
    document.extend_from_slice(input);
    let outcome = read(&document, None, &Profile::sealed());
    let shown = match &outcome {
        Ok(credential) => format!("{credential:?}"),
        Err(error) => format!("{} {error:?}", Chain(error)),
    };
    assert!(!leaks(shown.as_bytes()), "{shown}");
});
