//! What a driver domain can ask Bulkhead for.

use crate::domain::{Domain, MTU, attach};
use crate::port::Kind;
use crate::protocol::{Attack, SECTORS};
use abi::io::{COMPLETE_AGAIN, FUNCTION_ATTACH, FUNCTION_COMPLETE, FUNCTION_READY, INVALID_PARAMETER, control};
use rt::{gic, hypercall, machine, probe, psci, timer};
use testkit::{Outcome, ensure};

/// Calls of a storm, for each channel.
const STORM: usize = 5_000;
/// How many of them there are for each time that requests are served.
const STORM_SERVES: usize = 1_000;
/// How often a disk is attached anew.
const ATTACHMENTS: u64 = 40;
/// How long nobody listens.
const DEAF_MICROSECONDS: u64 = 50_000;
/// How long it sleeps before it hangs: less than a heartbeat period.
const DOZE_MICROSECONDS: u64 = 1000;
/// SMCCC's NOT_SUPPORTED.
const NOT_SUPPORTED: u64 = u64::MAX;

/// Makes the attack, if it is one of these.
pub(crate) fn run(attack: Attack, domain: &mut Domain) -> Option<Outcome> {
    Some(match attack {
        Attack::Attachments => attachments(domain),
        Attack::AttachedAgain => attached_again(domain),
        Attack::Absent => absent(domain),
        Attack::ReadyAgain => ready_again(domain),
        Attack::Unknown => unknown(domain),
        Attack::Storm => {
            for call in 0..STORM {
                for port in &domain.ports {
                    let _ = port.tell();
                }
                // What is kept for too long has its own test.
                if call % STORM_SERVES == 0 {
                    domain.behave();
                }
            }
            Ok(())
        }
        Attack::Deaf => deaf(domain),
        Attack::Neighbours => neighbours(domain),
        Attack::Dozes => dozes(domain),
        Attack::Reset => {
            // With something out.
            let caught = domain.catch(Kind::Block);
            psci::system_reset();
            caught.map(drop)
        }
        Attack::Forged
        | Attack::Foreign
        | Attack::Twice
        | Attack::Stale
        | Attack::Lengths
        | Attack::Statuses
        | Attack::Completions
        | Attack::Events
        | Attack::Receptions
        | Attack::ReceptionCounter
        | Attack::Flips
        | Attack::Silent
        | Attack::Kept
        | Attack::Beats
        | Attack::NoBeat
        | Attack::LongWait
        | Attack::LastBeat
        | Attack::Overwritten => return None,
    })
}

fn attachments(domain: &mut Domain) -> Outcome {
    const MANY: [u64; 6] = [u64::MAX, 1 << 63, 1 << 55, 1 << 32, 0xffff_ffff, 0];
    for port in &domain.ports {
        let refused = |size, features, block_size| {
            let answer = hypercall::call(FUNCTION_ATTACH, [port.number, size, features, block_size]);
            ensure!(
                answer == INVALID_PARAMETER,
                "{:?} of {size:#x}, {features:#x}, {block_size:#x}: {answer:#x}",
                port.kind
            );
            Ok(())
        };
        match port.kind {
            Kind::Block => {
                for block_size in MANY.into_iter().chain([1, 256, 511, 513, 8192, (1 << 32) + 512]) {
                    refused(SECTORS, 0, block_size)?;
                }
                for size in [u64::MAX, 1 << 63, 1 << 55] {
                    refused(size, 0, 512)?;
                }
                for features in [u64::MAX, 1 << 63, 1 << 32, 1 << 16] {
                    refused(SECTORS, features, 512)?;
                }
            }
            Kind::Network => {
                for mtu in MANY.into_iter().chain([1, 67, 2035, 0xffff, 0x1_0000 + MTU]) {
                    refused(mtu, 0, 0)?;
                }
            }
            Kind::Console | Kind::Entropy => {}
        }
    }
    // None of that has changed anything.
    domain.each_kind(4, |domain, place, request, _| {
        domain.serve(place, request);
        Ok(())
    })
}

