//! One core's virtual CPUs and which of them runs: in turn, a time slice each, when more than one wants to.
//!
//! A virtual CPU stays loaded while nothing else needs the core, so that the common case, one virtual CPU a core, never
//! switches.

use crate::guest_cpu::GuestCpu;
use crate::lifecycle;
use crate::machine::Machine;
use crate::vm::{Phase, Vm};
use alloc::vec::Vec;
use arch::context::Vcpu;
use arch::list_registers::{CoreListRegisters, VirtualInterface};
use arch::{gic, timer};
use core::sync::atomic::Ordering;
use model::vgic::IntId;
use vdev::Ticks;

/// How long a virtual CPU runs before the next one of its core does, in parts of a second.
const SLICES_PER_SECOND: u64 = 100;

/// What a core does next.
pub enum Work {
    /// Run this virtual CPU of the core.
    Run(usize),
    /// Prepare this virtual machine's memory, one step.
    Prepare(&'static Vm),
    /// Nothing: wait for an interrupt.
    Idle,
}

/// One core and its virtual CPUs.
pub struct Core {
    machine: &'static Machine,
    number: usize,
    vcpus: Vec<Vcpu<GuestCpu>>,
    loaded: Option<usize>,
    /// Who runs, or ran last, and until when if others want the core.
    current: usize,
    slice_end: Option<Ticks>,
    /// Until when the core prepares a machine's memory before it looks at its virtual CPUs again.
    prepare_until: Option<Ticks>,
    /// The machine that the core prepares.
    preparing: Option<&'static Vm>,
}

impl Core {
    /// Core `number`, with the virtual CPUs that were made for it.
    pub fn new(machine: &'static Machine, number: usize) -> Self {
        let vcpus = machine.vcpus.get(number).map(|vcpus| core::mem::take(&mut *vcpus.lock())).unwrap_or_default();
        Self { machine, number, vcpus, loaded: None, current: 0, slice_end: None, prepare_until: None, preparing: None }
    }

    /// Decides what to do next, and arms the core's timer for the next decision.
    pub fn pick(&mut self) -> Work {
        if self.machine.is_summoned(self.number) {
            self.preparing = self.advance_lives();
        }
        if self.vcpus.len() == 1 {
            return self.preparing.map_or_else(|| self.pick_only(), Work::Prepare);
        }
        let now = timer::now();
        match self.preparing {
            Some(vm) => self.pick_beside_preparation(vm, now),
            None => self.pick_in_turn(now, false),
        }
    }

    /// Preparing a machine takes its turn like a virtual CPU: a guest that restarts all the time costs its neighbours on the
    /// core no more than one that computes all the time.
    fn pick_beside_preparation(&mut self, vm: &'static Vm, now: Ticks) -> Work {
        if self.slice_end.is_some_and(|end| end <= now) {
            self.current = self.after(self.current);
            self.slice_end = None;
            self.prepare_until = Some(slice_after(now));
        }
        if self.prepare_until.is_none_or(|end| end <= now) {
            self.prepare_until = None;
            if let Work::Run(index) = self.pick_in_turn(now, true) {
                return Work::Run(index);
            }
        }
        // Its timers must not raise anything while it does not run.
        self.unload();
        Work::Prepare(vm)
    }

    /// Parks what must stop and starts what was turned on. Gives a machine that this core has to prepare.
    fn advance_lives(&mut self) -> Option<&'static Vm> {
        loop {
            let mut to_prepare = None;
            if !self.advance_lives_once(&mut to_prepare) {
                return to_prepare;
            }
        }
    }

