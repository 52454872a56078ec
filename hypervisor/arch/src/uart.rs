//! The board's PL011 (ARM DDI 0183), for EL2's own console: polled output, interrupt-driven input.

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

register_bitfields! {u32,
    FR [
        /// Transmit FIFO full.
        TXFF OFFSET(5) NUMBITS(1) [],
        /// Receive FIFO empty.
        RXFE OFFSET(4) NUMBITS(1) []
    ],
    LCR_H [
        /// FIFOs on.
        FEN OFFSET(4) NUMBITS(1) [],
        /// Word length; 3 is 8 bits.
        WLEN OFFSET(5) NUMBITS(2) []
    ],
    CR [
        UARTEN OFFSET(0) NUMBITS(1) [],
        TXE OFFSET(8) NUMBITS(1) [],
        RXE OFFSET(9) NUMBITS(1) []
    ],
    INTERRUPT [
        /// Receive.
        RX OFFSET(4) NUMBITS(1) [],
        /// Receive time-out.
        RT OFFSET(6) NUMBITS(1) []
    ]
}

register_structs! {
    #[allow(missing_docs)]
    Registers {
        (0x00 => dr: ReadWrite<u32>),
        (0x04 => _reserved0),
        (0x18 => fr: ReadOnly<u32, FR::Register>),
        (0x1c => _reserved1),
        (0x2c => lcr_h: ReadWrite<u32, LCR_H::Register>),
        (0x30 => cr: ReadWrite<u32, CR::Register>),
        (0x34 => _reserved2),
        (0x38 => imsc: ReadWrite<u32, INTERRUPT::Register>),
        (0x3c => _reserved3),
        (0x44 => icr: WriteOnly<u32, INTERRUPT::Register>),
        (0x48 => _reserved4),
        (0x1000 => @END),
    }
}

/// How often a full transmit FIFO is looked at: longer than a byte takes at 9600 baud.
const POLLS_MAX: u32 = 100_000;

/// The board's UART. Its rate is what the firmware set.
pub struct Uart(&'static Registers);

// SAFETY: the UART's registers may be used from any core; `&Uart` alone is not shared between cores (it is not `Sync`).
unsafe impl Send for Uart {}

impl Uart {
    /// The PL011 at `base`.
    ///
    /// # Safety
    /// `base` must be the physical address of a PL011's registers, reachable at EL2 as device memory.
    pub(crate) unsafe fn new(base: u64) -> Self {
        // SAFETY: the caller vouches for the address; the registers live as long as the board.
        Self(unsafe { &*(base as *const Registers) })
    }

    /// Turns the UART on, with FIFOs and receive interrupts.
    pub fn configure(&self) {
        self.0.lcr_h.write(LCR_H::FEN::SET + LCR_H::WLEN.val(3));
        // That has emptied the FIFO. QEMU asks its terminal for another byte when DR is read, and only then: without
        // this read, a byte that came before would be the last one. An empty FIFO is not changed by it.
        self.0.dr.get();
        self.0.cr.write(CR::UARTEN::SET + CR::TXE::SET + CR::RXE::SET);
        self.0.imsc.write(INTERRUPT::RX::SET + INTERRUPT::RT::SET);
    }

    /// Sends one byte; waits for room in the transmit FIFO, which the hardware empties. A UART that stands still, held
    /// by hardware flow control or without its clock, loses the byte: EL2 does not wait for ever.
    pub fn put(&self, byte: u8) {
        for _ in 0..POLLS_MAX {
            if !self.0.fr.is_set(FR::TXFF) {
                self.0.dr.set(u32::from(byte));
                return;
            }
            core::hint::spin_loop();
        }
    }

    /// Takes one received byte, if there is one.
    ///
    /// Reading clears the receive interrupts (ARM DDI 0183 2.8.1, 2.8.2): RX below the FIFO's trigger level, RT when it
    /// is empty. One that is asserted though there is nothing to read, since what came before was lost when the FIFO
    /// was turned on, is cleared by UARTICR. That would hide a byte which has come in between, so that the FIFO is
    /// looked at again.
    pub fn take(&self) -> Option<u8> {
        if self.0.fr.is_set(FR::RXFE) {
            self.0.icr.write(INTERRUPT::RX::SET + INTERRUPT::RT::SET);
            if self.0.fr.is_set(FR::RXFE) {
                return None;
            }
        }
        Some(self.0.dr.get() as u8)
    }
}
