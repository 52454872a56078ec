//! What a guest may expect of its PL011 (Arm DDI0183).
//!
//! While a test has the UART in loopback nothing it sends reaches the console; results are printed afterwards.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};
use rt::probe::Width;
use rt::uart::{self, offset};
use rt::{gic, interrupts, machine, timer};
use testkit::{Outcome, ensure, report};

rt::entry!(main);

const SOON_MICROSECONDS: u64 = 500_000;
/// PrimeCell PL011: part 0x011, designer 0x41 (DDI0183 3.3.14), revision in bits 23:20.
const PERIPHERAL: u32 = 0x0004_1011;
const PRIMECELL: u32 = 0xb105_f00d;
static HANDLED: AtomicU32 = AtomicU32::new(0);
static RECEIVED: AtomicU32 = AtomicU32::new(0);

fn main() -> ! {
    gic::start(handler);
    test("it says that it is a PL011", identification);
    test("the registers that a driver sets are read back", read_back);
    test("an idle UART has sent everything and received nothing", idle);
    test("a masked interrupt shows in RIS and not in MIS", masked);
    test("a byte, a half-word and a word read the same register", widths);
    test("the transmit interrupt reaches the handler", transmit);
    if loops_back() {
        test("what is sent in loopback comes back, in order", loopback);
        test("the FIFO holds what is sent in loopback until it is read", fifo);
        test("a received byte is an interrupt", receive);
        test("a hundred bytes come back by interrupts", receive_many);
        test("without loopback nothing comes back", no_loopback);
    } else {
        report::skip("loopback", "this UART has no loopback");
    }
    report::finish()
}

/// Runs one test from the UART's ordinary state, and brings that back before the result is printed.
fn test(name: &str, body: impl FnOnce() -> Outcome) {
    uart::init();
    let outcome = body();
    interrupts::mask();
    uart::init();
    drain();
    report::test(name, || outcome);
}

fn drain() {
    for _ in 0..64 {
        if uart::take().is_none() {
            break;
        }
    }
}

fn read_bytes(first: u64) -> u32 {
    (0..4).fold(0, |value, byte| value | (uart::read(first + byte * 4) & 0xff) << (byte * 8))
}

fn identification() -> Outcome {
    let peripheral = read_bytes(offset::PERIPH_ID0);
    ensure!(peripheral & 0x000f_ffff == PERIPHERAL, "UARTPeriphID is {peripheral:#x}");
    let cell = read_bytes(offset::PERIPH_ID0 + 0x10);
    ensure!(cell == PRIMECELL, "UARTPCellID is {cell:#x}");
    Ok(())
}

fn read_back() -> Outcome {
    for (register, value) in [
        (offset::IBRD, 0x1234),
        (offset::FBRD, 0x2a),
        (offset::LCR_H, uart::LINE_8_BITS | uart::LINE_FIFO),
        (offset::IMSC, uart::INTERRUPT_RX | uart::INTERRUPT_RX_TIMEOUT),
        (offset::IFLS, 0b001_001),
    ] {
        uart::write(register, value);
        let got = uart::read(register);
        ensure!(got == value, "register {register:#x} reads {got:#x} after a write of {value:#x}");
    }
    uart::write(offset::IFLS, 0b010_010);
    Ok(())
}

fn idle() -> Outcome {
    let sent = timer::wait_until(SOON_MICROSECONDS, || uart::read(offset::FR) & uart::FLAG_TX_EMPTY != 0);
    let flags = uart::read(offset::FR);
    ensure!(sent, "UARTFR is {flags:#x}: not all is sent");
    ensure!(flags & uart::FLAG_TX_FULL == 0, "UARTFR is {flags:#x}: full and empty at once");
    ensure!(flags & uart::FLAG_RX_EMPTY != 0, "UARTFR is {flags:#x}: something was received");
    ensure!(uart::read(offset::RSR) == 0, "UARTRSR is {:#x}", uart::read(offset::RSR));
    Ok(())
}

fn masked() -> Outcome {
    uart::write(offset::IMSC, 0);
    uart::put(b'\n');
    let raised = timer::wait_until(SOON_MICROSECONDS, || uart::read(offset::RIS) & uart::INTERRUPT_TX != 0);
    ensure!(raised, "UARTRIS is {:#x} after a byte was sent", uart::read(offset::RIS));
    ensure!(uart::read(offset::MIS) == 0, "UARTMIS is {:#x}", uart::read(offset::MIS));
    uart::write(offset::IMSC, uart::INTERRUPT_TX);
    ensure!(uart::read(offset::MIS) == uart::INTERRUPT_TX, "UARTMIS is {:#x}", uart::read(offset::MIS));
    uart::write(offset::ICR, uart::INTERRUPT_TX);
    ensure!(uart::read(offset::RIS) & uart::INTERRUPT_TX == 0, "UARTICR did not clear it");
    Ok(())
}

