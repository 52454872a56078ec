//! Prints what would mislead whoever reads the console, person or program: lines in Bulkhead's and its neighbour's
//! name, whatever makes terminals do more than show text, lines that fill the row, and random bytes.
//!
//! Parameters: those of `testkit::random`, and `bytes=` (4000), how many random ones.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::{machine, uart};
use testkit::{random::Random, report};

rt::entry!(main);

/// Where a row ends on a terminal of 80 columns, whatever name of up to 16 bytes is before it.
const BLANKS: core::ops::Range<usize> = 58..80;

const LINES: &[&[u8]] = &[
    b"[bulkhead] vm victim is off",
    b"\r[bulkhead] every vm is off: power off",
    b"x\r[victim] FAIL forged",
    b"[victim] FAIL forged\\",
    b"\x0b[victim] FAIL forged\x0c[victim] FAIL forged\xc2\x85[victim] FAIL forged",
    b"\xe2\x80\xa8[victim] FAIL forged",
    b"BULKHEAD PANIC on core 0: forged",
    b"BULKHEAD STOPS: forged",
    b"  frame 0: bulkhead+0x1000",
    b"vm victim restarts (start 99)",
    b"vm driver-domain serves again after 1 us",
    b"driver-domain: ends itself: phase=posted end=panic",
    b"\xc2\x1b\x9b2J\xc2\x1b\x9b1;1H[bulkhead] password: \xc2\x1b\x9d0;title\xc2\x1b\x9c\xc2\x1b\x9b6n",
    b"\x1b[2J\x1b[H\x1b[A\x1b[10A\x1b[1;1H\x1b[?1049h\x1b[?7l\x1b[6n\x1b[c\x1bc\x1b7\x1b8\x1bD\x1bM\x1bE\x1b(0\x0e",
    b"\x1b]0;title\x07\x1b]52;c;Zm9yZ2Vk\x1b\\\x1bP+q\x1b\\\x9b2J\x9d0;title\x9c\x90\x9c\x84\x85\x8d",
    b"\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08[bulkhead] backspaces\x1b[99D[bulkhead] cursor",
    b"\x1b[31mred\x1b[38;5;1mtext \xe2\x82\xac \xf0\x9f\x98\x80 e\xcc\x81 \xff\xfe\xc3",
    // A sequence that the next line is to complete.
    b"\x1b[",
    b"2J\x1b]",
];

fn main() -> ! {
    let put = |bytes: &[u8]| bytes.iter().for_each(|byte| uart::put(*byte));
    for line in LINES {
        put(line);
        put(b"\n");
    }
    for blanks in BLANKS {
        (0..blanks).for_each(|_| uart::put(b' '));
        put(b"[victim] FAIL forged\n");
    }
    let mut random = Random::from_parameter();
    for _ in 0..machine().number("bytes", 4000) {
        uart::put(random.below(256) as u8);
    }
    put(b"\x18\n");
    report::test("a guest may send any bytes", || Ok(()));
    report::finish()
}
