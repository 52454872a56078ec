//! A guest that finds the device: a page to load from, stores that trap, and a driver that does what Linux's does.

mod configuration;
mod hostile;
mod negotiation;
mod queues;

use super::*;

const CONFIGURATION_WORDS: usize = CONFIGURATION_SIZE / 4;

const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

/// Two kinds of device (VIRTIO 1.2, 5).
const NETWORK: u32 = 1;
const BLOCK: u32 = 2;
/// Features that the devices of these tests offer.
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
/// One that the plain disk does not.
const FLUSH: u64 = 1 << 9;
const HIGHEST: u64 = 1 << 63;

/// The page that the guest loads from, and what was last done to it.
struct Page {
    words: [u32; 1024],
    /// The offsets of the latest changes, the latest last.
    latest: [u16; 3],
}

impl Shadow for Page {
    fn set(&mut self, offset: u16, word: u32) {
        assert!(offset.is_multiple_of(4) && offset < WINDOW_SIZE, "{offset:#x}");
        let was = core::mem::replace(&mut self.words[usize::from(offset / 4)], word);
        if was != word {
            self.latest = [self.latest[1], self.latest[2], offset];
        }
    }
}

/// A guest with one device.
struct Guest {
    device: VirtioMmio,
    page: Page,
    stores: u32,
}

impl Guest {
    /// The device at power-on; the page was not cleared.
    fn with(device_id: u32, queues: u16) -> Self {
        let mut guest = Self {
            device: VirtioMmio::new(device_id, queues),
            page: Page { words: [0xdead_beef; 1024], latest: [0; 3] },
            stores: 0,
        };
        guest.device.publish_page(&mut guest.page);
        guest.check_page();
        guest
    }

    /// A disk of 1 MiB with one queue.
    fn with_disk() -> Self {
        let mut guest = Self::with(BLOCK, 1);
        assert!(!guest.configure(&disk(2048)));
        guest
    }

    /// What is published is what a load would be told.
    fn check_page(&self) {
        for offset in (0..PUBLISHED_END).step_by(4) {
            assert_eq!(self.page.words[usize::from(offset / 4)], self.device.word(offset), "offset {offset:#x}");
        }
        assert_eq!(self.page.words[1023], 0);
    }

    /// The first words of the slot at `offset`.
    fn slot(&self, offset: usize) -> [u32; 4] {
        core::array::from_fn(|word| self.page.words[offset / 4 + word])
    }

    fn try_configure(&mut self, backend: &Backend) -> Result<bool, FeaturesLost> {
        let words = core::array::from_fn(|pair| {
            u64::from(backend.words[2 * pair]) | u64::from(backend.words[2 * pair + 1]) << 32
        });
        let configuration =
            Configuration { features: backend.features, words: &words, live_size: 4 * backend.live_words };
        self.device.configure(&configuration, &mut self.page)
    }

    fn configure(&mut self, backend: &Backend) -> bool {
        let was_high = self.device.line();
        let is_changed = self.try_configure(backend).expect("no feature is lost");
        assert_eq!(is_changed, self.device.line() != was_high);
        self.check_page();
        is_changed
    }

    fn load(&self, offset: u64) -> u32 {
        assert_eq!(offset % 4, 0);
        self.page.words[offset as usize / 4]
    }

    fn load_u16(&self, offset: u64) -> u16 {
        (self.load(offset & !3) >> (8 * (offset & 2))) as u16
    }

    fn load_u8(&self, offset: u64) -> u8 {
        (self.load(offset & !3) >> (8 * (offset & 3))) as u8
    }

    fn try_store(&mut self, offset: u64, width: Width, value: u64) -> Result<Effect, GuestFault> {
        let effect = self.device.write(offset, width, value & width.mask(), &mut self.page);
        self.stores += 1;
        // Miri takes its time over a whole page.
        if !cfg!(miri) || self.stores.is_multiple_of(32) {
            self.check_page();
        }
        effect
    }

    fn store(&mut self, offset: u64, value: u32) -> Effect {
        self.try_store(offset, Width::Word, value.into()).unwrap()
    }

