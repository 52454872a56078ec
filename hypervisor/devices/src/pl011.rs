//! The emulated UART: an Arm PrimeCell PL011 r1p5 (DDI0183), as far as a guest can tell.
//!
//! What a guest transmits goes to its end of the system console at once, so the transmit FIFO is always empty. What is
//! typed for it stays with the console until the receive FIFO has room, so no input is lost and nothing overruns.
//!
//! As in QEMU, transmitter and receiver work whatever the enable bits of UARTCR say: small guests made for QEMU's
//! `virt` board rely on it.
//!
//! What this model leaves out: line speed and format, DMA, infrared and hardware flow control. Their registers keep
//! what is stored and do nothing else.

mod fifo;
mod registers;
#[cfg(test)]
mod tests;

use core::task::Poll;
use fifo::Fifo;
use registers::{Control, Data, FifoLevelSelect, Flags, IDENTIFICATION, Interrupts, LineControl, Register};
use vdev::{Description, Device, DeviceNode, GuestFault, Host, Model, ResetKind, Trigger, Width, guest_map};

/// An emulated PL011.
pub struct Pl011 {
    receive_fifo: Fifo,
    /// The error bits of the character that was read last, and a pending overrun.
    receive_status: Data,
    /// Whether the shift register holds a character that found the FIFO full: the next one is marked (DDI0183 3.3.1).
    overrun: bool,
    irda_low_power: u16,
    integer_baud_rate: u16,
    fractional_baud_rate: u16,
    line_control: LineControl,
    control: Control,
    /// UARTFR as it reads now: drivers poll it, so it is kept rather than composed.
    flags: Flags,
    level_select: FifoLevelSelect,
    mask: Interrupts,
    raw: Interrupts,
    dma_control: u16,
}

impl Pl011 {
    /// A PL011 in its state at power-on (DDI0183 table 3-1).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            receive_fifo: Fifo::new(),
            receive_status: Data::empty(),
            overrun: false,
            irda_low_power: 0,
            integer_baud_rate: 0,
            fractional_baud_rate: 0,
            line_control: LineControl::empty(),
            control: Control::RESET,
            flags: Flags::IDLE,
            level_select: FifoLevelSelect::RESET,
            mask: Interrupts::empty(),
            raw: Interrupts::empty(),
            dma_control: 0,
        }
    }

    /// How many characters the receive FIFO holds at most: without FEN it is a one-character holding register.
    fn depth(&self) -> usize {
        if self.line_control.contains(LineControl::FEN) { fifo::DEPTH } else { 1 }
    }

    /// How many characters raise the receive interrupt.
    fn receive_level(&self) -> usize {
        if self.line_control.contains(LineControl::FEN) { self.level_select.receive_level() } else { 1 }
    }

    fn loopback(&self) -> bool {
        self.control.contains(Control::LBE)
    }

    fn modem_inputs(&self) -> Flags {
        if self.loopback() { self.control.looped_modem_inputs() } else { Flags::TERMINAL_READY }
    }

    /// Brings UARTFR up to date, after a change of the receive FIFO, of its depth or of the modem's inputs.
    fn update_flags(&mut self) {
        // The transmit FIFO is always empty.
        let mut flags = self.modem_inputs() | Flags::TXFE;
        flags.set(Flags::RXFE, self.receive_fifo.len() == 0);
        flags.set(Flags::RXFF, self.receive_fifo.len() >= self.depth());
        self.flags = flags;
    }

    /// Takes what was typed while there is room. In loopback the receiver hears the transmitter alone.
    fn fill(&mut self, host: &mut Host<'_>) {
        if self.loopback() {
            return;
        }
        for _ in self.receive_fifo.len()..self.depth() {
            let Some(byte) = host.console.take() else { break };
            self.receive(u16::from(byte));
        }
    }

    /// A character arrives from the line.
    fn receive(&mut self, character: u16) {
        if self.receive_fifo.len() >= self.depth() {
            self.overrun = true;
            self.receive_status |= Data::OVERRUN_ERROR;
            self.raw |= Interrupts::OE;
            return;
        }
        let mark = if self.overrun { Data::OVERRUN_ERROR.bits() } else { 0 };
        self.overrun = false;
        self.receive_fifo.push(character | mark);
        self.update_flags();
        // The line is silent between two calls, so what has arrived by the end of one has waited for 32 bit periods.
        self.raw |= Interrupts::RT;
        if self.receive_fifo.len() >= self.receive_level() {
            self.raw |= Interrupts::RX;
        }
    }

    /// The guest reads the oldest character (DDI0183 3.3.1); an empty FIFO gives zero.
    fn read_data(&mut self, host: &mut Host<'_>) -> u16 {
        let character = self.receive_fifo.pop().unwrap_or(0);
        self.update_flags();
        // The overrun bit belongs to the line, not to a character: only a store to UARTECR clears it (DDI0183 3.3.2).
        self.receive_status = Data::from_bits_truncate(character) | (self.receive_status & Data::OVERRUN_ERROR);
        if self.receive_fifo.len() < self.receive_level() {
            self.raw.remove(Interrupts::RX);
        }
        if self.receive_fifo.len() == 0 {
            self.raw.remove(Interrupts::RT);
        }
        self.fill(host);
        character
    }

    /// The guest sends `byte`.
    fn transmit(&mut self, byte: u8, host: &mut Host<'_>) {
        if self.loopback() {
            self.receive(u16::from(byte));
        } else {
            host.console.put(byte);
        }
        // The FIFO drains at once, and passes its level in doing so.
        self.raw |= Interrupts::TX;
    }

    fn set_line_control(&mut self, new: LineControl, host: &mut Host<'_>) {
        let old = self.line_control;
        self.line_control = new;
        if (old ^ new).contains(LineControl::FEN) {
            // The FIFO becomes a holding register, or the reverse; a change of FEN flushes.
            self.receive_fifo.clear();
            self.update_flags();
            self.raw.remove(Interrupts::RX | Interrupts::RT);
            self.fill(host);
        }
        if self.loopback() && new.contains(LineControl::BRK) && !old.contains(LineControl::BRK) {
            self.raw |= Interrupts::BE;
            self.receive(Data::BREAK_ERROR.bits());
        }
    }

    fn set_control(&mut self, new: Control, host: &mut Host<'_>) {
        let inputs = self.modem_inputs();
        self.control = new;
        self.update_flags();
        self.raw |= Interrupts::modem_status(inputs ^ self.modem_inputs());
        self.fill(host);
    }
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Model for Pl011 {
    const DESCRIPTION: Description = Description {
        name: "pl011",
        window_size: guest_map::PL011_SIZE,
        default_address: guest_map::PL011_BASE,
        default_interrupt: Some(guest_map::PL011_INTID),
        node: DeviceNode {
            name: "pl011",
            compatible: &["arm,pl011", "arm,primecell"],
            trigger: Some(Trigger::LevelHigh),
            clocks: &["uartclk", "apb_pclk"],
            properties: &[],
            console: true,
        },
        configuration_max: 0,
        for_tests: false,
    };

    fn create() -> Self {
        Self::new()
    }
}

