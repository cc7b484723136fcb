//! What a decoder may take: memory in proportion to its input, whatever that says.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes that any input may cost: buffers, the head that tells the format, tables built once.
pub const FIXED: usize = 8 << 20;
/// Bytes that each byte of input may cost. The shortest passages and annotations take a few bytes of their format
/// and some two hundred in memory.
const PER_BYTE: usize = 256;

thread_local! {
    /// Bytes that this thread has allocated, less those that it has given back, and the most since [`bounded`] began.
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    let now = ALLOCATED.get() + bytes;
    ALLOCATED.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as this function's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as this function's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as this function's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as this function's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Does `work` on `input` bytes.
///
/// # Panics
/// If this thread takes more memory meanwhile than so many bytes are worth, above what is `fixed`.
pub fn bounded<T>(input: usize, fixed: usize, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.get();
    PEAK.set(before);
    let result = work();
    let taken = PEAK.get() - before;
    let limit = (fixed + PER_BYTE * input) as isize;
    assert!(taken <= limit, "{input} bytes of input took {taken} bytes of memory, more than {limit}");
    result
}
