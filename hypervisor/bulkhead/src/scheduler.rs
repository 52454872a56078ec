//! One core's virtual CPUs and which of them runs, when more than one wants to: fair shares, and who wakes up comes
//! first.
//!
//! Each virtual CPU has the time that it has run, and so has preparing. Who runs goes on until it is a lead ahead of
//! the one that has run least. One that wakes up preempts it at once unless it has itself run longer, by half a lead;
//! and it counts as no more than a lead behind, however long it has slept. It is charged for each wake-up, since who
//! is preempted pays for the switches with its own time. So one that needs less than its share does not wait, and none
//! gets more, or leaves others less, by waking up often.
//!
//! A virtual CPU stays loaded while nothing else needs the core, so that the common case, one virtual CPU a core,
//! never switches.

mod lives;

use crate::guest_cpu::GuestCpu;
use crate::machine::Machine;
use crate::switch::{load, unload};
use crate::vm::Vm;
use alloc::vec::Vec;
use arch::boot::CORES_MAX;
use arch::context::Vcpu;
use arch::list_registers::CoreListRegisters;
use arch::{gic, pending, timer};
use core::sync::atomic::Ordering;
use spin::Mutex;
use vdev::Ticks;
use vgic::IntId;
use vm_lifecycle::deadline::Deadlines;

/// How far one may get ahead of others that want the core too, in parts of a second; two that compute run for two such
/// times in turn.
const LEADS_PER_SECOND: u64 = 200;

/// What a wake-up costs its virtual CPU, in parts of a lead (2⁻ⁿ of it, about 10 microseconds): at least the exit and
/// the two switches, which run on the account of the preempted one.
const WAKE_SHIFT: u32 = 9;

/// The part of a lead (2⁻ⁿ of it, about a microsecond) that a virtual CPU gets at least before the core looks at
/// another one that has got an interrupt from it.
const GLIMPSE_SHIFT: u32 = 12;

/// Each core's virtual CPUs, until the core takes them.
pub static VCPUS: [Mutex<Vec<Vcpu<GuestCpu>>>; CORES_MAX] = [const { Mutex::new(Vec::new()) }; CORES_MAX];

/// What a core does next.
pub enum Work {
    /// Run this virtual CPU of the core.
    Run(usize),
    /// Prepare this virtual machine's memory, one step.
    Prepare(&'static Vm),
    /// Serve the interrupts that are pending, and decide again.
    Serve,
    /// Nothing: wait for an interrupt.
    Idle,
}

/// One core and its virtual CPUs.
pub struct Core {
    machine: &'static Machine,
    number: usize,
    vcpus: &'static mut [Vcpu<GuestCpu>],
    loaded: Option<usize>,
    /// Whose time passes: a virtual CPU's, or, with a number past theirs, that of preparing or nobody's.
    current: usize,
    /// Until when its time has been counted.
    counted: Ticks,
    /// How long the core has prepared, counted as a virtual CPU's time.
    prepare_ticks: u64,
    /// The most that any had run when another one woke up, or the core had nothing to do: who begins to want it counts
    /// as a lead behind that at most. Two leads at first, so that nobody has less than one.
    most_ticks: u64,
    lead_ticks: u64,
    /// The machine that the core prepares.
    preparing: Option<&'static Vm>,
    /// What it has to see to, and when.
    deadlines: Deadlines,
}

/// Nobody's number.
const NOBODY: usize = usize::MAX;

impl Core {
    /// Core `number`, with the virtual CPUs that were made for it.
    pub fn new(machine: &'static Machine, number: usize) -> Self {
        let vcpus = VCPUS.get(number).map(|vcpus| core::mem::take(&mut *vcpus.lock())).unwrap_or_default();
        let lead_ticks = timer::frequency() / LEADS_PER_SECOND;
        Self {
            machine,
            number,
            vcpus: vcpus.leak(),
            loaded: None,
            current: NOBODY,
            counted: Ticks(0),
            prepare_ticks: 0,
            most_ticks: 2 * lead_ticks,
            lead_ticks,
            preparing: None,
            deadlines: Deadlines::new(),
        }
    }

