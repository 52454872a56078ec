//! Nothing but reads of 4 KiB from one disk, as a system that sleeps between interrupts makes them.

use crate::Slots;
use crate::block::{buffers, in_block};
use rt::shared::Shared;
use rt::virtio::{Block, Kind};
use rt::{Failure, Outcome, ensure, gic, interrupts, machine, println, report};

const SECTORS_PER_PAGE: u64 = 8;

pub(crate) fn run(mut slots: Slots) {
    let requests = machine().number("requests", 2000);
    let depth = machine().number("depth", 1).clamp(1, 16) as usize;
    report::test("every read is done", || {
        let mut disks = slots.iter_mut().filter(|slot| slot.kind() == Some(Kind::Block));
        let disk = disks.nth(machine().number("disk", 0) as usize);
        let Some(slot) = disk else { return Err(Failure::new(format_args!("there is no disk"))) };
        slot.enable_interrupt();
        let interrupt = slot.interrupt();
        in_block(slot, |disk| read(disk, interrupt, requests, depth))?;
        gic::disable(interrupt);
        println!("requests={requests} depth={depth}");
        Ok(())
    });
}

fn read(disk: &mut Block<(usize, usize)>, interrupt: u32, requests: u64, depth: usize) -> Outcome {
    let Some(buffers) = buffers() else { return Err(Failure::new(format_args!("there is no room for buffers"))) };
    let pages = disk.sectors() / SECTORS_PER_PAGE;
    ensure!(pages > 0, "the disk is too small");
    let mut started = 0;
    let mut start = |disk: &mut Block<_>, index: usize, buffer: Shared| {
        let page = started % pages;
        started += 1;
        let taken = disk.read(page * SECTORS_PER_PAGE, buffer, (index, index)).is_ok();
        ensure!(taken, "read {started} was not taken");
        Ok(())
    };
    // A batch at a time: all are started, then all are waited for, as fio does with iodepth_batch.
    let mut done = 0;
    while done < requests {
        for (index, buffer) in buffers.iter().enumerate().take(depth) {
            start(disk, index, *buffer)?;
        }
        let mut left = depth;
        while left > 0 {
            if let Some((_, outcome)) = disk.poll() {
                ensure!(outcome.is_ok(), "a read failed");
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
        done += depth as u64;
    }
    Ok(())
}