    /// Returns whether a machine went to its next phase by this, so that the virtual CPUs have to be looked at again. That
    /// ends: the next phase of a stopping machine is none that this function ends.
    fn advance_lives_once(&mut self, to_prepare: &mut Option<&'static Vm>) -> bool {
        let mut changed = false;
        for index in 0..self.vcpus.len() {
            let Some(vcpu) = self.vcpus.get_mut(index) else { break };
            let (vm, number) = (vcpu.guest.vm, vcpu.guest.index);
            let Some(power) = vm.power.get(number) else { continue };
            match vm.phase() {
                Phase::Running => {
                    if vcpu.guest.is_leaving {
                        // Off for others (AFFINITY_INFO) when nothing of it is left in the core.
                        vcpu.guest.is_leaving = false;
                        self.discard(index);
                        power.turn_off();
                    } else if let Some((entry, argument)) = power.take_start() {
                        self.discard(index);
                        if let Some(vcpu) = self.vcpus.get_mut(index) {
                            lifecycle::start(vcpu, entry, argument);
                        }
                    } else if !power.is_on() && self.loaded == Some(index) {
                        self.discard(index);
                    }
                }
                Phase::Preparing if number == 0 => *to_prepare = Some(vm),
                Phase::StoppingForOff | Phase::StoppingForReset => {
                    // As long as this one is not parked, the machine cannot go on to its next phase.
                    if !vm.is_parked(number) {
                        power.turn_off();
                        self.discard(index);
                        changed |= lifecycle::park(self.machine, vm, number, self.number);
                    }
                }
                Phase::Preparing | Phase::Off => {}
            }
        }
        changed
    }

    /// The core belongs to one virtual CPU.
    fn pick_only(&mut self) -> Work {
        if self.loaded.is_some() && self.vcpus.first().is_some_and(|vcpu| vcpu.guest.waiting) {
            self.unload();
        }
        let now = timer::now();
        let wake = self.vcpus.first().and_then(|vcpu| wake_time(vcpu, now));
        match wake {
            Some(time) if time <= now => Work::Run(0),
            other => self.idle_until(other),
        }
    }

    /// The core is shared; `is_contended` says whether by more than its virtual CPUs.
    fn pick_in_turn(&mut self, now: Ticks, is_contended: bool) -> Work {
        // First, since what it leaves behind may make another virtual CPU of the core runnable.
        if self.loaded.and_then(|index| self.vcpus.get(index)).is_some_and(|vcpu| vcpu.guest.waiting) {
            self.unload();
        }
        if self.slice_end.is_some_and(|end| end <= now) {
            self.current = self.after(self.current);
            self.slice_end = None;
        }
        let mut chosen = None;
        let mut is_contended = is_contended;
        let mut next_wake = Ticks(u64::MAX);
        let mut index = self.current;
        for _ in 0..self.vcpus.len() {
            let Some(vcpu) = self.vcpus.get(index) else { break };
            match wake_time(vcpu, now) {
                Some(time) if time <= now => match chosen {
                    None => chosen = Some(index),
                    Some(_) => is_contended = true,
                },
                Some(time) => next_wake = next_wake.min(time),
                None => {}
            }
            index = self.after(index);
        }
        let Some(index) = chosen else { return self.idle_until(deadline_at(next_wake)) };
        if index != self.current || !is_contended {
            self.slice_end = None;
        }
        self.current = index;
        if is_contended {
            next_wake = next_wake.min(*self.slice_end.get_or_insert(slice_after(now)));
        }
        timer::set_deadline(deadline_at(next_wake));
        Work::Run(index)
    }

    /// The virtual CPU whose turn comes after that of `index`.
    #[inline(always)]
    fn after(&self, index: usize) -> usize {
        if index + 1 < self.vcpus.len() { index + 1 } else { 0 }
    }

    fn idle_until(&mut self, wake: Option<Ticks>) -> Work {
        timer::set_deadline(wake);
        Work::Idle
    }

    /// Loads virtual CPU `index` on the core, if it is not, and refills its list registers.
    pub fn switch_to(&mut self, index: usize) -> &mut Vcpu<GuestCpu> {
        let mut is_left_to_do = false;
        if self.loaded != Some(index) {
            is_left_to_do = self.loaded.is_some() && self.unload();
            self.load(index);
        }
        let vcpu = &mut self.vcpus[index];
        vcpu.guest.waiting = false;
        // Whoever made something pending for it may have kicked this core while it was at EL2.
        is_left_to_do |= vcpu.guest.refill();
        if is_left_to_do {
            // Another virtual CPU of this core has got an interrupt: it is looked at soon.
            timer::set_deadline(Some(slice_after(timer::now())));
        }
        vcpu
    }