/// The register at `offset`, if an access of `width` can reach it.
///
/// Registers are at most 16 bits wide and 4 bytes apart; drivers reach them in 8, 16 and 32 bits. Narrow stores reach
/// the whole register, as the peripheral bus has no byte lanes.
fn decode(offset: u64, width: Width) -> Result<Register, GuestFault> {
    if offset >= guest_map::PL011_SIZE {
        return Err(GuestFault::NoRegister);
    }
    if offset & 3 != 0 || width == Width::DoubleWord {
        return Err(GuestFault::BadWidth);
    }
    Ok(Register::at(offset))
}

impl Device for Pl011 {
    fn read(&mut self, offset: u64, width: Width, host: &mut Host<'_>) -> Result<Poll<u64>, GuestFault> {
        let value = match decode(offset, width)? {
            Register::Data => self.read_data(host),
            Register::ReceiveStatus => self.receive_status.bits() >> 8,
            Register::Flags => self.flags.bits(),
            Register::IrdaLowPower => self.irda_low_power,
            Register::IntegerBaudRate => self.integer_baud_rate,
            Register::FractionalBaudRate => self.fractional_baud_rate,
            Register::LineControl => self.line_control.bits(),
            Register::Control => self.control.bits(),
            Register::FifoLevelSelect => self.level_select.bits(),
            Register::InterruptMask => self.mask.bits(),
            Register::RawInterrupts => self.raw.bits(),
            Register::MaskedInterrupts => (self.raw & self.mask).bits(),
            Register::DmaControl => self.dma_control,
            Register::Identification(index) => u16::from(IDENTIFICATION.get(usize::from(index)).copied().unwrap_or(0)),
            Register::InterruptClear | Register::Reserved => 0,
        };
        Ok(Poll::Ready(u64::from(value)))
    }

    /// The registers that drivers poll and read back in their interrupt handlers.
    #[inline(always)]
    fn peek(&self, offset: u64, width: Width) -> Option<u64> {
        if width == Width::DoubleWord {
            return None;
        }
        let value = match offset {
            0x18 => self.flags.bits(),
            0x38 => self.mask.bits(),
            0x3c => self.raw.bits(),
            0x40 => (self.raw & self.mask).bits(),
            _ => return None,
        };
        Some(u64::from(value))
    }

    fn write(&mut self, offset: u64, width: Width, value: u64, host: &mut Host<'_>) -> Result<Poll<()>, GuestFault> {
        // No register has more than 16 bits; the bits above are reserved and ignored.
        let bits = (value & 0xffff) as u16;
        match decode(offset, width)? {
            Register::Data => self.transmit((bits & 0xff) as u8, host),
            Register::ReceiveStatus => self.receive_status = Data::empty(),
            Register::IrdaLowPower => self.irda_low_power = bits & 0xff,
            Register::IntegerBaudRate => self.integer_baud_rate = bits,
            Register::FractionalBaudRate => self.fractional_baud_rate = bits & 0x3f,
            Register::LineControl => self.set_line_control(LineControl::from_bits_truncate(bits), host),
            Register::Control => self.set_control(Control::from_bits_truncate(bits), host),
            Register::FifoLevelSelect => self.level_select = FifoLevelSelect::from_bits_truncate(bits),
            Register::InterruptMask => self.mask = Interrupts::from_bits_truncate(bits),
            Register::InterruptClear => self.raw.remove(Interrupts::from_bits_truncate(bits)),
            Register::DmaControl => self.dma_control = bits & 0b111,
            Register::Flags
            | Register::RawInterrupts
            | Register::MaskedInterrupts
            | Register::Identification(_)
            | Register::Reserved => {}
        }
        Ok(Poll::Ready(()))
    }

    fn line(&self) -> bool {
        self.raw.intersects(self.mask)
    }

    fn poll(&mut self, host: &mut Host<'_>) {
        self.fill(host);
    }

    fn reset(&mut self, _kind: ResetKind) {
        *self = Self::new();
    }
}