fn widths() -> Outcome {
    let word = uart::try_read(offset::CR, Width::Word)?;
    let half = uart::try_read(offset::CR, Width::HalfWord)?;
    let byte = uart::try_read(offset::CR, Width::Byte)?;
    ensure!(half == word & 0xffff && byte == word & 0xff, "they read {word:#x}, {half:#x}, {byte:#x}");
    uart::try_write(offset::IBRD, Width::HalfWord, 0x4321)?;
    let divisor = uart::read(offset::IBRD);
    ensure!(divisor == 0x4321, "a half-word write left {divisor:#x}");
    Ok(())
}

/// Counts, and takes what was received; clears the rest, so that the line falls.
fn handler(_: usize, id: u32) {
    if Some(id) != machine().uart_interrupt {
        return;
    }
    HANDLED.fetch_add(1, Ordering::Relaxed);
    for _ in 0..64 {
        let Some(byte) = uart::take() else { break };
        // The bytes are 0, 1, 2 …: one out of order stops the count.
        if u32::from(byte) == RECEIVED.load(Ordering::Relaxed) {
            RECEIVED.fetch_add(1, Ordering::Relaxed);
        }
    }
    uart::write(offset::ICR, uart::INTERRUPT_ALL);
}

fn with_interrupts(mask: u32, body: impl FnOnce() -> Outcome) -> Outcome {
    let Some(id) = machine().uart_interrupt else {
        ensure!(false, "the device tree names no interrupt for it");
        return Ok(());
    };
    HANDLED.store(0, Ordering::Relaxed);
    RECEIVED.store(0, Ordering::Relaxed);
    gic::enable(id);
    uart::write(offset::IMSC, mask);
    interrupts::unmask();
    let outcome = body();
    interrupts::mask();
    gic::disable(id);
    outcome
}

fn transmit() -> Outcome {
    with_interrupts(uart::INTERRUPT_TX, || {
        uart::put(b'\n');
        let handled = timer::wait_until(SOON_MICROSECONDS, || HANDLED.load(Ordering::Relaxed) > 0);
        ensure!(
            handled,
            "it did not; UARTRIS is {:#x}, UARTMIS {:#x}",
            uart::read(offset::RIS),
            uart::read(offset::MIS)
        );
        Ok(())
    })
}

fn start_loopback() {
    drain();
    let on = uart::CONTROL_ENABLE | uart::CONTROL_TX | uart::CONTROL_RX | uart::CONTROL_LOOPBACK;
    uart::write(offset::CR, on);
}

fn loops_back() -> bool {
    start_loopback();
    uart::put(b'\n');
    let came = timer::wait_until(1000, || uart::take() == Some(b'\n'));
    uart::init();
    came || machine().under_bulkhead
}

/// The next byte received, once it is there.
fn receive_one() -> Option<u8> {
    let mut byte = None;
    timer::wait_until(SOON_MICROSECONDS, || {
        byte = uart::take();
        byte.is_some()
    });
    byte
}

fn loopback() -> Outcome {
    start_loopback();
    for byte in 0..=255 {
        uart::put(byte);
        let got = receive_one();
        ensure!(got == Some(byte), "{got:?} came back for {byte}");
    }
    Ok(())
}

fn fifo() -> Outcome {
    start_loopback();
    for byte in 0..16 {
        uart::put(byte);
    }
    for byte in 0..16 {
        let got = receive_one();
        ensure!(got == Some(byte), "{got:?} came back for {byte}");
    }
    ensure!(uart::take().is_none(), "more came back than was sent");
    Ok(())
}

fn receive() -> Outcome {
    with_interrupts(uart::INTERRUPT_RX | uart::INTERRUPT_RX_TIMEOUT, || {
        start_loopback();
        uart::put(0);
        let came = timer::wait_until(SOON_MICROSECONDS, || RECEIVED.load(Ordering::Relaxed) == 1);
        ensure!(came, "it was not; UARTRIS is {:#x}, UARTMIS {:#x}", uart::read(offset::RIS), uart::read(offset::MIS));
        Ok(())
    })
}

fn receive_many() -> Outcome {
    with_interrupts(uart::INTERRUPT_RX | uart::INTERRUPT_RX_TIMEOUT, || {
        start_loopback();
        for byte in 0..100_u32 {
            uart::put(byte as u8);
            // The receiver must keep up: a real FIFO overruns.
            if byte % 8 == 7 {
                timer::wait_until(SOON_MICROSECONDS, || RECEIVED.load(Ordering::Relaxed) == byte + 1);
            }
        }
        let all = timer::wait_until(SOON_MICROSECONDS, || RECEIVED.load(Ordering::Relaxed) == 100);
        ensure!(all, "{} came", RECEIVED.load(Ordering::Relaxed));
        Ok(())
    })
}

fn no_loopback() -> Outcome {
    uart::put(b'\n');
    timer::spin(1000);
    ensure!(uart::take().is_none(), "a byte came back");
    Ok(())
}