    #[inline(always)]
    fn load(&mut self, index: usize) {
        let vcpu = &mut self.vcpus[index];
        vcpu.guest.vm.set_loaded(vcpu.guest.index);
        vcpu.guest.virtual_interface.load();
        let mut active =
            vcpu.guest.interface.load(vcpu.guest.vm.vgic, vcpu.guest.index, &mut CoreListRegisters::of_this_core());
        while active != 0 {
            self.machine.gic.activate_private(self.number, active.trailing_zeros());
            active &= active - 1;
        }
        // With it come the timers, whose interrupts are active again by now.
        vcpu.load(&vcpu.guest.placement());
        self.loaded = Some(index);
        self.machine.set_running(self.number, Some(&vcpu.guest));
    }

    /// Takes the loaded virtual CPU off the core. Returns whether another one of the core is to look at its interrupts.
    #[inline(never)]
    fn unload(&mut self) -> bool {
        let Some(vcpu) = self.loaded.take().and_then(|index| self.vcpus.get_mut(index)) else { return false };
        if let Some(esr) = vcpu.save() {
            lifecycle::stop_for_system_error(self.machine, &vcpu.guest, esr);
            // This core may be about to wait: it has to park the machine first.
            self.machine.gic.send_sgi(self.number, gic::KICK);
        }
        let guest = &mut vcpu.guest;
        let (_, kicks) = guest.interface.unload(guest.vm.vgic, guest.index, &mut CoreListRegisters::of_this_core());
        guest.virtual_interface = VirtualInterface::save();
        guest.vm.set_away(guest.index, !guest.waiting);
        self.machine.set_running(self.number, None);
        guest.tell(kicks)
    }

    /// Takes virtual CPU `index` off the core, if it is there, and makes it forget its interrupts: it is off.
    fn discard(&mut self, index: usize) {
        if self.loaded == Some(index) {
            self.unload();
        }
        let Some(vcpu) = self.vcpus.get_mut(index) else { return };
        let guest = &mut vcpu.guest;
        let lrs = &mut CoreListRegisters::of_this_core();
        guest.interface.reset(guest.vm.vgic, guest.index, lrs);
        // Nothing is left to unload but word for those who get what this one had.
        let (_, kicks) = guest.interface.unload(guest.vm.vgic, guest.index, lrs);
        guest.tell(kicks);
    }
}

/// The deadline `time`; the end of time is none.
#[inline(always)]
fn deadline_at(time: Ticks) -> Option<Ticks> {
    (time.0 != u64::MAX).then_some(time)
}

/// The end of a time slice that begins now.
fn slice_after(now: Ticks) -> Ticks {
    Ticks(now.0.saturating_add(timer::frequency() / SLICES_PER_SECOND))
}

/// When the virtual CPU can run: now, later, or (`None`) not before an interrupt.
#[inline(always)]
fn wake_time(vcpu: &Vcpu<GuestCpu>, now: Ticks) -> Option<Ticks> {
    let guest = &vcpu.guest;
    let vm = guest.vm;
    if !vm.is_running() || !vm.power.get(guest.index).is_some_and(|power| power.is_on()) {
        return None;
    }
    if !guest.waiting
        || vm.vgic.has_deliverable(guest.index)
        || guest.interface.has_pending(vm.vgic, guest.index, &CoreListRegisters::of_this_core())
    {
        return Some(now);
    }
    if vcpu.has_saved_timers() { timers_wake_time(vcpu) } else { None }
}

/// When a saved timer of the virtual CPU goes off that can wake it.
#[inline(never)]
fn timers_wake_time(vcpu: &Vcpu<GuestCpu>) -> Option<Ticks> {
    let guest = &vcpu.guest;
    let vm = guest.vm;
    let timers = vcpu.saved_timers(vm.counter_offset.load(Ordering::Relaxed));
    let wakes = |(deadline, intid): (Option<u64>, u32)| {
        deadline.filter(|_| vm.vgic.is_forwarded(guest.index, IntId::new(intid)))
    };
    timers.into_iter().zip([gic::VIRTUAL_TIMER, gic::PHYSICAL_TIMER]).filter_map(wakes).min().map(Ticks)
}