    /// Decides what to do next, and arms the core's timer for the next decision. `has_served` says that interrupts were
    /// served since the last one: then it is no more of them.
    #[inline(always)]
    pub fn pick(&mut self, has_served: bool) -> Work {
        let now = timer::now();
        // The time itself says that something is due, and not the timer: whatever else that was set to, none is
        // missed.
        let requests = self.machine.take_requests(self.number);
        if requests != 0 || self.deadlines.is_due(now) {
            self.see_to(requests, now);
            if !has_served && self.yields_to_interrupts() {
                return Work::Serve;
            }
        }
        if self.vcpus.len() == 1 { self.pick_only(now) } else { self.pick_in_turn(now) }
    }

    /// Whether an interrupt is pending, after much has been done: it comes before a virtual CPU is loaded, which takes
    /// as long. None is loaded then.
    #[cold]
    #[inline(never)]
    fn yields_to_interrupts(&mut self) -> bool {
        let is_pending = pending::has_pending_interrupt();
        if is_pending {
            // Its timers must not raise anything, and its interrupts are its own to take.
            self.unload();
        }
        is_pending
    }

    /// The core belongs to one virtual CPU. It has no slices to end: what is left are the core's own deadlines, which
    /// the guest cannot mask, and of which its wait has changed nothing.
    #[inline(never)]
    fn pick_only(&mut self, now: Ticks) -> Work {
        if self.loaded.is_some() && self.vcpus.first().is_some_and(|vcpu| vcpu.guest.waiting) {
            self.unload();
        }
        let wake = self.vcpus.first().and_then(|vcpu| wake_time(vcpu, now));
        let work = match (self.preparing, wake) {
            (Some(vm), _) => Work::Prepare(vm),
            (None, Some(time)) if time <= now => Work::Run(0),
            (None, other) => return self.idle_until(other),
        };
        timer::set_deadline(deadline_at(self.deadlines.or_earlier(Ticks(u64::MAX))));
        work
    }

    /// The core is shared.
    #[inline(always)]
    fn pick_in_turn(&mut self, now: Ticks) -> Work {
        // First, since what it leaves behind may make another virtual CPU of the core runnable.
        if let Some(vcpu) = self.loaded.and_then(|index| self.vcpus.get_mut(index))
            && vcpu.guest.waiting
        {
            self.loaded = None;
            unload(self.machine, vcpu);
        }
        let current_ticks = self.count_time(now);
        let (mut best, mut best_ticks, mut best_rank) = (NOBODY, u64::MAX, u64::MAX);
        // Of the others, the one that has run least.
        let mut least_ticks = u64::MAX;
        let mut next_wake = self.deadlines.or_earlier(Ticks(u64::MAX));
        for (index, vcpu) in self.vcpus.iter_mut().enumerate() {
            if !vcpu.guest.may_run {
                continue;
            }
            let (ticks, rank) = if vcpu.guest.waiting {
                match wait_end(vcpu, now) {
                    Some(time) if time <= now => {
                        self.most_ticks = self.most_ticks.max(current_ticks);
                        let ticks = wake(vcpu, now, self.most_ticks, self.lead_ticks);
                        (ticks, ticks - self.lead_ticks / 2)
                    }
                    Some(time) => {
                        next_wake = next_wake.min(time);
                        continue;
                    }
                    None => continue,
                }
            } else {
                let ticks = vcpu.guest.ticks;
                (ticks, ticks + if index == self.current { 0 } else { self.lead_ticks })
            };
            let mut other = ticks;
            if rank < best_rank {
                other = core::mem::replace(&mut best_ticks, ticks);
                (best, best_rank) = (index, rank);
            }
            least_ticks = least_ticks.min(other);
        }
        if let Some(vm) = self.preparing {
            if self.comes_first(best_rank) {
                self.arm(now, self.prepare_ticks, least_ticks.min(best_ticks), next_wake);
                return self.set_aside(vm);
            }
            least_ticks = least_ticks.min(self.prepare_ticks);
        }
        self.current = best;
        if best == NOBODY {
            self.most_ticks = self.most_ticks.max(current_ticks);
            return self.idle_until(deadline_at(next_wake));
        }
        self.arm(now, best_ticks, least_ticks, next_wake);
        Work::Run(best)
    }

