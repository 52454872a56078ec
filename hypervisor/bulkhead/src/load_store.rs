//! Accesses to devices whose syndrome does not say what they transfer: pairs, write-back, what is not aligned.
//!
//! The instruction is read once, through the guest's own tables and out of its own RAM, and held against the fault
//! before anything is done (`aarch64::load_store`). It is then as many plain accesses as it consists of, and each goes
//! the way that an exit of its own would go. What cannot be read, or does not fit, keeps its abort.

use crate::guest_cpu::GuestCpu;
use aarch64::exit::{DataAbort, DeviceAccess, MmioAccess};
use aarch64::load_store::{LoadStore, Registers};
use arch::context::{Vcpu, Verdict};
use arch::{cpu, gic};
use vdev::Width;
use vdev::{Access, GuestMemory};

/// In a syndrome, where ESR_EL2 has nothing: the access is a part of an instruction.
const PART: u64 = 1 << 63;

/// What is said of a part that nobody answers. It has not moved the program counter.
const REFUSED: Verdict = Verdict::Resume;

/// Whether `esr` is that of an access that is a part of an instruction.
#[inline(always)]
pub fn is_part(esr: u64) -> bool {
    esr & PART != 0
}

/// Whether [`emulate`] may have an answer to the data abort of `esr`: a look that costs little, where everything that
/// has been refused comes by.
#[inline(always)]
pub fn is_not_plain(esr: u64, abort: &DataAbort) -> bool {
    abort.mmio.is_none() || is_part(esr) || abort.virtual_address & 0b111 != 0
}

/// Does what the instruction behind `esr` and FAR_EL2 does, if [it is needed](DeviceAccess::needs_instruction), by the
/// accesses that it consists of: `answer` answers one, by its syndrome. If it gives nothing, the guest's registers are
/// as they were; of several accesses the first may have been made.
#[cold]
#[inline(never)]
pub fn emulate(
    vcpu: &mut Vcpu<GuestCpu>,
    esr: u64,
    far: u64,
    answer: fn(&mut Vcpu<GuestCpu>, u64) -> Verdict,
) -> Option<Verdict> {
    if is_part(esr) {
        return Some(REFUSED);
    }
    if !DeviceAccess::needs_instruction(esr, far) {
        return None;
    }
    // One load: what another virtual CPU stores there from now on changes nothing any more.
    let word = vcpu.guest.vm.ram.load_u32(cpu::address_of_instruction()?).ok()?;
    let instruction = LoadStore::decode(word, &Registers { x: &vcpu.context.x, sp: cpu::stack_pointer() })?;
    let state = cpu::resume_state();
    if !instruction.explains(DeviceAccess::direction_of(esr), far) {
        return None;
    }

    let MmioAccess { width, transfer: first, .. } = instruction.transfer;
    let second = instruction.second.unwrap_or(first);
    let before = [vcpu.register(first), vcpu.register(second)];
    // What is not aligned is as many accesses of a byte (Arm ARM B2.2.1).
    let (part_width, parts) =
        if instruction.start.is_multiple_of(width.bytes()) { (width, 1) } else { (Width::Byte, width.bytes()) };
    let mut place = instruction.start;
    for (register, before_it) in [first, second].into_iter().zip(before).take(instruction.registers()) {
        let mut loaded = 0;
        for number in 0..parts {
            // Where the plain access takes it from, or leaves it.
            vcpu.set_register(register, before_it >> (8 * number));
            let transfer = MmioAccess { width: part_width, transfer: register, sign_extend: false, to_64_bits: true };
            cpu::set_access(place, state);
            let verdict = answer(vcpu, PART | DeviceAccess::syndrome_of(transfer, esr));
            if cpu::program_counter() == state.0 {
                // Nobody answers, or the whole instruction has to come again.
                cpu::set_access(far, state);
                vcpu.set_register(first, before[0]);
                vcpu.set_register(second, before[1]);
                return (verdict != REFUSED).then_some(verdict);
            }
            if verdict == Verdict::Leave {
                // The core has something to look at, and does when the instruction is over, be it by an abort.
                vcpu.guest.machine.gic.send_sgi(vcpu.guest.core, gic::KICK);
            }
            loaded |= vcpu.register(register) << (8 * number);
            place += part_width.bytes();
        }
        let is_load = instruction.direction == Access::Read;
        vcpu.set_register(register, if is_load { instruction.transfer.extend(loaded) } else { before_it });
    }
    match instruction.base_after {
        Some(base) if instruction.base == 31 => cpu::set_stack_pointer(base),
        Some(base) => vcpu.set_register(instruction.base, base),
        None => {}
    }
    // Each part has skipped it; the last one for good.
    Some(Verdict::Resume)
}
