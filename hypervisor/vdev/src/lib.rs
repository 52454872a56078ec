//! The published virtual-device API.
//!
//! A virtual device is a value that implements [`Device`]: a register model that answers the guest's reads and writes.
//! It cannot reach hardware and never calls upwards; time, guest memory and the console reach it through [`Host`], and
//! after every call the hypervisor samples [`Device::line`] and [`Device::deadline`]. So every model runs, and is
//! tested, on the development host.
//!
//! A model that is ready for use also implements [`Model`]: it says what it is called, where guests expect it and what
//! its device-tree node looks like. `testkit` (a feature) plays the guest in its tests, and [`guest_map`] is the
//! address map that all guests see.
//!
//! What this crate leaves out: interrupts (`vgic`), and placement
//! (the manifest).
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod bus;
pub mod guest_map;
mod node;
mod queue;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

pub use node::{Description, DeviceNode, Model, PropertyValue, Trigger};
pub use queue::QueueLayout;

use core::task::Poll;

/// An address a guest named (an intermediate physical address). Holding one proves nothing; [`GuestMemory`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestAddr(pub u64);

impl core::fmt::LowerHex for GuestAddr {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::LowerHex::fmt(&self.0, formatter)
    }
}

/// A time in ticks of the board's system counter (CNTPCT_EL0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u64);

/// The direction of an access, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The guest loads.
    Read,
    /// The guest stores.
    Write,
}

/// The width of one device access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    HalfWord,
    /// 32 bits.
    Word,
    /// 64 bits.
    DoubleWord,
}

impl Width {
    /// The width in bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::HalfWord => 2,
            Self::Word => 4,
            Self::DoubleWord => 8,
        }
    }

    /// A mask of the bits that an access of this width transfers.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::HalfWord => 0xffff,
            Self::Word => 0xffff_ffff,
            Self::DoubleWord => u64::MAX,
        }
    }
}

/// Why a device or a memory access refuses a guest. The hypervisor answers with a synchronous external abort at the
/// faulting instruction; nothing else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestFault {
    /// No register answers at this offset.
    NoRegister,
    /// The register exists, but not at this width or alignment.
    BadWidth,
    /// The guest named memory that is not its own.
    BadAddress,
}

/// The number of an access, by which its answer is known if it comes later. No two of one virtual machine are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessId(pub u64);

/// A guest's own memory, reached by copy: no reference into it ever exists.
pub trait GuestMemory {
    /// Copies guest memory at `address` into `buffer`.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] unless the whole range lies in one memory region of this guest; nothing is copied.
    fn read(&self, address: GuestAddr, buffer: &mut [u8]) -> Result<(), GuestFault>;

    /// Copies `bytes` to guest memory at `address`.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] unless the whole range lies in one memory region of this guest; nothing is copied.
    fn write(&self, address: GuestAddr, bytes: &[u8]) -> Result<(), GuestFault>;