    /// Arms the core's timer: the one that is chosen has run for `ticks`, the one that has run least of those that
    /// could run in its place for `least_ticks`, if there is one, and the next of those that wait wakes at
    /// `next_wake`.
    #[inline(always)]
    fn arm(&self, now: Ticks, ticks: u64, least_ticks: u64, next_wake: Ticks) {
        let mut deadline = next_wake;
        if least_ticks != u64::MAX {
            let lead = (least_ticks + self.lead_ticks).saturating_sub(ticks);
            deadline = deadline.min(Ticks(now.0 + lead));
        }
        timer::set_deadline(deadline_at(deadline));
    }

    /// Counts the time up to `now` for whom it passed. Gives how long that one has run.
    #[inline(always)]
    fn count_time(&mut self, now: Ticks) -> u64 {
        let passed = now.0.wrapping_sub(self.counted.0);
        self.counted = now;
        match self.vcpus.get_mut(self.current) {
            Some(vcpu) => {
                vcpu.guest.ticks += passed;
                vcpu.guest.ticks
            }
            None => self.count_other(passed),
        }
    }

    #[cold]
    #[inline(never)]
    fn count_other(&mut self, passed: u64) -> u64 {
        if self.current == NOBODY {
            return 0;
        }
        self.prepare_ticks += passed;
        self.prepare_ticks
    }

    /// Whether preparing comes before a virtual CPU of rank `best_rank`.
    #[cold]
    #[inline(never)]
    fn comes_first(&self, best_rank: u64) -> bool {
        let lead = if self.current == self.vcpus.len() { 0 } else { self.lead_ticks };
        self.prepare_ticks + lead < best_rank
    }

    /// Takes the core from its virtual CPUs for preparing `vm`.
    #[cold]
    #[inline(never)]
    fn set_aside(&mut self, vm: &'static Vm) -> Work {
        self.current = self.vcpus.len();
        // Its timers must not raise anything while it does not run.
        self.unload();
        self.machine.set_running(self.number, None);
        Work::Prepare(vm)
    }

    #[inline(never)]
    fn idle_until(&mut self, wake: Option<Ticks>) -> Work {
        if self.loaded.is_none() {
            self.machine.set_running(self.number, None);
        }
        timer::set_deadline(deadline_at(self.deadlines.or_earlier(wake.unwrap_or(Ticks(u64::MAX)))));
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
            // Another virtual CPU of this core has got an interrupt: it is looked at soon, and not before this one has
            // gone on a little.
            let soon = timer::now().0.saturating_add(self.lead_ticks >> GLIMPSE_SHIFT);
            timer::set_deadline(Some(Ticks(soon)));
        }
        vcpu
    }

    /// Takes the loaded virtual CPU off the core. Returns whether another one of the core is to look at its
    /// interrupts.
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
        if guest.awaits.take().is_some() {
            guest.vm.end_wait(guest.index);
        }
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

/// Ends the wait of a virtual CPU that is not loaded: from now on it wants to run, and counts as having done so for
/// `most_ticks` less a lead at least. It pays for its wake-up. Gives the time that it counts as having run.
#[inline]
fn wake(vcpu: &mut Vcpu<GuestCpu>, now: Ticks, most_ticks: u64, lead_ticks: u64) -> u64 {
    let ticks = vcpu.guest.ticks.max(most_ticks - lead_ticks) + (lead_ticks >> WAKE_SHIFT);
    vcpu.guest.ticks = ticks;
    vcpu.guest.lag_ticks = now.0.wrapping_sub(ticks);
    vcpu.guest.waiting = false;
    vcpu.guest.vm.set_away(vcpu.guest.index, true);
    ticks
}

/// When a saved timer of the virtual CPU goes off that can wake it.
#[inline(never)]
fn timers_wake_time(vcpu: &Vcpu<GuestCpu>) -> Option<Ticks> {
    let guest = &vcpu.guest;
    let vm = guest.vm;
    let [virtual_timer, physical_timer] = vcpu.saved_timers(vm.state.counter_offset.load(Ordering::Relaxed));
    let wakes = |deadline: Option<u64>, intid| {
        let deadline = deadline.filter(|_| vm.vgic.is_forwarded(guest.index, IntId::new(intid)));
        Ticks(deadline.unwrap_or(u64::MAX))
    };
    deadline_at(wakes(virtual_timer, gic::VIRTUAL_TIMER).min(wakes(physical_timer, gic::PHYSICAL_TIMER)))
}
