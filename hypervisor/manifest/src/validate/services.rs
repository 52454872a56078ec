//! Para-virtual devices: each has a channel of its own in the RAM of a driver domain that is another machine.

use super::{Check, broken};
use crate::{
    CHAINS_MAX, CHANNEL_SIZE_MAX, CHANNELS_MAX, Device, Name, PAGE_SIZE, Place, QUEUES_MAX, REQUESTS_MAX, Rule,
    Service, Span, System, Vm,
};
use abi::io::{FILLED_MAX, Layout, WINDOW_PAGE_SIZE};

/// A para-virtual device with its machine.
struct Client<'a> {
    vm_index: usize,
    vm: &'a Vm,
    device_index: usize,
    device: &'a Device,
    service: &'a Service,
}

impl System {
    pub(super) fn check_services(&self) -> Check<'_> {
        // At most `VMS_MAX` times `DEVICES_MAX`: the counts are checked by now. Those before each are looked at anew
        // instead of kept in a list: this also runs where there is little heap.
        self.each_check_of_services().collect()
    }

    /// The same for one client after the other.
    pub(super) fn each_check_of_services(&self) -> impl Iterator<Item = Check<'_>> {
        self.clients().enumerate().map(|(number, client)| self.check_client(number, &client))
    }

    fn check_client<'a>(&'a self, number: usize, client: &Client<'a>) -> Check<'a> {
        self.check_channel(client)?;
        client.check_allocation()?;
        for (_, other) in (0..number).zip(self.clients()) {
            if other.service.provider == client.service.provider {
                client.check_beside(&other)?;
            }
        }
        Ok(())
    }

    /// Checks that no channel of the machine `provider` lies in `span`, where its file `file` goes.
    pub(super) fn check_apart_from_channels<'a>(
        &'a self,
        provider: usize,
        file: &'a str,
        span: Span,
        place: Place,
    ) -> Check<'a> {
        let mut channels = self.clients().filter(|client| usize::from(client.service.provider) == provider);
        match channels.find(|client| client.service.span().overlaps(span)) {
            None => Ok(()),
            Some(client) => {
                let vm = Name(self.vms.get(provider).map_or("", |vm| &vm.name));
                let channel = client.service.span();
                broken(place, Rule::LoadOverChannel { vm, file: Name(file), channel })
            }
        }
    }

    fn clients(&self) -> impl Iterator<Item = Client<'_>> {
        self.vms.iter().enumerate().flat_map(|(vm_index, vm)| {
            vm.devices.iter().enumerate().filter_map(move |(device_index, device)| {
                let service = device.service.as_ref()?;
                Some(Client { vm_index, vm, device_index, device, service })
            })
        })
    }

    fn check_channel<'a>(&'a self, client: &Client<'a>) -> Check<'a> {
        let service = client.service;
        let provider = usize::from(service.provider);
        let serves = |vm: &&Vm| vm.doorbell.is_some() && provider != client.vm_index;
        let Some(provider) = self.vms.get(provider).filter(serves) else {
            let (vm, device) = client.names();
            return broken(client.place(), Rule::NoProvider { vm, device });
        };
        // With each number given once, they count from 0 without a gap.
        let beside = self.clients().filter(|other| other.service.provider == service.provider).count();
        if usize::from(service.channel) >= beside.min(CHANNELS_MAX) {
            return client.bad_number();
        }
        let channel = service.span();
        if !channel.base.is_multiple_of(PAGE_SIZE) || !channel.size.is_multiple_of(PAGE_SIZE) {
            return client.bad_channel("is not made of pages");
        }
        // Everything but the request window, and one page of that.
        let size_min = Layout::new(service.filled).request_window().saturating_add(WINDOW_PAGE_SIZE);
        if !(size_min..=CHANNEL_SIZE_MAX).contains(&channel.size) {
            return client.bad_channel("has a size that no channel has");
        }
        if !provider.has_memory(channel) {
            return client.bad_channel("does not lie in the driver domain's memory");
        }
        Ok(())
    }
}

impl<'a> Client<'a> {
    fn place(&self) -> Place {
        Place::Service(self.vm_index, self.device_index)
    }

    fn names(&self) -> (Name<'a>, Name<'a>) {
        (Name(&self.vm.name), Name(&self.device.kind))
    }

    fn bad_channel(&self, why: &'static str) -> Check<'a> {
        let (vm, device) = self.names();
        broken(self.place(), Rule::BadChannel { vm, device, channel: self.service.span(), why })
    }

    fn bad_number(&self) -> Check<'a> {
        let (vm, device) = self.names();
        broken(self.place(), Rule::ChannelNumber { vm, device, channel: self.service.channel })
    }

    fn check_allocation(&self) -> Check<'a> {
        let (vm, device) = self.names();
        let queues = self.service.queues;
        if !(1..=QUEUES_MAX).contains(&queues) {
            return broken(self.place(), Rule::Queues { vm, device, queues });
        }
        let Service { filled, requests, chains, .. } = self.service;
        let is_filled_sound = filled.checked_shr(queues.into()) == Some(0) && filled.count_ones() <= FILLED_MAX.into();
        let are_requests_sound = (1..=REQUESTS_MAX).contains(requests) && (1..=CHAINS_MAX).contains(chains);
        if !is_filled_sound || !are_requests_sound {
            return broken(self.place(), Rule::Allocation { vm, device });
        }
        Ok(())
    }

    /// Checks that this client has nothing in common with `other` of the same driver domain.
    fn check_beside(&self, other: &Self) -> Check<'a> {
        if self.service.channel == other.service.channel {
            return self.bad_number();
        }
        if self.service.span().overlaps(other.service.span()) {
            return self.bad_channel("overlaps another channel");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
