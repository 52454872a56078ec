//! The PL011's registers, named as its manual names them (Arm DDI0183, chapter 3).

use bitflags::bitflags;

/// A register, by its offset in the window (DDI0183 table 3-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// UARTDR, 0x000: data.
    Data,
    /// UARTRSR/UARTECR, 0x004: receive status; any store clears it.
    ReceiveStatus,
    /// UARTFR, 0x018: flags.
    Flags,
    /// UARTILPR, 0x020: IrDA low-power counter.
    IrdaLowPower,
    /// UARTIBRD, 0x024: integer baud rate divisor.
    IntegerBaudRate,
    /// UARTFBRD, 0x028: fractional baud rate divisor.
    FractionalBaudRate,
    /// UARTLCR_H, 0x02c: line control.
    LineControl,
    /// UARTCR, 0x030: control.
    Control,
    /// UARTIFLS, 0x034: FIFO levels that raise interrupts.
    FifoLevelSelect,
    /// UARTIMSC, 0x038: interrupt mask; 1 lets an interrupt through.
    InterruptMask,
    /// UARTRIS, 0x03c: raw interrupts.
    RawInterrupts,
    /// UARTMIS, 0x040: raw interrupts that the mask lets through.
    MaskedInterrupts,
    /// UARTICR, 0x044: interrupt clear.
    InterruptClear,
    /// UARTDMACR, 0x048: DMA control.
    DmaControl,
    /// UARTPeriphID0 to UARTPCellID3, 0xfe0 to 0xffc: byte `n` of the identification.
    Identification(u8),
    /// Nothing, or a test register: reads as zero and ignores stores.
    Reserved,
}

impl Register {
    /// The register at `offset`, a multiple of 4 below the window's size.
    pub(super) const fn at(offset: u64) -> Self {
        match offset {
            0x000 => Self::Data,
            0x004 => Self::ReceiveStatus,
            0x018 => Self::Flags,
            0x020 => Self::IrdaLowPower,
            0x024 => Self::IntegerBaudRate,
            0x028 => Self::FractionalBaudRate,
            0x02c => Self::LineControl,
            0x030 => Self::Control,
            0x034 => Self::FifoLevelSelect,
            0x038 => Self::InterruptMask,
            0x03c => Self::RawInterrupts,
            0x040 => Self::MaskedInterrupts,
            0x044 => Self::InterruptClear,
            0x048 => Self::DmaControl,
            // Eight registers of one byte each; the mask leaves 0 to 7.
            0xfe0..=0xffc => Self::Identification((offset >> 2 & 7) as u8),
            _ => Self::Reserved,
        }
    }
}

/// UARTPeriphID0 to 3, then UARTPCellID0 to 3 (DDI0183 3.3.15 to 3.3.22).
///
/// Part 0x011, designer 0x41 (Arm), revision 3 (r1p5): Linux takes a PL011 for one with 32-byte FIFOs from revision 3
/// on.
pub(super) const IDENTIFICATION: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

