//! An emulated device of a virtual machine, in its place.

use super::Vm;
use crate::console::GuestConsole;
use alloc::boxed::Box;
use arch::timer;
use core::hint;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use devices::AnyDevice;
use spin::Mutex;
use vdev::{AccessId, Device, Host, ResetKind, Ticks, Width};
use vgic::{IntId, Kicks};

/// A virtual device in its place.
pub struct Slot {
    occupant: Mutex<Occupant>,
    interrupt: Option<IntId>,
    /// What the system says of the device.
    configuration: Box<[u8]>,
    /// When the device is to be polled; the end of time: not at all. This and `core` are written under the device's
    /// lock alone.
    deadline: AtomicU64,
    /// The core that polls it then: the one on which the deadline was set. So no other core is interrupted for it.
    core: AtomicUsize,
}

/// What came of a call of the device.
pub struct Done<R> {
    /// What it has answered.
    pub result: R,
    /// The virtual CPUs to be told of an interrupt.
    pub kicks: Kicks,
    /// The virtual CPUs that have waited for an answer of the device, and have it now.
    pub answered: Kicks,
    /// Its deadline is another, and this core's: the core has to look at its deadlines before it goes on for long. The
    /// timer is armed already.
    pub is_rescheduled: bool,
}

/// No deadline.
const NEVER: u64 = u64::MAX;

/// The number of a call that is no access.
const NO_ACCESS: AccessId = AccessId(u64::MAX);

struct Occupant {
    device: AnyDevice,
    /// The level of its line when it was last looked at.
    line: bool,
}

impl Slot {
    /// `device`, whose line is SPI `interrupt`, and of which the system says `configuration`.
    pub fn new(device: AnyDevice, interrupt: Option<IntId>, configuration: Box<[u8]>) -> Self {
        Self {
            occupant: Mutex::new(Occupant { device, line: false }),
            interrupt,
            configuration,
            deadline: AtomicU64::new(NEVER),
            core: AtomicUsize::new(0),
        }
    }

    /// The value of a load that changes nothing, if the device can tell at once: nobody else uses it at this moment
    /// either.
    #[inline(always)]
    pub fn peek(&self, offset: u64, width: Width) -> Option<u64> {
        self.occupant.try_lock()?.device.peek(offset, width)
    }

    /// Lets `action` use the device for the access `access`; then takes its answers to earlier ones, and samples its
    /// line and its deadline, which is for `core` to keep.
    #[inline(always)]
    pub fn with<R>(
        &self,
        vm: &Vm,
        core: usize,
        access: AccessId,
        action: impl FnOnce(&mut AnyDevice, &mut Host<'_>) -> R,
    ) -> Done<R> {
        self.act(&mut self.occupant.lock(), vm, core, access, action)
    }

    #[inline(always)]
    fn act<R>(
        &self,
        occupant: &mut Occupant,
        vm: &Vm,
        core: usize,
        access: AccessId,
        action: impl FnOnce(&mut AnyDevice, &mut Host<'_>) -> R,
    ) -> Done<R> {
        let mut console = GuestConsole::new(vm.config.console);
        let mut host = Host {
            now: timer::now(),
            access,
            clock: &vm.config.clock,
            configuration: &self.configuration,
            memory: &vm.ram,
            console: &mut console,
        };
        let result = action(&mut occupant.device, &mut host);
        let answered = vm.take_answers(&mut occupant.device);
        let deadline = occupant.device.deadline().map_or(NEVER, |deadline| deadline.0);
        let is_rescheduled = deadline != self.deadline.load(Ordering::Relaxed);
        if is_rescheduled {
            self.reschedule(deadline, core);
        }
        let level = occupant.device.line();
        if level == occupant.line {
            return Done { result, kicks: Kicks::NONE, answered, is_rescheduled };
        }
        occupant.line = level;
        // Under the lock, so that the vGIC hears of levels in their order.
        let kicks = self.interrupt.map_or(Kicks::NONE, |interrupt| vm.vgic.set_line(interrupt, 0, level));
        Done { result, kicks, answered, is_rescheduled }
    }

    /// Makes the new deadline `core`'s. Another core that had it before finds out when its time comes. If this is not
    /// `core`, its own timer comes once for nothing.
    #[cold]
    #[inline(never)]
    fn reschedule(&self, deadline: u64, core: usize) {
        self.core.store(core, Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
        if deadline != NEVER {
            timer::advance_deadline(Ticks(deadline));
        }
    }

    /// When `core` is to poll the device, if it is.
    pub fn deadline(&self, core: usize) -> Option<Ticks> {
        let deadline = self.deadline.load(Ordering::Relaxed);
        (deadline != NEVER && self.core.load(Ordering::Relaxed) == core).then_some(Ticks(deadline))
    }

    /// Whether any core is to poll the device.
    pub fn has_deadline(&self) -> bool {
        self.deadline.load(Ordering::Relaxed) != NEVER
    }

    /// Polls the device, whose next deadline is for `core` to keep: one has passed, or something has been typed. `None`
    /// if its VM does not run, or others use it at each of `attempts` attempts: then they look for themselves.
    pub fn poll(&self, vm: &Vm, core: usize, attempts: u32) -> Option<Done<()>> {
        for _ in 0..attempts {
            if let Some(mut occupant) = self.occupant.try_lock() {
                // Under the lock: what stops comes by later, or has been by.
                let may_act = vm.is_running();
                return may_act.then(|| self.act(&mut occupant, vm, core, NO_ACCESS, |device, host| device.poll(host)));
            }
            hint::spin_loop();
        }
        None
    }

    /// Its VM has stopped: nobody polls it any more.
    pub fn stop(&self) {
        let _occupant = self.occupant.lock();
        self.deadline.store(NEVER, Ordering::Relaxed);
    }

    /// Resets the device; the vGIC, which holds its line low then, is reset too. A deadline that it has kept is
    /// `core`'s.
    pub fn reset(&self, kind: ResetKind, core: usize) {
        let mut occupant = self.occupant.lock();
        occupant.device.reset(kind);
        occupant.line = false;
        self.core.store(core, Ordering::Relaxed);
        self.deadline.store(occupant.device.deadline().map_or(NEVER, |deadline| deadline.0), Ordering::Relaxed);
    }
}
