//! What the page of calls answers: to stores and loads of every place in it, by every kind of access.

use crate::domain::{Domain, description};
use crate::port::Kind;
use abi::io::{
    CALLS_COMPATIBLE, CALLS_SIZE, COMPLETE_AGAIN, Call, Description, INVALID_PARAMETER, RING_ENTRIES,
    channel_of_result, control, result_register,
};
use bulkhead_guest_tests::beside::{GoesOn, beside};
use rt::probe::{self, OddAccess, Width};
use rt::shared::Shared;
use rt::{machine, timer};
use spin::Mutex;
use testkit::{Failure, Outcome, ensure};

/// The low half of what a call returns for a channel that there is not.
const ABSENT: u32 = INVALID_PARAMETER as u32;
/// More completions than a ring holds.
const JUMP: u32 = RING_ENTRIES + 1;
/// So many bytes of the page are tried between two times that the client is served.
const BETWEEN_SERVES: u64 = 256;
/// How long one waits to be started anew.
const DOOM_MICROSECONDS: u64 = 2_000_000;

/// The page.
struct Page(u64);

impl Page {
    fn find() -> Option<Self> {
        let tree = machine().tree()?;
        let node = tree.find_compatible(&[CALLS_COMPATIBLE])?;
        Some(Self(node.reg()?.next()?.starting_address as u64))
    }

    /// Makes a call by its register.
    fn call(&self, call: Call, value: u32) -> Outcome {
        let stored = probe::try_write32(self.0 + call.register(), value);
        ensure!(stored.is_ok(), "{call:?} for {value:#x}: {stored:?}");
        Ok(())
    }

    /// Attaches the device whose description is in channel `number`, however many calls that takes.
    fn attach(&self, number: u32) -> Outcome {
        let offset = result_register(number).unwrap_or(0);
        loop {
            self.call(Call::Attach, number)?;
            if !probe::try_read32(self.0 + offset).is_ok_and(|result| u64::from(result) == COMPLETE_AGAIN) {
                return Ok(());
            }
        }
    }

    /// Expects `result` for channel `number`.
    fn expect(&self, number: u32, what: &str, is_good: impl Fn(u32) -> bool) -> Outcome {
        let offset = result_register(number).unwrap_or(0);
        let result = probe::try_read32(self.0 + offset);
        ensure!(result.is_ok_and(&is_good), "the result of {what} for channel {number} is {result:x?}");
        Ok(())
    }
}

/// Makes the attack.
pub(crate) fn run(domain: &mut Domain) -> Outcome {
    let page = Page::find().ok_or_else(|| Failure::new(format_args!("the device tree names no page of calls")))?;
    known(&page, domain)?;
    // Nobody is to wait for all of it: what the client is to see is that its devices are as they were.
    domain.behave();
    absent(&page, domain)?;
    domain.behave();
    nothing_else(&page, domain)?;
    odd(&page)?;
    domain.behave();
    Ok(())
}

/// What the other CPU says: by the page at the first address, that the channel of this number and in this memory has
/// completions.
static DAMAGED: Mutex<Option<(u64, u32, Shared)>> = Mutex::new(None);

/// Damages a ring and says so, on a CPU that then leaves the guest for nothing. There is another one, so that the
/// virtual machine is stopped only when both are off their cores.
pub(crate) fn damage(domain: &mut Domain) -> Outcome {
    let page = Page::find().ok_or_else(|| Failure::new(format_args!("the device tree names no page of calls")))?;
    let (place, _) = domain.catch(Kind::Block)?;
    let port = &domain.ports[place];
    *DAMAGED.lock() = Some((page.0 + Call::Complete.register(), port.number as u32, port.memory));
    beside(say_and_spin, || {
        timer::spin(DOOM_MICROSECONDS);
        Ok(())
    })
}

fn say_and_spin(_: GoesOn) {
    let Some((complete, number, memory)) = *DAMAGED.lock() else { return };
    memory.store(control::COMPLETIONS_PRODUCED, memory.load(control::COMPLETIONS_PRODUCED).wrapping_add(JUMP));
    let _ = probe::try_write32(complete, number);
    loop {
        core::hint::spin_loop();
    }
}

