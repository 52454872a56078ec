//! Which virtual CPUs are on, and which one a guest means.

use super::{ALREADY_ON, ON_PENDING};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// The affinity fields of virtual CPU `index`, as MPIDR_EL1, CPU_ON and a device tree's `reg` name it: Aff0 is
/// `index & 15`, Aff1 is `index >> 4`, below 256. Sixteen share an Aff1 because a GICv3 SGI names its targets by a list
/// of sixteen (IHI0069 12.2.11, ICC_SGI1R_EL1). Whoever fills VMPIDR_EL2 adds the RES1 bit 31.
#[inline]
#[must_use]
pub const fn mpidr(index: usize) -> u64 {
    let index = index as u64;
    (index & 0xf) | ((index >> 4 & 0xff) << 8)
}

/// The virtual CPU, of `count`, that the affinity fields `mpidr` name.
///
/// A `target` of CPU_ON or AFFINITY_INFO must have every other bit clear (PSCI, CPU_ON, parameter target_cpu): with bit
/// 31 or MT set it names nobody, and the call gets INVALID_PARAMETERS.
#[inline]
#[must_use]
pub fn vcpu_index(mpidr: u64, count: usize) -> Option<usize> {
    // Aff1 above bits 15:8 and Aff0 above bits 3:0 are never used here.
    if mpidr & !0xff0f != 0 {
        return None;
    }
    let index = (mpidr >> 4 & 0xff0 | mpidr & 0xf) as usize;
    (index < count).then_some(index)
}

const OFF: u8 = 0;
/// A caller of CPU_ON has won and is writing down where to start. Guests see "pending".
const CLAIMED: u8 = 1;
const PENDING: u8 = 2;
const ON: u8 = 3;

/// The power state of one virtual CPU (PSCI, AFFINITY_INFO: OFF, ON_PENDING, ON).
///
/// Any core may call [`Power::turn_on`]; the core that the virtual CPU is pinned to calls [`Power::take_start`] and
/// [`Power::turn_off`]. Nobody waits: whoever turns it on kicks that core *after* `turn_on` has returned.
#[derive(Debug)]
pub struct Power {
    state: AtomicU8,
    entry: AtomicU64,
    context: AtomicU64,
}

impl Power {
    /// A virtual CPU that is on already, or off.
    #[must_use]
    pub const fn new(on: bool) -> Self {
        Self { state: AtomicU8::new(if on { ON } else { OFF }), entry: AtomicU64::new(0), context: AtomicU64::new(0) }
    }

    /// CPU_ON: asks that it start at the guest address `entry` with `context` in `x0`.
    ///
    /// # Errors
    /// The code that CPU_ON returns: [`ALREADY_ON`], or [`ON_PENDING`] if another call came first.
    pub fn turn_on(&self, entry: u64, context: u64) -> Result<(), u64> {
        match self.state.compare_exchange(OFF, CLAIMED, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {}
            Err(ON) => return Err(ALREADY_ON),
            Err(_) => return Err(ON_PENDING),
        }
        self.entry.store(entry, Ordering::Relaxed);
        self.context.store(context, Ordering::Relaxed);
        // Publishes entry and context to `take_start`.
        self.state.store(PENDING, Ordering::Release);
        Ok(())
    }

    /// Takes the start that a [`Power::turn_on`] asked for: (entry, context). From then on the virtual CPU is on.
    pub fn take_start(&self) -> Option<(u64, u64)> {
        if self.state.load(Ordering::Acquire) != PENDING {
            return None;
        }
        let start = (self.entry.load(Ordering::Relaxed), self.context.load(Ordering::Relaxed));
        self.state.compare_exchange(PENDING, ON, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(start)
    }

    /// CPU_OFF, or the end of its virtual machine: it is off, and a start that nobody took is forgotten.
    ///
    /// At the end of a virtual machine this may be called only when none of its virtual CPUs runs, so that no
    /// [`Power::turn_on`] is under way.
    pub fn turn_off(&self) {
        // Whoever turns it on again sees everything that happened before.
        self.state.store(OFF, Ordering::Release);
    }

    /// What AFFINITY_INFO returns: 0 on, 1 off, 2 pending.
    #[must_use]
    pub fn affinity_info(&self) -> u64 {
        match self.state.load(Ordering::Acquire) {
            ON => 0,
            OFF => 1,
            _ => 2,
        }
    }

    /// Whether it is off, and nobody has asked for its start.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state.load(Ordering::Acquire) == OFF
    }

