//! What loads return: every word of the page is made here, from the state of the registers.

use super::queue::Queue;
use super::registers::{CONFIGURATION_OFFSET, MAGIC, Register, VENDOR, VERSION};
use super::{PUBLISHED_END, QUEUE_SIZE_MAX, SLOT_SIZE, Shadow, VirtioMmio, WINDOW_SIZE, vacant_word};

impl VirtioMmio {
    /// Publishes the whole page, before the first load of a guest.
    pub fn publish_page(&self, shadow: &mut impl Shadow) {
        self.publish(0, shadow);
        for offset in (PUBLISHED_END..WINDOW_SIZE).step_by(4) {
            shadow.set(offset, if offset < SLOT_SIZE { 0 } else { vacant_word(offset) });
        }
    }

    /// What a load of the word at `offset` returns: the whole of the page, in one place. Registers that are there to be
    /// written read as zero.
    pub(super) fn word(&self, offset: u16) -> u32 {
        if let Some(offset) = offset.checked_sub(CONFIGURATION_OFFSET) {
            let word = self.words.get(usize::from(offset / 8)).copied().unwrap_or(0);
            return (if offset & 4 == 0 { word } else { word >> 32 }) as u32;
        }
        let selected =
            self.queues.get(self.queue_sel as usize).filter(|_| self.queue_sel < u32::from(self.queue_count));
        match Register::at(u64::from(offset)) {
            Some(Register::MagicValue) => MAGIC,
            Some(Register::Version) => VERSION,
            Some(Register::DeviceId) => {
                if self.is_described {
                    self.device_id
                } else {
                    0
                }
            }
            Some(Register::VendorId) => VENDOR,
            Some(Register::DeviceFeatures) => match self.device_features_sel {
                0 => self.offered as u32,
                1 => (self.offered >> 32) as u32,
                _ => 0,
            },
            Some(Register::QueueNumMax) => selected.map_or(0, |_| u32::from(QUEUE_SIZE_MAX)),
            Some(Register::QueueReady) => selected.is_some_and(Queue::is_ready).into(),
            Some(Register::InterruptStatus) => self.interrupts.bits(),
            Some(Register::Status) => self.status.bits(),
            // There is no shared memory, so its length reads as all ones (VIRTIO 1.2, 4.2.2), and its base too.
            Some(Register::SharedMemory) => u32::MAX,
            Some(Register::ConfigGeneration) => self.generation,
            Some(
                Register::DeviceFeaturesSel
                | Register::DriverFeatures
                | Register::DriverFeaturesSel
                | Register::QueueSel
                | Register::QueueNum
                | Register::QueueAddress(..),
            )
            | None => 0,
        }
    }

    pub(super) fn publish_one(&self, offset: u16, shadow: &mut impl Shadow) {
        shadow.set(offset, self.word(offset));
    }

    /// Publishes everything from `start` on that is not always zero.
    pub(super) fn publish(&self, start: u16, shadow: &mut impl Shadow) {
        for offset in (start..PUBLISHED_END).step_by(4) {
            self.publish_one(offset, shadow);
        }
    }
}
