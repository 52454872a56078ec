//! One queue of the client, with a copy of what its memory must hold: only a buffer that is out may change, and only
//! once.

use arrayvec::ArrayVec;
use bulkhead_guest_tests::device::{Device, Kind};
use bulkhead_guest_tests::ring::{Descriptor, ENTRIES, NEXT, Ring, WRITE};
use rt::shared::Shared;
use testkit::{Outcome, ensure};

/// Requests of a lane that may be out at a time.
pub(crate) const SLOTS: usize = 4;
/// Where the parts of a request lie in its quarter of the data page, with memory between them that nobody may touch.
const STRIDE: u64 = 1024;
const BODY: u64 = 0x100;
const STATUS: u64 = 0x380;
pub(crate) const DATA_BYTES: usize = 4096;
/// Bytes that are compared at one go.
const PIECE: usize = 256;
/// Descriptors of a request, at most.
const DESCRIPTORS: u16 = 3;

const _: () = assert!(SLOTS as u16 * DESCRIPTORS <= ENTRIES && SLOTS as u64 * STRIDE == DATA_BYTES as u64);

/// Bytes of the data page that the device may write.
#[derive(Clone, Copy, Debug)]
struct Writable {
    from: usize,
    length: usize,
}

/// A request that has come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Back {
    pub(crate) slot: usize,
    /// What the used ring says was written.
    pub(crate) length: u32,
}

/// One queue.
pub(crate) struct Lane {
    pub(crate) device: Device,
    pub(crate) queue: u16,
    ring: Ring,
    /// What the data page must hold, but for what is out.
    expected: Shared,
    out: [Option<ArrayVec<Writable, 2>>; SLOTS],
    used: u16,
}

impl Lane {
    /// `expected` is memory of [`DATA_BYTES`] for the copy.
    pub(crate) fn new(device: Device, queue: u16, ring: Ring, expected: Shared) -> Self {
        let mut lane = Self { device, queue, ring, expected, out: [const { None }; SLOTS], used: 0 };
        lane.clear();
        lane
    }

    /// After a reset of its device nothing is out, and nothing may change any more.
    pub(crate) fn clear(&mut self) {
        self.ring.clear();
        self.accept(Writable { from: 0, length: DATA_BYTES });
        self.out = [const { None }; SLOTS];
        self.used = 0;
    }

    pub(crate) fn places(&self) -> [u64; 3] {
        self.ring.places()
    }

    /// The first slot with nothing out.
    pub(crate) fn free(&self) -> Option<usize> {
        self.out.iter().position(Option::is_none)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.out.iter().all(Option::is_none)
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.ring.write_data(at, bytes);
        self.expected.piece(at, bytes.len() as u64).map(|piece| piece.write(bytes));
    }

    /// From here on these bytes must stay what they are.
    fn accept(&self, Writable { from, length }: Writable) {
        for at in (from..from + length).step_by(PIECE) {
            let bytes: [u8; PIECE] = self.ring.read_data(at as u64);
            let length = (from + length - at).min(PIECE);
            self.expected.piece(at as u64, length as u64).map(|piece| piece.write(&bytes));
        }
    }

