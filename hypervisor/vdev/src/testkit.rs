//! A test kit for device models: plays the guest's side and the hypervisor's, on the development host.
//!
//! ```
//! # use bulkhead_vdev as vdev;
//! # use core::task::Poll;
//! # use vdev::{Device, GuestFault, Host, Width};
//! # struct Answer;
//! # impl Device for Answer {
//! #     fn read(&mut self, _: u64, _: Width, _: &mut Host<'_>) -> Result<Poll<u64>, GuestFault> {
//! #         Ok(Poll::Ready(42))
//! #     }
//! #     fn write(&mut self, _: u64, _: Width, _: u64, _: &mut Host<'_>) -> Result<Poll<()>, GuestFault> {
//! #         Ok(Poll::Ready(()))
//! #     }
//! #     fn line(&self) -> bool { false }
//! #     fn reset(&mut self, _: vdev::ResetKind) {}
//! # }
//! use vdev::testkit::Bench;
//!
//! let mut bench = Bench::new(Answer);
//! assert_eq!(bench.read32(0x00), 42);
//! assert!(!bench.line());
//! assert_eq!(bench.output(), "");
//! ```
//!
//! It is compiled only with the feature `testkit` and never reaches EL2, so it may allocate and may end a test with a
//! panic.

extern crate alloc;

use crate::{AccessId, Clock, Console, Device, GuestAddr, GuestFault, GuestMemory, Host, ResetKind, Ticks, Width};
use alloc::{collections::VecDeque, string::String, vec, vec::Vec};
use core::cell::{Cell, RefCell};
use core::task::Poll;

/// The guest address at which [`FakeMemory`] starts: that of a real guest's RAM.
pub const MEMORY_BASE: GuestAddr = GuestAddr(crate::guest_map::RAM_BASE);
/// The size of the [`FakeMemory`] of a [`Bench`] in bytes.
pub const MEMORY_SIZE: usize = 0x1000;
/// What is added to a guest address of [`FakeMemory`] to make the bus address of the same byte.
pub const BUS_OFFSET: u64 = 0x10_0000_0000;

/// Ticks of a [`Bench`]'s counter in a second.
pub const FREQUENCY: u64 = 1_000_000;
/// How often [`Bench::go_on_until`] polls at most: a device may want it without end.
pub const POLLS_MAX: usize = 1000;

/// Guest memory: one region that starts at [`MEMORY_BASE`].
pub struct FakeMemory {
    bytes: RefCell<Vec<u8>>,
    /// What [`GuestMemory::has_pending_interrupt`] says.
    pub has_pending_interrupt: Cell<bool>,
    /// What it says otherwise, a bit for each of the next looks, the lowest first.
    pub pending_at: Cell<u64>,
}

impl FakeMemory {
    /// Memory of `size` zero bytes.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { bytes: RefCell::new(vec![0; size]), has_pending_interrupt: Cell::new(false), pending_at: Cell::new(0) }
    }
}

/// Where `length` bytes at `address` lie in memory.
fn range(address: GuestAddr, length: usize) -> Option<core::ops::Range<usize>> {
    let start = usize::try_from(address.0.checked_sub(MEMORY_BASE.0)?).ok()?;
    Some(start..start.checked_add(length)?)
}

impl GuestMemory for FakeMemory {
    fn read(&self, address: GuestAddr, buffer: &mut [u8]) -> Result<(), GuestFault> {
        let bytes = self.bytes.borrow();
        let source = range(address, buffer.len()).and_then(|range| bytes.get(range)).ok_or(GuestFault::BadAddress)?;
        buffer.copy_from_slice(source);
        Ok(())
    }

    fn write(&self, address: GuestAddr, data: &[u8]) -> Result<(), GuestFault> {
        let mut bytes = self.bytes.borrow_mut();
        let target = range(address, data.len()).and_then(|range| bytes.get_mut(range)).ok_or(GuestFault::BadAddress)?;
        target.copy_from_slice(data);
        Ok(())
    }

    fn has_pending_interrupt(&self) -> bool {
        let looks = self.pending_at.get();
        self.pending_at.set(looks >> 1);
        self.has_pending_interrupt.get() || looks & 1 != 0
    }

    fn bus_address(&self, address: GuestAddr, length: u32) -> Result<u64, GuestFault> {
        let is_here = range(address, length as usize).is_some_and(|range| range.end <= self.bytes.borrow().len());
        if is_here { Ok(address.0.wrapping_add(BUS_OFFSET)) } else { Err(GuestFault::BadAddress) }
    }
}

/// A console that keeps what the guest sent and gives it what the test typed.
#[derive(Default)]
pub struct FakeConsole {
    /// What the guest sent and nobody has looked at yet.
    pub output: Vec<u8>,
    /// What was typed and the guest has not taken yet.
    pub input: VecDeque<u8>,
}

impl Console for FakeConsole {
    fn put(&mut self, byte: u8) {
        self.output.push(byte);
    }

    fn take(&mut self) -> Option<u8> {
        self.input.pop_front()
    }
}

/// A device on the bench, with everything a [`Host`] gives it.
pub struct Bench<D> {
    /// The device under test.
    pub device: D,
    /// The time of the next access.
    pub now: Ticks,
    /// What is known of time: [`FREQUENCY`], and no wall clock.
    pub clock: Clock,
    /// What the system's description says of the device.
    pub configuration: &'static [u8],
    /// The memory of the device's guest.
    pub memory: FakeMemory,
    /// The console of the device's guest.
    pub console: FakeConsole,
    /// The number of the last access.
    pub access: AccessId,
    /// Answers to accesses that were pending, in the order in which they came.
    pub answers: Vec<(AccessId, u64)>,
}

