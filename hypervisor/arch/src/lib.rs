//! AArch64 EL2 and real hardware: the one hypervisor crate that may use `unsafe`.
//!
//! It offers safe types whose contracts the rest of Bulkhead cannot break: memory has one owner, a guest's bytes are
//! reached by copy, a virtual CPU runs only through [`context::Vcpu::enter`]. It decides nothing: policy is in
//! `bulkhead`, logic in the pure crates.
//!
//! Reading order: [`boot`], `vectors`, [`context`], [`cpu`], [`mmu`], [`memory`], [`gic`], [`list_registers`],
//! [`epitaph`].
#![no_std]
#![cfg(target_arch = "aarch64")]

pub mod board;
pub mod boot;
pub mod bulk;
pub mod context;
mod controls;
pub mod cpu;
pub mod device_window;
pub mod entropy;
pub mod epitaph;
mod exception;
pub mod firmware;
pub mod gic;
pub mod heap;
mod lazy;
mod library_calls;
pub mod list_registers;
pub mod memory;
pub mod mmu;
mod panic_device;
pub mod pending;
mod per_core;
pub mod placement;
mod registers;
pub mod shadow;
mod table_pool;
pub mod timer;
pub mod uart;
mod vectors;
pub mod wait;

use board::Board;
use boot::DeviceTree;
use device_tree::Survey;
use gic::Gic;
use uart::Uart;

/// The board's hardware, taken once by the primary core.
pub struct Hardware {
    /// What the device tree says.
    pub board: Board,
    /// The UART.
    pub uart: Uart,
    /// The interrupt controller.
    pub gic: Gic,
}

/// Reads the board's device tree and takes its hardware. The MMU is off: no lock may be taken before it is on.
///
/// # Errors
/// What the device tree lacks, as a sentence. It can be said from then on: on the UART that the tree has, as far as it
/// can be read, or else on the known one of QEMU's `virt`.
pub fn take_hardware(device_tree: DeviceTree) -> Result<Hardware, &'static str> {
    epitaph::set_uart(boot::KNOWN_UART);
    // SAFETY: a `DeviceTree` is what the boot loader passed.
    let tree = unsafe { board::tree(device_tree.0) }?;
    let address = tree.as_ptr() as u64;
    let survey = Survey::of(tree);
    if let Some(uart) = survey.uart() {
        epitaph::set_uart(uart);
    }
    let board = Board::read(survey, address, per_core::affinity())?;
    boot::set_cores(board.cores.len());
    epitaph::set_uart(board.uart.start);
    // SAFETY: the addresses come from the board's device tree; with the MMU off all memory is device memory, and after
    // that the binary maps these ranges as such before it uses them.
    let (uart, gic) = unsafe {
        (
            Uart::new(board.uart.start),
            Gic::new(board.distributor.start, board.redistributors.start, board.redistributors.size),
        )
    };
    uart.configure();
    firmware::configure(&board);
    panic_device::find(&board);
    Ok(Hardware { board, uart, gic })
}
