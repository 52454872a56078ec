//! The board's devices that belong to one virtual machine: its drivers use their registers without an exit, and their
//! interrupts reach it linked, so that it ends them without one.
//!
//! What EL2 does for them: it silences the devices before their owner starts and after it has stopped. Where their
//! interrupts come is [`crate::routing`]'s.

use alloc::vec::Vec;
use arch::device_window::DeviceWindow;
use arch::gic::Gic;
use core::sync::atomic::{AtomicU32, Ordering};
use manifest::{Store, Trigger};
use vgic::SPI_WORDS;

/// The first INTID of a shared peripheral interrupt.
const SPI_INTID: u32 = 32;

/// Equal devices side by side.
pub struct AssignedDevices {
    registers: DeviceWindow,
    instance_size: u64,
    silence: Vec<Store>,
    interrupts: Vec<u32>,
    trigger: Trigger,
}

impl AssignedDevices {
    /// What `device` of the manifest, whose rules hold, describes; `registers` are its own.
    pub fn new(device: &manifest::Assigned, registers: DeviceWindow) -> Self {
        Self {
            registers,
            instance_size: device.instance_size,
            silence: device.silence.clone(),
            interrupts: device.interrupts.clone(),
            trigger: device.trigger,
        }
    }

    /// Has each of them do nothing any more, to memory or to its interrupt.
    #[inline(never)]
    fn silence(&self) {
        let mut instance = 0;
        while instance < self.registers.size() {
            for store in &self.silence {
                self.registers.store(instance + u64::from(store.offset), store.value);
            }
            // The manifest's rules bound how many there are.
            instance += self.instance_size.max(1);
        }
    }
}

/// What one virtual machine owns of the board.
pub struct Assigned {
    devices: Vec<AssignedDevices>,
    /// The INTIDs of their interrupts: bit `n` of word `w` is SPI `32 w + n`.
    interrupts: [u32; SPI_WORDS],
    /// Those that are disabled, or come to another core than their virtual CPU's, until that has its next turn.
    displaced: [AtomicU32; SPI_WORDS],
    /// How many of them there are; for a moment one more or, modulo 2³², one less, but not 0 where one is.
    displaced_count: AtomicU32,
}

impl Assigned {
    /// All of `devices`.
    pub fn new(devices: Vec<AssignedDevices>) -> Self {
        let mut interrupts = [0; SPI_WORDS];
        for intid in devices.iter().flat_map(|device| &device.interrupts) {
            if let Some(word) = intid.checked_sub(SPI_INTID).and_then(|spi| interrupts.get_mut((spi / 32) as usize)) {
                *word |= 1 << (intid % 32);
            }
        }
        Self {
            devices,
            interrupts,
            displaced: [const { AtomicU32::new(0) }; SPI_WORDS],
            displaced_count: AtomicU32::new(0),
        }
    }

    /// The interrupts, physical and virtual ones alike: they have the same numbers.
    pub fn interrupts(&self) -> impl Iterator<Item = u32> {
        self.devices.iter().flat_map(|device| device.interrupts.iter().copied())
    }

    /// Whether the physical interrupt `intid` is one of them.
    #[inline(always)]
    pub fn has(&self, intid: u32) -> bool {
        let spi = intid.wrapping_sub(SPI_INTID);
        self.interrupts.get((spi / 32) as usize).is_some_and(|word| word >> (spi % 32) & 1 != 0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Tells the controller how they signal their interrupts, which are disabled. At boot, on its one core.
    pub fn configure(&self, gic: &Gic) {
        for device in &self.devices {
            for intid in &device.interrupts {
                gic.configure_spi(*intid, device.trigger == Trigger::Edge);
            }
        }
    }

    /// How many steps it takes to start them: [`Assigned::start_step`].
    pub fn start_steps(&self) -> usize {
        1 + self.interrupts().count()
    }

    /// Has them as they are after a reset, and lets their interrupts come, to `core`: in short steps, all of them in
    /// ascending order from 0.
    pub fn start_step(&self, gic: &Gic, core: usize, step: usize) {
        let Some(step) = step.checked_sub(1) else { return self.stop(gic) };
        if let Some(intid) = self.interrupts().nth(step) {
            let _ = self.place(intid);
            gic.enable_spi(intid, core);
        }
    }

    /// Whether an interrupt waits for the next turn of a virtual CPU. To be asked after a fence: see `routing`.
    #[inline(always)]
    pub fn has_displaced(&self) -> bool {
        self.displaced_count.load(Ordering::Relaxed) != 0
    }

    /// The interrupt `intid` waits for the next turn of its virtual CPU.
    #[inline(never)]
    pub fn displace(&self, intid: u32) {
        let spi = intid.wrapping_sub(SPI_INTID);
        let bit = 1 << (spi % 32);
        if let Some(word) = self.displaced.get((spi / 32) as usize)
            && word.fetch_or(bit, Ordering::SeqCst) & bit == 0
        {
            self.displaced_count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The interrupt `intid` is displaced no more. Returns whether it was.
    #[inline(never)]
    pub fn place(&self, intid: u32) -> bool {
        let spi = intid.wrapping_sub(SPI_INTID);
        let bit = 1 << (spi % 32);
        let was_displaced = self
            .displaced
            .get((spi / 32) as usize)
            .is_some_and(|word| word.fetch_and(!bit, Ordering::SeqCst) & bit != 0);
        if was_displaced {
            self.displaced_count.fetch_sub(1, Ordering::SeqCst);
        }
        was_displaced
    }

    /// Has them do nothing any more: what a request of the past would write to memory that is being cleared, or would
    /// be heard of by an owner that knows nothing of it.
    #[inline(never)]
    pub fn stop(&self, gic: &Gic) {
        self.devices.iter().for_each(AssignedDevices::silence);
        for intid in self.interrupts() {
            gic.quiesce_spi(intid);
        }
    }
}
