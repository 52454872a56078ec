//! The register file of a virtio-mmio device, version 2 (VIRTIO 1.2, 4.2): negotiation, queues, interrupts and
//! configuration. It knows no kind of device: a [`Configuration`] says what stands behind it.
//!
//! Loads do not come here. What they return is *published*: whatever changes it is written to a [`Shadow`] page at
//! once, and EL2 maps that page read-only where the guest expects its device. Stores trap, and arrive at
//! [`VirtioMmio::write`]; the [`Effect`] says what they ask of whoever walks the queues.
//!
//! What this module leaves out: the rings (`virtio-transport`), the requests in them, and the memory that they are in.

mod configuration;
mod publishing;
mod queue;
mod registers;
#[cfg(test)]
mod tests;

pub use configuration::{CONFIGURATION_SIZE, Configuration, FeaturesLost, Words, feature};

use queue::Queue;
use registers::{CONFIGURATION_OFFSET, Interrupts, MAGIC, Register, Status, VENDOR, VERSION};
use vdev::{GuestFault, QueueLayout, Width, guest_map::VIRTIO_SLOT_SIZE};

/// What QueueNumMax reads: the most descriptors of a queue.
pub const QUEUE_SIZE_MAX: u16 = 256;
/// The most queues of a device.
pub const QUEUES_MAX: usize = 8;
/// The size of the window, and of the page behind it, in bytes.
pub const WINDOW_SIZE: u16 = 0x1000;

/// Where what is published ends, but for zeroes.
const PUBLISHED_END: u16 = CONFIGURATION_OFFSET + CONFIGURATION_SIZE as u16;

/// The size of a slot in bytes: its registers and its configuration space. The rest of the window are further slots,
/// for software that expects them as close as they are on QEMU's board; there is a device in the first alone.
const SLOT_SIZE: u16 = VIRTIO_SLOT_SIZE as u16;
const _: () = assert!(PUBLISHED_END <= SLOT_SIZE, "what a device publishes is within its slot");

/// What a load of the word at `offset` of a page returns where there is no device in any of its slots: the registers
/// say so by a DeviceID of 0 (VIRTIO 1.2, 4.2.2), and the others read as zero.
#[must_use]
pub const fn vacant_word(offset: u16) -> u32 {
    match offset & (SLOT_SIZE - 1) {
        Register::MAGIC_VALUE => MAGIC,
        Register::VERSION => VERSION,
        Register::VENDOR_ID => VENDOR,
        _ => 0,
    }
}

/// The offsets of the words of a page that [`vacant_word`] gives values but zero, some others among them.
pub fn vacant_words() -> impl Iterator<Item = u16> {
    let slots = (0..WINDOW_SIZE).step_by(usize::from(SLOT_SIZE));
    slots.flat_map(|slot| (0..Register::DEVICE_FEATURES).step_by(4).map(move |word| slot | word))
}

/// Where the register file publishes what loads return: EL2 maps that page read-only into the guest, so loads never
/// trap.
pub trait Shadow {
    /// Makes the four bytes at `offset`, a multiple of 4 below [`WINDOW_SIZE`], read as `word` (little-endian) from now
    /// on. The guest sees the calls in their order.
    fn set(&mut self, offset: u16, word: u32);
}

/// What a store asks of whoever walks the queues. The line may have changed with any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Look into this queue, which is ready; the device is live.
    Notify(u16),
    /// This queue is ready: [`VirtioMmio::queue`] says where it is.
    QueueReady(u16),
    /// This queue is not ready any more: forget where it is, and what was taken from it.
    QueueStopped(u16),
    /// The driver is ready: requests may be taken from queues and interrupts raised.
    Live,
    /// Everything is as at power-on: no queue is ready, and nothing that was taken from one may be answered.
    Reset,
    /// The guest has acknowledged interrupts: the line may have fallen.
    Acknowledged,
}

/// The register file of one virtio-mmio device.
pub struct VirtioMmio {
    /// Read at every notification, so they come first.
    queues: [Queue; QUEUES_MAX],
    status: Status,
    interrupts: Interrupts,
    device_id: u32,
    queue_count: u16,
    /// Whether anything ever stood behind the device.
    is_described: bool,
    queue_sel: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    /// What the device offers; settled from FEATURES_OK to the next reset.
    offered: u64,
    /// What the driver has accepted.
    accepted: u64,
    /// What the device offers from the next reset on.
    offered_next: u64,
    /// The configuration space as it is published.
    words: Words,
    /// The configuration space from the next reset on.
    words_next: Words,
    /// Whether the two differ.
    owes_words: bool,
    generation: u32,
    /// Whether something has happened that the driver must be told of, before it was ready to hear of it: the
    /// configuration that it may have read has changed, or the device needs a reset.
    owes_change: bool,
}

