//! Resets itself again and again, and checks at each start that its memory was cleaned.
//!
//! Nothing of it survives a reset, so it cannot count; the physical counter tells it when to stop. Parameter: `until=`
//! (5), in seconds since the board started.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::{machine, memory, println, psci, timer};
use testkit::{ensure, report};

rt::entry!(main);

/// What the guest leaves in its memory for the next start to find, if nobody cleans it.
const STAIN: u64 = 0x5ec2_e75e_c2e7_5ec2;
const STAIN_WORDS: usize = 1 << 20;

fn main() -> ! {
    println!("reset round");
    if machine().under_bulkhead {
        report::test("memory is zeroed at each start", || {
            let (nonzero, looked) = memory::first_nonzero();
            if let Some(address) = nonzero {
                ensure!(false, "the word at {address:#x} is not zero");
            }
            ensure!(looked > 0, "there is no memory beyond the image");
            Ok(())
        });
    } else {
        report::skip("memory is zeroed at each start", "a board does not promise that");
    }
    if let Some(area) = memory::take(STAIN_WORDS) {
        area.fill(STAIN);
    }
    if timer::physical_now() < machine().number("until", 5) * timer::frequency() {
        psci::system_reset();
        report::test("a reset does not return", || {
            ensure!(false, "SYSTEM_RESET returned");
            Ok(())
        });
    }
    report::finish()
}
