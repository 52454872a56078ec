//! An emulated device of a virtual machine, in its place.

use super::Vm;
use crate::console::GuestConsole;
use arch::timer;
use devices::AnyDevice;
use model::vgic::{IntId, Kicks};
use spin::Mutex;
use vdev::{Device, Host, Width};

/// A virtual device in its place.
pub struct Slot {
    occupant: Mutex<Occupant>,
    interrupt: Option<IntId>,
}

struct Occupant {
    device: AnyDevice,
    /// The level of its line when it was last looked at.
    line: bool,
}

/// How often a core tries to get at a device of a guest that is not its own.
const POLL_ATTEMPTS_MAX: u32 = 1000;

impl Occupant {
    #[inline(always)]
    fn act<R>(
        &mut self,
        interrupt: Option<IntId>,
        vm: &Vm,
        action: impl FnOnce(&mut AnyDevice, &mut Host<'_>) -> R,
    ) -> (R, Kicks) {
        let mut console = GuestConsole::new(vm.config.console);
        let mut host = Host { now: timer::now(), memory: &vm.ram, console: &mut console };
        let result = action(&mut self.device, &mut host);
        let level = self.device.line();
        if level == self.line {
            return (result, Kicks::NONE);
        }
        self.line = level;
        // Under the lock, so that the vGIC hears of levels in their order.
        (result, interrupt.map_or(Kicks::NONE, |interrupt| vm.vgic.set_line(interrupt, 0, level)))
    }
}

impl Slot {
    /// `device`, whose line is SPI `interrupt`.
    pub fn new(device: AnyDevice, interrupt: Option<IntId>) -> Self {
        Self { occupant: Mutex::new(Occupant { device, line: false }), interrupt }
    }

    /// The value of a load that changes nothing, if the device can tell at once: nobody else uses it at this moment
    /// either.
    #[inline(always)]
    pub fn peek(&self, offset: u64, width: Width) -> Option<u64> {
        self.occupant.try_lock()?.device.peek(offset, width)
    }

    /// Lets `action` use the device, then samples its line: the virtual CPUs in the second result are to be told.
    #[inline(always)]
    pub fn with<R>(&self, vm: &Vm, action: impl FnOnce(&mut AnyDevice, &mut Host<'_>) -> R) -> (R, Kicks) {
        self.occupant.lock().act(self.interrupt, vm, action)
    }

    /// Lets the device see what has been typed, unless its guest keeps it busy: then it looks for itself.
    pub fn poll(&self, vm: &Vm) -> Kicks {
        for _ in 0..POLL_ATTEMPTS_MAX {
            if let Some(mut occupant) = self.occupant.try_lock() {
                return occupant.act(self.interrupt, vm, |device, host| device.poll(host)).1;
            }
            core::hint::spin_loop();
        }
        Kicks::NONE
    }

    /// Returns the device to power-on; the vGIC, which holds its line low then, is reset too.
    pub fn reset(&self) {
        let mut occupant = self.occupant.lock();
        occupant.device.reset();
        occupant.line = false;
    }
}