    /// Loads a 16-bit little-endian number, in one access if `address` is aligned.
    ///
    /// # Errors
    /// As for [`GuestMemory::read`].
    #[inline]
    fn load_u16(&self, address: GuestAddr) -> Result<u16, GuestFault> {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Loads a 32-bit little-endian number, in one access if `address` is aligned.
    ///
    /// # Errors
    /// As for [`GuestMemory::read`].
    #[inline]
    fn load_u32(&self, address: GuestAddr) -> Result<u32, GuestFault> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Loads two 64-bit little-endian numbers from a multiple of 8 bytes: a descriptor, or half a ring entry.
    ///
    /// # Errors
    /// As for [`GuestMemory::read`].
    #[inline]
    fn load_u64_pair(&self, address: GuestAddr) -> Result<[u64; 2], GuestFault> {
        let mut bytes = [0; 16];
        self.read(address, &mut bytes)?;
        let number = u128::from_le_bytes(bytes);
        Ok([number as u64, (number >> 64) as u64])
    }

    /// Loads pairs of 64-bit little-endian numbers that follow each other, from any address.
    ///
    /// # Errors
    /// As for [`GuestMemory::read`]; what is in `pairs` then is of no use.
    fn load_u64_pairs(&self, address: GuestAddr, pairs: &mut [[u64; 2]]) -> Result<(), GuestFault> {
        for (index, pair) in (0u64..).zip(pairs) {
            let mut bytes = [0; 16];
            self.read(GuestAddr(address.0.saturating_add(index.saturating_mul(16))), &mut bytes)?;
            let number = u128::from_le_bytes(bytes);
            *pair = [number as u64, (number >> 64) as u64];
        }
        Ok(())
    }

    /// Stores a 16-bit little-endian number, in one access if `address` is aligned.
    ///
    /// # Errors
    /// As for [`GuestMemory::write`].
    #[inline]
    fn store_u16(&self, address: GuestAddr, value: u16) -> Result<(), GuestFault> {
        self.write(address, &value.to_le_bytes())
    }

    /// Stores a 32-bit little-endian number, in one access if `address` is aligned.
    ///
    /// # Errors
    /// As for [`GuestMemory::write`].
    #[inline]
    fn store_u32(&self, address: GuestAddr, value: u32) -> Result<(), GuestFault> {
        self.write(address, &value.to_le_bytes())
    }

    /// Stores two 64-bit little-endian numbers at a multiple of 8 bytes.
    ///
    /// # Errors
    /// As for [`GuestMemory::write`].
    #[inline]
    fn store_u64_pair(&self, address: GuestAddr, pair: [u64; 2]) -> Result<(), GuestFault> {
        let [low, high] = pair;
        self.write(address, &(u128::from(low) | u128::from(high) << 64).to_le_bytes())
    }

    /// Stores pairs of 64-bit little-endian numbers one after the other.
    ///
    /// # Errors
    /// As for [`GuestMemory::write`], but that some of them may be stored.
    fn store_u64_pairs(&self, address: GuestAddr, pairs: &[[u64; 2]]) -> Result<(), GuestFault> {
        for (index, [low, high]) in (0u64..).zip(pairs) {
            let at = GuestAddr(address.0.saturating_add(index.saturating_mul(16)));
            self.write(at, &(u128::from(*low) | u128::from(*high) << 64).to_le_bytes())?;
        }
        Ok(())
    }

    /// Where a device that moves data itself finds the `length` bytes at `address`: a physical address. Whoever hands
    /// it to a device sees to it that the memory stays this guest's until that device is done.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] unless the whole range lies in one memory region of this guest, where devices reach
    /// it.
    fn bus_address(&self, address: GuestAddr, length: u32) -> Result<u64, GuestFault> {
        let _ = (address, length);
        Err(GuestFault::BadAddress)
    }

    /// Whether an interrupt is pending for the core that copies: what takes long ends there, and goes on later.
    fn has_pending_interrupt(&self) -> bool {
        false
    }

    /// Copies `length` bytes at `from` to `to` in `target`, the memory of this or another guest.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] unless each range lies in one memory region of its guest. Nothing outside them
    /// changes.
    fn copy_to(&self, from: GuestAddr, target: &Self, to: GuestAddr, length: u32) -> Result<(), GuestFault>
    where
        Self: Sized,
    {
        let mut buffer = [0; 64];
        let mut done = 0;
        while done < u64::from(length) {
            let step = u64::from(length).saturating_sub(done).min(64);
            let piece = buffer.get_mut(..step as usize).ok_or(GuestFault::BadAddress)?;
            let at = |start: GuestAddr| start.0.checked_add(done).map(GuestAddr).ok_or(GuestFault::BadAddress);
            self.read(at(from)?, piece)?;
            target.write(at(to)?, piece)?;
            done = done.saturating_add(step);
        }
        Ok(())
    }
}

/// One guest's end of the system console.
pub trait Console {
    /// Takes a byte that the guest sent.
    fn put(&mut self, byte: u8);
    /// Gives the next byte typed for this guest, if there is one.
    fn take(&mut self) -> Option<u8>;
}

/// What a device may use during a call: nothing is ambient.
pub struct Host<'a> {
    /// The time of the call.
    pub now: Ticks,
    /// The number of the access, in a call of [`Device::read`] or [`Device::write`]. In any other call it means
    /// nothing.
    pub access: AccessId,
    /// What is known of time on this board.
    pub clock: &'a Clock,
    /// What the system's description says of this device, as its model reads it; often nothing.
    pub configuration: &'a [u8],
    /// The memory of the guest that owns the device.
    pub memory: &'a dyn GuestMemory,
    /// The console of the guest that owns the device.
    pub console: &'a mut dyn Console,
}

