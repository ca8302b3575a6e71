//! How much memory a gRPC stream sets aside for its messages.

use std::marker::PhantomData;

use tonic::codec::BufferSettings;
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Bytes that each direction of a stream sets aside before it has a message; it grows with them.
///
/// tonic's own 8 KiB were measured at 32 KiB per agent that has nothing to say. A heartbeat takes
/// 14 bytes; what is larger than a frame outgrew 8 KiB as well.
const BUFFER_BYTES: usize = 64;

/// Bytes of encoded messages after which they are handed over although more are ready; tonic's own.
const YIELD_BYTES: usize = 32 * 1024;

/// Protobuf, in buffers that start at [`BUFFER_BYTES`].
#[derive(Debug)]
pub(crate) struct Codec<Sent, Received>(PhantomData<(Sent, Received)>);

impl<Sent, Received> Default for Codec<Sent, Received> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Sent, Received> tonic::codec::Codec for Codec<Sent, Received>
where
    Sent: prost::Message + Send + 'static,
    Received: prost::Message + Default + Send + 'static,
{
    type Encode = Sent;
    type Decode = Received;
    type Encoder = ProstEncoder<Sent>;
    type Decoder = ProstDecoder<Received>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Sent, Received>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Sent, Received>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
