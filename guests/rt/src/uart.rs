//! The guest's PL011 UART (Arm DDI0183), polled.

use crate::machine::{UartKind, try_machine};
use crate::mmio;
use crate::probe::{self, Abort, Width};

/// Register offsets in bytes (DDI0183 3.2).
pub mod offset {
    /// UARTDR: data.
    pub const DR: u64 = 0x00;
    /// UARTRSR/UARTECR: receive status, error clear.
    pub const RSR: u64 = 0x04;
    /// UARTFR: flags.
    pub const FR: u64 = 0x18;
    /// UARTILPR: low-power counter.
    pub const ILPR: u64 = 0x20;
    /// UARTIBRD: integer baud rate.
    pub const IBRD: u64 = 0x24;
    /// UARTFBRD: fractional baud rate.
    pub const FBRD: u64 = 0x28;
    /// UARTLCR_H: line control.
    pub const LCR_H: u64 = 0x2c;
    /// UARTCR: control.
    pub const CR: u64 = 0x30;
    /// UARTIFLS: interrupt FIFO levels.
    pub const IFLS: u64 = 0x34;
    /// UARTIMSC: interrupt mask.
    pub const IMSC: u64 = 0x38;
    /// UARTRIS: raw interrupt status.
    pub const RIS: u64 = 0x3c;
    /// UARTMIS: masked interrupt status.
    pub const MIS: u64 = 0x40;
    /// UARTICR: interrupt clear.
    pub const ICR: u64 = 0x44;
    /// UARTDMACR: DMA control.
    pub const DMACR: u64 = 0x48;
    /// UARTPeriphID0, the first of eight identification bytes, four bytes apart.
    pub const PERIPH_ID0: u64 = 0xfe0;
}

/// UARTFR.RXFE: nothing to read.
pub const FLAG_RX_EMPTY: u32 = 1 << 4;
/// UARTFR.TXFF: no room to write.
pub const FLAG_TX_FULL: u32 = 1 << 5;
/// UARTFR.TXFE: all written bytes are on the wire's way.
pub const FLAG_TX_EMPTY: u32 = 1 << 7;
/// UARTFR.BUSY.
pub const FLAG_BUSY: u32 = 1 << 3;
/// UARTCR.UARTEN.
pub const CONTROL_ENABLE: u32 = 1 << 0;
/// UARTCR.LBE: what is sent comes back.
pub const CONTROL_LOOPBACK: u32 = 1 << 7;
/// UARTCR.TXE.
pub const CONTROL_TX: u32 = 1 << 8;
/// UARTCR.RXE.
pub const CONTROL_RX: u32 = 1 << 9;
/// UARTLCR_H: 8 bits.
pub const LINE_8_BITS: u32 = 0b11 << 5;
/// UARTLCR_H.FEN: FIFOs on.
pub const LINE_FIFO: u32 = 1 << 4;
/// The receive interrupt, in IMSC, RIS, MIS and ICR.
pub const INTERRUPT_RX: u32 = 1 << 4;
/// The transmit interrupt.
pub const INTERRUPT_TX: u32 = 1 << 5;
/// The receive-timeout interrupt.
pub const INTERRUPT_RX_TIMEOUT: u32 = 1 << 6;
/// All interrupts.
pub const INTERRUPT_ALL: u32 = 0x7ff;

/// How often [`put`] looks for room before it drops a byte.
const PATIENCE: u32 = 1_000_000;

/// The base address of the register window, if the guest has a UART.
#[must_use]
pub fn base() -> Option<u64> {
    try_machine()?.uart.map(|window| window.start)
}

/// Reads the 32-bit register at `offset`; zero where the guest has no UART.
#[must_use]
pub fn read(offset: u64) -> u32 {
    base().map_or(0, |base| mmio::read32(base + offset))
}

/// Writes the 32-bit register at `offset`, if the guest has a UART.
pub fn write(offset: u64, value: u32) {
    if let Some(base) = base() {
        mmio::write32(base + offset, value);
    }
}

/// Reads at `offset` with any width.
///
/// # Errors
/// The exception, if the load met one.
pub fn try_read(offset: u64, width: Width) -> Result<u64, Abort> {
    base().map_or(Ok(0), |base| probe::read(base + offset, width))
}

/// Writes at `offset` with any width.
///
/// # Errors
/// The exception, if the store met one.
pub fn try_write(offset: u64, width: Width, value: u64) -> Result<(), Abort> {
    base().map_or(Ok(()), |base| probe::write(base + offset, width, value))
}

/// Brings the UART into its ordinary state: 8 bits, FIFOs on, interrupts masked, both directions enabled.
pub fn init() {
    write(offset::IMSC, 0);
    if try_machine().is_none_or(|machine| machine.uart_kind == UartKind::Sbsa) {
        return;
    }
    write(offset::CR, 0);
    write(offset::ICR, INTERRUPT_ALL);
    write(offset::DMACR, 0);
    write(offset::LCR_H, LINE_8_BITS | LINE_FIFO);
    write(offset::CR, CONTROL_ENABLE | CONTROL_TX | CONTROL_RX);
}

/// Sends one byte; waits, within bounds, for room.
pub fn put(byte: u8) {
    for _ in 0..PATIENCE {
        if read(offset::FR) & FLAG_TX_FULL == 0 {
            break;
        }
    }
    write(offset::DR, u32::from(byte));
}

/// Takes one received byte, if there is one.
#[must_use]
pub fn take() -> Option<u8> {
    (read(offset::FR) & FLAG_RX_EMPTY == 0).then(|| read(offset::DR) as u8)
}