    fn expected<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.expected.piece(at as u64, N as u64).map(|piece| piece.read(&mut bytes));
        bytes
    }

    fn head(slot: usize) -> u16 {
        slot as u16 * DESCRIPTORS
    }

    /// Offers a request to read (without `data`) or write a sector.
    pub(crate) fn post_block(&mut self, slot: usize, sector: u64, data: Option<&[u8]>) {
        let (base, head) = (slot as u64 * STRIDE, Self::head(slot));
        let header = u128::from(data.is_some()) | u128::from(sector) << 64;
        self.put(base, &header.to_le_bytes());
        self.put(base + STATUS, &[0xff]);
        if let Some(data) = data {
            self.put(base + BODY, data);
        }
        let body_flags = if data.is_some() { NEXT } else { NEXT | WRITE };
        let describe = |place, address, length, flags| {
            self.ring.set_descriptor(head + place, Descriptor::new(address, length, flags, head + place + 1));
        };
        describe(0, self.ring.data(base), 16, NEXT);
        describe(1, self.ring.data(base + BODY), 512, body_flags);
        describe(2, self.ring.data(base + STATUS), 1, WRITE);
        let mut writable = ArrayVec::new();
        if data.is_none() {
            writable.push(Writable { from: (base + BODY) as usize, length: 512 });
        }
        writable.push(Writable { from: (base + STATUS) as usize, length: 1 });
        self.offer(slot, writable);
    }

    /// Offers `data` to be sent or printed.
    pub(crate) fn post_out(&mut self, slot: usize, data: &[u8]) {
        let base = slot as u64 * STRIDE;
        self.put(base, data);
        let descriptor = Descriptor::new(self.ring.data(base), data.len() as u32, 0, 0);
        self.ring.set_descriptor(Self::head(slot), descriptor);
        self.offer(slot, ArrayVec::new());
    }

    /// Offers a buffer of `length` bytes to be filled.
    pub(crate) fn post_in(&mut self, slot: usize, length: usize) {
        let base = slot as u64 * STRIDE;
        let descriptor = Descriptor::new(self.ring.data(base), length as u32, WRITE, 0);
        self.ring.set_descriptor(Self::head(slot), descriptor);
        self.offer(slot, ArrayVec::from_iter([Writable { from: base as usize, length }]));
    }

    fn offer(&mut self, slot: usize, writable: ArrayVec<Writable, 2>) {
        self.out[slot] = Some(writable);
        self.ring.offer(Self::head(slot));
    }

    /// What has come back: each of what was out, once.
    pub(crate) fn poll(&mut self, mut back: impl FnMut(&Self, Back)) -> Outcome {
        let out = self.out.iter().flatten().count();
        let new = usize::from(self.ring.used_index().wrapping_sub(self.used));
        ensure!(new <= out, "{new} chains were given back, and {out} were out");
        for _ in 0..new {
            let (head, length) = self.ring.used(self.used);
            self.used = self.used.wrapping_add(1);
            let slot = (head as usize) / usize::from(DESCRIPTORS);
            let writable = self.out.get_mut(slot).and_then(Option::take);
            let is_head = head.is_multiple_of(DESCRIPTORS.into());
            let Some(writable) = writable.filter(|_| is_head) else {
                ensure!(false, "the chain at {head:#x} was given back, and was not out");
                return Ok(());
            };
            let most: usize = writable.iter().map(|writable| writable.length).sum();
            ensure!(length as usize <= most, "{length} bytes were written into {most}");
            writable.into_iter().for_each(|writable| self.accept(writable));
            back(self, Back { slot, length });
        }
        Ok(())
    }

    /// The status byte of a block request that has come back.
    pub(crate) fn status(&self, slot: usize) -> u8 {
        let [status] = self.expected(slot * STRIDE as usize + STATUS as usize);
        status
    }

    /// The first bytes of data of a request that has come back.
    pub(crate) fn data<const N: usize>(&self, slot: usize) -> [u8; N] {
        let body = if self.device.kind == Kind::Block { BODY as usize } else { 0 };
        self.expected(slot * STRIDE as usize + body)
    }

    /// Finds out whether anything has changed that may not.
    pub(crate) fn check(&self) -> Outcome {
        self.ring.check_guards()?;
        let is_out = |at: usize| {
            let mut writable = self.out.iter().flatten().flatten();
            writable.any(|writable| (writable.from..writable.from + writable.length).contains(&at))
        };
        for at in (0..DATA_BYTES).step_by(PIECE) {
            let (found, expected): ([u8; PIECE], [u8; PIECE]) = (self.ring.read_data(at as u64), self.expected(at));
            if found == expected {
                continue;
            }
            let changed = (0..PIECE).find(|offset| found[*offset] != expected[*offset] && !is_out(at + offset));
            ensure!(changed.is_none(), "the byte at {:#x} of the buffers has changed", at + changed.unwrap_or(0));
        }
        Ok(())
    }
}
