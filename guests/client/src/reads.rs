//! Nothing but requests of one size to one disk, as a system that sleeps between interrupts makes them.

use crate::Slots;
use crate::block::{in_block, room};
use rt::shared::Shared;
use rt::virtio::{Block, Kind};
use rt::{gic, interrupts, machine, println, timer};
use testkit::{Failure, Outcome, ensure, report};

const SECTORS_PER_KIBIBYTE: u64 = 2;

pub(crate) fn run(mut slots: Slots) {
    let requests = machine().number("requests", 2000);
    let depth = machine().number("depth", 1).clamp(1, 16);
    let kibibytes = machine().number("size", 4).clamp(1, 256);
    let writes = machine().number("writes", 0).min(1);
    report::test("every request is done", || {
        let mut disks = slots.iter_mut().filter(|slot| slot.kind() == Some(Kind::Block));
        let disk = disks.nth(machine().number("disk", 0) as usize);
        let Some(slot) = disk else { return Err(Failure::new(format_args!("there is no disk"))) };
        slot.enable_interrupt();
        let interrupt = slot.interrupt();
        let start = timer::now();
        in_block(slot, |disk| ask(disk, interrupt, requests, depth, kibibytes, writes))?;
        // Where instructions are counted, so many ticks are so many instructions of all cores that did not sleep.
        let ticks = (timer::now() - start) / requests.max(1);
        gic::disable(interrupt);
        println!("requests={requests} depth={depth} size={kibibytes} KiB, {ticks} ticks each");
        Ok(())
    });
}

/// Every second request is one of `writes`.
fn ask(
    disk: &mut Block<(usize, usize)>,
    interrupt: u32,
    requests: u64,
    depth: u64,
    kibibytes: u64,
    writes: u64,
) -> Outcome {
    let bytes = kibibytes << 10;
    let Some(room) = room(depth * bytes) else {
        return Err(Failure::new(format_args!("there is no room for buffers")));
    };
    let sectors = kibibytes * SECTORS_PER_KIBIBYTE;
    let pieces = disk.sectors() / sectors;
    ensure!(pieces > 0, "the disk is too small");
    let mut started = 0;
    let mut start = |disk: &mut Block<_>, index: usize, buffer: Shared| {
        let sector = started % pieces * sectors;
        let result = match started & writes {
            0 => disk.read(sector, buffer, (index, index)),
            _ => disk.write(sector, buffer, (index, index)),
        };
        started += 1;
        ensure!(result.is_ok(), "request {started} was not taken");
        Ok(())
    };
    // A batch at a time: all are started, then all are waited for, as fio does with iodepth_batch.
    let mut done = 0;
    while done < requests {
        for index in 0..depth {
            let Some(buffer) = room.piece(index * bytes, bytes) else { break };
            start(disk, index as usize, buffer)?;
        }
        disk.kick();
        let mut left = depth;
        while left > 0 {
            if let Some((_, outcome)) = disk.poll() {
                ensure!(outcome.is_ok(), "a request failed");
                left -= 1;
                continue;
            }
            interrupts::wait();
            while let Some(id) = gic::acknowledge() {
                if id == interrupt {
                    disk.acknowledge_interrupt();
                }
                gic::end(id);
            }
        }
        done += depth;
    }
    Ok(())
}