impl VirtioMmio {
    /// A device at power-on with nothing behind it: to its guest there is no device, DeviceID reads as 0, until
    /// [`VirtioMmio::configure`] is called; then it reads as `device_id` (VIRTIO 1.2, 5). It has `queues` queues, at
    /// most [`QUEUES_MAX`].
    ///
    /// Nothing is published before [`VirtioMmio::publish_page`].
    #[must_use]
    pub fn new(device_id: u32, queues: u16) -> Self {
        Self {
            queues: [Queue::RESET; QUEUES_MAX],
            status: Status::empty(),
            interrupts: Interrupts::empty(),
            device_id,
            queue_count: queues.min(QUEUES_MAX as u16),
            is_described: false,
            queue_sel: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            offered: feature::COMMON,
            accepted: 0,
            offered_next: feature::COMMON,
            words: [0; CONFIGURATION_SIZE / 8],
            words_next: [0; CONFIGURATION_SIZE / 8],
            owes_words: false,
            generation: 0,
            owes_change: false,
        }
    }

    /// Which kind of device this is (VIRTIO 1.2, 5).
    #[must_use]
    pub const fn device_id(&self) -> u32 {
        self.device_id
    }

    /// How many queues the device has.
    #[must_use]
    pub const fn queue_count(&self) -> u16 {
        self.queue_count
    }

    /// Says what stands behind the device. Returns whether the line changed.
    ///
    /// What a driver has negotiated stays as it is until the next reset: a change that comes later shows in the first
    /// `live_size` bytes of the configuration space alone, and the driver is told.
    ///
    /// # Errors
    /// A driver has accepted features that the configuration lacks; nothing has changed.
    pub fn configure(
        &mut self,
        configuration: &Configuration<'_>,
        shadow: &mut impl Shadow,
    ) -> Result<bool, FeaturesLost> {
        let are_settled = self.status.contains(Status::FEATURES_OK);
        let offered = configuration.offered();
        if are_settled && self.accepted & !offered != 0 {
            return Err(FeaturesLost);
        }
        self.offered_next = offered;
        self.words_next = *configuration.words;
        if !self.is_described {
            self.is_described = true;
            self.publish_one(Register::DEVICE_ID, shadow);
        }
        let live_size = if are_settled {
            configuration.live_size
        } else {
            self.offered = offered;
            self.publish_one(Register::DEVICE_FEATURES, shadow);
            CONFIGURATION_SIZE as u16
        };
        if !self.follow_words(live_size, shadow) {
            return Ok(false);
        }
        let was_high = self.line();
        self.owes_change = !self.status.is_empty();
        self.tell_change(shadow);
        Ok(self.line() != was_high)
    }

    /// Returns the device to its state at power-on, for its driver or with its guest. What stands behind it stays.
    pub fn reset(&mut self, shadow: &mut impl Shadow) {
        self.forget_driver();
        Register::OF_DRIVER.iter().for_each(|offset| self.publish_one(*offset, shadow));
        if self.owes_words {
            self.follow_words(CONFIGURATION_SIZE as u16, shadow);
        }
    }

    /// Takes a store of `value`, already cut to `width`, at byte `offset` into the window.
    ///
    /// Stores to the configuration space are ignored, since no device here has a field of it that its driver may write,
    /// and so are those to registers that are there to be read, to none, and to the
    /// slots without a device.
    ///
    /// # Errors
    /// [`GuestFault::BadWidth`] for anything but an aligned 32-bit store to a register (VIRTIO 1.2, 4.2.2.2), and for a
    /// 64-bit or unaligned store to the configuration space; [`GuestFault::NoRegister`] outside the window.
    #[inline]
    pub fn write(
        &mut self,
        offset: u64,
        width: Width,
        value: u64,
        shadow: &mut impl Shadow,
    ) -> Result<Effect, GuestFault> {
        match (offset, width) {
            (Register::QUEUE_NOTIFY, Width::Word) => return Ok(self.notify(value as u32)),
            (Register::INTERRUPT_ACK, Width::Word) => return Ok(self.acknowledge(value as u32, shadow)),
            _ => {}
        }
        self.write_other(offset, width, value as u32, shadow)
    }

    /// QueueNotify. A queue that does not exist is never ready.
    #[inline]
    fn notify(&self, queue: u32) -> Effect {
        match self.queues.get(queue as usize) {
            Some(registers) if registers.is_ready() && self.is_live() => Effect::Notify(queue as u16),
            _ => Effect::None,
        }
    }

