//! Speaks as Linux's `amba-pl011` driver does, and as small guests do that know the manual alone.

use super::*;
extern crate std;
use std::{string::String, vec::Vec};
use vdev::testkit::Bench;

// The offsets and bits as a driver has them: written down from the manual, not taken from the model.
const DR: u64 = 0x00;
const RSR: u64 = 0x04;
const FR: u64 = 0x18;
const ILPR: u64 = 0x20;
const IBRD: u64 = 0x24;
const FBRD: u64 = 0x28;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;
const DMACR: u64 = 0x48;

const FR_CTS: u32 = 1 << 0;
const FR_DSR: u32 = 1 << 1;
const FR_DCD: u32 = 1 << 2;
const FR_BUSY: u32 = 1 << 3;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
const FR_RXFF: u32 = 1 << 6;
const FR_TXFE: u32 = 1 << 7;

const INT_CTS: u32 = 1 << 1;
const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RT: u32 = 1 << 6;
const INT_BE: u32 = 1 << 9;
const INT_OE: u32 = 1 << 10;

const LCR_H_BRK: u32 = 1 << 0;
const LCR_H_FEN: u32 = 1 << 4;
const LCR_H_EIGHT_BITS: u32 = 3 << 5;
const CR_ENABLE: u32 = 1 << 0 | 1 << 8 | 1 << 9;
const CR_LOOPBACK: u32 = 1 << 7;
const CR_RTS: u32 = 1 << 11;

fn powered_on() -> Bench<Pl011> {
    Bench::new(Pl011::new())
}

/// The order of `pl011_startup`: clear what is pending, set the line up, enable, drain, unmask.
fn started() -> Bench<Pl011> {
    let mut uart = powered_on();
    uart.write32(ICR, 0x7ff);
    uart.write32(IMSC, INT_RX | INT_RT);
    uart.write32(IFLS, 0b010_010);
    uart.write32(CR, CR_ENABLE);
    uart.write32(IBRD, 13);
    uart.write32(FBRD, 1);
    uart.write32(LCR_H, LCR_H_FEN | LCR_H_EIGHT_BITS);
    uart.write32(ICR, INT_RX | INT_RT);
    for _ in 0..64 {
        if uart.read32(FR) & FR_RXFE != 0 {
            break;
        }
        uart.read32(DR);
    }
    uart.write32(IMSC, INT_RX | INT_RT);
    uart
}

/// What a receive handler does: read until the FIFO is empty.
fn drain(uart: &mut Bench<Pl011>) -> Vec<u8> {
    let mut received = Vec::new();
    while uart.read32(FR) & FR_RXFE == 0 {
        received.push((uart.read32(DR) & 0xff) as u8);
        assert!(received.len() < 1000, "the FIFO never gets empty");
    }
    received
}

#[test]
fn the_amba_bus_finds_a_pl011_of_revision_3_by_its_identification() {
    let mut uart = powered_on();
    let mut identify = |offset: u64| (0_u64..4).fold(0, |id, byte| id | uart.read32(offset + byte * 4) << (byte * 8));
    assert_eq!(identify(0xfe0), 0x0034_1011);
    assert_eq!(identify(0xff0), 0xb105_f00d);
}

#[test]
fn registers_have_the_manuals_reset_values() {
    let mut uart = powered_on();
    for (offset, value) in [
        (RSR, 0),
        (ILPR, 0),
        (IBRD, 0),
        (FBRD, 0),
        (LCR_H, 0),
        (CR, 0x300),
        (IFLS, 0x12),
        (IMSC, 0),
        (RIS, 0),
        (MIS, 0),
        (DMACR, 0),
    ] {
        assert_eq!(uart.read32(offset), value, "{offset:#x}");
    }
    assert_eq!(uart.read32(FR), FR_TXFE | FR_RXFE | FR_CTS | FR_DSR | FR_DCD);
}

#[test]
fn registers_keep_the_bits_that_exist() {
    let mut uart = powered_on();
    for (offset, value) in [
        (ILPR, 0xff),
        (IBRD, 0xffff),
        (FBRD, 0x3f),
        (LCR_H, 0xff),
        (IFLS, 0x3f),
        (IMSC, 0x7ff),
        (DMACR, 0x7),
        (CR, 0xff87),
    ] {
        uart.write32(offset, u32::MAX);
        assert_eq!(uart.read32(offset), value, "{offset:#x}");
    }
}

