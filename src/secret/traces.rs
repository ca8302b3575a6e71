//! What a thread still shows of functions that have returned: on its stack, and in its registers.

use std::hint::black_box;

/// Bytes of the stack that are overwritten: more than the deepest calls that look at a secret body.
const STACK_BYTES: usize = 64 * 1024;

/// Lengths of copies that together go through every register which the C library copies through.
///
/// glibc 2.36 on x86-64 takes two, four or eight vectors of 16 to 64 bytes at once, and one more for
/// what is longer.
const COPIES: [usize; 4] = [128, 256, 512, LONGEST];

/// The longest of them.
const LONGEST: usize = 1024;

/// Overwrites the stack below the caller, and the vector registers.
///
/// A search with vector instructions keeps pieces of the text on the stack wherever the compiler
/// spills a register; nothing frees these bytes, so no allocator wipes them. Measured reason: 16
/// bytes and more of a written Secret stayed readable after a search for the mask.
pub fn clear_traces() {
    clear_stack();
    clear_registers();
}

#[inline(never)]
fn clear_stack() {
    #[expect(
        clippy::large_stack_arrays,
        reason = "what lies on the stack is overwritten by what lies on the stack"
    )]
    let block = [0_u8; STACK_BYTES];
    black_box(&block);
}

/// Overwrites the vector registers that copies go through; takes some 50 ns.
///
/// Measured reason: with AVX-512, the C library copies through registers that nothing else uses, so
/// that a thread which waits keeps up to 576 bytes of its last large copy. A core dump of the agent
/// had three quarters of a line of a service account's key there, and of tokens. So threads of the
/// runtime do this each time before they wait, and blocking work that reads secrets at its end.
#[inline(never)]
pub fn clear_registers() {
    let zeros = [0_u8; LONGEST];
    let mut copy = zeros;
    for length in COPIES {
        // Of unknown length, so that it is the C library that copies.
        let length = black_box(length);
        let (from, to) = (zeros.get(..length), copy.get_mut(..length));
        if let (Some(from), Some(to)) = (from, to) {
            black_box(to).copy_from_slice(black_box(from));
        }
    }
    black_box(&copy);
}