fn known(page: &Page, domain: &Domain) -> Outcome {
    for port in &domain.ports {
        let (number, Some(sound)) = (port.number as u32, description(port)) else { continue };
        page.expect(number, "nothing", |result| result == 0)?;
        port.describe(&[u64::MAX; Description::WORDS]);
        page.call(Call::Attach, number)?;
        page.expect(number, "a description of ones", |result| result == ABSENT)?;
        port.describe(&sound.to_words());
        page.attach(number)?;
        page.expect(number, "a sound description", |result| result == 0)?;
        page.call(Call::Complete, number)?;
        page.expect(number, "complete", |result| matches!(u64::from(result), 0 | COMPLETE_AGAIN))?;
    }
    ready(page, domain)
}

/// "Ready" is for no channel, whatever is stored, and leaves all results alone.
fn ready(page: &Page, domain: &Domain) -> Outcome {
    let Some(first) = domain.ports.first() else { return Ok(()) };
    first.describe(&[u64::MAX; Description::WORDS]);
    page.call(Call::Attach, 0)?;
    for value in [0, 1, u32::MAX] {
        page.call(Call::Ready, value)?;
        page.expect(0, "a refused description, after \"ready\"", |result| result == ABSENT)?;
    }
    if let Some(sound) = description(first) {
        first.describe(&sound.to_words());
    }
    page.attach(0)?;
    page.expect(0, "a sound description", |result| result == 0)
}

fn absent(page: &Page, domain: &Domain) -> Outcome {
    let count = domain.ports.len() as u32;
    for number in [count, count + 1, 63, 64, 255, 511, 512, 1 << 16, 1 << 31, u32::MAX, 0_u32.wrapping_sub(count)] {
        page.call(Call::Attach, number)?;
        page.call(Call::Complete, number)?;
    }
    for number in (count..).take_while(|number| result_register(*number).is_some()) {
        page.expect(number, "a channel that there is not", |result| result == ABSENT)?;
    }
    Ok(())
}

/// Every word that is none of these, and every other width, gets an external abort.
fn nothing_else(page: &Page, domain: &mut Domain) -> Outcome {
    for offset in (0..CALLS_SIZE).step_by(4) {
        if offset % BETWEEN_SERVES == 0 {
            domain.behave();
        }
        if channel_of_result(offset).is_none() {
            let loaded = probe::try_read32(page.0 + offset);
            ensure!(loaded.is_err_and(|abort| abort.is_external()), "a load of {offset:#x} gives {loaded:x?}");
        }
        if Call::at_register(offset).is_none() {
            let stored = probe::try_write32(page.0 + offset, 0);
            ensure!(stored.is_err_and(|abort| abort.is_external()), "a store to {offset:#x} gives {stored:x?}");
        }
    }
    for offset in [0x000, 0x008, 0x800, 0x808, 0xff8] {
        for width in [Width::Byte, Width::HalfWord, Width::DoubleWord] {
            let loaded = probe::read(page.0 + offset, width);
            ensure!(loaded.is_err_and(|abort| abort.is_external()), "a load {width:?} of {offset:#x}: {loaded:x?}");
            let stored = probe::write(page.0 + offset, width, 0);
            ensure!(stored.is_err_and(|abort| abort.is_external()), "a store {width:?} to {offset:#x}: {stored:x?}");
        }
    }
    Ok(())
}

/// What an instruction does by several plain accesses, it does here as well; any other is refused.
fn odd(page: &Page) -> Outcome {
    for (access, offset) in [
        (OddAccess::StorePair, 0x000),
        (OddAccess::StorePostIndex, 0x000),
        (OddAccess::LoadPair, 0x800),
        (OddAccess::LoadPostIndex, 0x800),
        (OddAccess::LoadPreIndex, 0x800),
    ] {
        let result = probe::odd(access, page.0 + offset).result;
        ensure!(result.is_ok(), "{access:?} of {offset:#x}: {result:?}");
    }
    for (access, offset) in [
        (OddAccess::LoadPair, 0x000),
        (OddAccess::StorePair, 0x800),
        (OddAccess::LoadExclusive, 0x800),
        (OddAccess::StoreExclusive, 0x000),
        (OddAccess::Misaligned, 0x800),
        (OddAccess::ZeroBlock, 0x000),
        (OddAccess::Execute, 0x000),
    ] {
        let result = probe::odd(access, page.0 + offset).result;
        ensure!(result.is_err(), "{access:?} of {offset:#x} is answered");
    }
    page.expect(0, "a pair of stores", |result| result == 0)
}