#[test]
fn an_early_console_prints_without_any_set_up() {
    let mut uart = powered_on();
    for byte in b"Booting Linux\n" {
        assert_eq!(uart.read32(FR) & FR_TXFF, 0);
        assert_eq!(uart.store(DR, Width::Byte, u64::from(*byte)), Ok(Poll::Ready(())));
        assert_eq!(uart.read32(FR) & FR_BUSY, 0);
    }
    assert_eq!(uart.output(), "Booting Linux\n");
    assert!(!uart.line());
}

#[test]
fn only_the_low_eight_bits_of_a_store_are_sent() {
    let mut uart = powered_on();
    uart.write32(DR, 0xffff_ff41);
    assert_eq!(uart.output(), "A");
}

#[test]
fn a_typed_character_interrupts_at_once_although_the_fifo_is_below_its_level() {
    let mut uart = started();
    assert!(!uart.line());
    uart.type_in("x");
    assert!(uart.line());
    assert_eq!(uart.read32(MIS), INT_RT);
    assert_eq!(drain(&mut uart), b"x");
    assert_eq!(uart.read32(RIS), 0);
    assert!(!uart.line());
}

#[test]
fn the_receive_interrupt_comes_at_the_selected_level() {
    for (select, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28), (7, 28)] {
        let mut uart = started();
        uart.write32(IFLS, select << 3);
        for _ in 1..level {
            uart.type_in("x");
            assert_eq!(uart.read32(RIS) & INT_RX, 0, "level {level}");
        }
        uart.type_in("x");
        assert_eq!(uart.read32(RIS) & INT_RX, INT_RX, "level {level}");
        uart.read32(DR);
        assert_eq!(uart.read32(RIS), INT_RT, "below level {level}");
    }
}

#[test]
fn the_timeout_interrupt_stays_until_the_last_character_is_read() {
    let mut uart = started();
    uart.type_in("abc");
    for expected in [INT_RT, INT_RT, 0] {
        uart.read32(DR);
        assert_eq!(uart.read32(MIS), expected);
    }
}

#[test]
fn input_beyond_the_fifo_waits_with_the_console_and_none_is_lost() {
    let mut uart = started();
    let typed: String = (0..100).map(|index| char::from(b'!' + index % 90)).collect();
    uart.type_in(&typed);
    assert_eq!(uart.read32(FR) & FR_RXFF, FR_RXFF);
    assert_eq!(uart.console.input.len(), 100 - 32);
    assert_eq!(uart.read32(RIS) & INT_OE, 0);
    assert_eq!(drain(&mut uart), typed.as_bytes());
    assert!(!uart.line());
}

#[test]
fn a_handler_that_stops_early_is_interrupted_again() {
    let mut uart = started();
    uart.type_in(&"x".repeat(40));
    uart.write32(ICR, INT_RX | INT_RT);
    assert!(!uart.line());
    uart.read32(DR);
    assert!(uart.line(), "the next character came in");
}

#[test]
fn without_fifos_one_character_fills_the_receiver() {
    let mut uart = powered_on();
    uart.write32(IMSC, INT_RX);
    uart.type_in("ab");
    assert_eq!(uart.read32(FR) & (FR_RXFF | FR_RXFE), FR_RXFF);
    assert!(uart.line());
    assert_eq!(uart.read32(DR), u32::from(b'a'));
    assert!(uart.line(), "the second character took the first one's place");
    assert_eq!(uart.read32(DR), u32::from(b'b'));
    assert!(!uart.line());
}

#[test]
fn a_polling_guest_receives_without_enabling_anything() {
    let mut uart = powered_on();
    uart.type_in("ok");
    assert_eq!(drain(&mut uart), b"ok");
}

#[test]
fn an_empty_fifo_reads_as_zero() {
    let mut uart = started();
    assert_eq!(uart.read32(DR), 0);
    assert_eq!(uart.read32(FR) & FR_RXFE, FR_RXFE);
}

#[test]
fn switching_the_fifos_flushes_what_was_received() {
    let mut uart = started();
    uart.type_in("stale");
    uart.write32(LCR_H, LCR_H_EIGHT_BITS);
    assert_eq!(uart.read32(FR) & FR_RXFE, FR_RXFE);
    assert_eq!(uart.read32(RIS), 0);
}