    /// InterruptACK: what is named is cleared, and nothing else.
    #[inline]
    fn acknowledge(&mut self, interrupts: u32, shadow: &mut impl Shadow) -> Effect {
        self.interrupts.remove(Interrupts::from_bits_truncate(interrupts));
        shadow.set(Register::INTERRUPT_STATUS, self.interrupts.bits());
        Effect::Acknowledged
    }

    /// Takes any store but the two that each request needs.
    #[inline(never)]
    fn write_other(
        &mut self,
        offset: u64,
        width: Width,
        value: u32,
        shadow: &mut impl Shadow,
    ) -> Result<Effect, GuestFault> {
        if offset >= u64::from(WINDOW_SIZE) {
            return Err(GuestFault::NoRegister);
        }
        if offset & (width.bytes().wrapping_sub(1)) != 0 || width == Width::DoubleWord {
            return Err(GuestFault::BadWidth);
        }
        if offset >= u64::from(CONFIGURATION_OFFSET) {
            return Ok(Effect::None);
        }
        if width != Width::Word {
            return Err(GuestFault::BadWidth);
        }
        Ok(Register::at(offset).map_or(Effect::None, |register| self.write_register(register, value, shadow)))
    }

    fn write_register(&mut self, register: Register, value: u32, shadow: &mut impl Shadow) -> Effect {
        match register {
            Register::DeviceFeaturesSel => {
                self.device_features_sel = value;
                self.publish_one(Register::DEVICE_FEATURES, shadow);
            }
            Register::DriverFeatures => self.accept(value),
            Register::DriverFeaturesSel => self.driver_features_sel = value,
            Register::QueueSel => {
                self.queue_sel = value;
                self.publish_one(Register::QUEUE_NUM_MAX, shadow);
                self.publish_one(Register::QUEUE_READY, shadow);
            }
            Register::QueueNum => {
                if let Some(queue) = self.selected() {
                    queue.set_size(value);
                }
            }
            Register::QueueAddress(part, half) => {
                if let Some(queue) = self.selected() {
                    queue.set_address(part, half, value);
                }
            }
            Register::QueueReady => return self.set_queue_ready(value, shadow),
            Register::Status => return self.set_status(value, shadow),
            Register::MagicValue
            | Register::Version
            | Register::DeviceId
            | Register::VendorId
            | Register::DeviceFeatures
            | Register::QueueNumMax
            | Register::InterruptStatus
            | Register::SharedMemory
            | Register::ConfigGeneration => {}
        }
        Effect::None
    }

    /// DriverFeatures: the driver accepts features, 32 at a time, until they are settled.
    fn accept(&mut self, features: u32) {
        let half = match self.driver_features_sel {
            0 => registers::Half::Low,
            1 => registers::Half::High,
            _ => return,
        };
        if !self.status.contains(Status::FEATURES_OK) {
            self.accepted = half.replace(self.accepted, features);
        }
    }

    /// The queue that QueueSel names, if it exists.
    fn selected(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(..usize::from(self.queue_count))?.get_mut(self.queue_sel as usize)
    }

    /// QueueReady (VIRTIO 1.2, 4.2.2): 1 hands the queue over, once features are settled, and 0 takes it back.
    fn set_queue_ready(&mut self, value: u32, shadow: &mut impl Shadow) -> Effect {
        let are_features_settled = self.status.contains(Status::FEATURES_OK);
        let number = self.queue_sel as u16;
        let Some(queue) = self.selected() else { return Effect::None };
        let effect = match (value, queue.is_ready()) {
            (1, false) if are_features_settled && queue.start() => Effect::QueueReady(number),
            // Also for a queue that has stopped before: the store may come again until what the queue gave is back.
            (0, _) => {
                queue.stop();
                Effect::QueueStopped(number)
            }
            _ => Effect::None,
        };
        self.publish_one(Register::QUEUE_READY, shadow);
        effect
    }

    /// Status (VIRTIO 1.2, 2.1 and 3.1): bits add up until a store of zero, and a bit that the device refuses stays
    /// clear.
    fn set_status(&mut self, value: u32, shadow: &mut impl Shadow) -> Effect {
        if value == 0 {
            self.reset(shadow);
            return Effect::Reset;
        }
        let mut wanted = Status::from_bits_truncate(value).difference(Status::DEVICE_NEEDS_RESET);
        let was_ready = self.status.contains(Status::DRIVER_OK);
        if !self.status.contains(Status::FEATURES_OK) && !self.are_features_acceptable() {
            wanted.remove(Status::FEATURES_OK);
        }
        self.status |= wanted & !Status::DRIVER_OK;
        if self.status.contains(Status::FEATURES_OK) {
            self.status |= wanted & Status::DRIVER_OK;
        }
        self.publish_one(Register::STATUS, shadow);
        if was_ready || !self.status.contains(Status::DRIVER_OK) {
            return Effect::None;
        }
        self.tell_change(shadow);
        if self.is_live() { Effect::Live } else { Effect::None }
    }

