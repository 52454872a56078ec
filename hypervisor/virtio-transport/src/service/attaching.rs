//! Attach: what a backend says of its device is copied once, checked, and then taken over.
//!
//! An interrupt that is pending comes between the check and the rest: either takes some 1,000 instructions. What was
//! checked is kept for the call that goes on.

use super::super::QUEUES_MAX;
use super::super::policy::{self, Refused};
use super::{Service, bit};
use abi::io::{DescriptionWords, QueueDescription};
use vdev::GuestMemory;

/// What a backend has said.
pub(super) struct Described {
    words: DescriptionWords,
    /// What it says of each queue.
    policies: [QueueDescription; QUEUES_MAX],
    /// It was checked, and waits to be taken over.
    is_checked: bool,
}

impl Described {
    pub(super) const NOTHING: Self =
        Self { words: DescriptionWords::NONE, policies: [QueueDescription::NONE; QUEUES_MAX], is_checked: false };

    /// A backend that starts anew says all of it again.
    pub(super) const fn forget(&mut self) {
        self.is_checked = false;
    }
}

impl Service {
    /// What the backend says of the device in its channel, checked: [`Service::attach`] takes it over. `None` if an
    /// interrupt is pending: the next call goes on.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn description(&mut self, backend: &impl GuestMemory) -> Result<Option<&DescriptionWords>, Refused> {
        let Described { words, policies, is_checked } = &mut self.described;
        if !core::mem::take(is_checked) {
            self.channel.load_description(backend, words).map_err(|_| Refused::Malformed)?;
            policy::check(words, &self.allocation, self.window_size, policies)?;
            if backend.has_pending_interrupt() {
                *is_checked = true;
                return Ok(None);
            }
        }
        // As of now: a driver may have started a queue since the check.
        let sizes = |queue: &QueueDescription| (queue.header_size, queue.tail_size, queue.returns_early);
        let mut pairs = self.policies.iter().zip(&*policies).zip(&self.queues);
        if pairs.any(|((old, new), queue)| queue.is_some() && sizes(old) != sizes(new)) {
            return Err(Refused::OtherSizes);
        }
        Ok(Some(words))
    }

    /// The backend will serve the channel, as [`Service::description`] has just said.
    pub fn attach(&mut self) {
        self.is_attached = true;
        self.policies = self.described.policies;
        let (mut early, mut watched) = (0, 0);
        for (index, policy) in (0..).zip(&self.policies) {
            let is_filled = self.allocation.filled >> index & 1 != 0;
            early |= if policy.returns_early { bit(index) } else { 0 };
            watched |= if policy.is_patient || is_filled { 0 } else { bit(index) };
        }
        self.early = early;
        self.watched = watched;
    }
}
