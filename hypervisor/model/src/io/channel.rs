//! The rings of one channel, as EL2 uses them (`abi::io` has the layout).
//!
//! What this module leaves out: what the entries mean.

use abi::io::{
    self, COMPLETION_RING, Completion, ENTRY_SIZE, RECEIVE_RING, REQUEST_RING, RING_ENTRIES, Receive, Request, control,
};
use core::sync::atomic::{Ordering, fence};
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// The driver domain broke the protocol of the rings: a counter says more than a ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl From<GuestFault> for Forged {
    /// The manifest was checked: a channel lies in its driver domain's RAM. So this does not happen; if it did, the
    /// channel would be as good as forged.
    fn from(_: GuestFault) -> Self {
        Self
    }
}

/// EL2's end of the rings. Its counters are its own; those in shared memory are for the other side alone.
pub struct Channel {
    base: u64,
    requests_posted: u32,
    requests_published: u32,
    completions_consumed: u32,
    completions_told: u32,
    receptions_consumed: u32,
    receptions_told: u32,
    generation: u32,
}

impl Channel {
    /// The channel at `base` in the driver domain's memory.
    pub const fn new(base: u64) -> Self {
        Self {
            base,
            requests_posted: 0,
            requests_published: 0,
            completions_consumed: 0,
            completions_told: 0,
            receptions_consumed: 0,
            receptions_told: 0,
            generation: 0,
        }
    }

    /// The address `offset` bytes into the channel. It cannot wrap: a channel lies in RAM, and offsets within it.
    #[inline]
    pub fn at(&self, offset: u64) -> GuestAddr {
        GuestAddr(self.base.wrapping_add(offset))
    }

    fn entry(&self, ring: u64, counter: u32) -> GuestAddr {
        let index = u64::from(counter & RING_ENTRIES.wrapping_sub(1));
        self.at(ring.wrapping_add(index.wrapping_mul(ENTRY_SIZE)))
    }

    /// The driver domain's generation that requests carry.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// The driver domain starts anew, with zeroed rings.
    ///
    /// # Errors
    /// See [`Forged`].
    pub fn restart(&mut self, memory: &impl GuestMemory) -> Result<(), Forged> {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::new(self.base) };
        memory.store_u32(self.at(control::GENERATION), self.generation)?;
        Ok(())
    }

    /// The driver domain's heartbeat word.
    ///
    /// # Errors
    /// See [`Forged`].
    pub fn heartbeat(&self, memory: &impl GuestMemory) -> Result<u32, Forged> {
        Ok(memory.load_u32(self.at(control::HEARTBEAT))?)
    }

    /// Writes a request into the ring; [`Channel::publish`] shows it to the driver domain. There is room for it as long
    /// as no more than [`RING_ENTRIES`] are out.
    ///
    /// # Errors
    /// See [`Forged`].
    #[inline]
    pub fn post(&mut self, memory: &impl GuestMemory, request: &Request) -> Result<(), Forged> {
        let entry = self.entry(REQUEST_RING, self.requests_posted);
        let place = u64::from(request.generation) | u64::from(request.offset) << 32;
        let amount = u64::from(request.length) | u64::from(request.operation) << 32 | u64::from(request.segments) << 48;
        memory.store_u64_pair(entry, [request.sequence, request.sector])?;
        memory.store_u64_pair(GuestAddr(entry.0.wrapping_add(16)), [place, amount])?;
        self.requests_posted = self.requests_posted.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver domain what was posted. Returns whether it wants its doorbell rung.
    ///
    /// # Errors
    /// See [`Forged`].
    pub fn publish(&mut self, memory: &impl GuestMemory) -> Result<bool, Forged> {
        let (old, new) = (self.requests_published, self.requests_posted);
        if old == new {
            return Ok(false);
        }
        // The entries before the counter.
        fence(Ordering::Release);
        memory.store_u32(self.at(control::REQUESTS_PRODUCED), new)?;
        self.requests_published = new;
        // The counter before the look at the event word: the other side does it the other way round, so that one of the
        // two sees the other's store.
        fence(Ordering::SeqCst);
        let event = memory.load_u32(self.at(control::REQUESTS_EVENT))?;
        Ok(io::is_notification_due(event, old, new))
    }

    /// The next completion, if there is one.
    ///
    /// # Errors
    /// The counter is beyond the ring.
    #[inline]
    pub fn next_completion(&mut self, memory: &impl GuestMemory) -> Result<Option<Completion>, Forged> {
        if !is_ahead(memory, self.at(control::COMPLETIONS_PRODUCED), self.completions_consumed)? {
            return Ok(None);
        }
        let entry = self.entry(COMPLETION_RING, self.completions_consumed);
        let [sequence, lengths] = memory.load_u64_pair(entry)?;
        let status = memory.load_u16(GuestAddr(entry.0.wrapping_add(16)))?;
        self.completions_consumed = self.completions_consumed.wrapping_add(1);
        Ok(Some(Completion {
            sequence,
            generation: lengths as u32,
            length: (lengths >> 32) as u32,
            status,
            reserved: [0; 7],
        }))
    }

    /// The next reception and the offset of its bytes, if there is one. It stays until [`Channel::consume_reception`].
    ///
    /// # Errors
    /// The counter is beyond the ring.
    pub fn peek_reception(&self, memory: &impl GuestMemory) -> Result<Option<(Receive, u64)>, Forged> {
        if !is_ahead(memory, self.at(control::RECEPTIONS_PRODUCED), self.receptions_consumed)? {
            return Ok(None);
        }
        let [first, second] = memory.load_u64_pair(self.entry(RECEIVE_RING, self.receptions_consumed))?;
        let receive = Receive {
            length: first as u32,
            flags: (first >> 32) as u32,
            checksum_start: second as u16,
            checksum_offset: (second >> 16) as u16,
            reserved: [0; 5],
        };
        let slot = u64::from(self.receptions_consumed & RING_ENTRIES.wrapping_sub(1));
        Ok(Some((receive, io::RECEIVE_WINDOW.wrapping_add(slot.wrapping_mul(io::RECEIVE_SLOT_SIZE)))))
    }

    /// Ends the reception that [`Channel::peek_reception`] gave.
    pub fn consume_reception(&mut self) {
        self.receptions_consumed = self.receptions_consumed.wrapping_add(1);
    }

    /// Tells the driver domain how far EL2 has read.
    ///
    /// # Errors
    /// See [`Forged`].
    pub fn publish_consumed(&mut self, memory: &impl GuestMemory) -> Result<(), Forged> {
        // What was read before the counter that lets it be overwritten.
        fence(Ordering::Release);
        if self.completions_told != self.completions_consumed {
            self.completions_told = self.completions_consumed;
            memory.store_u32(self.at(control::COMPLETIONS_CONSUMED), self.completions_consumed)?;
        }
        if self.receptions_told != self.receptions_consumed {
            self.receptions_told = self.receptions_consumed;
            memory.store_u32(self.at(control::RECEPTIONS_CONSUMED), self.receptions_consumed)?;
        }
        Ok(())
    }
}

/// Whether the counter at `address`, which the driver domain writes, is ahead of `consumed`.
#[inline]
fn is_ahead(memory: &impl GuestMemory, address: GuestAddr, consumed: u32) -> Result<bool, Forged> {
    let produced = memory.load_u32(address)?;
    match produced.wrapping_sub(consumed) {
        0 => Ok(false),
        1..=RING_ENTRIES => {
            // The counter before the entry.
            fence(Ordering::Acquire);
            Ok(true)
        }
        _ => Err(Forged),
    }
}
