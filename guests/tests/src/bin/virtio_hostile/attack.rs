//! How an attack is made, what may come of it, and how the device is seen to work afterwards.

use arrayvec::ArrayVec;
use bulkhead_guest_tests::device::{self, Device, Kind, register};
use bulkhead_guest_tests::ring::{Descriptor, NEXT, Ring, WRITE};
use rt::{machine, timer};
use testkit::{Failure, Outcome, ensure};

/// How long a request may take.
const REQUEST_MICROSECONDS: u64 = 5_000_000;
/// How long one waits for what should not come.
const NOTHING_MICROSECONDS: u64 = 1_000;
/// How often one sends, so that something is received.
const SEND_EVERY_MICROSECONDS: u64 = 50_000;

/// Where the parts of a request lie in the data page.
const HEADER: u64 = 0;
const BODY: u64 = 0x400;
const STATUS: u64 = 0xf00;
const SECTOR_SIZE: u32 = 512;
/// A card's header and a frame.
const FRAME_SIZE: usize = 12 + 60;

/// What came of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The device asks to be reset.
    NeedsReset,
    /// Chains were given back; the last with this length.
    Used(u32),
    /// Nothing, for as long as one waits.
    Nothing,
}

/// A device, one of its queues, and the memory to attack it with.
pub(crate) struct Target<'a> {
    pub(crate) device: Device,
    pub(crate) queue: u16,
    pub(crate) ring: &'a mut Ring,
    /// For a queue that one behaves in.
    pub(crate) other: &'a mut Ring,
}

/// All there is to attack.
pub(crate) struct Field {
    pub(crate) devices: ArrayVec<Device, { device::DEVICES_MAX }>,
    pub(crate) rings: [Ring; 2],
}

impl Field {
    pub(crate) fn find() -> Option<Self> {
        Some(Self { devices: device::all(), rings: Ring::claim()? })
    }