    /// Whether the driver has accepted what it must, and nothing that was not offered (VIRTIO 1.2, 2.2.2 and 6.1).
    const fn are_features_acceptable(&self) -> bool {
        self.accepted & feature::VERSION_1 != 0 && self.accepted & !self.offered == 0
    }

    /// Everything that a driver has set up is gone, and what is offered follows the configuration again.
    fn forget_driver(&mut self) {
        // Of the others nobody can have set anything.
        self.queues.iter_mut().take(usize::from(self.queue_count)).for_each(|queue| *queue = Queue::RESET);
        self.status = Status::empty();
        self.interrupts = Interrupts::empty();
        self.queue_sel = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.accepted = 0;
        self.owes_change = false;
        self.offered = self.offered_next;
    }

    /// A buffer was used: sets InterruptStatus, before the line is raised. A driver that is not ready is not told.
    #[inline]
    pub fn raise_used(&mut self, shadow: &mut impl Shadow) {
        self.raise(Interrupts::USED_BUFFER, shadow);
    }

    /// The device cannot go on: sets DEVICE_NEEDS_RESET, and tells the driver once that is ready (VIRTIO 1.2, 2.1.2).
    pub fn need_reset(&mut self, shadow: &mut impl Shadow) {
        self.status |= Status::DEVICE_NEEDS_RESET;
        self.publish_one(Register::STATUS, shadow);
        self.owes_change = true;
        self.tell_change(shadow);
    }

    /// Tells the driver that the configuration has changed, as soon as it is ready to hear of it.
    fn tell_change(&mut self, shadow: &mut impl Shadow) {
        if self.owes_change && self.status.contains(Status::DRIVER_OK) {
            self.owes_change = false;
            self.raise(Interrupts::CONFIGURATION_CHANGE, shadow);
        }
    }

    #[inline]
    fn raise(&mut self, interrupt: Interrupts, shadow: &mut impl Shadow) {
        if self.status.contains(Status::DRIVER_OK) {
            self.interrupts |= interrupt;
            shadow.set(Register::INTERRUPT_STATUS, self.interrupts.bits());
        }
    }

    /// Makes the first `live_size` bytes of the configuration space what they are to be from now on, and publishes what
    /// differs. Returns whether anything does.
    #[inline(never)]
    fn follow_words(&mut self, live_size: u16, shadow: &mut impl Shadow) -> bool {
        let Self { words, words_next, generation, .. } = self;
        let mut next_generation = |shadow: &mut _| {
            *generation = generation.wrapping_add(1);
            Shadow::set(shadow, Register::CONFIG_GENERATION, *generation);
        };
        let (mut is_changed, mut owes_words) = (false, false);
        for (place, (word, next)) in (0..).step_by(8).zip(words.iter_mut().zip(words_next)) {
            let difference = *word ^ *next;
            if difference == 0 {
                continue;
            }
            let live = match live_size.saturating_sub(place) {
                0 => 0,
                1..8 => difference & u64::from(u32::MAX),
                8.. => difference,
            };
            owes_words |= live != difference;
            if live == 0 {
                continue;
            }
            if !is_changed {
                // A driver that reads a field in two loads compares ConfigGeneration before and after. It does not
                // trap, so the counter moves on either side of the change; the interrupt comes after both, and has it
                // read again.
                next_generation(shadow);
            }
            is_changed = true;
            *word ^= live;
            let offset = CONFIGURATION_OFFSET.wrapping_add(place);
            shadow.set(offset, *word as u32);
            shadow.set(offset.wrapping_add(4), (*word >> 32) as u32);
        }
        if is_changed {
            next_generation(shadow);
        }
        self.owes_words = owes_words;
        is_changed
    }

    /// The level of the interrupt line.
    #[inline]
    #[must_use]
    pub const fn line(&self) -> bool {
        !self.interrupts.is_empty()
    }

    /// Whether requests may be taken from the queues: the driver is ready, and the device does not need a reset.
    #[inline]
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.status.contains(Status::DRIVER_OK) && !self.status.contains(Status::DEVICE_NEEDS_RESET)
    }

    /// The features that are settled, a set of the bits of [`feature`]; 0 before FEATURES_OK.
    #[must_use]
    pub const fn features(&self) -> u64 {
        if self.status.contains(Status::FEATURES_OK) { self.accepted } else { 0 }
    }

    /// Where queue `index` is, if it is ready.
    #[must_use]
    pub fn queue(&self, index: u16) -> Option<QueueLayout> {
        self.queues.get(usize::from(index))?.layout()
    }
}
