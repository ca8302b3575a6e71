//! The way of an answer to the hub.

use tokio::sync::mpsc;

use super::{Failure, Gone, Turn};
use crate::limits;
use crate::scrub::{self, Scrubbed};
use crate::wire::v1::{self, OperationFailureKind as Kind};

/// Answers one operation.
///
/// Every message waits for its turn on the connection, so a small answer is a single one: the
/// head is held back until the body is whole or fills a message.
#[derive(Debug)]
pub(super) struct Up {
    sender: mpsc::Sender<v1::OperationUp>,
    turn: Turn,
    /// An answer that is not on its way yet.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    status: u16,
    headers: Vec<v1::HttpHeader>,
    body: Vec<u8>,
}

impl Up {
    pub(super) const fn new(sender: mpsc::Sender<v1::OperationUp>, turn: Turn) -> Self {
        Self {
            sender,
            turn,
            held: None,
        }
    }

    async fn send(&self, message: v1::operation_up::Message) -> Result<(), Gone> {
        let message = v1::OperationUp {
            message: Some(message),
        };
        self.sender.send(message).await.map_err(|_closed| Gone)
    }

    /// Begins an answer.
    pub(super) fn head(&mut self, status: u16, headers: Vec<v1::HttpHeader>) {
        self.held = Some(Held {
            status,
            headers,
            body: Vec::new(),
        });
    }

    /// Sends what is held back.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        self.release(false).await
    }

    /// Sends filtered bytes, in pieces that let other streams take turns.
    pub(super) async fn body(&mut self, bytes: Scrubbed) -> Result<(), Gone> {
        let mut rest = bytes.into_bytes();
        if let Some(held) = &mut self.held {
            let room = limits::HEAD_BODY_BYTES.saturating_sub(held.body.len());
            held.body
                .extend_from_slice(&rest.split_to(room.min(rest.len())));
            if rest.is_empty() {
                return Ok(());
            }
            self.flush().await?;
        }
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(self.turn.bytes()));
            self.send(v1::operation_up::Message::Body(piece)).await?;
        }
        Ok(())
    }

    pub(super) async fn end(&mut self) -> Result<(), Gone> {
        if self.held.is_some() {
            return self.release(true).await;
        }
        self.send(v1::operation_up::Message::End(v1::OperationEnd {}))
            .await
    }

    async fn release(&mut self, complete: bool) -> Result<(), Gone> {
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        let answer = v1::OperationAnswer {
            status: held.status.into(),
            headers: held.headers,
            body: held.body.into(),
            complete,
        };
        self.send(v1::operation_up::Message::Answer(answer)).await
    }

    /// Tells that the answer could not be filtered; the outcome for the records.
    ///
    /// Of an error its code is told, since clients act on that: proxies, and API servers that are
    /// starting, say in plain text what is wrong.
    pub(super) async fn unfilterable(
        &mut self,
        status: u16,
        why: &str,
    ) -> Result<&'static str, Gone> {
        if status < 400 || self.held.is_none() {
            self.fail(Failure::new(Kind::Unfilterable, why)).await?;
            return Ok("unfilterable");
        }
        let json = v1::HttpHeader {
            name: "content-type".into(),
            value: "application/json".into(),
        };
        self.head(status, vec![json]);
        self.body(scrub::bare_status(status)).await?;
        self.end().await?;
        Ok("withheld")
    }

    /// Tells a failure, instead of an answer that is still held back.
    pub(super) async fn fail(&mut self, failure: Failure) -> Result<(), Gone> {
        self.held = None;
        let failure = v1::OperationFailure {
            kind: failure.kind.into(),
            message: failure.message,
            field: failure.field,
        };
        self.send(v1::operation_up::Message::Failure(failure)).await
    }
}

#[cfg(test)]
mod tests {
    use v1::operation_up::Message;

    use super::super::Turns;
    use super::*;
    use crate::policy;
    use crate::resource::Target;
    use crate::scrub::AnswerFilter;

    fn up() -> (Up, mpsc::Receiver<v1::OperationUp>) {
        let (sender, receiver) = mpsc::channel(64);
        (Up::new(sender, Turns::default().begin()), receiver)
    }