bitflags! {
    /// UARTDR bits 11:8 (DDI0183 3.3.1); UARTRSR has the same four in bits 3:0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Data: u16 {
        /// The stop bit was missing.
        const FRAMING_ERROR = 1 << 8;
        /// The parity was wrong.
        const PARITY_ERROR = 1 << 9;
        /// The line was held low for a whole character.
        const BREAK_ERROR = 1 << 10;
        /// A character came when the FIFO was full.
        const OVERRUN_ERROR = 1 << 11;
    }

    /// UARTFR (DDI0183 3.3.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Flags: u16 {
        /// Clear to send.
        const CTS = 1 << 0;
        /// Data set ready.
        const DSR = 1 << 1;
        /// Data carrier detect.
        const DCD = 1 << 2;
        /// The receive FIFO is empty.
        const RXFE = 1 << 4;
        /// The receive FIFO is full.
        const RXFF = 1 << 6;
        /// The transmit FIFO is empty.
        const TXFE = 1 << 7;
        /// Ring indicator.
        const RI = 1 << 8;
    }

    /// UARTLCR_H (DDI0183 3.3.7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct LineControl: u16 {
        /// Send break.
        const BRK = 1 << 0;
        /// Enable FIFOs.
        const FEN = 1 << 4;
        /// Parity, stop bits and word length: kept, and of no effect.
        const FORMAT = 0b1110_1110;
    }

    /// UARTCR (DDI0183 3.3.8).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Control: u16 {
        /// UART enable.
        const UARTEN = 1 << 0;
        /// Loopback enable.
        const LBE = 1 << 7;
        /// Transmit enable.
        const TXE = 1 << 8;
        /// Receive enable.
        const RXE = 1 << 9;
        /// Data transmit ready (output).
        const DTR = 1 << 10;
        /// Request to send (output).
        const RTS = 1 << 11;
        /// Output 1, which serves as carrier detect.
        const OUT1 = 1 << 12;
        /// Output 2, which serves as ring indicator.
        const OUT2 = 1 << 13;
        /// Infrared modes and hardware flow control: kept, and of no effect.
        const KEPT = 0b1100_0000_0000_0110;
    }

    /// The eleven interrupts of UARTIMSC, UARTRIS, UARTMIS and UARTICR (DDI0183 3.3.10).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Interrupts: u16 {
        /// Ring indicator changed.
        const RI = 1 << 0;
        /// Clear to send changed.
        const CTS = 1 << 1;
        /// Data carrier detect changed.
        const DCD = 1 << 2;
        /// Data set ready changed.
        const DSR = 1 << 3;
        /// The receive FIFO has reached its level.
        const RX = 1 << 4;
        /// The transmit FIFO has drained to its level.
        const TX = 1 << 5;
        /// Characters wait in the receive FIFO and no more are coming.
        const RT = 1 << 6;
        /// Framing error.
        const FE = 1 << 7;
        /// Parity error.
        const PE = 1 << 8;
        /// Break error.
        const BE = 1 << 9;
        /// Overrun error.
        const OE = 1 << 10;
    }
}

impl Flags {
    /// The modem inputs when a terminal is there and ready: the console always is.
    pub(super) const TERMINAL_READY: Self = Self::CTS.union(Self::DSR).union(Self::DCD);

    /// The terminal is ready, and nothing is on its way in either direction.
    pub(super) const IDLE: Self = Self::TERMINAL_READY.union(Self::RXFE).union(Self::TXFE);
}

impl Control {
    /// The value at reset (DDI0183 3.3.8).
    pub(super) const RESET: Self = Self::TXE.union(Self::RXE);

    /// What the modem inputs see of the modem outputs in loopback (DDI0183 2.4.4).
    pub(super) fn looped_modem_inputs(self) -> Flags {
        let mut inputs = Flags::empty();
        inputs.set(Flags::CTS, self.contains(Self::RTS));
        inputs.set(Flags::DSR, self.contains(Self::DTR));
        inputs.set(Flags::DCD, self.contains(Self::OUT1));
        inputs.set(Flags::RI, self.contains(Self::OUT2));
        inputs
    }
}

impl Interrupts {
    /// The modem status interrupts of the modem inputs that `changed` names.
    pub(super) fn modem_status(changed: Flags) -> Self {
        let mut interrupts = Self::empty();
        interrupts.set(Self::RI, changed.contains(Flags::RI));
        interrupts.set(Self::CTS, changed.contains(Flags::CTS));
        interrupts.set(Self::DCD, changed.contains(Flags::DCD));
        interrupts.set(Self::DSR, changed.contains(Flags::DSR));
        interrupts
    }
}

/// UARTIFLS (DDI0183 3.3.9): the FIFO levels that raise interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FifoLevelSelect(u16);

impl FifoLevelSelect {
    /// The value at reset: both FIFOs at half.
    pub(super) const RESET: Self = Self(0b010_010);

    /// What a store of `value` leaves in the register.
    pub(super) const fn from_bits_truncate(value: u16) -> Self {
        Self(value & 0b111_111)
    }

    /// What a load finds.
    pub(super) const fn bits(self) -> u16 {
        self.0
    }

    /// How many characters in a 32-byte receive FIFO raise the receive interrupt (RXIFLSEL, bits 5:3). The reserved
    /// values mean the highest level.
    pub(super) const fn receive_level(self) -> usize {
        match self.0 >> 3 {
            0b000 => 4,
            0b001 => 8,
            0b010 => 16,
            0b011 => 24,
            _ => 28,
        }
    }
}
