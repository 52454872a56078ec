//! What a backend says of its device, and when it holds.

use super::*;

impl Stage {
    /// Writes the description into the channel.
    pub(super) fn describe(&self) {
        let bytes: Vec<u8> = self.description.to_words().into_iter().flat_map(u64::to_le_bytes).collect();
        self.backend.write(GuestAddr(CHANNEL + io::DESCRIPTION), &bytes).unwrap();
    }

    /// What is read of it, where that is all of it.
    fn features(&mut self) -> Result<Option<u64>, Refused> {
        Ok(self.service.description(&self.backend)?.map(|words| words.features()))
    }
}

/// A disk whose backend describes it anew, when an interrupt is pending.
fn interrupted() -> Stage {
    let mut stage = Stage::disk();
    stage.description.features = 0x55;
    stage.describe();
    stage.backend.has_pending_interrupt.set(true);
    assert_eq!(stage.features(), Ok(None));
    stage
}

#[test]
fn a_backend_that_describes_nothing_sound_is_not_attached() {
    let mut stage = Stage::disk();
    let mut description = stage.description.clone();
    description.queues[0].size_max = u32::MAX;
    stage.description = description;
    assert_eq!(stage.attach(), Err(Refused::Queue));
    // The first word of the first queue.
    let flags = CHANNEL + io::DESCRIPTION + 16 + CONFIGURATION_SIZE as u64;
    stage.backend.store_u32(GuestAddr(flags), u32::MAX).unwrap();
    assert_eq!(stage.service.description(&stage.backend), Err(Refused::Malformed));
}

#[test]
fn a_backend_cannot_change_the_shape_of_requests_under_a_driver() {
    let mut stage = Stage::disk();
    stage.description.queues[0].tail_size = 2;
    assert_eq!(stage.attach(), Err(Refused::OtherSizes));
    stage.service.reset();
    assert_eq!(stage.attach(), Ok(()));

    // Nor by saying that there are fewer queues.
    let mut stage = Stage::new(DISK, &[BLOCK, BLOCK]);
    stage.description.queue_count = 1;
    stage.description.queues[1] = QueueDescription::NONE;
    assert_eq!(stage.attach(), Err(Refused::OtherSizes));
}

#[test]
fn an_interrupted_attach_goes_on_with_what_was_checked() {
    let mut stage = interrupted();
    // Whatever the backend writes there now, and whether the next interrupt is pending already.
    stage.description.queues[0].size_max = u32::MAX;
    stage.describe();
    assert_eq!(stage.features(), Ok(Some(0x55)));
    stage.service.attach();
    // Once.
    assert_eq!(stage.features(), Err(Refused::Queue));
}

#[test]
fn a_queue_that_starts_during_an_attach_keeps_its_sizes() {
    let mut stage = Stage::disk();
    stage.service.reset();
    stage.description.queues[0].tail_size = 2;
    stage.describe();
    stage.backend.has_pending_interrupt.set(true);
    assert_eq!(stage.features(), Ok(None));
    stage.start(0);
    assert_eq!(stage.features(), Err(Refused::OtherSizes));
}

#[test]
fn a_backend_that_ends_during_an_attach_has_said_nothing() {
    let mut stage = interrupted();
    stage.restart_without_channel();
    stage.description.features = 0xaa;
    stage.describe();
    assert_eq!(stage.features(), Ok(Some(0xaa)));
}
