//! The agent's half of the stream: feeds, outbox, session, resume; and the sequence rules both halves share.