#[test]
fn sending_raises_the_transmit_interrupt_and_clearing_it_holds() {
    let mut uart = started();
    assert_eq!(uart.read32(RIS) & INT_TX, 0, "nothing has been sent");
    uart.modify32(IMSC, 0, INT_TX);
    assert!(!uart.line());
    uart.write32(DR, u32::from(b'l'));
    assert_eq!(uart.read32(MIS), INT_TX);
    assert!(uart.line());
    uart.write32(ICR, INT_TX);
    assert!(!uart.line());
    uart.write32(DR, u32::from(b's'));
    assert!(uart.line());
    assert_eq!(uart.output(), "ls");
}

#[test]
fn an_interrupt_driven_driver_sends_a_whole_buffer_and_stops() {
    let mut uart = started();
    let text = "a line that is longer than the thirty-two bytes of the FIFO\n";
    let mut queue = text.bytes();
    let mut interrupts = 0;
    // start_tx sends the first character and unmasks; the handler clears, sends half a FIFO and masks at the end.
    uart.write32(DR, u32::from(queue.next().unwrap()));
    uart.modify32(IMSC, 0, INT_TX);
    while uart.line() {
        interrupts += 1;
        assert!(interrupts < 100, "the interrupt storms");
        uart.write32(ICR, INT_TX);
        for byte in queue.by_ref().take(16) {
            uart.write32(DR, u32::from(byte));
        }
        if queue.len() == 0 {
            uart.modify32(IMSC, INT_TX, 0);
        }
    }
    assert_eq!(uart.output(), text);
    assert_eq!(interrupts, 4);
}

#[test]
fn a_masked_interrupt_is_pending_but_keeps_the_line_low() {
    let mut uart = started();
    uart.write32(IMSC, 0);
    uart.type_in("x");
    assert_eq!(uart.read32(RIS), INT_RT);
    assert_eq!(uart.read32(MIS), 0);
    assert!(!uart.line());
    uart.write32(IMSC, INT_RT);
    assert!(uart.line());
}

#[test]
fn loopback_returns_what_is_sent_and_shows_it_to_nobody() {
    let mut uart = started();
    uart.write32(CR, CR_ENABLE | CR_LOOPBACK);
    for byte in b"echo" {
        uart.write32(DR, u32::from(*byte));
    }
    assert!(uart.line());
    assert_eq!(drain(&mut uart), b"echo");
    assert_eq!(uart.output(), "");
}

#[test]
fn input_typed_during_loopback_arrives_after_it() {
    let mut uart = started();
    uart.write32(CR, CR_ENABLE | CR_LOOPBACK);
    uart.type_in("later");
    assert_eq!(uart.read32(FR) & FR_RXFE, FR_RXFE);
    uart.write32(CR, CR_ENABLE);
    assert!(uart.line());
    assert_eq!(drain(&mut uart), b"later");
}

#[test]
fn loopback_overruns_when_nobody_reads() {
    let mut uart = started();
    uart.write32(CR, CR_ENABLE | CR_LOOPBACK);
    for byte in 0..33 {
        uart.write32(DR, byte);
    }
    assert_eq!(uart.read32(RIS) & INT_OE, INT_OE);
    assert_eq!(uart.read32(RSR), 1 << 3);
    for byte in 0..32 {
        assert_eq!(uart.read32(DR), byte, "what was in the FIFO stays valid");
    }
    uart.write32(DR, 0x55);
    assert_eq!(uart.read32(DR), 0x855, "the character after the gap is marked");
    uart.write32(RSR, 0);
    assert_eq!(uart.read32(RSR), 0);
    uart.write32(DR, 0x56);
    assert_eq!(uart.read32(DR), 0x56);
    uart.write32(ICR, INT_OE);
    assert_eq!(uart.read32(RIS) & INT_OE, 0);
}

#[test]
fn a_break_in_loopback_is_received_once() {
    let mut uart = started();
    uart.write32(CR, CR_ENABLE | CR_LOOPBACK);
    for _ in 0..2 {
        uart.write32(LCR_H, LCR_H_FEN | LCR_H_EIGHT_BITS | LCR_H_BRK);
    }
    assert_eq!(uart.read32(RIS) & INT_BE, INT_BE);
    assert_eq!(uart.read32(DR), 1 << 10);
    assert_eq!(uart.read32(RSR), 1 << 2);
    assert_eq!(uart.read32(FR) & FR_RXFE, FR_RXFE);
}

