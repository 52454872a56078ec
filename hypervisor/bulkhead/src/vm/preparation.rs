//! How far the preparation of a VM's memory is; `crate::preparation` does it.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that are cleared or copied between two looks for interrupts: some 500 instructions, or 1000.
pub const PIECE_SIZE: u64 = 8 << 10;

/// How far the preparation of a VM's memory is.
pub struct Preparation {
    /// Where the next piece to be cleared begins, counted through all regions; [`CLOSED`] as long as nothing may be.
    next: AtomicU64,
    /// Bytes that have been cleared.
    pub cleared: AtomicU64,
    /// Bytes of images that have been copied. Only the leader copies.
    pub copied: AtomicU64,
    /// The next step of what follows when everything is copied, and of what ends a life. Only the leader takes them.
    step: AtomicUsize,
}

/// No RAM is as large.
const CLOSED: u64 = u64::MAX;

impl Preparation {
    /// Nothing may be cleared yet.
    pub const fn new() -> Self {
        Self {
            next: AtomicU64::new(CLOSED),
            cleared: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            step: AtomicUsize::new(0),
        }
    }

    /// Whether RAM may be cleared.
    pub fn is_open(&self) -> bool {
        self.next.load(Ordering::Acquire) != CLOSED
    }

    /// From now on RAM may be cleared. By the leader: no virtual CPU runs, and no device writes there.
    pub fn open(&self) {
        self.cleared.store(0, Ordering::Relaxed);
        self.copied.store(0, Ordering::Relaxed);
        self.step.store(0, Ordering::Relaxed);
        self.next.store(0, Ordering::Release);
    }

    /// Takes the next step of what follows when everything is copied, or of what ends a life.
    pub fn take_step(&self) -> usize {
        let step = self.step.load(Ordering::Relaxed);
        self.step.store(step.saturating_add(1), Ordering::Relaxed);
        step
    }

    /// The VM begins.
    pub fn close(&self) {
        self.step.store(0, Ordering::Relaxed);
        self.next.store(CLOSED, Ordering::Release);
    }

    /// Where the next piece to be cleared begins; beyond any RAM as long as nothing may be.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Takes the next of the pieces of `size` bytes of RAM, for the caller alone.
    pub fn take_piece(&self, size: u64) -> Option<u64> {
        let step = |next: u64| (next < size).then_some(next.saturating_add(PIECE_SIZE));
        self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).ok()
    }
}
