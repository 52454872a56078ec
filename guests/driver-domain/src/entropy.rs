//! The entropy service: fresh random numbers of the real device, each given out once.

use rt::shared::Shared;
use rt::virtio::Entropy;
use services::entropy::Pool;

/// The entropy service.
pub struct EntropyService {
    device: Option<Entropy>,
    pool: Pool,
}

impl EntropyService {
    /// Without a device.
    pub const fn new() -> Self {
        Self { device: None, pool: Pool::new() }
    }

    /// Sets the device.
    pub fn set(&mut self, device: Entropy) {
        self.device = Some(device);
    }

    /// Whether there is one.
    pub const fn is_present(&self) -> bool {
        self.device.is_some()
    }

    /// Acknowledges the device's interrupt.
    pub fn acknowledge_interrupt(&mut self) {
        if let Some(device) = &mut self.device {
            device.acknowledge_interrupt();
        }
    }

    /// Fills the start of `data`; gives the number of bytes. The device is waited for once at most: it may give less
    /// than it is asked for (VIRTIO 1.2, 5.4.6.2), and so may this one.
    pub fn fill(&mut self, data: Option<Shared>) -> u32 {
        let (Some(device), Some(data)) = (&mut self.device, data.filter(|data| data.size() > 0)) else { return 0 };
        self.pool.give(|bytes| device.fill(bytes), |fresh| data.write(fresh)) as u32
    }
}
