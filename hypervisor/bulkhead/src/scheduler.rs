//! One core's virtual CPUs and which of them runs: in turn, a time slice each, when more than one wants to.
//!
//! A virtual CPU stays loaded while nothing else needs the core, so that the common case, one virtual CPU a core, never
//! switches.

use crate::assigned;
use crate::guest_cpu::GuestCpu;
use crate::lifecycle;
use crate::machine::Machine;
use crate::mmio;
use crate::supervision;
use crate::vm::{Phase, Vm};
use arch::context::Vcpu;
use arch::list_registers::{CoreListRegisters, VirtualInterface};
use arch::{gic, timer};
use core::sync::atomic::{Ordering, fence};
use model::psci::Power;
use model::vgic::IntId;
use vdev::Ticks;

/// How long a virtual CPU runs before the next one of its core does, in parts of a second.
const SLICES_PER_SECOND: u64 = 100;

/// How often a core looks whether a preparation that was put off can go on, in parts of a second.
const RETRIES_PER_SECOND: u64 = 1000;

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
    vcpus: &'static mut [Vcpu<GuestCpu>],
    loaded: Option<usize>,
    /// Who runs, or ran last, and until when if others want the core.
    current: usize,
    slice_end: Option<Ticks>,
    /// Until when the core prepares a machine's memory before it looks at its virtual CPUs again.
    prepare_until: Option<Ticks>,
    /// The machine that the core prepares.
    preparing: Option<&'static Vm>,
    /// When the core looks at its driver domains again; the end of time where it has none.
    watch: Ticks,
}

impl Core {
    /// Core `number`, with the virtual CPUs that were made for it.
    pub fn new(machine: &'static Machine, number: usize) -> Self {
        let vcpus = machine.vcpus.get(number).map(|vcpus| core::mem::take(&mut *vcpus.lock())).unwrap_or_default();
        Self {
            machine,
            number,
            vcpus: vcpus.leak(),
            loaded: None,
            current: 0,
            slice_end: None,
            prepare_until: None,
            preparing: None,
            watch: Ticks(u64::MAX),
        }
    }

    /// Decides what to do next, and arms the core's timer for the next decision.
    #[inline(always)]
    pub fn pick(&mut self) -> Work {
        if self.machine.is_summoned(self.number) {
            self.preparing = self.advance_lives();
        }
        if self.vcpus.len() == 1 {
            return self.preparing.map_or_else(|| self.pick_only(), Work::Prepare);
        }
        let now = timer::now();
        if self.preparing.is_none() || self.is_preparation_over(now) {
            let work = self.pick_in_turn(now, self.preparing.is_some());
            if matches!(work, Work::Run(_)) {
                return work;
            }
        }
        self.set_aside()
    }

    /// Preparing a machine takes its turn like a virtual CPU: a guest that restarts all the time costs its neighbours
    /// on the core no more than one that computes all the time. Returns whether it is the turn of the virtual CPUs.
    #[cold]
    #[inline(never)]
    fn is_preparation_over(&mut self, now: Ticks) -> bool {
        if self.slice_end.is_some_and(|end| end <= now) {
            self.current = self.after(self.current);
            self.slice_end = None;
            self.prepare_until = Some(slice_after(now));
        }
        let is_over = self.prepare_until.is_none_or(|end| end <= now);
        if is_over {
            self.prepare_until = None;
        }
        is_over
    }

    /// Looks at the machine that it prepares again a little later: something has to end first, and the core is others'
    /// meanwhile.
    #[cold]
    #[inline(never)]
    pub fn put_off_preparation(&mut self) {
        self.preparing = None;
        let later = timer::now().0.saturating_add(timer::frequency() / RETRIES_PER_SECOND);
        self.watch = self.watch.min(Ticks(later));
    }

    /// What there is to do without a virtual CPU.
    #[inline(never)]
    fn set_aside(&mut self) -> Work {
        let Some(vm) = self.preparing else { return Work::Idle };
        // Its timers must not raise anything while it does not run.
        self.unload();
        self.machine.set_running(self.number, None);
        Work::Prepare(vm)
    }