    fn offered(&mut self) -> u64 {
        self.store(DEVICE_FEATURES_SEL, 1);
        let high = self.load(DEVICE_FEATURES);
        self.store(DEVICE_FEATURES_SEL, 0);
        u64::from(high) << 32 | u64::from(self.load(DEVICE_FEATURES))
    }

    fn accept(&mut self, features: u64) {
        self.store(DRIVER_FEATURES_SEL, 1);
        self.store(DRIVER_FEATURES, (features >> 32) as u32);
        self.store(DRIVER_FEATURES_SEL, 0);
        self.store(DRIVER_FEATURES, features as u32);
    }

    /// Adds a bit to Status as drivers do, and says whether it is set.
    fn add_status(&mut self, bit: u32) -> bool {
        let status = self.load(STATUS);
        self.store(STATUS, status | bit);
        self.load(STATUS) & bit != 0
    }

    /// Everything up to FEATURES_OK, with those of the wanted features that are offered.
    fn negotiate(&mut self, wanted: u64) -> u64 {
        assert_eq!(self.store(STATUS, 0), Effect::Reset);
        assert!(self.add_status(ACKNOWLEDGE) && self.add_status(DRIVER));
        let features = self.offered() & wanted;
        self.accept(features);
        assert!(self.add_status(FEATURES_OK));
        features
    }

    fn store_address(&mut self, offset: u64, address: u64) {
        self.store(offset, address as u32);
        self.store(offset + 4, (address >> 32) as u32);
    }

    /// Sets up queue `index`, all but QueueReady.
    fn prepare_queue(&mut self, index: u32, layout: QueueLayout) {
        self.store(QUEUE_SEL, index);
        self.store(QUEUE_NUM, layout.size.into());
        self.store_address(QUEUE_DESC_LOW, layout.descriptors.0);
        self.store_address(QUEUE_DRIVER_LOW, layout.available.0);
        self.store_address(QUEUE_DEVICE_LOW, layout.used.0);
    }

    /// Sets up queue `index`, as Linux does.
    fn find_queue(&mut self, index: u32, layout: QueueLayout) -> Effect {
        self.store(QUEUE_SEL, index);
        assert_eq!(self.load(QUEUE_READY), 0);
        assert!(self.load(QUEUE_NUM_MAX) >= layout.size.into());
        self.prepare_queue(index, layout);
        self.store(QUEUE_READY, 1)
    }

    /// A driver that takes all that is offered, with all of its queues, up to DRIVER_OK.
    fn bring_up(&mut self) {
        self.negotiate(u64::MAX);
        for index in 0..self.device.queue_count() {
            assert_eq!(self.find_queue(index.into(), rings(16)), Effect::QueueReady(index));
        }
        let status = self.load(STATUS);
        assert_eq!(self.store(STATUS, status | DRIVER_OK), Effect::Live);
        assert!(self.device.is_live());
    }

    fn raise_used(&mut self) {
        self.device.raise_used(&mut self.page);
        self.check_page();
    }

    fn need_reset(&mut self) {
        self.device.need_reset(&mut self.page);
        self.check_page();
    }
}

/// What stands behind a device.
struct Backend {
    features: u64,
    words: [u32; CONFIGURATION_WORDS],
    live_words: u16,
}

/// A disk whose capacity may change at any time, and nothing else.
fn disk(capacity_sectors: u64) -> Backend {
    let mut words = [0; CONFIGURATION_WORDS];
    words[..2].copy_from_slice(&[capacity_sectors as u32, (capacity_sectors >> 32) as u32]);
    words[5] = 512;
    Backend { features: SEG_MAX | BLK_SIZE, words, live_words: 2 }
}

/// The same with blocks of 4096 bytes, and with more features.
fn able_disk() -> Backend {
    let mut configuration = disk(0x1_2345_6789);
    configuration.features |= READ_ONLY | FLUSH | HIGHEST;
    configuration.words[5] = 4096;
    configuration
}

/// Rings where a guest's may be.
fn rings(size: u16) -> QueueLayout {
    let at = vdev::GuestAddr;
    QueueLayout { size, descriptors: at(0x1_4000_0000), available: at(0x4000_1002), used: at(0x4000_2004) }
}
