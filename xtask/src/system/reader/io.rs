//! Reads what a system says of disks, of the network, and of what stands behind para-virtual devices.

use manifest::Span;
use std::path::{Path, PathBuf};
use toml::Spanned;

use super::Reader;
use crate::system::{
    Problem,
    backend::{Backend, Client, Mac, Slice},
    form::{CardForm, DeviceForm, DiskForm, PartitionForm, RangeForm},
    ip::{Addressing, DHCP, Network, Stated},
    problem::{choice, nearest},
    size::{Rate, Size, show_size},
    source::Card,
    storage::{Content, Disk, PARTITION_UNIT, SECTOR_SIZE},
    virtio::{DeviceKind, VirtioKind},
};

/// The uplink: QEMU's user network.
const USER: &str = "user";
/// The longest name of a partition in a GPT, in characters (UEFI 2.10, 5.3.3); disks keep to it as well.
const NAME_LENGTH_MAX: usize = 36;
/// Of the board's 32 slots, network card, entropy and console take one each.
pub(super) const DISKS_MAX: usize = 29;
/// A table's entries (UEFI 2.10, 5.3.1: 16 KiB of them).
const PARTITIONS_MAX: usize = 128;

impl Reader<'_> {
    /// Reads a disk, which comes after `disks`.
    pub(super) fn disk(&self, disks: &[Disk], form: Spanned<DiskForm>) -> Result<Disk, Problem> {
        let span = form.span();
        let form = form.into_inner();
        let name = self.name(&form.name, "a disk")?;
        if disks.iter().any(|other| other.name == name) {
            let sentence = format!("two disks have the name {name:?}; rename one of them");
            return Err(self.problem(form.name.span(), sentence));
        }
        let (size, file) = match (&form.size, &form.image) {
            (Some(size), None) => (self.disk_size(&name, size)?, None),
            (None, Some(image)) => {
                let (size, file) = self.disk_image(&name, image)?;
                (size, Some(file))
            }
            (None, None) => {
                let sentence =
                    format!("disk {name:?} lacks the key \"size\"; add it, or image = \"FILE\" for one that is there");
                return Err(self.problem(span, sentence));
            }
            (Some(size), Some(_)) => {
                let sentence = format!("disk {name:?} has an image, which has a size; remove the key \"size\"");
                return Err(self.problem(size.span(), sentence));
            }
        };
        if let (Some(_), Some(partition)) = (&file, form.partition.first()) {
            let sentence = format!(
                "disk {name:?} has an image, and nothing is added to it; remove this section, and give its user a range, \
                 or all of the disk"
            );
            return Err(self.problem(partition.span(), sentence));
        }
        let mut disk = Disk {
            name,
            size,
            partitions: Vec::new(),
            file,
            owner: form.owner.map(Spanned::into_inner),
            line: Some(span.into()),
        };
        let owner = format!("disk {:?}", disk.name);
        for partition in self.bounded(form.partition, PARTITIONS_MAX, &owner, "partitions") {
            self.findings.keep(self.partition(&mut disk, partition.into_inner()));
        }
        Ok(disk)
    }

    /// The bytes of a disk that is made.
    fn disk_size(&self, name: &str, size: &Spanned<Size>) -> Result<u64, Problem> {
        let bytes = size.get_ref().0;
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_SIZE) {
            let sentence = format!("the size of disk {name:?} is no multiple of {SECTOR_SIZE} bytes; round it up");
            return Err(self.problem(size.span(), sentence));
        }
        Ok(bytes)
    }

    /// The bytes of a disk that is there, and its file, whose name is relative to the system's.
    fn disk_image(&self, name: &str, image: &Spanned<String>) -> Result<(u64, PathBuf), Problem> {
        let path = self.findings.text.path().parent().unwrap_or(Path::new("")).join(image.get_ref());
        let refused = |reason: &str| {
            let sentence = format!("the image of disk {name:?} is missing: {} {reason}", path.display());
            Err(self.problem(image.span(), sentence))
        };
        match std::fs::metadata(&path) {
            Ok(found) if !found.is_file() => {
                refused("is no file; write the path of one, relative to the system's file")
            }
            Ok(found) if found.len() == 0 => refused("is empty; give it a size with `truncate -s`"),
            // QEMU counts whole sectors, and so does the guest.
            Ok(found) => Ok((found.len().checked_next_multiple_of(SECTOR_SIZE).unwrap_or(found.len()), path)),
            Err(_) => refused("cannot be found; write the path of a file, relative to the system's file"),
        }
    }

    /// Reads a card with an owner.
    pub(super) fn card(&self, form: Spanned<CardForm>) -> Result<Card, Problem> {
        let line = Some(form.span().into());
        let form = form.into_inner();
        let mac = form.mac.as_ref().map(|mac| self.mac(mac)).transpose()?.map(|mac| mac.0);
        let addressing = self.addressing("the card", form.ip_address.as_ref(), form.gateway.as_ref())?;
        Ok(Card { owner: form.owner, mac, addressing, line })
    }

    fn partition(&self, disk: &mut Disk, form: PartitionForm) -> Result<(), Problem> {
        let name = self.name(&form.name, "a partition")?;
        let whole = disk.name.clone();
        if disk.partitions.iter().any(|other| other.name == name) {
            let sentence = format!("two partitions of disk {whole:?} have the name {name:?}; rename one of them");
            return Err(self.problem(form.name.span(), sentence));
        }
        let size = form.size.get_ref().0;
        if size == 0 || !size.is_multiple_of(PARTITION_UNIT) {
            let sentence =
                format!("the size of partition {name:?} of disk {whole:?} is no multiple of 4 KiB; round it up");
            return Err(self.problem(form.size.span(), sentence));
        }
        let content = form.content.map(|content| self.content(&content)).transpose()?;
        disk.add(name, size, content).map_err(|end| self.problem(form.size.span(), format!("the disk {whole:?} {end}")))
    }

    fn content(&self, name: &Spanned<String>) -> Result<Content, Problem> {
        Content::ALL.into_iter().find(|content| content.name() == name.get_ref()).ok_or_else(|| {
            let choice = choice(name.get_ref(), Content::ALL.map(Content::name));
            let sentence = format!("the content {:?} is not known; {choice}", name.get_ref());
            self.problem(name.span(), sentence)
        })
    }

    fn name(&self, name: &Spanned<String>, what: &str) -> Result<String, Problem> {
        let text = name.get_ref();
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
            return Ok(text.clone());
        }
        let sentence = format!(
            "{text:?} cannot be the name of {what}; use 1 to {NAME_LENGTH_MAX} characters out of a-z, 0-9 and -"
        );
        Err(self.problem(name.span(), sentence))
    }

    /// Reads the network's uplink.
    pub(super) fn uplink(&self, name: &Spanned<String>) -> Result<bool, Problem> {
        if name.get_ref() == USER {
            return Ok(true);
        }
        let sentence = format!("the uplink {:?} is not known; {}", name.get_ref(), choice(name.get_ref(), [USER]));
        Err(self.problem(name.span(), sentence))
    }

    /// Reads what stands behind a device, if it is para-virtual. A kind that nobody knows is refused later.
    pub(super) fn client(&self, vm: &str, form: &DeviceForm, disks: &[Disk]) -> Result<Option<Client>, Problem> {
        let Some(kind) = DeviceKind::find(form.kind.get_ref()) else { return Ok(None) };
        self.check_keys(vm, form, kind)?;
        let DeviceKind::Virtio(kind) = kind else { return Ok(None) };
        let backend = match kind {
            VirtioKind::Block => self.block(vm, form, disks)?,
            VirtioKind::Network => Backend::Network { rate_limit: self.rate_limit(form.rate_limit.as_ref())? },
            VirtioKind::Console => Backend::Console,
            VirtioKind::Entropy => Backend::Entropy,
            VirtioKind::Socket => self.socket(vm, form)?,
        };
        let mac = form.mac.as_ref().map(|mac| self.mac(mac)).transpose()?;
        let card = format!("device {:?} of vm {vm:?}", form.kind.get_ref());
        let addressing = self.addressing(&card, form.ip_address.as_ref(), form.gateway.as_ref())?;
        Ok(Some(Client {
            driver: form.driver.as_ref().map(|driver| driver.get_ref().clone()),
            backend,
            queues: form.queues.as_ref().map_or(kind.needs().queues, |queues| *queues.get_ref()),
            mac: mac.map(|mac| mac.0),
            addressing,
        }))
    }

    /// Refuses keys that belong to another kind of device.
    fn check_keys(&self, vm: &str, form: &DeviceForm, kind: DeviceKind) -> Result<(), Problem> {
        let is = |wanted: VirtioKind| matches!(kind, DeviceKind::Virtio(kind) if kind == wanted);
        let (block, network, socket) = (is(VirtioKind::Block), is(VirtioKind::Network), is(VirtioKind::Socket));
        let takes_text = matches!(kind, DeviceKind::Emulated(kind) if kind.configuration_max > 0);
        let keys = [
            ("configuration", form.configuration.as_ref().map(|key| key.span()), takes_text),
            ("driver", form.driver.as_ref().map(|key| key.span()), matches!(kind, DeviceKind::Virtio(_))),
            ("disk", form.disk.as_ref().map(|key| key.span()), block),
            ("partition", form.partition.as_ref().map(|key| key.span()), block),
            ("range", form.range.as_ref().map(|key| key.span()), block),
            ("ram_disk", form.ram_disk.as_ref().map(|key| key.span()), block),
            ("read_only", form.read_only.as_ref().map(|key| key.span()), block),
            ("shared", form.shared.as_ref().map(|key| key.span()), block),
            ("queues", form.queues.as_ref().map(|key| key.span()), block),
            ("mac", form.mac.as_ref().map(|key| key.span()), network),
            ("ip_address", form.ip_address.as_ref().map(|key| key.span()), network),
            ("gateway", form.gateway.as_ref().map(|key| key.span()), network),
            ("rate_limit", form.rate_limit.as_ref().map(|key| key.span()), network),
            ("cid", form.cid.as_ref().map(|key| key.span()), socket),
            ("peers", form.peers.as_ref().map(|key| key.span()), socket),
        ];
        for (key, line, is_known) in keys {
            if let (Some(line), false) = (line, is_known) {
                let kind = form.kind.get_ref();
                let sentence = format!("the key {key:?} says nothing about device {kind:?} of vm {vm:?}; remove it");
                return Err(self.problem(line, sentence));
            }
        }
        Ok(())
    }

    fn block(&self, vm: &str, form: &DeviceForm, disks: &[Disk]) -> Result<Backend, Problem> {
        let kind = form.kind.get_ref();
        let refused = |line, reason: String| Err(self.problem(line, format!("device {kind:?} of vm {vm:?} {reason}")));
        let is_set = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| *flag.get_ref());
        let read_only = is_set(&form.read_only);
        match (&form.disk, &form.ram_disk) {
            (Some(name), None) => {
                let named = disks.iter().enumerate().find(|(_, disk)| disk.name == *name.get_ref());
                let Some((number, disk)) = named else {
                    let near = nearest(name.get_ref(), disks.iter().map(|disk| disk.name.as_str()));
                    let advice = match near {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => "add a [[disk]] section".to_string(),
                    };
                    let reason = format!("is on disk {:?}, which the system does not have; {advice}", name.get_ref());
                    return refused(name.span(), reason);
                };
                let slice = self.slice(vm, form, disk)?;
                Ok(Backend::Disk { disk: number, slice, read_only, shared: is_set(&form.shared) })
            }
            (None, Some(size)) => {
                if let Some(line) = form.partition.as_ref().map(|key| key.span()) {
                    return refused(
                        line,
                        "is a RAM disk, which has no partitions; remove the key \"partition\"".to_string(),
                    );
                }
                if let Some(line) = form.range.as_ref().map(|key| key.span()) {
                    return refused(line, "is a RAM disk of its own; remove the key \"range\"".to_string());
                }
                let bytes = size.get_ref().0;
                if bytes == 0 || !bytes.is_multiple_of(SECTOR_SIZE) {
                    let reason = format!("has a size that is no multiple of {SECTOR_SIZE} bytes; round it up");
                    return refused(size.span(), reason);
                }
                Ok(Backend::RamDisk { span: Span::new(0, bytes), read_only })
            }
            (Some(_), Some(both)) => {
                refused(both.span(), "is to be a disk and a RAM disk; choose one of them".to_string())
            }
            (None, None) => {
                let reason = "has nothing to store on; add disk = \"NAME\" or ram_disk = \"SIZE\"".to_string();
                refused(form.kind.span(), reason)
            }
        }
    }

    fn slice(&self, vm: &str, form: &DeviceForm, disk: &Disk) -> Result<Slice, Problem> {
        let (kind, whole) = (form.kind.get_ref(), &disk.name);
        match (&form.partition, &form.range) {
            (None, None) => Ok(Slice::Whole),
            (Some(name), None) => {
                let found = disk.partitions.iter().position(|partition| partition.name == *name.get_ref());
                found.map(Slice::Partition).ok_or_else(|| {
                    let known = match disk.partitions.as_slice() {
                        [] => "it has none: add a [[disk.partition]] section".to_string(),
                        all => choice(name.get_ref(), all.iter().map(|partition| partition.name.as_str())),
                    };
                    let sentence = format!(
                        "device {kind:?} of vm {vm:?} is on partition {:?}, which disk {whole:?} does not have; {known}",
                        name.get_ref()
                    );
                    self.problem(name.span(), sentence)
                })
            }
            (None, Some(range)) => {
                let RangeForm { at: Size(at), size: Size(size) } = *range.get_ref();
                let span = Span::new(at, size);
                let fits = size != 0 && at.is_multiple_of(SECTOR_SIZE) && size.is_multiple_of(SECTOR_SIZE);
                if fits && Span::new(0, disk.size).contains(span) {
                    return Ok(Slice::Range(span));
                }
                let sentence = format!(
                    "the range of device {kind:?} of vm {vm:?} is not one of whole sectors within the {} of disk \
                     {whole:?}; correct it",
                    show_size(disk.size)
                );
                Err(self.problem(range.span(), sentence))
            }
            (Some(_), Some(range)) => {
                let sentence =
                    format!("device {kind:?} of vm {vm:?} is on a partition and on a range; choose one of them");
                Err(self.problem(range.span(), sentence))
            }
        }
    }

    /// A socket device; whether its peers are there is for `sockets` to say.
    fn socket(&self, vm: &str, form: &DeviceForm) -> Result<Backend, Problem> {
        let kind = form.kind.get_ref();
        let (Some(cid), Some(peers)) = (&form.cid, &form.peers) else {
            let key = if form.cid.is_none() { "cid = 3" } else { "peers = [\"NAME\"]" };
            let sentence =
                format!("device {kind:?} of vm {vm:?} does not say who it is and to which vms it may speak; add {key}");
            return Err(self.problem(form.kind.span(), sentence));
        };
        // 0 and 0xffff_ffff are nobody and anybody, 1 is oneself, and 2 is the host (VIRTIO 1.2, 5.10.4).
        let number = u32::try_from(*cid.get_ref()).ok().filter(|number| (3..u32::MAX).contains(number));
        let Some(number) = number else {
            let sentence = format!(
                "{:#x} is no cid for device {kind:?} of vm {vm:?}; choose one from 3 to 0xfffffffe",
                cid.get_ref()
            );
            return Err(self.problem(cid.span(), sentence));
        };
        let peers = peers.get_ref().iter().map(|peer| peer.get_ref().clone()).collect();
        Ok(Backend::Socket { cid: number, peers })
    }

    fn rate_limit(&self, limit: Option<&Spanned<Rate>>) -> Result<Option<u32>, Problem> {
        let Some(limit) = limit else { return Ok(None) };
        match u32::try_from(limit.get_ref().0) {
            Ok(bytes) if bytes > 0 => Ok(Some(bytes)),
            Ok(_) | Err(_) => {
                let sentence = "a rate limit is 1 byte a second at least and less than 4 GiB; choose another, or none";
                Err(self.problem(limit.span(), sentence.to_string()))
            }
        }
    }

    /// Where the address of `card` comes from, if the system says so.
    fn addressing(
        &self,
        card: &str,
        address: Option<&Spanned<String>>,
        gateway: Option<&Spanned<String>>,
    ) -> Result<Option<Stated>, Problem> {
        let refused = |key: &Spanned<String>, sentence: String| Err(self.problem(key.span(), sentence));
        let Some(address) = address else {
            return gateway.map_or(Ok(None), |key| {
                refused(key, format!("{card} has a gateway and no address of its own; add the key \"ip_address\""))
            });
        };
        let line = Some(address.span().into());
        if address.get_ref() == DHCP {
            return gateway.map_or(Ok(Some(Stated { addressing: Addressing::Dhcp, line })), |key| {
                refused(key, format!("{card} gets its gateway with its address, by DHCP; remove the key \"gateway\""))
            });
        }
        let Some(network) = Network::parse(address.get_ref()) else {
            let text = address.get_ref();
            let sentence = format!(
                "{text:?} is no address for {card}; write one with the length of its network's prefix, such as \
                 \"10.0.2.101/24\", or {DHCP:?}"
            );
            return refused(address, sentence);
        };
        let Some(key) = gateway else {
            return Ok(Some(Stated { addressing: Addressing::Static { network, gateway: None }, line }));
        };
        let gateway = key.get_ref().parse().ok();
        let gateway = gateway.filter(|gateway| *gateway != network.address && network.contains(*gateway));
        if gateway.is_none() {
            let text = key.get_ref();
            return refused(
                key,
                format!("the gateway {text:?} of {card} is no other address of {network}; correct it"),
            );
        }
        Ok(Some(Stated { addressing: Addressing::Static { network, gateway }, line }))
    }

    fn mac(&self, text: &Spanned<String>) -> Result<Mac, Problem> {
        Mac::parse(text.get_ref()).ok_or_else(|| {
            let sentence = format!(
                "{:?} is not a mac address; write six bytes in hexadecimal, such as \"52:54:00:12:34:56\"",
                text.get_ref()
            );
            self.problem(text.span(), sentence)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::system::reader::parse;
    use std::path::Path;

    #[test]
    fn a_disk_may_be_an_image_that_is_there() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/invalid");
        let text = r#"
            board = "qemu-virt"
            [[disk]]
            name = "mine"
            image = "text.kernel"
            [[vm]]
            name = "driver"
            memory = "32 MiB"
            cores = [1]
            kernel = "guest:driver-domain"
            owns = ["virtio-mmio"]
            driver_domain = true
        "#;
        let source = parse(&fixtures.join("mine.toml"), text).expect("valid");
        let [disk] = source.disks() else { panic!("{} disks", source.disks().len()) };
        assert_eq!((disk.file.as_deref(), disk.size), (Some(fixtures.join("text.kernel").as_path()), 512));
    }
}
