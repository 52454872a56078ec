//! What the hypervisor keeps for each virtual CPU beside its registers.

use crate::machine::Machine;
use crate::vm::Vm;
use aarch64::exit::{Exit, MmioAccess};
use arch::list_registers::{CoreListRegisters, VirtualInterface};
use vdev::Ticks;
use vdev::bus::Recent;
use vgic::{CpuInterface, Kicks};
use vm_lifecycle::watch::CoreTime;

/// Why the fast tier handed over to the run loop.
// Its tag stands apart from that of `Exit`: each switch between virtual CPUs compares it.
#[derive(Clone, Debug)]
#[repr(u8)]
pub enum Left {
    /// Nothing of the guest's: something else on this core may need to run, or the VM is stopping.
    Reschedule,
    /// A PSCI suspend: nothing to do until an interrupt. (A WFI says so in [`GuestCpu::waiting`] at once.)
    Wait,
    /// A physical interrupt that the run loop serves: its INTID.
    Interrupt(u32),
    /// PSCI CPU_OFF.
    CpuOff,
    /// PSCI SYSTEM_OFF.
    SystemOff,
    /// PSCI SYSTEM_RESET.
    SystemReset,
    /// The guest did something that it was refused. It has its exception already; this is for the log.
    Refused(Exit),
    /// Para-virtual devices have more to do than was done at once.
    Serve,
    /// An SError: ESR_EL2.
    SystemError(u64),
}

/// The hypervisor's part of a virtual CPU.
pub struct GuestCpu {
    /// The whole system.
    pub machine: &'static Machine,
    /// Its virtual machine.
    pub vm: &'static Vm,
    /// Its number in its virtual machine.
    pub index: usize,
    /// Its core.
    pub core: usize,
    /// Whether other virtual CPUs share the core.
    pub shares_core: bool,
    /// The software side of its list registers.
    pub interface: CpuInterface,
    /// The virtual CPU interface, while not loaded.
    pub virtual_interface: VirtualInterface,
    /// How often it came to EL2.
    pub exits: u64,
    /// Why it left last.
    pub left: Left,
    /// It is on, and its machine runs: as its core knows it.
    pub may_run: bool,
    /// It waits for an interrupt.
    pub waiting: bool,
    /// How long it has run, where it shares its core, in ticks; more if it has wanted less than its share.
    pub ticks: u64,
    /// How far the counter was ahead of `ticks` when it last woke up, or was last looked at: from then on, as long as
    /// it wants to run, this gets more only by what others have of its core.
    pub lag_ticks: u64,
    /// `ticks` when it was last looked at.
    pub looked_ticks: u64,
    /// When its core last polled the devices of its VM for their deadlines. Of several of one VM on a core, the first
    /// has it.
    pub polled: Ticks,
    /// How many steps of its call "ready" are done.
    pub announced: usize,
    /// It has asked to be turned off, and is off once the core has taken its interrupts back.
    pub is_leaving: bool,
    /// Para-virtual devices that have more to do than was done at once, a bit each.
    pub unfinished: u64,
    /// The device window that it used last.
    pub recent: Recent,
    /// The number of its next access to an emulated device: another one as soon as an answer is awaited for it.
    pub next_access: u64,
    /// The device of its last access answers later: the exit is to see to that.
    pub is_pending: bool,
    /// It waits for the answer to an access, and runs no instruction before that: interrupts and timers stay pending.
    pub awaits: Option<Awaited>,
}

/// What becomes of the answer to an access.
#[derive(Clone, Copy, Debug)]
pub enum Awaited {
    /// It goes into a register.
    Load(MmioAccess),
    /// Nothing: the store is done.
    Store,
}

impl GuestCpu {
    /// Looks at what it has had of its core up to `now`, since this was last done. One that waits is to be woken, and
    /// will count as having run for `least_ticks` then.
    pub fn core_time(&mut self, now: Ticks, least_ticks: u64) -> CoreTime {
        if !self.shares_core {
            return CoreTime::default();
        }
        let own_ticks = self.ticks.saturating_sub(self.looked_ticks);
        let lag_ticks = now.0.wrapping_sub(self.ticks);
        let lost = lag_ticks.wrapping_sub(self.lag_ticks).cast_signed();
        let stolen_ticks = if self.may_run && !self.waiting { lost.max(0).cast_unsigned() } else { 0 };
        self.lag_ticks = lag_ticks;
        self.looked_ticks = if self.waiting { self.ticks.max(least_ticks) } else { self.ticks };
        CoreTime { stolen_ticks, own_ticks }
    }

    /// Carries out what a change in the vGIC asks for: refills this virtual CPU's list registers, which must be loaded,
    /// and kicks the cores of others. Returns whether another virtual CPU of *this* core has something to do.
    #[inline(never)]
    pub fn deliver(&mut self, kicks: Kicks) -> bool {
        let mut kicks = kicks;
        if kicks.contains(self.index) {
            kicks |= self.interface.flush(self.vm.vgic, self.index, &mut CoreListRegisters::of_this_core());
        }
        let others = kicks.without(self.index);
        !others.is_empty() && self.tell(others)
    }

    /// Kicks the cores of the virtual CPUs in `kicks`. Returns whether another virtual CPU of *this* core is among
    /// them.
    #[inline(never)]
    pub fn tell(&self, kicks: Kicks) -> bool {
        self.machine.tell(self.vm, kicks, self.core)
    }

    /// Refills this virtual CPU's list registers, which must be loaded; returns what [`GuestCpu::deliver`] does. In
    /// line, for the exits that count.
    #[inline(always)]
    pub fn refill(&mut self) -> bool {
        let lrs = &mut CoreListRegisters::of_this_core();
        let kicks = self.interface.flush(self.vm.vgic, self.index, lrs);
        !kicks.is_empty() && self.tell(kicks)
    }
}
