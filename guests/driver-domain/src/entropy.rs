//! The entropy service: fresh random numbers of the real device, each given out once.

use rt::shared::Shared;
use rt::virtio::Entropy;
use services::describe::entropy::RANDOM_SIZE_MAX;

/// How many bytes are asked of the device at a time.
const POOL: usize = 1024;

/// The entropy service.
pub struct EntropyService {
    device: Option<Entropy>,
    pool: [u8; POOL],
    /// The pool's bytes from here to `end` have not been given out.
    start: usize,
    end: usize,
}

impl EntropyService {
    /// Without a device.
    pub const fn new() -> Self {
        Self { device: None, pool: [0; POOL], start: 0, end: 0 }
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

    /// Fills `data`, or the start of it; gives the number of bytes.
    pub fn fill(&mut self, data: Option<Shared>) -> u32 {
        let (Some(device), Some(data)) = (&mut self.device, data) else { return 0 };
        let wanted = data.size().min(RANDOM_SIZE_MAX.into());
        let mut done = 0;
        while done < wanted {
            if self.start == self.end {
                self.start = 0;
                self.end = device.fill(&mut self.pool);
                if self.end == 0 {
                    break;
                }
            }
            let (Some(rest), Some(fresh)) = (data.piece(done, wanted - done), self.pool.get_mut(self.start..self.end))
            else {
                break;
            };
            let count = rest.write(fresh);
            // What one client got, no other gets.
            fresh.iter_mut().take(count).for_each(|byte| *byte = 0);
            self.start += count;
            done += count as u64;
        }
        done as u32
    }
}
