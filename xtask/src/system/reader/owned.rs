//! Reads which of the board's devices a virtual machine owns: `"pl031"`, or, of a device with several instances, all of
//! them (`"virtio-mmio"`) or some (`"virtio-mmio:16-23"`). What shares a page stays together: stage 2 maps pages.

use manifest::{Assigned, PAGE_SIZE, Span, Store, Trigger};
use platform::{Board, Dma, PhysicalDevice};
use toml::Spanned;

use super::Reader;
use crate::system::{Problem, problem::choice};

impl Reader<'_> {
    /// The devices that `name` names, which are to be those of `vm`.
    pub(super) fn owned(&self, vm: &str, name: &Spanned<String>, board: &Board) -> Result<Assigned, Problem> {
        owned(name.get_ref(), board).map_err(|end| {
            let sentence = format!("vm {vm:?} owns {:?}, {end}", name.get_ref());
            self.problem(name.span(), sentence)
        })
    }
}

/// All instances of a board's device, as their owner sees them.
pub(in crate::system) fn all_of(device: &PhysicalDevice) -> Assigned {
    instances(device, 0, device.instances.saturating_sub(1))
}

/// # Errors
/// The end of a sentence that starts with who is to own what.
fn owned(text: &str, board: &Board) -> Result<Assigned, String> {
    let (name, range) = text.split_once(':').map_or((text, None), |(name, range)| (name, Some(range)));
    let Some(device) = board.devices.iter().find(|device| device.name == name) else {
        let choice = choice(name, board.devices.iter().map(|device| device.name));
        return Err(format!("which the board {:?} does not have; {choice}", board.name));
    };
    let Some(range) = range else { return Ok(all_of(device)) };
    let last = device.instances.saturating_sub(1);
    if last == 0 {
        return Err(format!("but there is only one {name}; leave the number out"));
    }
    let (first, end) = range.split_once('-').unwrap_or((range, range));
    match (number(first), number(end)) {
        (Some(first), Some(end)) if first <= end && end <= last => whole_pages(device, first, end),
        _ => {
            Err(format!("but the board has {name}:0 to {name}:{last}; write the first and the last, as in {name}:0-7"))
        }
    }
}

/// Digits alone: `u32`'s own reader also takes a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The instances from `first` to `last`, if they have their pages to themselves.
fn whole_pages(device: &PhysicalDevice, first: u32, last: u32) -> Result<Assigned, String> {
    for instance in [first, last] {
        let (page, neighbours) = page_of(device, instance);
        if *neighbours.start() < first || *neighbours.end() > last {
            return Err(format!(
                "but {name}:{} to {name}:{} share the page {page}, which cannot be split; own all of them \
                 ({name}:{}-{}) or none",
                neighbours.start(),
                neighbours.end(),
                (*neighbours.start()).min(first),
                (*neighbours.end()).max(last),
                name = device.name,
            ));
        }
    }
    Ok(instances(device, first, last))
}

/// The page that instance `number` begins in, and which instances lie there.
pub(in crate::system) fn page_of(device: &PhysicalDevice, number: u32) -> (Span, std::ops::RangeInclusive<u32>) {
    let size = device.instance_size().max(1);
    let per_page = u32::try_from(PAGE_SIZE.checked_div(size).unwrap_or(1)).unwrap_or(1).max(1);
    let first = number.saturating_sub(number.checked_rem(per_page).unwrap_or(0));
    let last = first.saturating_add(per_page).min(device.instances).saturating_sub(1);
    let base = device.base.saturating_add(size.saturating_mul(first.into()));
    (Span::new(base, size.max(PAGE_SIZE)), first..=last)
}

fn instances(device: &PhysicalDevice, first: u32, last: u32) -> Assigned {
    let size = device.instance_size();
    let interrupt = |instance: u32| device.interrupt.saturating_add(instance);
    Assigned {
        name: device.name.to_string(),
        address: device.base.saturating_add(size.saturating_mul(first.into())),
        size: size.saturating_mul((first..=last).count() as u64),
        instance_size: size,
        interrupts: (first..=last).map(interrupt).collect(),
        trigger: match device.trigger {
            platform::Trigger::Edge => Trigger::Edge,
            platform::Trigger::Level => Trigger::Level,
        },
        dma: device.dma != Dma::None,
        silence: device.silence.iter().map(|&(offset, value)| Store { offset, value }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_virt(text: &str) -> Result<Assigned, String> {
        owned(text, platform::find("qemu-virt").unwrap())
    }

    #[test]
    fn a_device_is_owned_by_its_name() {
        let clock = on_virt("pl031").unwrap();
        assert_eq!((clock.address, clock.interrupts.as_slice()), (0x0901_0000, [34].as_slice()));
        assert!(!clock.dma);
        let slots = on_virt("virtio-mmio").unwrap();
        assert_eq!((slots.address, slots.size, slots.interrupts.len()), (0x0a00_0000, 0x4000, 32));
        assert!(slots.dma);
    }

    #[test]
    fn instances_are_owned_by_the_page() {
        let slots = on_virt("virtio-mmio:16-23").unwrap();
        assert_eq!((slots.address, slots.size, slots.instance_size), (0x0a00_2000, 0x1000, 0x200));
        assert_eq!(slots.interrupts, [64, 65, 66, 67, 68, 69, 70, 71]);
        assert_eq!(on_virt("virtio-mmio:0-31"), on_virt("virtio-mmio"));
    }

    #[test]
    fn a_page_is_not_split() {
        let end = "but virtio-mmio:8 to virtio-mmio:15 share the page 0x0a00_1000–0x0a00_1fff, which cannot be split; own \
                   all of them (virtio-mmio:8-15) or none";
        for text in ["virtio-mmio:8", "virtio-mmio:8-14", "virtio-mmio:9-15"] {
            assert_eq!(on_virt(text).unwrap_err(), end, "{text}");
        }
        let end = on_virt("virtio-mmio:0-8").unwrap_err();
        assert!(end.ends_with("own all of them (virtio-mmio:0-15) or none"), "{end}");
    }

    #[test]
    fn what_the_board_does_not_have_is_refused() {
        for text in ["virtio-mmio:32", "virtio-mmio:24-32", "virtio-mmio:7-0", "virtio-mmio:", "virtio-mmio:+0-7"] {
            let end = on_virt(text).unwrap_err();
            assert!(end.starts_with("but the board has virtio-mmio:0 to virtio-mmio:31; "), "{text}: {end}");
        }
        assert_eq!(on_virt("pl031:0").unwrap_err(), "but there is only one pl031; leave the number out");
        assert!(on_virt("nvme").unwrap_err().ends_with("choose one of these: pl031, virtio-mmio"));
    }
}
