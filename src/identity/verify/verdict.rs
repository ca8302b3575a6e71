//! The way of a verdict from rustls' verifier to the owner of the connection.

use std::cell::Cell;

use super::{PeerError, VerifiedPeer};

/// What a verifier decided during the handshake of the current task.
pub(in crate::identity) type Verdict = Result<VerifiedPeer, PeerError>;

tokio::task_local! {
    // rustls gives its verifiers no way to hand anything to the connection's owner, and turns their
    // errors into alerts. A handshake runs inside one task's poll, so the verdict is left here.
    static VERDICT: Cell<Option<Verdict>>;
}

/// Runs a handshake and tells what the verifier decided in it, if it was asked.
pub(in crate::identity) async fn observed<F: Future>(handshake: F) -> (F::Output, Option<Verdict>) {
    VERDICT
        .scope(Cell::new(None), async {
            let output = handshake.await;
            (output, VERDICT.with(Cell::take))
        })
        .await
}

/// Leaves the verdict for [`observed`], and turns it into what rustls wants.
pub(super) fn conclude<T>(verdict: Verdict, assertion: T) -> Result<T, rustls::Error> {
    let answer = match &verdict {
        Ok(_) => Ok(assertion),
        Err(error) => Err(error.to_tls()),
    };
    // Outside `observed` nobody wants the verdict.
    let _outside = VERDICT.try_with(|place| place.set(Some(verdict)));
    answer
}
