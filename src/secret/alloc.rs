//! The global allocator of the binary: every block is wiped before it is given back; and how the
//! system gets the memory of free blocks.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::ffi::{c_int, c_void};

/// The system's allocator, with every freed block overwritten by zeroes first.
///
/// `realloc` is the trait's own default: allocate, copy, free; so a grown buffer leaves nothing
/// behind. Measured reason: parsing and dropping 1,000 Secrets left 130 to 313 of their values
/// readable in the process; with this allocator and no pooled read buffers, none.
#[derive(Debug)]
pub struct WipingAllocator;

#[expect(
    unsafe_code,
    reason = "a global allocator cannot be written without it"
)]
// SAFETY: every call is forwarded to `System` with the same layout; `dealloc` writes only inside
// the block that it was handed, which is still allocated at that point.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `System`'s.
        let block = unsafe { System.alloc(layout) };
        if layout.size() >= SPARSE_BYTES && SPARSE.get() && !block.is_null() {
            // SAFETY: the block is `layout.size()` bytes long, and nobody has written to it yet.
            unsafe { give_back_pages(block, layout.size()) };
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is `layout.size()` bytes long and ours until the next line. The empty
        // assembly reads the pointer, so that the compiler may not drop the write as dead.
        unsafe {
            std::ptr::write_bytes(block, 0, layout.size());
            std::arch::asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags));
            System.dealloc(block, layout);
        }
    }
}

/// Blocks from this size on can have pages of their own, in bytes.
const SPARSE_BYTES: usize = 4096;

thread_local! {
    /// Whether blocks of this thread begin without memory. Needs no memory itself.
    static SPARSE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `make`, whose large blocks begin without memory: they get it page by page, when something
/// is written there.
///
/// For what is large, lives long and stays mostly empty. glibc hands out what was freed before,
/// which already takes memory, and never takes it back from a block in use.
pub fn sparsely<T>(make: impl FnOnce() -> T) -> T {
    /// Ends it when `make` panics, too.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            SPARSE.set(self.0);
        }
    }
    let _before = Before(SPARSE.replace(true));
    make()
}

/// Gives the pages that lie in a block as a whole back to the system. Read again, they are zeroes.
///
/// # Safety
/// The block is `size` bytes long and in use, and what is in it is of no use.
#[expect(unsafe_code, reason = "part of the global allocator")]
unsafe fn give_back_pages(block: *mut u8, size: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let Ok(page) = usize::try_from(getpagesize()) else {
            return;
        };
        let before = block.align_offset(page);
        let whole = size.saturating_sub(before) / page * page;
        if whole > 0 {
            // SAFETY: `before + whole` is at most `size`. What fails has changed nothing.
            let _best_effort = unsafe { madvise(block.add(before).cast(), whole, DONT_NEED) };
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (block, size);
}

/// Linux's `MADV_DONTNEED`: private pages are dropped at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const DONT_NEED: c_int = 4;

/// Gives pages that hold free blocks only back to the system; true if there were any. Only glibc
/// needs it, and elsewhere it does nothing.
///
/// glibc by itself gives back only what is free at the end of its heap: after a burst, one small
/// block that lives on keeps everything below it. Takes milliseconds, for which other threads
/// cannot allocate: for the end of a burst, not for every free.
pub fn return_free_pages() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        malloc_trim(0) == 1
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Lets the threads of the process share `heaps` heaps; for its start. Only glibc needs it, and
/// elsewhere it does nothing.
///
/// glibc by itself gives each thread a heap of its own, up to eight for each core, and what is freed
/// in one is never used by another: threads that wait for a disk, and run one after the other, kept
/// as much free as a few hundred agents take.
pub fn share_heaps(heaps: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if let Ok(heaps) = c_int::try_from(heaps) {
        // Refused, everything is as it was.
        let _best_effort = mallopt(ARENA_MAX, heaps);
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = heaps;
}

/// glibc's `M_ARENA_MAX`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENA_MAX: c_int = -8;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "glibc has no other way to ask for it (malloc_trim(3), mallopt(3), madvise(2))"
)]
// SAFETY: these are their signatures. `malloc_trim` and `mallopt` take any numbers, from any
// thread; the former touches free blocks only, the latter refuses what it does not know.
unsafe extern "C" {
    safe fn malloc_trim(pad: usize) -> c_int;
    safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
    safe fn getpagesize() -> c_int;
    fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_begins_sparsely_holds_nothing_of_the_one_before() {
        let page = usize::try_from(getpagesize()).unwrap();
        let layout = Layout::from_size_align(4 * page, 16).unwrap();
        #[expect(unsafe_code, reason = "the tests run on another allocator")]
        // SAFETY: the blocks are of this layout and freed once; a page that begins within the first
        // lies within the four.
        let begins_empty = unsafe {
            let before = System.alloc(layout);
            std::ptr::write_bytes(before, 1, layout.size());
            System.dealloc(before, layout);
            let block = sparsely(|| WipingAllocator.alloc(layout));
            let first = block.add(block.align_offset(page));
            let empty = (0..page).all(|at| *first.add(at) == 0);
            WipingAllocator.dealloc(block, layout);
            empty
        };
        assert!(begins_empty);
        assert!(!SPARSE.get());
    }
}