    /// Whether it is on, its start taken.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.state.load(Ordering::Acquire) == ON
    }
}

#[cfg(test)]
mod tests {
    use super::{ALREADY_ON, ON_PENDING, Power, mpidr, vcpu_index};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn cpu_goes_from_off_through_pending_to_on_and_back() {
        let cpu = Power::new(false);
        assert_eq!(cpu.affinity_info(), 1);
        assert_eq!(cpu.take_start(), None);
        assert_eq!(cpu.turn_on(0x4000_0000, 7), Ok(()));
        assert_eq!(cpu.affinity_info(), 2);
        assert!(!cpu.is_on());
        assert_eq!(cpu.turn_on(0x5000_0000, 8), Err(ON_PENDING));
        assert_eq!(cpu.take_start(), Some((0x4000_0000, 7)));
        assert_eq!(cpu.take_start(), None);
        assert_eq!(cpu.affinity_info(), 0);
        assert!(cpu.is_on());
        assert_eq!(cpu.turn_on(0x5000_0000, 8), Err(ALREADY_ON));
        cpu.turn_off();
        assert_eq!(cpu.affinity_info(), 1);
        assert_eq!(cpu.turn_on(0x6000_0000, 9), Ok(()));
        assert_eq!(cpu.take_start(), Some((0x6000_0000, 9)));
    }

    #[test]
    fn boot_cpu_is_on_from_the_start() {
        assert_eq!(Power::new(true).affinity_info(), 0);
        assert_eq!(Power::new(true).turn_on(0, 0), Err(ALREADY_ON));
    }

    #[test]
    fn start_that_nobody_took_is_forgotten_with_its_machine() {
        let cpu = Power::new(false);
        assert_eq!(cpu.turn_on(1, 2), Ok(()));
        cpu.turn_off();
        assert_eq!(cpu.take_start(), None);
        assert_eq!(cpu.affinity_info(), 1);
    }

    #[test]
    fn of_cpus_that_race_to_turn_on_a_third_one_wins_and_its_arguments_arrive_together() {
        let cpu = Power::new(false);
        let rounds = if cfg!(miri) { 3 } else { 500 };
        for _ in 0..rounds {
            let wins = AtomicUsize::new(0);
            let mut start = None;
            thread::scope(|scope| {
                for caller in 1..=3_u64 {
                    let (cpu, wins) = (&cpu, &wins);
                    scope.spawn(move || match cpu.turn_on(caller, caller << 32) {
                        Ok(()) => drop(wins.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => assert!(error == ON_PENDING || error == ALREADY_ON),
                    });
                }
                // The owning core looks now and then, as a kick would make it.
                while start.is_none() {
                    start = cpu.take_start();
                    thread::yield_now();
                }
            });
            assert_eq!(wins.into_inner(), 1);
            let (entry, context) = start.expect("one caller has won");
            assert_eq!(context, entry << 32);
            cpu.turn_off();
        }
    }

    #[test]
    fn affinity_names_every_cpu_and_only_those_that_exist() {
        for index in 0..40 {
            assert_eq!(vcpu_index(mpidr(index), 40), Some(index));
            assert_eq!(vcpu_index(mpidr(index), index), None);
        }
        assert_eq!(mpidr(16), 0x100);
        assert_eq!(mpidr(19), 0x103);
    }

    #[test]
    fn target_with_any_other_bit_set_names_nobody() {
        // An Aff0 of 16, Aff2, MT, U, RES1, Aff3, above.
        for bit in [4, 16, 24, 30, 31, 32, 40, 63] {
            assert_eq!(vcpu_index(1 << bit, 4096), None, "bit {bit}");
        }
        assert_eq!(vcpu_index(u64::MAX, usize::MAX), None);
    }
}
