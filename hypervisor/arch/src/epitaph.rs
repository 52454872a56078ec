//! What Bulkhead leaves when it fails: reason, core, registers and backtrace on the UART, every core stopped.
//!
//! Nothing here takes a lock or allocates: whoever failed may hold the lock.

use crate::boot;
use crate::per_core::this_core;
use crate::registers::ICC_SGI1R_EL1;
use crate::uart::Uart;
use crate::{gic, panic_device, wait};
use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, SPSR_EL2, VTTBR_EL2};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use tock_registers::interfaces::{Readable, Writeable};

/// The UART's address, or 0 before it is known.
static UART: AtomicU64 = AtomicU64::new(0);
/// The core that writes the epitaph, or [`NOBODY`].
static FAILED: AtomicUsize = AtomicUsize::new(NOBODY);
const NOBODY: usize = usize::MAX;
static DESCRIBE: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Says what `core` was doing, on one line.
pub type Describe = fn(core: usize, out: &mut dyn Write) -> fmt::Result;

pub(crate) fn set_uart(base: u64) {
    UART.store(base, Ordering::Release);
}

/// Lets `describe` add a line to the epitaph: what the core was doing.
pub fn describe_with(describe: Describe) {
    DESCRIBE.store(describe as *mut (), Ordering::Release);
}

/// The UART without a lock.
struct RawConsole(Option<Uart>);

impl RawConsole {
    fn new() -> Self {
        let base = UART.load(Ordering::Acquire);
        // SAFETY: `set_uart` stores only the base of the board's UART; sharing it with a core that is printing garbles
        // a line at worst.
        Self((base != 0).then(|| unsafe { Uart::new(base) }))
    }
}

impl Write for RawConsole {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(uart) = &self.0 {
            for byte in text.bytes() {
                if byte == b'\n' {
                    uart.put(b'\r');
                }
                uart.put(byte);
            }
        }
        Ok(())
    }
}

/// X0 to X30 and SP, as the vectors store them.
#[repr(C)]
pub(crate) struct OwnFrame {
    x: [u64; 31],
    sp: u64,
}

#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    fail(format_args!("{information}"), None)
}

/// Ends everything because the boot cannot go on: a sentence for the person at the console, not an epitaph.
pub fn refuse_to_boot(reason: fmt::Arguments<'_>) -> ! {
    let mut console = RawConsole::new();
    let _ = writeln!(console, "\nBULKHEAD STOPS: {reason}");
    stop()
}

fn stop() -> ! {
    // PSCI could power the board off, but what is on the console and in memory must stay to be read.
    panic_device::report();
    wait::park()
}

pub(crate) fn fail(reason: fmt::Arguments<'_>, frame: Option<&OwnFrame>) -> ! {
    let core = this_core();
    match FAILED.load(Ordering::Acquire) {
        // No read-modify-write: before the MMU is on, exclusives need not work (Arm ARM B2.17.5). Two cores that fail
        // in the same moment may both write, and garble each other's lines.
        NOBODY => FAILED.store(core, Ordering::Release),
        // Writing the epitaph failed too; what there is of it must do.
        first if first == core => stop(),
        _ => wait::park(),
    }
    // IRM: every core but this one.
    ICC_SGI1R_EL1.set(1 << 40 | u64::from(gic::STOP) << 24);
    let mut out = RawConsole::new();
    let _ = write_epitaph(&mut out, core, reason, frame);
    stop()
}

fn write_epitaph(
    out: &mut RawConsole,
    core: usize,
    reason: fmt::Arguments<'_>,
    frame: Option<&OwnFrame>,
) -> fmt::Result {
    writeln!(out, "\n\nBULKHEAD PANIC on core {core}: {reason}")?;
    let describe = DESCRIBE.load(Ordering::Acquire);
    if !describe.is_null() {
        // SAFETY: `describe_with` stores only `Describe` functions.
        let describe: Describe = unsafe { core::mem::transmute(describe) };
        write!(out, "  running  ")?;
        describe(core, out)?;
        writeln!(out)?;
    }
    let base = boot::start();
    writeln!(out, "  image    {base:#x}")?;
    writeln!(out, "  ESR_EL2  {:#018x}  ELR_EL2   {:#018x}", ESR_EL2.get(), ELR_EL2.get())?;
    writeln!(out, "  FAR_EL2  {:#018x}  HPFAR_EL2 {:#018x}", FAR_EL2.get(), HPFAR_EL2.get())?;
    writeln!(out, "  SPSR_EL2 {:#018x}  VTTBR_EL2 {:#018x}", SPSR_EL2.get(), VTTBR_EL2.get())?;
    let frame_pointer = match frame {
        Some(frame) => {
            for (index, pair) in frame.x.chunks(2).enumerate() {
                write!(out, "  x{:<2} {:#018x}", index * 2, pair[0])?;
                match pair.get(1) {
                    Some(second) => writeln!(out, "  x{:<2} {second:#018x}", index * 2 + 1)?,
                    None => writeln!(out, "  sp  {:#018x}", frame.sp)?,
                }
            }
            write_frame(out, 0, ELR_EL2.get())?;
            frame.x[29]
        }
        None => {
            let own: u64;
            // SAFETY: reads a register.
            unsafe { core::arch::asm!("mov {0}, x29", out(reg) own, options(nomem, nostack)) };
            own
        }
    };
    write_backtrace(out, frame_pointer)
}

fn write_frame(out: &mut RawConsole, number: usize, address: u64) -> fmt::Result {
    writeln!(out, "  frame {number}: bulkhead+{:#x}", address.wrapping_sub(boot::start()))
}

/// Follows the frame records (AAPCS64 6.4.6: previous frame pointer, return address) as long as they are on one stack
/// of EL2's. The first pointer may be a guest's: the fast tier begins with the guest's X29.
fn write_backtrace(out: &mut RawConsole, mut frame_pointer: u64) -> fmt::Result {
    let Some(stack) = boot::stack_around(frame_pointer) else { return Ok(()) };
    for number in 1..32 {
        if !stack.contains(&frame_pointer) || stack.end - frame_pointer < 16 || !frame_pointer.is_multiple_of(8) {
            break;
        }
        // SAFETY: inside a stack, all of which is mapped; whatever it holds there is a number.
        let [previous, return_address] = unsafe { (frame_pointer as *const [u64; 2]).read_volatile() };
        if return_address == 0 {
            break;
        }
        // The return address is one past the call.
        write_frame(out, number, return_address.wrapping_sub(4))?;
        if previous <= frame_pointer {
            break;
        }
        frame_pointer = previous;
    }
    Ok(())
}
