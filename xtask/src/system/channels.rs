//! The channels of driver domains: who is served by which.

use manifest::{Device, Service};

use super::{Source, VmSource, backend::Client};

/// A channel of a driver domain, with its client.
pub(crate) struct Channel<'a> {
    pub(crate) service: &'a Service,
    pub(crate) vm: &'a VmSource,
    pub(crate) device: &'a Device,
    pub(crate) client: &'a Client,
}

impl Source {
    /// Every channel of the system, in the order of the clients.
    pub(crate) fn channels(&self) -> impl Iterator<Item = Channel<'_>> {
        self.vms.iter().flat_map(VmSource::channels)
    }
}

impl VmSource {
    /// The channels of this machine's devices.
    pub(crate) fn channels(&self) -> impl Iterator<Item = Channel<'_>> {
        self.devices.iter().zip(&self.clients).filter_map(|(device, client)| {
            Some(Channel { service: device.service.as_ref()?, vm: self, device, client: client.as_ref()? })
        })
    }
}
