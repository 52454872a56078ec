//! The whole system at run time: what every core shares.

use crate::entropy::Pool;
use crate::vm::{Notice, VirtioDevice, Vm};
use aarch64::psci::Power;
use alloc::boxed::Box;
use arch::boot::CORES_MAX;
use arch::gic::{self, Gic};
use arch::mmu::{HypMap, remove_boot_code};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use spin::{Mutex, Once};
use vgic::Kicks;

static MACHINE: Once<&'static Machine> = Once::new();

/// To look at the lives of its virtual CPUs: some have been turned on or off, or their machines have changed phase.
pub const LIVES: u8 = 1 << 0;
/// To wake those of its waiting virtual CPUs that have been queued.
pub const WAKES: u8 = 1 << 1;

/// The board and its virtual machines.
pub struct Machine {
    /// The physical interrupt controller.
    pub gic: Gic,
    /// The INTID of the board's UART.
    pub uart_interrupt: u32,
    /// How many cores the system uses.
    pub cores: usize,
    /// The virtual machines, in the manifest's order.
    pub vms: &'static [Vm],
    /// Random bytes for guests.
    pub entropy: Mutex<Pool>,
    /// What others have asked each core for since it looked: [`LIVES`], [`WAKES`].
    requests: [AtomicU8; CORES_MAX],
    /// Virtual machines that are not off, driver domains apart.
    live: AtomicUsize,
    /// Cores that have reached their run loop.
    arrived: AtomicUsize,
    /// EL2's own map, once all cores have been started in it.
    map: Mutex<Option<HypMap>>,
    /// A guest has started.
    has_started: AtomicBool,
    /// Bytes of guests' RAM that each core has cleared.
    cleared: [AtomicU64; CORES_MAX],
    /// What each core runs: 0, or 1 + VM number * 16 + virtual CPU number. For the epitaph alone.
    running: [AtomicU32; CORES_MAX],
}

/// What a driver domain serves by one of its channels.
pub struct Channel {
    /// Whose device it is.
    pub client: &'static Vm,
    /// The device's index there.
    pub index: usize,
    /// The device.
    pub device: &'static VirtioDevice,
}

impl Machine {
    /// A system that has not started.
    pub fn new(gic: Gic, uart_interrupt: u32, cores: usize, vms: &'static [Vm], entropy: Pool) -> Self {
        Self {
            gic,
            uart_interrupt,
            cores,
            requests: [const { AtomicU8::new(LIVES) }; CORES_MAX],
            live: AtomicUsize::new(vms.iter().filter(|vm| !vm.is_driver_domain()).count()),
            vms,
            entropy: Mutex::new(entropy),
            arrived: AtomicUsize::new(0),
            map: Mutex::new(None),
            has_started: AtomicBool::new(false),
            cleared: [const { AtomicU64::new(0) }; CORES_MAX],
            running: [const { AtomicU32::new(0) }; CORES_MAX],
        }
    }

    /// Whether a guest has started.
    pub fn has_started(&self) -> bool {
        self.has_started.load(Ordering::Acquire)
    }

    /// Notes that a guest starts. Returns whether it is the first.
    pub fn start(&self) -> bool {
        !self.has_started() && !self.has_started.swap(true, Ordering::AcqRel)
    }