/// What is known of time on a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Ticks of the system counter in a second.
    pub frequency: u64,
    /// What the wall clock said when the system counter was 0: seconds since 1970, UTC. `None` on a board without a
    /// wall clock.
    pub epoch_seconds: Option<u64>,
}

impl Clock {
    /// What the wall clock says at `now`: seconds since 1970, UTC. `None` on a board without one.
    #[must_use]
    pub fn wall_seconds(&self, now: Ticks) -> Option<u64> {
        Some(self.epoch_seconds?.saturating_add(now.0.checked_div(self.frequency)?))
    }
}

/// Why a device is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Its guest starts for the first time: nothing has been before.
    PowerOn,
    /// Its guest starts again. What keeps its state over that on a board, such as a clock that goes on, keeps it here.
    VmRestart,
}

/// A virtual device: a register model.
pub trait Device: Send {
    /// Answers a load of `width` at byte `offset` into the device's window. Bits above `width` are ignored.
    ///
    /// [`Poll::Pending`] means that the answer comes later: the device notes [`Host::access`], and gives the answer by
    /// [`Device::take_answer`]. Until then the virtual CPU waits, and holds no core. Its VM may stop in the meantime:
    /// then the device is reset, and an answer that it gives all the same finds nobody. Only an instruction that loads
    /// or stores one aligned register, without write-back, can wait; any other ends in an external abort.
    ///
    /// # Errors
    /// A [`GuestFault`] makes the load end in a synchronous external abort.
    fn read(&mut self, offset: u64, width: Width, host: &mut Host<'_>) -> Result<Poll<u64>, GuestFault>;

    /// Answers a load as [`Device::read`] would, if it changes nothing and needs no [`Host`]; otherwise `None`. A
    /// shortcut: the hypervisor asks here first, and neither prepares a `Host` nor samples the line.
    #[inline]
    fn peek(&self, offset: u64, width: Width) -> Option<u64> {
        let _ = (offset, width);
        None
    }

    /// Takes a store of `value`, already cut to `width`, at byte `offset` into the device's window. [`Poll::Pending`]
    /// means that the store is done later, as for [`Device::read`].
    ///
    /// # Errors
    /// A [`GuestFault`] makes the store end in a synchronous external abort.
    fn write(&mut self, offset: u64, width: Width, value: u64, host: &mut Host<'_>) -> Result<Poll<()>, GuestFault>;

    /// The answer to an access that was [`Poll::Pending`], once: its number, and what a load returns. Asked for after
    /// every call until there is none.
    fn take_answer(&mut self) -> Option<(AccessId, u64)> {
        None
    }

    /// The level of the device's interrupt line, sampled after every call.
    fn line(&self) -> bool;

    /// When the device wants [`Device::poll`] next, if at all; sampled after every call. A time that has passed means
    /// at once. The hypervisor polls the devices of one virtual machine some 12,000 times a second at most.
    fn deadline(&self) -> Option<Ticks> {
        None
    }

    /// Called when [`Device::deadline`] has passed, with the time in [`Host::now`], and when something outside has
    /// changed, such as new console input.
    fn poll(&mut self, host: &mut Host<'_>) {
        let _ = host;
    }

    /// Returns the device to the state that its guest finds at a start; called before each.
    fn reset(&mut self, kind: ResetKind);
}
