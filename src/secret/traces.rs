//! What a thread's stack still shows of functions that have returned.

use std::hint::black_box;

/// Bytes that are overwritten: more than the deepest calls that look at a secret body.
const BYTES: usize = 64 * 1024;

/// Overwrites the stack below the caller.
///
/// A search with vector instructions keeps pieces of the text on the stack wherever the compiler
/// spills a register; nothing frees these bytes, so no allocator wipes them. Measured reason: 16
/// bytes and more of a written Secret stayed readable after a search for the mask.
#[inline(never)]
pub fn clear_stack() {
    #[expect(
        clippy::large_stack_arrays,
        reason = "what lies on the stack is overwritten by what lies on the stack"
    )]
    let block = [0_u8; BYTES];
    black_box(&block);
}