    /// Notes that `core` has cleared so many bytes of a guest's RAM.
    pub fn note_cleared(&self, core: usize, bytes: u64) {
        if let Some(cleared) = self.cleared.get(core) {
            cleared.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The bytes of guests' RAM that `core` has cleared.
    pub fn cleared(&self, core: usize) -> u64 {
        self.cleared.get(core).map_or(0, |cleared| cleared.load(Ordering::Relaxed))
    }

    /// Keeps EL2's map until every core has arrived. By the primary core, before it arrives itself.
    pub fn keep_map(&self, map: HypMap) {
        *self.map.lock() = Some(map);
    }

    /// Notes that a core has left the boot's code. Nobody runs it any more once the last one has: it is unmapped.
    #[inline(never)]
    pub fn arrive(&self) {
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.cores
            && let Some(map) = &mut *self.map.lock()
        {
            remove_boot_code(map);
        }
    }

    /// Makes `core` look at its virtual CPUs, unless it is `this_core`, which is looking already.
    #[inline]
    pub fn kick_core(&self, core: usize, this_core: usize) {
        if core != this_core {
            self.gic.send_sgi(core, gic::KICK);
        }
    }

    /// Makes `core` look at the lives of its virtual CPUs: something about them has changed.
    #[inline(never)]
    pub fn summon(&self, core: usize, this_core: usize) {
        self.request(core, LIVES);
        if core != this_core {
            self.gic.send_sgi(core, gic::SUMMON);
        }
    }

    fn request(&self, core: usize, what: u8) {
        if let Some(requests) = self.requests.get(core) {
            requests.fetch_or(what, Ordering::AcqRel);
        }
    }

    /// Leaves what there is to do at the devices `set` of `vm`, a bit each, to the time of its own virtual CPUs: the
    /// first that is on and waits for no access.
    #[cold]
    #[inline(never)]
    pub fn hand_over(&self, vm: &Vm, set: u64, this_core: usize) {
        vm.state.left_over.fetch_or(set, Ordering::Relaxed);
        // Pairs with the one where a core looks for it: either this sees that the virtual CPU is on, or that one sees
        // this.
        fence(Ordering::SeqCst);
        let mut numbers = 0..vm.vcpu_count();
        let may_run = |vcpu: &usize| vm.state.power.get(*vcpu).is_some_and(Power::is_on) && !vm.awaits_answer(*vcpu);
        if let Some(vcpu) = numbers.find(may_run)
            && let Some(core) = vm.core_of(vcpu)
        {
            self.summon(core, this_core);
        }
    }

    /// What `core` has been asked for since it last looked.
    #[inline]
    pub fn take_requests(&self, core: usize) -> u8 {
        // A plain load first: there is nearly always nothing. Every number is below `CORES_MAX`, which a mask says in
        // fewer instructions than a comparison.
        let Some(requests) = self.requests.get(core % CORES_MAX) else { return 0 };
        if requests.load(Ordering::Acquire) == 0 { 0 } else { requests.swap(0, Ordering::AcqRel) }
    }

    /// Tells the cores of those virtual CPUs of `vm` that `kicks` names and that need it. Returns whether one of
    /// `this_core` is among them.
    #[inline]
    pub fn tell(&self, vm: &Vm, kicks: Kicks, this_core: usize) -> bool {
        let mut is_own_core_concerned = false;
        for vcpu in kicks.iter() {
            match vm.core_of(vcpu) {
                Some(core) if core == this_core => is_own_core_concerned = true,
                Some(core) => self.notify(vm, vcpu, core, this_core),
                None => {}
            }
        }
        is_own_core_concerned
    }

    #[inline]
    fn notify(&self, vm: &Vm, vcpu: usize, core: usize, this_core: usize) {
        let notice = vm.notice(vcpu);
        if notice == Notice::Wake {
            self.request(core, WAKES);
        }
        if notice != Notice::None {
            self.kick_core(core, this_core);
        }
    }

    /// Raises the doorbell of `provider`. Returns whether a virtual CPU of this core is to be looked at.
    pub fn ring(&self, provider: &Vm, this_core: usize) -> bool {
        let Some(doorbell) = provider.config.doorbell else { return false };
        let kicks = provider.vgic.inject(doorbell, 0);
        !kicks.is_empty() && self.tell(provider, kicks, this_core)
    }

    /// The VM that serves `device`.
    #[inline]
    pub fn backend_of(&self, device: &VirtioDevice) -> Option<&'static Vm> {
        self.vms.get(device.backend())
    }

    /// What the driver domain `provider` serves by channel `number`.
    #[inline]
    pub fn channel(&self, provider: &Vm, number: usize) -> Option<Channel> {
        let (client, index) = *provider.config.channels.get(number)?;
        let client = self.vms.get(client)?;
        Some(Channel { client, index, device: client.io.virtio.get(index)? })
    }

    /// What the driver domain `provider` serves, in the order of its channels.
    pub fn channels(&self, provider: &Vm) -> impl Iterator<Item = Channel> {
        (0..provider.config.channels.len()).filter_map(|number| self.channel_in_turn(provider, number))
    }

    /// As [`Machine::channel`], for what is on no exit's way.
    #[inline(never)]
    pub fn channel_in_turn(&self, provider: &Vm, number: usize) -> Option<Channel> {
        self.channel(provider, number)
    }

    /// The virtual machine that owns the physical interrupt `intid`.
    pub fn owner_of(&self, intid: u32) -> Option<&'static Vm> {
        self.vms.iter().find(|vm| vm.io.assigned.has(intid))
    }

    /// Notes that `vm` is off for good. Returns whether nobody is left whom a driver domain could serve.
    pub fn retire(&self, vm: &Vm) -> bool {
        if vm.is_driver_domain() {
            return self.live.load(Ordering::Acquire) == 0;
        }
        self.live.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Notes what `core` runs: a virtual machine, and the index of its virtual CPU.
    #[inline]
    pub fn set_running(&self, core: usize, running: Option<(&Vm, usize)>) {
        if let Some(entry) = self.running.get(core % CORES_MAX) {
            let value = running.map_or(0, |(vm, index)| 1 + (vm.config.number as u32) * 16 + index as u32);
            entry.store(value, Ordering::Relaxed);
        }
    }

    /// What `core` runs.
    pub fn running(&self, core: usize) -> Option<(&Vm, usize)> {
        let value = self.running.get(core)?.load(Ordering::Relaxed).checked_sub(1)?;
        Some((self.vms.get((value / 16) as usize)?, (value % 16) as usize))
    }
}

/// Makes `machine` the one machine.
pub fn install(machine: Machine) -> &'static Machine {
    let machine = Box::leak(Box::new(machine));
    MACHINE.call_once(|| machine)
}

/// The machine, once it is built.
pub fn try_get() -> Option<&'static Machine> {
    MACHINE.get().copied()
}

/// The machine. Secondary cores start after it is built.
///
/// # Panics
/// Before [`install`].
pub fn get() -> &'static Machine {
    try_get().expect("secondary cores start after the machine is built")
}

/// A line for the epitaph: which virtual CPU `core` was running.
pub fn describe_core(core: usize, out: &mut dyn Write) -> fmt::Result {
    match try_get().and_then(|machine| machine.running(core)) {
        Some((vm, vcpu)) => write!(out, "vm {}, vcpu {vcpu}", vm.config.name),
        None => write!(out, "no guest"),
    }
}