#[test]
fn loopback_feeds_the_modem_outputs_to_the_inputs() {
    let mut uart = started();
    uart.write32(CR, CR_ENABLE | CR_LOOPBACK);
    assert_eq!(uart.read32(FR) & (FR_CTS | FR_DSR | FR_DCD), 0);
    uart.write32(ICR, 0x7ff);
    uart.write32(CR, CR_ENABLE | CR_LOOPBACK | CR_RTS);
    assert_eq!(uart.read32(FR) & (FR_CTS | FR_DSR | FR_DCD), FR_CTS);
    assert_eq!(uart.read32(RIS), INT_CTS, "only the input that changed interrupts");
}

#[test]
fn drivers_may_use_8_16_and_32_bits() {
    let mut uart = started();
    for width in [Width::Byte, Width::HalfWord, Width::Word] {
        assert_eq!(uart.store(DR, width, u64::from(b'w')), Ok(Poll::Ready(())));
        uart.type_in("r");
        assert_eq!(uart.load(DR, width), Ok(Poll::Ready(u64::from(b'r'))));
        assert_eq!(uart.load(FR, width), Ok(Poll::Ready(u64::from(FR_TXFE | FR_RXFE | FR_CTS | FR_DSR | FR_DCD))));
    }
    assert_eq!(uart.output(), "www");
}

#[test]
fn a_64_bit_or_misaligned_access_is_refused_and_changes_nothing() {
    let mut uart = started();
    uart.type_in("x");
    assert_eq!(uart.load(DR, Width::DoubleWord), Err(GuestFault::BadWidth));
    assert_eq!(uart.store(DR, Width::DoubleWord, 0), Err(GuestFault::BadWidth));
    for offset in 1..4 {
        assert_eq!(uart.load(offset, Width::Byte), Err(GuestFault::BadWidth));
        assert_eq!(uart.store(CR + offset, Width::Byte, 0), Err(GuestFault::BadWidth));
    }
    assert_eq!(uart.read32(CR), CR_ENABLE);
    assert_eq!(uart.output(), "");
    assert_eq!(drain(&mut uart), b"x");
}

#[test]
fn what_the_page_has_no_register_for_reads_as_zero_and_ignores_stores() {
    let mut uart = powered_on();
    for offset in [0x08, 0x14, 0x1c, 0x4c, 0x80, 0x8c, 0x100, 0xfdc] {
        uart.write32(offset, u32::MAX);
        assert_eq!(uart.read32(offset), 0, "{offset:#x}");
    }
    for offset in [FR, RIS, MIS, 0xfe0, 0xffc] {
        let before = uart.read32(offset);
        uart.write32(offset, u32::MAX);
        assert_eq!(uart.read32(offset), before, "{offset:#x} is read-only");
    }
    assert_eq!(uart.read32(ICR), 0);
    assert_eq!(uart.output(), "");
}

#[test]
fn beyond_the_page_there_is_no_register() {
    let mut uart = powered_on();
    assert_eq!(uart.load(0x1000, Width::Word), Err(GuestFault::NoRegister));
    assert_eq!(uart.store(u64::MAX, Width::Byte, 0), Err(GuestFault::NoRegister));
}

#[test]
fn a_reset_leaves_nothing_of_the_last_guest() {
    let mut uart = started();
    uart.type_in("secret");
    uart.write32(DR, u32::from(b'x'));
    uart.write32(IMSC, 0x7ff);
    assert!(uart.line());
    uart.reset(ResetKind::VmRestart);
    assert!(!uart.line());
    assert_eq!(uart.read32(FR) & FR_RXFE, FR_RXFE);
    assert_eq!((uart.read32(IMSC), uart.read32(RIS), uart.read32(CR)), (0, 0, 0x300));
    assert_eq!(uart.read32(DR), 0);
}

#[test]
fn the_flags_are_right_after_whatever_happened() {
    let mut uart = powered_on();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..if cfg!(miri) { 60 } else { 3000 } {
        // xorshift64 (Marsaglia).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let value = (random >> 32) as u32;
        match random % 6 {
            0 => uart.type_in("ab"),
            1 => uart.type_in(&"x".repeat(40)),
            2 => uart.write32(LCR_H, value & (LCR_H_FEN | LCR_H_BRK)),
            3 => uart.write32(CR, value),
            4 => uart.write32(DR, value),
            _ => drop(uart.read32(DR)),
        }
        let flags = uart.read32(FR);
        uart.device.update_flags();
        assert_eq!(uart.read32(FR), flags);
        let waiting = uart.device.receive_fifo.len();
        assert_eq!(flags & FR_RXFE != 0, waiting == 0);
        assert_eq!(flags & FR_RXFF != 0, waiting >= uart.device.depth());
    }
}
