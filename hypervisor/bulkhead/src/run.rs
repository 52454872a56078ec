//! The life of a core: pick a virtual CPU, run it, see why it left.

use crate::command;
use crate::console;
use crate::device_time;
use crate::guest_cpu::{GuestCpu, Left};
use crate::interrupt;
use crate::lifecycle;
use crate::machine::Machine;
use crate::preparation::{self, Progress};
use crate::scheduler::{Core, Work};
use crate::virtio;
use aarch64::exit::{DataAbort, Exit, SystemRegisterAccess, undefined_instruction};
use arch::context::Vcpu;
use arch::{cpu, gic, wait};
use core::fmt;
use core::sync::atomic::AtomicU32;
use terminal::repeated::Repeated;
use vdev::Access;
use vm_lifecycle::{CommandSource, VmCommand};

/// Runs core `number`'s virtual CPUs, for ever.
// Where the boot ends: no code of its own may be inlined into this, nor this into it.
#[inline(never)]
pub fn run(machine: &'static Machine, number: usize) -> ! {
    machine.arrive();
    let mut core = Core::new(machine, number);
    let mut has_served = false;
    loop {
        match core.pick(core::mem::take(&mut has_served)) {
            Work::Run(vcpu) => {
                let vcpu = core.switch_to(vcpu);
                vcpu.enter();
                if !matches!(vcpu.guest.left, Left::Reschedule) {
                    after_exit(machine, vcpu);
                }
            }
            Work::Prepare(vm) => {
                match preparation::advance(machine, vm, number) {
                    Progress::Going => {}
                    Progress::Waiting => core.put_off_preparation(),
                    Progress::Prepared if !lifecycle::begin(machine, vm, number) => {}
                    Progress::Prepared | Progress::Done => core.end_preparation(),
                }
                take_own_interrupts(machine, number);
            }
            Work::Serve => {
                take_own_interrupts(machine, number);
                has_served = true;
            }
            Work::Idle => {
                cpu::wait_for_interrupt();
                take_own_interrupts(machine, number);
            }
        }
    }
}

// Apart from the loop, as everything that is not the way from one virtual CPU to the next: its instructions are
// counted.
#[inline(never)]
fn after_exit(machine: &'static Machine, vcpu: &mut Vcpu<GuestCpu>) {
    let left = core::mem::replace(&mut vcpu.guest.left, Left::Reschedule);
    let (vm, index) = (vcpu.guest.vm, vcpu.guest.index);
    vm.note_exits(index, vcpu.guest.exits);
    match left {
        Left::Reschedule => {}
        // As in `Guest::wait`.
        Left::Wait => vcpu.guest.waiting = vcpu.guest.unfinished == 0,
        Left::Interrupt(intid) => serve(machine, intid, vcpu.guest.core),
        Left::CpuOff => {
            vcpu.guest.is_leaving = true;
            machine.summon(vcpu.guest.core, vcpu.guest.core);
        }
        Left::SystemOff => request_own(machine, &vcpu.guest, VmCommand::Stop),
        Left::SystemReset => request_own(machine, &vcpu.guest, VmCommand::Reset),
        Left::Refused(exit) => log_refusal(vcpu, exit),
        Left::Serve => virtio::resume(vcpu),
        Left::SystemError(esr) => command::fail_for_system_error(machine, &vcpu.guest, esr),
    }
}

/// What the VM of `guest` asks for itself.
fn request_own(machine: &'static Machine, guest: &GuestCpu, command: VmCommand) {
    command::request(machine, guest.vm, command, CommandSource::Vm(guest.vm.config.number), guest.core);
}

#[cold]
#[inline(never)]
fn log_refusal(vcpu: &Vcpu<GuestCpu>, exit: Exit) {
    let log = |what: fmt::Arguments<'_>| {
        let GuestCpu { vm, index, .. } = &vcpu.guest;
        log::warn!("vm {}, vcpu {index}: {what} (PC {:#x})", vm.config.name, cpu::interrupted_at());
    };
    match exit {
        Exit::DataAbort(DataAbort { mmio, on_table_walk, access, address, virtual_address, .. }) => {
            let why = if mmio.is_none() && !on_table_walk { " by an instruction with no syndrome" } else { "" };
            log(format_args!(
                "{} of {address:#x} (virtual address {virtual_address:#x}){why} refused with an external abort",
                direction(access)
            ));
        }
        Exit::InstructionAbort(abort) => {
            log(format_args!("instruction fetch from {:#x} refused with an external abort", abort.address));
        }
        Exit::SystemRegister(SystemRegisterAccess { register, access, .. }) => {
            log(format_args!("{} of system register {register} refused as undefined", direction(access)));
        }
        Exit::Undefined { esr } => {
            log(format_args!("{} refused as undefined (ESR {esr:#x})", undefined_instruction(esr)));
        }
        // These are answered.
        Exit::Hvc { .. } | Exit::Smc { .. } | Exit::WaitForInterrupt | Exit::WaitForEvent => {}
    }
}

fn direction(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}

/// The most interrupts that are served before the core decides again what to do.
const INTERRUPTS_MAX: usize = 16;

/// Interrupts that arrive while no guest is loaded: acknowledged, and served here.
#[inline(never)]
fn take_own_interrupts(machine: &'static Machine, core: usize) {
    for _ in 0..INTERRUPTS_MAX {
        let Some(intid) = gic::acknowledge() else { return };
        gic::drop_priority(intid);
        serve(machine, intid, core);
    }
}

/// Interrupts that nobody owns: a device of the board may repeat one without end.
static STRAY_INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// Serves an interrupt that is not a running guest's, and ends it.
fn serve(machine: &'static Machine, intid: u32, core: usize) {
    match intid {
        // Seen again by `pick`, which runs next.
        gic::KICK | gic::SUMMON => {}
        // Left over from the virtual CPU that was here last; its timers are stopped, and it will see them again.
        gic::MAINTENANCE | gic::VIRTUAL_TIMER | gic::PHYSICAL_TIMER => {}
        gic::STOP => wait::park(),
        // The deadline is past; `pick` sees what is due, and sets the next.
        gic::HYP_TIMER => arch::timer::set_deadline(None),
        intid if intid == machine.uart_interrupt => receive(machine, core),
        intid => {
            if let Some(owner) = machine.owner_of(intid) {
                interrupt::take_for_absent(machine, owner, intid, core);
                return;
            }
            if Repeated::StrayInterrupt.count(&STRAY_INTERRUPTS) {
                log::warn!("core {core}: interrupt {intid} came that nobody owns");
            }
        }
    }
    gic::deactivate(intid);
}

/// Takes what was typed on the UART and lets the guests' devices know.
fn receive(machine: &'static Machine, this_core: usize) {
    // The FIFO holds 32 bytes; a person, or a script, that types faster than this is served at the next interrupt.
    for _ in 0..64 {
        let Some(woken) = console::take_input() else { return };
        let Some(vm) = woken.and_then(|guest| machine.vms.iter().find(|vm| vm.config.console == guest)) else {
            continue;
        };
        device_time::wake_up(machine, vm, this_core);
    }
}