    async fn sent(mut receiver: mpsc::Receiver<v1::OperationUp>) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = receiver.recv().await {
            messages.extend(message.message);
        }
        messages
    }

    /// A log, of which nothing is masked.
    fn bytes(length: usize) -> Scrubbed {
        let rules = policy::load().unwrap().scrub;
        let target = Target::parse("GET", "/api/v1/namespaces/shop/pods/web/log").unwrap();
        let mut filter = AnswerFilter::new(rules, &target, 200, Some("text/plain")).unwrap();
        let mut passed = Vec::new();
        filter.push(&vec![b'a'; length], &mut passed).unwrap();
        passed.remove(0)
    }

    #[tokio::test]
    async fn a_small_answer_is_one_message() {
        let (mut up, receiver) = up();
        up.head(200, Vec::new());
        up.body(bytes(10)).await.unwrap();
        up.body(bytes(20)).await.unwrap();
        up.end().await.unwrap();
        drop(up);
        let messages = sent(receiver).await;
        let [Message::Answer(answer)] = messages.as_slice() else {
            panic!("{messages:?}");
        };
        assert_eq!(
            (answer.status, answer.body.len(), answer.complete),
            (200, 30, true)
        );
    }

    #[tokio::test]
    async fn a_large_answer_goes_on_in_chunks_and_has_an_end() {
        let (mut up, receiver) = up();
        let length = limits::HEAD_BODY_BYTES + limits::BODY_CHUNK_BYTES + 1;
        up.head(200, Vec::new());
        up.body(bytes(length)).await.unwrap();
        up.end().await.unwrap();
        drop(up);
        let messages = sent(receiver).await;
        let [
            Message::Answer(answer),
            Message::Body(second),
            Message::Body(third),
            Message::End(_),
        ] = messages.as_slice()
        else {
            panic!("{messages:?}");
        };
        assert_eq!(
            (answer.body.len(), answer.complete),
            (limits::HEAD_BODY_BYTES, false)
        );
        assert_eq!((second.len(), third.len()), (limits::BODY_CHUNK_BYTES, 1));
    }

    #[tokio::test]
    async fn what_was_flushed_goes_before_its_body() {
        let (mut up, receiver) = up();
        up.head(200, Vec::new());
        up.flush().await.unwrap();
        up.body(bytes(1)).await.unwrap();
        drop(up);
        let messages = sent(receiver).await;
        assert!(
            matches!(messages.as_slice(), [Message::Answer(a), Message::Body(_)] if a.body.is_empty()),
            "{messages:?}"
        );
    }

    #[tokio::test]
    async fn a_failure_takes_the_place_of_an_answer_that_is_not_on_its_way() {
        let (mut up, receiver) = up();
        up.head(200, Vec::new());
        up.body(bytes(10)).await.unwrap();
        let kind = v1::OperationFailureKind::Unfilterable;
        up.fail(Failure::new(kind, "cut off")).await.unwrap();
        drop(up);
        let messages = sent(receiver).await;
        assert!(
            matches!(messages.as_slice(), [Message::Failure(_)]),
            "{messages:?}"
        );
    }

    #[tokio::test]
    async fn an_error_that_cannot_be_filtered_is_told_by_its_code() {
        let (mut up, receiver) = up();
        up.head(503, Vec::new());
        assert_eq!(up.unfilterable(503, "not JSON").await.unwrap(), "withheld");
        drop(up);
        let messages = sent(receiver).await;
        let [Message::Answer(answer)] = messages.as_slice() else {
            panic!("{messages:?}");
        };
        let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, answer.complete), (503, true));
        assert_eq!(answer.headers[0].value, "application/json");
        assert_eq!(
            (&status["kind"], &status["reason"], &status["code"]),
            (&"Status".into(), &"ServiceUnavailable".into(), &503.into())
        );
    }

    #[tokio::test]
    async fn what_else_cannot_be_filtered_is_a_failure() {
        for (code, is_flushed) in [(200, false), (404, true)] {
            let (mut up, receiver) = up();
            up.head(code, Vec::new());
            if is_flushed {
                up.flush().await.unwrap();
            }
            assert_eq!(
                up.unfilterable(code, "depth").await.unwrap(),
                "unfilterable"
            );
            drop(up);
            let last = sent(receiver).await.pop();
            assert!(matches!(last, Some(Message::Failure(_))), "{last:?}");
        }
    }
}