    /// Attacks every queue of every device, with the device live and the queue in good order, and sees each time that
    /// the device works afterwards and that nothing else was touched.
    pub(crate) fn each(&mut self, mut attack: impl FnMut(&mut Target<'_>) -> Outcome) -> Outcome {
        self.each_raw(|target| {
            target.start()?;
            attack(target)
        })
    }

    /// As [`Self::each`], with a device that was just reset.
    pub(crate) fn each_raw(&mut self, attack: impl FnMut(&mut Target<'_>) -> Outcome) -> Outcome {
        self.each_of(|_, _| true, attack)
    }

    /// As [`Self::each`], for the queues in which a driver asks for something, of devices of `kind`, or of all.
    pub(crate) fn each_asking(
        &mut self,
        kind: Option<Kind>,
        mut attack: impl FnMut(&mut Target<'_>) -> Outcome,
    ) -> Outcome {
        let is_meant =
            |device: Device, queue| kind.is_none_or(|kind| kind == device.kind) && !device.receives_in(queue);
        self.each_of(is_meant, |target| {
            target.start()?;
            attack(target)
        })
    }

    fn each_of(
        &mut self,
        is_meant: impl Fn(Device, u16) -> bool,
        mut attack: impl FnMut(&mut Target<'_>) -> Outcome,
    ) -> Outcome {
        let [ring, other] = &mut self.rings;
        for &device in &self.devices {
            for queue in (0..device.queues()).filter(|queue| is_meant(device, *queue)) {
                ring.clear();
                other.clear();
                device.reset()?;
                let mut target = Target { device, queue, ring, other };
                let outcome = attack(&mut target).and_then(|()| target.aftermath());
                if let Err(reason) = outcome {
                    return Err(Failure::new(format_args!("{device}, queue {queue}: {reason}")));
                }
            }
        }
        Ok(())
    }
}

/// Where the first region of memory ends and the second begins.
pub(crate) fn boundary() -> Result<u64, Failure> {
    let [first, second, ..] = machine().memory.as_slice() else {
        return Err(Failure::new(format_args!("there is one region of memory")));
    };
    ensure!(first.end() == second.start, "the regions of memory are not neighbours");
    Ok(second.start)
}

impl Target<'_> {
    /// The device with this queue, live.
    pub(crate) fn start(&mut self) -> Outcome {
        self.start_with(device::VERSION_1 | device::INDIRECT)
    }

    pub(crate) fn start_with(&mut self, features: u64) -> Outcome {
        let places = self.ring.places();
        let taken = self.start_at(features, places)?;
        ensure!(taken, "the device does not take a queue in good order");
        Ok(())
    }

    /// As [`Self::start`], with the rings at `places`; says whether the device takes them.
    pub(crate) fn start_at(&mut self, features: u64, places: [u64; 3]) -> Result<bool, Failure> {
        ensure!(self.device.negotiate(features)?, "the device does not accept what it must");
        let taken = self.device.start_queue(self.queue.into(), bulkhead_guest_tests::ring::ENTRIES.into(), places)?;
        if self.is_card_receiving() {
            // Something must be sent for something to be received.
            let taken = self.device.start_queue(1, bulkhead_guest_tests::ring::ENTRIES.into(), self.other.places())?;
            ensure!(taken, "the device does not take the queue to send with");
        }
        self.device.go()?;
        Ok(taken)
    }

    fn is_card_receiving(&self) -> bool {
        self.device.kind == Kind::Network && self.queue == 0
    }

    /// The flag of a buffer in this queue: the device writes it or reads it.
    pub(crate) fn direction(&self) -> u16 {
        if self.device.receives_in(self.queue) || self.device.kind == Kind::Entropy { WRITE } else { 0 }
    }

    /// Writes a chain that is in order, from descriptor `head` on.
    pub(crate) fn write_request(&mut self, head: u16) {
        write_request(self.ring, self.device, self.queue, head);
    }

    /// Notifies, and waits for what comes of it.
    pub(crate) fn kick(&mut self) -> Result<Fate, Failure> {
        let mut before = self.ring.used_index();
        // The answer to what was asked before the reset may have come late, and have taken the buffer already.
        if self.is_card_receiving() && before != 0 && before == self.ring.available_index() {
            before = before.wrapping_sub(1);
        }
        self.device.notify(self.queue.into())?;
        let limit = match (self.device.kind, self.device.receives_in(self.queue)) {
            // Nobody types.
            (Kind::Console, true) => NOTHING_MICROSECONDS,
            _ => REQUEST_MICROSECONDS,
        };
        self.watch(before, limit)
    }

    /// As [`Self::kick`], where nothing is to come.
    pub(crate) fn kick_in_vain(&mut self) -> Result<Fate, Failure> {
        let before = self.ring.used_index();
        self.device.notify(self.queue.into())?;
        self.watch(before, NOTHING_MICROSECONDS)
    }

    fn watch(&mut self, before: u16, limit_microseconds: u64) -> Result<Fate, Failure> {
        let end = timer::now() + timer::ticks(limit_microseconds);
        let mut again = 0;
        loop {
            if self.device.needs_reset()? {
                return Ok(Fate::NeedsReset);
            }
            let used = self.ring.used_index();
            if used != before {
                return Ok(Fate::Used(self.ring.used(used.wrapping_sub(1)).1));
            }
            let now = timer::now();
            if now >= end {
                return Ok(Fate::Nothing);
            }
            if self.is_card_receiving() && now >= again {
                again = now + timer::ticks(SEND_EVERY_MICROSECONDS);
                write_request(self.other, self.device, 1, 0);
                self.other.offer(0);
                self.device.notify(1)?;
            }
        }
    }

    /// Expects the device to ask for a reset. Where nobody types, a console does not look at what is to receive it.
    pub(crate) fn expect_needs_reset(&mut self) -> Outcome {
        let fate = self.kick()?;
        let is_idle = self.device.kind == Kind::Console && self.device.receives_in(self.queue);
        ensure!(fate == Fate::NeedsReset || is_idle && fate == Fate::Nothing, "it ended with {fate:?}");
        Ok(())
    }

    /// Nothing outside was touched, and the device works again.
    fn aftermath(&mut self) -> Outcome {
        self.ring.check_guards()?;
        self.other.check_guards()?;
        works(self.device, self.ring)
    }
}

/// Writes a chain that is in order for `queue` of `device`, from descriptor `head` on.
pub(crate) fn write_request(ring: &Ring, device: Device, queue: u16, head: u16) {
    let set = |offset: u16, address, length, flags: u16| {
        ring.set_descriptor(head + offset, Descriptor::new(address, length, flags, head + offset + 1));
    };
    match (device.kind, queue) {
        (Kind::Block, _) => {
            write_block_header(ring, 0, 0);
            set(0, ring.data(HEADER), 16, NEXT);
            set(1, ring.data(BODY), SECTOR_SIZE, NEXT | WRITE);
            set(2, ring.data(STATUS), 1, WRITE);
        }
        (Kind::Network, 1) => {
            ring.write_data(HEADER, &question());
            set(0, ring.data(HEADER), FRAME_SIZE as u32, 0);
        }
        (Kind::Console, 1) => {
            ring.write_data(HEADER, b"hostile\n");
            set(0, ring.data(HEADER), 8, 0);
        }
        (Kind::Network | Kind::Console, _) => set(0, ring.data(BODY), 2048, WRITE),
        (Kind::Entropy, _) => set(0, ring.data(BODY), 64, WRITE),
    }
}

/// The header of a block request (VIRTIO 1.2, 5.2.6).
pub(crate) fn write_block_header(ring: &Ring, kind: u32, sector: u64) {
    let header = u128::from(kind) | u128::from(sector) << 64;
    ring.write_data(HEADER, &header.to_le_bytes());
    ring.write_data(STATUS, &[0xff]);
}

/// The status byte of a block request.
pub(crate) fn block_status(ring: &Ring) -> u8 {
    let [status] = ring.read_data(STATUS);
    status
}

/// A card's header and "who has 10.0.2.2" (RFC 826) from 10.0.2.77, which QEMU's user network answers. The source is
/// whatever the card says of itself, as the switch demands.
fn question() -> [u8; FRAME_SIZE] {
    let mac = own_mac();
    let mut frame = [0; FRAME_SIZE];
    frame[12..18].fill(0xff);
    frame[18..24].copy_from_slice(&mac);
    frame[24..34].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[34..40].copy_from_slice(&mac);
    frame[40..44].copy_from_slice(&[10, 0, 2, 77]);
    frame[50..54].copy_from_slice(&[10, 0, 2, 2]);
    frame
}

/// The address of the first card.
fn own_mac() -> [u8; 6] {
    let card = device::all().into_iter().find(|device| device.kind == Kind::Network);
    let word = |offset| card.and_then(|card| card.read(register::CONFIGURATION + offset).ok()).unwrap_or(0);
    let [a, b, c, d] = word(0).to_le_bytes();
    let [e, f, ..] = word(4).to_le_bytes();
    [a, b, c, d, e, f]
}

/// A device that was reset does what a driver in good order asks of it.
pub(crate) fn works(device: Device, ring: &mut Ring) -> Outcome {
    ring.clear();
    ensure!(device.negotiate(device::VERSION_1)?, "after the attack: no negotiation");
    // The queue in which the driver asks.
    let queue = device.queues() - 1;
    let taken = device.start_queue(queue.into(), bulkhead_guest_tests::ring::ENTRIES.into(), ring.places())?;
    ensure!(taken, "after the attack: the queue is not taken");
    device.go()?;
    for count in 1..=2 {
        write_request(ring, device, queue, 0);
        ring.offer(0);
        device.notify(queue.into())?;
        let came = ring.wait_used(count, REQUEST_MICROSECONDS);
        if let Err(reason) = came {
            return Err(Failure::new(format_args!("after the attack: {reason}, Status {:#x}", device.status()?)));
        }
        if device.kind == Kind::Block {
            let status = block_status(ring);
            ensure!(status == 0, "after the attack: a read ends with status {status}");
        }
    }
    device.reset()?;
    ring.check_guards()
}