fn attached_again(domain: &mut Domain) -> Outcome {
    for round in 0..ATTACHMENTS {
        let (place, request) = domain.catch(Kind::Block)?;
        let number = domain.ports[place].number;
        let size = if round % 2 == 0 { round } else { SECTORS << (round % 40) };
        hypercall::call(FUNCTION_ATTACH, [number, size, round % 16, 512 << (round % 4)]);
        domain.serve(place, &request);
        let answer = attach(&domain.ports[place]);
        ensure!(answer == 0, "attach answers {answer:#x}");
    }
    Ok(())
}

fn absent(domain: &mut Domain) -> Outcome {
    let count = domain.ports.len() as u64;
    for number in [count, count + 1, 63, 64, 255, 1 << 16, 1 << 32, 1 << 63, u64::MAX, 0u64.wrapping_sub(count)] {
        for function in [FUNCTION_ATTACH, FUNCTION_COMPLETE] {
            let answer = hypercall::call(function, [number, SECTORS, 0, 512]);
            ensure!(answer == INVALID_PARAMETER, "call {function:#x} for channel {number:#x} answers {answer:#x}");
        }
    }
    Ok(())
}

fn ready_again(domain: &mut Domain) -> Outcome {
    for answer in &domain.early {
        ensure!(matches!(*answer, 0 | COMPLETE_AGAIN), "before it was ready, \"complete\" answered {answer:#x}");
    }
    for _ in 0..100 {
        let answer = hypercall::call(FUNCTION_READY, [0; 4]);
        ensure!(answer == 0, "\"ready\" answers {answer:#x}");
    }
    Ok(())
}

fn unknown(domain: &mut Domain) -> Outcome {
    let known = FUNCTION_ATTACH..=FUNCTION_COMPLETE;
    for low in (0..0x200).chain([0xff00, 0xff01, 0xff03, 0xffff]) {
        for base in [0xc600_0000_u32, 0x8600_0000, 0xc700_0000, 0x4600_0000] {
            let function = base | low;
            if known.contains(&function) {
                continue;
            }
            let answer = hypercall::call(function, [domain.random.word(); 4]);
            // What there is beside these three are the questions of SMCCC itself, which have small numbers or the last.
            let is_vendor = base == 0xc600_0000 && (0x40..0xff00).contains(&low);
            ensure!(!is_vendor || answer == NOT_SUPPORTED, "call {function:#x} answers {answer:#x}");
        }
    }
    Ok(())
}

fn deaf(domain: &mut Domain) -> Outcome {
    gic::disable(domain.doorbell);
    for port in &domain.ports {
        port.memory.store(control::REQUESTS_EVENT, port.taken);
    }
    timer::spin(DEAF_MICROSECONDS);
    gic::clear_pending(domain.doorbell);
    gic::enable(domain.doorbell);
    domain.behave_for(DEAF_MICROSECONDS);
    Ok(())
}

/// Nothing but its own timer ends the sleep, so that the core's was set to that last.
fn dozes(domain: &Domain) -> Outcome {
    domain.beat(7);
    gic::disable(domain.doorbell);
    gic::enable(timer::VIRTUAL_TIMER);
    timer::arm(timer::now() + timer::ticks(DOZE_MICROSECONDS));
    let answer = psci::call(psci::function::CPU_SUSPEND, [0; 3]);
    ensure!(answer == Ok(0), "CPU_SUSPEND answers {answer:?}");
    ensure!(timer::condition_met(), "the sleep has ended early");
    loop {
        core::hint::spin_loop();
    }
}

fn neighbours(domain: &mut Domain) -> Outcome {
    let Some(memory) = machine().memory.first() else { return Ok(()) };
    let own = memory.start..memory.end();
    let beside =
        [memory.start.wrapping_sub(4), memory.start.wrapping_sub(0x20_0000), memory.end(), memory.end() + 0x1000];
    for address in beside.into_iter().chain([0x4000_0000, 0x4020_0000, 0x4400_0000, 0]) {
        if own.contains(&address) || machine().window_at(address, 4).is_some() {
            continue;
        }
        let (read, written) = (probe::try_read32(address), probe::try_write32(address, 0x0bad_beef));
        ensure!(read.is_err() && written.is_err(), "{address:#x} is there: {read:?}, {written:?}");
    }
    domain.behave();
    Ok(())
}
