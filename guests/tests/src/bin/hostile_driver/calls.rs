//! What a driver domain can ask Bulkhead for.

use crate::domain::{Domain, attach, description};
use crate::page;
use crate::port::Kind;
use crate::protocol::{Attack, BLOCK_BLK_SIZE, NET_GUEST_CSUM, SECTORS};
use abi::io::{
    COMPLETE_AGAIN, CONFIGURATION_SIZE, Description, FUNCTION_ATTACH, FUNCTION_COMPLETE, FUNCTION_READY,
    INVALID_PARAMETER, LongChains, QueueDescription, Restart, control,
};
use rt::{gic, hypercall, machine, probe, psci, timer};
use services::block::Features;
use services::describe::block::Disk;
use testkit::{Outcome, ensure};

/// Calls of a storm, for each channel.
const STORM: usize = 5_000;
/// How many of them there are for each time that requests are served.
const STORM_SERVES: usize = 1_000;
/// How often a disk is attached anew.
const ATTACHMENTS: u64 = 40;
/// How often its queues are described anew.
const DESCRIPTIONS: u64 = 16;
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
        Attack::Lacking => lacking(domain),
        Attack::Redescribed => redescribed(domain),
        Attack::Absent => absent(domain),
        Attack::ReadyAgain => ready_again(domain),
        Attack::Unknown => unknown(domain),
        Attack::Page => page::run(domain),
        Attack::PageDamage => page::damage(domain),
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
        | Attack::Tails
        | Attack::Pieces
        | Attack::Completions
        | Attack::Events
        | Attack::Receptions
        | Attack::Sessions
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
    for port in &domain.ports {
        let Some(sound) = description(port) else { continue };
        let refused = |what: &str, change: &dyn Fn(&mut Description)| {
            let mut other = sound.clone();
            change(&mut other);
            let answer = port.attach(&other);
            ensure!(answer == INVALID_PARAMETER, "{:?} with {what}: attach answers {answer:#x}", port.kind);
            Ok(())
        };
        for count in [port.queues + 1, 9, u16::MAX] {
            refused("more queues than there are", &|other| other.queue_count = count)?;
        }
        for size in [1, 2, 6, 260, u16::MAX] {
            refused("a live size that is none", &|other| other.live_size = size)?;
        }
        if port.receives() {
            refused("a header where nothing is asked for", &|other| other.queues[0].header_size = 1)?;
            refused("a tail where nothing is asked for", &|other| other.queues[0].tail_size = 1)?;
            refused("a feature that there cannot be", &|other| other.queues[0].merge_feature = Some(64))?;
        }
        let served = if port.receives() { 1 } else { 0 };
        for size in [17, 255] {
            refused("a header that is too long", &|other| other.queues[served].header_size = size)?;
        }
        for size in [9, 255] {
            refused("a tail that is too long", &|other| other.queues[served].tail_size = size)?;
        }
        for unit in [0, 3, 4097, u32::MAX] {
            refused("pieces of no power of two", &|other| other.queues[served].piece_unit = unit)?;
        }
        for size in [port.window_size() as u32 + 1, u32::MAX] {
            refused("requests that are too long", &|other| other.queues[served].size_max = size)?;
        }
        refused("pieces that are too short", &|other| {
            let queue = &mut other.queues[served];
            (queue.long_chains, queue.size_max, queue.piece_unit) = (LongChains::Split, 1024, 2048);
        })?;
        refused("an answer to what has gone back", &|other| {
            let queue = &mut other.queues[served];
            (queue.returns_early, queue.tail_size) = (true, 1);
        })?;
        // Flags of the first queue: two choices that there are not, and flags.
        for flags in [3, 3 << 3, 1 << 9, 1 << 31] {
            let mut words = sound.to_words();
            words[QUEUE_WORD] |= flags;
            port.describe(&words);
            let answer = port.attach_described();
            ensure!(answer == INVALID_PARAMETER, "{:?} with flags {flags:#x}: attach answers {answer:#x}", port.kind);
        }
        port.describe(&[u64::MAX; Description::WORDS]);
        let answer = port.attach_described();
        ensure!(answer == INVALID_PARAMETER, "{:?} of ones: attach answers {answer:#x}", port.kind);
    }
    // None of that has changed anything.
    domain.each_kind(4, |domain, place, request, _| {
        domain.serve(place, request);
        Ok(())
    })
}

/// The word of a description where its queues begin.
const QUEUE_WORD: usize = 2 + CONFIGURATION_SIZE / 8;