impl<D: Device> Bench<D> {
    /// Puts `device` on a bench at time 0, with [`MEMORY_SIZE`] bytes of zeroed memory and a silent console.
    pub fn new(device: D) -> Self {
        let (memory, console) = (FakeMemory::new(MEMORY_SIZE), FakeConsole::default());
        Self {
            device,
            now: Ticks(0),
            clock: Clock { frequency: FREQUENCY, epoch_seconds: None },
            configuration: &[],
            memory,
            console,
            access: AccessId(0),
            answers: Vec::new(),
        }
    }

    /// Lets `action` use the device as the hypervisor would.
    fn act<R>(&mut self, action: impl FnOnce(&mut D, &mut Host<'_>) -> R) -> R {
        let mut host = Host {
            now: self.now,
            access: self.access,
            clock: &self.clock,
            configuration: self.configuration,
            memory: &self.memory,
            console: &mut self.console,
        };
        let result = action(&mut self.device, &mut host);
        self.answers.extend(core::iter::from_fn(|| self.device.take_answer()));
        result
    }

    /// The guest loads; the value is cut to `width`, as the guest's register would be.
    ///
    /// # Errors
    /// What the device refuses with.
    pub fn load(&mut self, offset: u64, width: Width) -> Result<Poll<u64>, GuestFault> {
        self.access.0 = self.access.0.wrapping_add(1);
        let answer = self.act(|device, host| device.read(offset, width, host))?;
        Ok(answer.map(|value| value & width.mask()))
    }

    /// The guest stores; the value is cut to `width`, as the bus does.
    ///
    /// # Errors
    /// What the device refuses with.
    pub fn store(&mut self, offset: u64, width: Width, value: u64) -> Result<Poll<()>, GuestFault> {
        self.access.0 = self.access.0.wrapping_add(1);
        self.act(|device, host| device.write(offset, width, value & width.mask(), host))
    }

    /// The guest loads 32 bits.
    ///
    /// # Panics
    /// If the device refuses, or answers later.
    pub fn read32(&mut self, offset: u64) -> u32 {
        match self.load(offset, Width::Word) {
            Ok(Poll::Pending) => pending("load", offset),
            Ok(Poll::Ready(value)) => u32::try_from(value & Width::Word.mask()).unwrap_or(u32::MAX),
            Err(fault) => refused("load", offset, fault),
        }
    }

    /// The guest stores 32 bits.
    ///
    /// # Panics
    /// If the device refuses, or answers later.
    pub fn write32(&mut self, offset: u64, value: u32) {
        match self.store(offset, Width::Word, u64::from(value)) {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => pending("store", offset),
            Err(fault) => refused("store", offset, fault),
        }
    }

    /// The guest stores `set` over the bits of `clear` in a 32-bit register, as drivers do.
    ///
    /// # Panics
    /// If the device refuses.
    pub fn modify32(&mut self, offset: u64, clear: u32, set: u32) {
        let value = self.read32(offset);
        self.write32(offset, (value & !clear) | set);
    }

    /// The hypervisor calls [`Device::poll`].
    pub fn poll(&mut self) {
        self.act(|device, host| device.poll(host));
    }

    /// Time goes on to `time`; the hypervisor polls the device at each of its deadlines up to then, [`POLLS_MAX`] times
    /// at most. Returns how often it did.
    pub fn go_on_until(&mut self, time: Ticks) -> usize {
        for polls in 0..POLLS_MAX {
            let Some(deadline) = self.device.deadline().filter(|deadline| *deadline <= time) else {
                self.now = time;
                return polls;
            };
            self.now = self.now.max(deadline);
            self.poll();
        }
        self.now = time;
        POLLS_MAX
    }

    /// The guest starts again, or for the first time.
    pub fn reset(&mut self, kind: ResetKind) {
        self.device.reset(kind);
    }

    /// Someone types `text` for the guest, and the hypervisor polls the device.
    pub fn type_in(&mut self, text: &str) {
        self.console.input.extend(text.bytes());
        self.poll();
    }

    /// What the guest has sent since the last call.
    pub fn output(&mut self) -> String {
        String::from_utf8_lossy(&core::mem::take(&mut self.console.output)).into_owned()
    }

    /// The level of the interrupt line.
    pub fn line(&self) -> bool {
        self.device.line()
    }
}

/// Ends the test.
#[expect(clippy::panic, reason = "a test kit's job is to end the test with a sentence")]
fn refused(access: &str, offset: u64, fault: GuestFault) -> ! {
    panic!("the device refused a 32-bit {access} at offset {offset:#x}: {fault:?}")
}

/// Ends the test.
#[expect(clippy::panic, reason = "as above")]
fn pending(access: &str, offset: u64) -> ! {
    panic!("the device answers a 32-bit {access} at offset {offset:#x} later")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_gives_back_what_was_written() {
        let memory = FakeMemory::new(16);
        memory.write(GuestAddr(MEMORY_BASE.0 + 12), &[1, 2, 3, 4]).unwrap();
        let mut buffer = [0; 4];
        memory.read(GuestAddr(MEMORY_BASE.0 + 12), &mut buffer).unwrap();
        assert_eq!(buffer, [1, 2, 3, 4]);
    }

    #[test]
    fn memory_refuses_a_range_that_it_does_not_hold_whole() {
        let memory = FakeMemory::new(16);
        for address in [0, MEMORY_BASE.0 - 1, MEMORY_BASE.0 + 13, u64::MAX] {
            assert_eq!(memory.read(GuestAddr(address), &mut [0; 4]), Err(GuestFault::BadAddress));
            assert_eq!(memory.write(GuestAddr(address), &[0; 4]), Err(GuestFault::BadAddress));
        }
    }
}