    /// Parks what must stop and starts what was turned on. Gives a machine that this core has to prepare.
    #[cold]
    #[inline(never)]
    fn advance_lives(&mut self) -> Option<&'static Vm> {
        // First, since it may find a machine that has to stop.
        self.watch = supervision::look(self.machine, self.number);
        loop {
            let mut to_prepare = None;
            if !self.advance_lives_once(&mut to_prepare) {
                if let Some(time) = deadline_at(self.watch) {
                    // A core that belongs to one virtual CPU sets no other deadline, and that one is the core's own:
                    // the guest cannot mask it.
                    timer::set_deadline(Some(time));
                }
                return to_prepare;
            }
        }
    }

    /// Returns whether a machine went to its next phase by this, so that the virtual CPUs have to be looked at again.
    /// That ends: the next phase of a stopping machine is none that this function ends.
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
                        vm.left_over.fetch_or(core::mem::take(&mut vcpu.guest.unfinished), Ordering::Relaxed);
                        self.discard(index);
                        power.turn_off();
                        if vm.is_driver_domain() && vm.power.iter().all(Power::is_off) {
                            supervision::turn_off(self.machine, vm, self.number);
                            changed = true;
                        }
                    } else if let Some((entry, argument)) = power.take_start() {
                        self.discard(index);
                        if let Some(vcpu) = self.vcpus.get_mut(index) {
                            lifecycle::start(vcpu, entry, argument);
                        }
                    } else if !power.is_on() && self.loaded == Some(index) {
                        self.discard(index);
                    }
                }
                Phase::Preparing if number == 0 => {
                    // One that has to wait keeps no other of the core waiting.
                    if to_prepare.is_none_or(lifecycle::has_granted) {
                        *to_prepare = Some(vm);
                    }
                }
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
            // Whatever changes this summons the core.
            let may_run = vm.is_running() && power.is_on();
            if let Some(vcpu) = self.vcpus.get_mut(index) {
                vcpu.guest.may_run = may_run;
            }
            // Pairs with the one in `hand_over`.
            fence(Ordering::SeqCst);
            if vm.left_over.load(Ordering::Relaxed) != 0 {
                self.take_over(index, may_run);
            }
        }
        changed
    }

    /// What others have left over at the devices of its machine is seen to by virtual CPU `index`, if it may run, or by
    /// another one that is on.
    #[cold]
    #[inline(never)]
    fn take_over(&mut self, index: usize, may_run: bool) {
        let Some(vcpu) = self.vcpus.get_mut(index) else { return };
        let vm = vcpu.guest.vm;
        if !may_run {
            if vm.is_running() {
                self.machine.hand_over(vm, 0, self.number);
            }
            return;
        }
        vcpu.guest.unfinished |= vm.left_over.swap(0, Ordering::Relaxed);
        if vcpu.guest.waiting {
            if self.loaded == Some(index) {
                vcpu.guest.waiting = false;
            } else {
                wake(vcpu);
            }
        }
        remind(self.machine, self.number);
    }

    /// The core belongs to one virtual CPU.
    #[inline(never)]
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
    #[inline(always)]
    fn pick_in_turn(&mut self, now: Ticks, is_contended: bool) -> Work {
        // First, since what it leaves behind may make another virtual CPU of the core runnable.
        if let Some(vcpu) = self.loaded.and_then(|index| self.vcpus.get_mut(index))
            && vcpu.guest.waiting
        {
            self.loaded = None;
            unload(self.machine, vcpu);
        }
        if self.slice_end.is_some_and(|end| end <= now) {
            self.current = self.after(self.current);
            self.slice_end = None;
        }
        let mut chosen = None;
        let mut is_contended = is_contended;
        let mut next_wake = self.watch;
        let mut index = self.current;
        for _ in 0..self.vcpus.len() {
            let Some(vcpu) = self.vcpus.get_mut(index) else { break };
            let is_runnable = vcpu.guest.may_run
                && (!vcpu.guest.waiting
                    || match wait_end(vcpu, now) {
                        Some(time) if time <= now => {
                            wake(vcpu);
                            true
                        }
                        Some(time) => {
                            next_wake = next_wake.min(time);
                            false
                        }
                        None => false,
                    });
            if is_runnable {
                match chosen {
                    None => chosen = Some(index),
                    Some(_) => is_contended = true,
                }
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
        if self.loaded.is_none() {
            self.machine.set_running(self.number, None);
        }
        timer::set_deadline(deadline_at(wake.unwrap_or(Ticks(u64::MAX)).min(self.watch)));
        Work::Idle
    }

    /// Loads virtual CPU `index` on the core, if it is not, and refills its list registers.
    #[inline(always)]
    pub fn switch_to(&mut self, index: usize) -> &mut Vcpu<GuestCpu> {
        let mut is_left_to_do = false;
        let is_away = self.loaded != Some(index);
        if is_away {
            is_left_to_do = self.loaded.is_some() && self.unload();
            self.loaded = Some(index);
        }
        let vcpu = &mut self.vcpus[index];
        if is_away {
            load(self.machine, self.number, vcpu);
        }
        vcpu.guest.waiting = false;
        // Whoever made something pending for it may have kicked this core while it was at EL2.
        is_left_to_do |= vcpu.guest.refill();
        if is_left_to_do {
            // Another virtual CPU of this core has got an interrupt: it is looked at soon.
            timer::set_deadline(Some(slice_after(timer::now())));
        }
        vcpu
    }

    /// Takes the loaded virtual CPU off the core. Returns whether another one of the core is to look at its interrupts.
    #[inline(never)]
    fn unload(&mut self) -> bool {
        let vcpu = self.loaded.take().and_then(|index| self.vcpus.get_mut(index));
        vcpu.is_some_and(|vcpu| unload(self.machine, vcpu))
    }

    /// Takes virtual CPU `index` off the core, if it is there, and makes it forget its interrupts: it is off.
    #[inline(never)]
    fn discard(&mut self, index: usize) {
        if self.loaded == Some(index) {
            self.unload();
        }
        let Some(vcpu) = self.vcpus.get_mut(index) else { return };
        let guest = &mut vcpu.guest;
        guest.vm.note_exits(guest.index, guest.exits);
        let lrs = &mut CoreListRegisters::of_this_core();
        guest.interface.reset(guest.vm.vgic, guest.index, lrs);
        // Nothing is left to unload but word for those who get what this one had.
        let (_, kicks) = guest.interface.unload(guest.vm.vgic, guest.index, lrs);
        guest.tell(kicks);
    }
}

/// Takes `vcpu`, which is loaded, off its core. Returns whether another one of the core is to look at its interrupts.
#[inline(always)]
fn unload(machine: &'static Machine, vcpu: &mut Vcpu<GuestCpu>) -> bool {
    let is_waiting = vcpu.guest.waiting;
    if vcpu.guest.interface.holds_physical() {
        // A timer that the guest has turned off, or put off, since it went off raises nothing any more.
        mmio::withdraw_quiet_timers(&mut vcpu.guest);
    }
    if let Some(esr) = vcpu.save() {
        blame(machine, &vcpu.guest, esr);
    }
    let guest = &mut vcpu.guest;
    let (_, kicks) = guest.interface.unload(guest.vm.vgic, guest.index, &mut CoreListRegisters::of_this_core());
    guest.virtual_interface = VirtualInterface::save();
    guest.vm.set_away(guest.index, !is_waiting);
    !kicks.is_empty() && guest.tell(kicks)
}

/// Stops the machine of `guest`, which has caused the SError `esr` and is being taken off this core.
#[cold]
#[inline(never)]
fn blame(machine: &'static Machine, guest: &GuestCpu, esr: u64) {
    lifecycle::stop_for_system_error(machine, guest, esr);
    // This core may be about to wait: it has to park the machine first.
    machine.gic.send_sgi(guest.core, gic::SUMMON);
}

/// Loads `vcpu` on core `number`, which has none loaded.
#[inline(always)]
fn load(machine: &Machine, number: usize, vcpu: &mut Vcpu<GuestCpu>) {
    let guest = &mut vcpu.guest;
    guest.vm.set_loaded(guest.index);
    if guest.vm.assigned.has_displaced() {
        assigned::bring_back(&machine.gic, guest.vm, guest.index, number);
    }
    guest.virtual_interface.load();
    let active = guest.interface.load(guest.vm.vgic, guest.index, &mut CoreListRegisters::of_this_core());
    if active != 0 {
        activate(machine, number, active);
    }
    if guest.unfinished != 0 {
        remind(machine, number);
    }
    // With it come the timers, whose interrupts are active again by now.
    vcpu.load(&vcpu.guest.placement());
    machine.set_running(number, Some(&vcpu.guest));
}

/// Makes the private interrupts `active` of core `number` active again.
#[cold]
#[inline(never)]
fn activate(machine: &Machine, number: usize, mut active: u32) {
    while active != 0 {
        machine.gic.activate_private(number, active.trailing_zeros());
        active &= active - 1;
    }
}

/// Makes the virtual CPU that core `number` is about to run go on with what its devices have left over: the kick that
/// was to see to it has been taken by another one of the core.
#[cold]
#[inline(never)]
fn remind(machine: &Machine, number: usize) {
    machine.gic.send_sgi(number, gic::KICK);
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
fn wake_time(vcpu: &Vcpu<GuestCpu>, now: Ticks) -> Option<Ticks> {
    if !vcpu.guest.may_run {
        return None;
    }
    if vcpu.guest.waiting { wait_end(vcpu, now) } else { Some(now) }
}

/// When the wait of a waiting virtual CPU ends: now, later, or (`None`) not before an interrupt.
#[inline(always)]
fn wait_end(vcpu: &Vcpu<GuestCpu>, now: Ticks) -> Option<Ticks> {
    let guest = &vcpu.guest;
    let vm = guest.vm;
    if vm.vgic.has_deliverable(guest.index)
        || guest.interface.has_pending(vm.vgic, guest.index, &CoreListRegisters::of_this_core())
    {
        return Some(now);
    }
    if vcpu.has_saved_timers() { timers_wake_time(vcpu) } else { None }
}

/// Ends the wait of a virtual CPU that is not loaded: from now on it is one whose turn comes.
#[inline(never)]
fn wake(vcpu: &mut Vcpu<GuestCpu>) {
    vcpu.guest.waiting = false;
    vcpu.guest.vm.set_away(vcpu.guest.index, true);
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