fn attached_again(domain: &mut Domain) -> Outcome {
    for round in 0..ATTACHMENTS {
        let (place, request) = domain.catch(Kind::Block)?;
        let port = &domain.ports[place];
        let features = Features {
            is_read_only: round & 1 != 0,
            has_cache: round & 2 != 0,
            discards: round & 4 != 0,
            writes_zeroes: round & 8 != 0,
            takes_grants: false,
        };
        let sectors = if round % 2 == 0 { round } else { SECTORS << (round % 40) };
        let disk = Disk { sectors, block_size: 512 << (round % 4), features };
        if let Some(description) = disk.describe(port.queues, port.window_size()) {
            let answer = port.attach(&description);
            ensure!(answer == 0, "round {round}: attach answers {answer:#x}");
        }
        domain.serve(place, &request);
        let answer = attach(&domain.ports[place]);
        ensure!(answer == 0, "attach answers {answer:#x}");
    }
    Ok(())
}

fn lacking(domain: &mut Domain) -> Outcome {
    for (kind, accepted) in [(Kind::Block, BLOCK_BLK_SIZE), (Kind::Network, NET_GUEST_CSUM)] {
        // Its driver is ready as long as a request is out.
        let (place, request) = domain.catch(kind)?;
        let port = &domain.ports[place];
        let Some(sound) = description(port) else { continue };
        let features = u64::from(port.memory.load(control::FEATURES));
        ensure!(features & accepted != 0, "{kind:?}: the driver has accepted {features:#x}");
        for features in [0, sound.features & !accepted, !accepted & 0xff_ffff] {
            let answer = port.attach(&Description { features, ..sound.clone() });
            ensure!(answer == INVALID_PARAMETER, "{kind:?} with {features:#x}: attach answers {answer:#x}");
        }
        for features in [sound.features | 1 << 23, accepted, sound.features] {
            let answer = port.attach(&Description { features, ..sound.clone() });
            ensure!(answer == 0, "{kind:?} with {features:#x}: attach answers {answer:#x}");
        }
        domain.serve(place, &request);
    }
    Ok(())
}

fn redescribed(domain: &mut Domain) -> Outcome {
    for round in 0..DESCRIPTIONS {
        let (place, request) = domain.catch(Kind::Block)?;
        let Some(sound) = description(&domain.ports[place]) else { continue };
        let random = &mut domain.random;
        let mut other = sound.clone();
        for queue in &mut other.queues {
            let word = random.word();
            *queue = QueueDescription {
                // Now and then those that what is out was made with.
                header_size: if word >> 8 & 1 != 0 { queue.header_size } else { (word & 0xf) as u8 },
                tail_size: if word >> 9 & 1 != 0 { queue.tail_size } else { (word >> 4 & 0x7) as u8 },
                long_chains: [LongChains::Refuse, LongChains::Cut, LongChains::Split][random.below(3) as usize],
                returns_early: round % 4 == 3,
                restart: [Restart::Replay, Restart::Drop, Restart::Fail][random.below(3) as usize],
                is_patient: word >> 7 & 1 != 0,
                merge_feature: None,
                count_offset: None,
                size_max: 64 << random.below(8),
                piece_unit: 1 << random.below(7),
                grant_min: None,
                failure: [0xdd; 8],
            };
        }
        let answer = domain.ports[place].attach(&other);
        ensure!(matches!(answer, 0 | INVALID_PARAMETER), "round {round}: attach answers {answer:#x}");
        domain.serve(place, &request);
        // Requests that are such a disk's, or are not.
        domain.behave_for(1_000);
        let answer = attach(&domain.ports[place]);
        ensure!(answer == 0, "round {round}: attach answers {answer:#x}");
    }
    Ok(())
}

fn absent(domain: &mut Domain) -> Outcome {
    let count = domain.ports.len() as u64;
    for number in [count, count + 1, 63, 64, 255, 1 << 16, 1 << 32, 1 << 63, u64::MAX, 0u64.wrapping_sub(count)] {
        for function in [FUNCTION_ATTACH, FUNCTION_COMPLETE] {
            let answer = hypercall::call(function, [number, 0, 0, 0]);
            ensure!(answer == INVALID_PARAMETER, "call {function:#x} for channel {number:#x} answers {answer:#x}");
        }
    }
    Ok(())
}

fn ready_again(domain: &mut Domain) -> Outcome {
    for answer in &domain.early {
        ensure!(matches!(*answer, 0 | COMPLETE_AGAIN), "before it was ready, \"complete\" answered {answer:#x}");
    }
    for call in 0..100 {
        let answer = hypercall::call(FUNCTION_READY, [0; 4]);
        ensure!(answer == 0, "\"ready\" answers {answer:#x}");
        // The client waits no longer than it must.
        if call % 10 == 0 {
            domain.behave();
        }
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
