//! The virtio slots of one virtual machine: which device has which.

use manifest::{Assigned, Span};
use toml::Spanned;
use vdev::guest_map::{VIRTIO_SLOTS, VIRTIO_STRIDE, virtio_address, virtio_intid};

use super::form::DeviceForm;

/// The slots that no device has yet.
pub(crate) struct Slots {
    /// Addresses that the system states, whatever is there.
    stated: Vec<u64>,
    /// The machine's real devices: their addresses and interrupts are theirs.
    real: Vec<Assigned>,
    next: u32,
}

impl Slots {
    /// All but those that a device of `forms` asks for by address, or that a real device has.
    pub(crate) fn new(forms: &[Spanned<DeviceForm>], real: &[Assigned]) -> Self {
        let address = |form: &Spanned<DeviceForm>| form.get_ref().address.as_ref().map(|address| *address.get_ref());
        Self { stated: forms.iter().filter_map(address).collect(), real: real.to_vec(), next: 0 }
    }

    /// All of them.
    pub(crate) const fn all() -> Self {
        Self { stated: Vec::new(), real: Vec::new(), next: 0 }
    }

    /// Address and interrupt of the next free slot, if there is one.
    pub(crate) fn next(&mut self) -> Option<(u64, Option<u32>)> {
        let is_real = |slot: u32, address: u64| {
            self.real.iter().any(|device| {
                device.span().overlaps(Span::new(address, VIRTIO_STRIDE))
                    || virtio_intid(slot).is_some_and(|intid| device.interrupts.contains(&intid))
            })
        };
        let free = |slot: &u32| {
            virtio_address(*slot).is_some_and(|address| !self.stated.contains(&address) && !is_real(*slot, address))
        };
        let slot = (self.next..VIRTIO_SLOTS).find(free);
        self.next = slot.map_or(VIRTIO_SLOTS, |slot| slot + 1);
        Some((virtio_address(slot?)?, virtio_intid(slot?)))
    }

    /// The number of the slot at `address`, if there is one.
    pub(crate) fn at(address: u64) -> Option<u32> {
        (0..VIRTIO_SLOTS).find(|slot| virtio_address(*slot) == Some(address))
    }

    /// The interrupt of the slot at `address`; of the first one, where no slot is.
    pub(crate) fn interrupt_at(address: u64) -> Option<u32> {
        virtio_intid(Self::at(address).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_in_order_and_stated_ones_left_out() {
        let mut slots = Slots { stated: vec![0x0a00_1000], ..Slots::all() };
        assert_eq!(slots.next(), Some((0x0a00_0000, Some(48))));
        assert_eq!(slots.next(), Some((0x0a00_2000, Some(64))));
    }

    #[test]
    fn what_a_real_device_has_is_left_out() {
        let board = platform::find("qemu-virt").expect("the board is known");
        let device = board.devices.iter().find(|device| device.name == "virtio-mmio").expect("it has slots");
        let mut real = crate::system::reader::all_of(device);
        // A page, and an interrupt.
        (real.address, real.size, real.interrupts) = (0x0a00_2000, 0x1000, vec![56]);
        let mut slots = Slots { real: vec![real], ..Slots::all() };
        let found = [slots.next(), slots.next()];
        assert_eq!(found, [Some((0x0a00_0000, Some(48))), Some((0x0a00_3000, Some(72)))]);
    }

    #[test]
    fn there_are_32() {
        let mut slots = Slots::all();
        let given: Vec<_> = (0..40).map_while(|_| slots.next()).collect();
        assert_eq!((given.len(), given.last()), (32, Some(&(0x0a01_f000, Some(79)))));
    }
}
