//! Virtio-mmio devices: their registers, and a disk whose back end is a driver domain.
//!
//! On the bare board QEMU's slots are there with nothing behind them: they answer as far as registers go.

use crate::clock::{ROUNDS, absent, measure};
use rt::register::Register;
use rt::shared::Shared;
use rt::virtio::{Block, Kind, Slot, take_slots};
use rt::{gic, interrupts, machine, timer};

/// Registers that are there whatever the device is (VIRTIO 1.2, 4.2.2).
const MAGIC_VALUE: u64 = 0x000;
const QUEUE_NOTIFY: u64 = 0x050;

/// How long a driver domain has until it waits for requests and nothing else.
const SETTLING_MICROSECONDS: u64 = 100_000;
const PAGE: u64 = 4096;
const SECTORS_PER_PAGE: u64 = PAGE / 512;
/// How often a read of the disk is looked for: each time a WFI has ended.
const PATIENCE: u32 = 1000;

/// Measures the registers of the first slot and, where asked, reads of the first disk.
pub fn run(with_disk: bool) {
    let mut slots = take_slots();
    let Some(first) = slots.first() else {
        absent("virtio-read", "there is no virtio-mmio slot");
        return absent("virtio-notify", "there is no virtio-mmio slot");
    };
    if with_disk {
        timer::sleep(SETTLING_MICROSECONDS);
    }
    registers(first.registers().start);
    if with_disk {
        match slots.iter_mut().find(|slot| slot.kind() == Some(Kind::Block)) {
            Some(slot) => disk(slot),
            None => absent("virtio-disk", "there is no disk"),
        }
    }
}

/// A register's read, and a notification of queue 0 while no driver has brought the device up: the way to it and back.
fn registers(base: u64) {
    let (Some(magic), Some(notify)) = (Register::at(base + MAGIC_VALUE), Register::at(base + QUEUE_NOTIFY)) else {
        absent("virtio-read", "memory is in its place");
        return absent("virtio-notify", "memory is in its place");
    };
    measure("virtio-read", || {
        let _ = magic.read();
    });
    measure("virtio-notify", || notify.write(0));
}

/// Reads of 4 KiB, one after the other, from the request to the driver's knowing that it is done, by interrupt.
fn disk(slot: &mut Slot) {
    let Some(buffer) = buffer() else { return absent("virtio-disk", "there is no room for a buffer") };
    slot.enable_interrupt();
    let interrupt = slot.interrupt();
    let outcome = Block::with(slot, |disk| {
        let pages = disk.sectors() / SECTORS_PER_PAGE;
        if pages < ROUNDS {
            return absent("virtio-disk", "the disk is too small");
        }
        let mut page = 0;
        let mut failed = false;
        measure("virtio-disk", || {
            failed |= !read(disk, page % pages, buffer, interrupt);
            page += 1;
        });
        assert!(!failed, "a read of the disk fails");
    });
    gic::disable(interrupt);
    if outcome.is_err() {
        absent("virtio-disk", "the driver does not take the disk");
    }
}

/// Reads page `page` and waits for it; says whether it was read.
fn read(disk: &mut Block<()>, page: u64, buffer: Shared, interrupt: u32) -> bool {
    if disk.read(page * SECTORS_PER_PAGE, buffer, ()).is_err() {
        return false;
    }
    disk.kick();
    for _ in 0..PATIENCE {
        interrupts::wait();
        while let Some(id) = gic::acknowledge() {
            if id == interrupt {
                disk.acknowledge_interrupt();
            }
            gic::end(id);
        }
        if let Some(((), outcome)) = disk.poll() {
            // The look that finds nothing asks for the next interrupt.
            return disk.poll().is_none() && outcome.is_ok();
        }
    }
    false
}

/// A page that no reference covers: the last of RAM that nothing else is in.
fn buffer() -> Option<Shared> {
    /// Larger than a device tree that a loader may have put at the end.
    const STEPS: u64 = 1024;
    let memory = machine().memory.first()?;
    (1..STEPS).find_map(|step| Shared::claim(memory.end().checked_sub(step * PAGE)?, PAGE))
}
