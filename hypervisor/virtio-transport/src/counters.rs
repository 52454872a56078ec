//! What happened at a para-virtual device, in numbers: for each queue, and for the channel that they share.
//!
//! What is counted is what happens; what did *not* have to happen is the difference of two of these numbers. A
//! notification is saved wherever one side finds more than one thing after being told once, so chains less kicks are
//! the kicks that a frontend has saved, and likewise for doorbells and interrupts.

use super::QUEUES_MAX;
use crate::virtqueue::QueueError;

/// What happened at one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Notifications by the frontend.
    pub kicks: u64,
    /// Chains taken out of the available ring for good.
    pub chains: u64,
    /// Requests posted to the backend, pieces and those that are posted again included.
    pub requests: u64,
    /// Bytes of data that were moved, either way.
    pub bytes: u64,
    /// Requests, and receptions, whose data EL2 copied.
    pub copies: u64,
    /// Requests whose data the real device moves itself.
    pub grants: u64,
    /// Chains given back to the frontend.
    pub used: u64,
    /// Times that the frontend was to be interrupted.
    pub interrupts: u64,
    /// Receptions dropped, and chains that failed without a tail to say so.
    pub dropped: u64,
    /// Requests posted again to a backend that was restarted.
    pub replays: u64,
}

impl QueueCounters {
    /// Chains for which the frontend sent no notification of their own.
    pub const fn suppressed_kicks(&self) -> u64 {
        self.chains.saturating_sub(self.kicks)
    }

    /// Used chains for which the frontend got no interrupt of their own.
    pub const fn suppressed_interrupts(&self) -> u64 {
        self.used.saturating_sub(self.interrupts)
    }
}

/// What happened at one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    queues: [QueueCounters; QUEUES_MAX],
    /// Bytes that EL2 copied, for all queues.
    pub copied: u64,
    /// Times that the backend's doorbell was rung.
    pub doorbells: u64,
    /// Calls of the backend: something was completed or received.
    pub calls: u64,
    /// What the backend said that can not be: completions of no request that is out, counters beyond their ring.
    pub stale: u64,
    /// Mistakes of the frontend that cost it its device, by reason.
    refused: [u32; QueueError::ALL.len()],
}

impl Counters {
    pub(super) const NONE: Self = Self {
        queues: [QueueCounters {
            kicks: 0,
            chains: 0,
            requests: 0,
            bytes: 0,
            copies: 0,
            grants: 0,
            used: 0,
            interrupts: 0,
            dropped: 0,
            replays: 0,
        }; QUEUES_MAX],
        copied: 0,
        doorbells: 0,
        calls: 0,
        stale: 0,
        refused: [0; QueueError::ALL.len()],
    };

    /// What happened at queue `index`.
    pub fn queue(&self, index: u16) -> QueueCounters {
        self.queues.get(usize::from(index)).copied().unwrap_or_default()
    }

    /// Adds to the numbers of queue `index`.
    #[inline]
    pub(super) fn count(&mut self, index: u16, count: impl FnOnce(&mut QueueCounters)) {
        // Masked, so that the compiler sees that the place exists: this is on the way of every notification.
        if let Some(queue) = self.queues.get_mut(usize::from(index) & QUEUES_MAX.wrapping_sub(1)) {
            count(queue);
        }
    }

    /// Adds `bytes`, which EL2 copied for queue `index`, with more of the same request to come.
    #[inline]
    pub(super) fn count_part(&mut self, index: u16, bytes: u64) {
        self.copied = self.copied.wrapping_add(bytes);
        self.count(index, |queue| add(&mut queue.bytes, bytes));
    }

    /// Adds `bytes`, which EL2 copied for queue `index`: all of a request's, or its last.
    #[inline]
    pub(super) fn count_copy(&mut self, index: u16, bytes: u64) {
        self.copied = self.copied.wrapping_add(bytes);
        self.count(index, |queue| {
            add(&mut queue.bytes, bytes);
            add(&mut queue.copies, 1);
        });
    }

    /// Posted requests that the backend's doorbell was not rung for.
    pub fn suppressed_doorbells(&self) -> u64 {
        let posted = |queue: &QueueCounters| queue.requests;
        let posted = self.queues.iter().map(posted).fold(0, u64::saturating_add);
        posted.saturating_sub(self.doorbells)
    }

    /// Counts a mistake of the frontend's.
    pub(super) fn refuse(&mut self, error: QueueError) {
        if let Some(count) = self.refused.get_mut(error as usize) {
            *count = count.wrapping_add(1);
        }
    }

    /// How often the frontend made the mistake `error`.
    pub fn refused(&self, error: QueueError) -> u32 {
        self.refused.get(error as usize).copied().unwrap_or(0)
    }
}

/// Adds to a number. None of them gets to its end in the life of a board.
#[inline]
pub(super) const fn add(number: &mut u64, more: u64) {
    *number = number.wrapping_add(more);
}

const _: () = assert!(QUEUES_MAX.is_power_of_two(), "a queue's number is masked");
