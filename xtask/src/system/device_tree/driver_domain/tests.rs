//! What a driver domain and its clients find in their trees, made from a system as its author writes it.

use super::{Backend, Disk, SERIAL_SIZE, Slice};
use crate::system::{BundleOptions, Contents, Images, VmSource, bundle, reader::parse};
use fdt::Fdt;
use std::path::{Path, PathBuf};

const SYSTEM: &str = r#"
board = "qemu-virt"
memory = "512 MiB"

[[disk]]
name = "first"
size = "1 MiB"

[[disk]]
name = "main"
size = "16 MiB"

[[disk.partition]]
name = "data"
size = "4 MiB"

[network]
uplink = "user"

[[vm]]
name = "driver"
memory = "16 MiB"
cores = [1]
kernel = "small"
owns = ["virtio-mmio"]
driver_domain = true

[[vm]]
name = "alpha"
memory = "32 MiB"
cores = [0]
kernel = "small"

[[vm.device]]
kind = "virtio-blk"
disk = "main"
partition = "data"
read_only = true

[[vm.device]]
kind = "virtio-blk"
disk = "first"
range = { at = 512, size = 1024 }

[[vm.device]]
kind = "virtio-blk"
ram_disk = "1 MiB"

[[vm.device]]
kind = "virtio-net"
mac = "52:54:00:12:34:56"
rate_limit = 1000

[[vm.device]]
kind = "virtio-console"

[[vm.device]]
kind = "virtio-rng"
"#;

struct SmallImages;

impl Images for SmallImages {
    fn kernel(&self, _name: &str, _directory: &Path) -> Result<PathBuf, String> {
        Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/invalid/small.kernel"))
    }

    fn initrd(&self, _name: &str, _vm: &VmSource, _directory: &Path) -> Result<Contents, String> {
        Err("there is none; make it".to_string())
    }
}

/// The device tree of the machine `name`.
fn tree(name: &str) -> Vec<u8> {
    tree_of(SYSTEM, name)
}

/// The device tree of the machine `name` of `system`.
fn tree_of(system: &str, name: &str) -> Vec<u8> {
    let source = parse(Path::new("io.toml"), system).unwrap();
    let bundle = bundle(&source, &SmallImages, &BundleOptions::default()).unwrap();
    manifest::Bundle::new(&bundle.cpio).find(&format!("{name}.dtb")).unwrap().to_vec()
}

/// A property of each channel, in the order of the channels' numbers.
fn of_channels<T>(name: &str, read: impl Fn(&[u8]) -> T) -> Vec<Option<T>> {
    let tree = tree("driver");
    let tree = Fdt::new(&tree).unwrap();
    let mut nodes: Vec<_> = tree.all_nodes().filter(|node| node.name.starts_with("channel@")).collect();
    nodes.sort_by_key(|node| node.property("bulkhead,channel").unwrap().as_usize());
    nodes.iter().map(|node| node.property(name).map(|property| read(property.value))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap().trim_end_matches('\0').to_string()
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|cell| u64::from_be_bytes(*cell)).collect()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

#[test]
fn a_driver_domain_finds_a_channel_for_each_device_of_its_clients() {
    let kinds: Vec<_> = of_channels("bulkhead,kind", text).into_iter().flatten().collect();
    assert_eq!(kinds, ["block", "block", "block", "network", "console", "entropy"]);
    assert!(of_channels("bulkhead,client", text).into_iter().all(|client| client.as_deref() == Some("alpha")));
    assert!(of_channels("compatible", text).into_iter().all(|name| name.as_deref() == Some("bulkhead,channel")));
}

#[test]
fn channels_fill_the_end_of_its_memory_downwards() {
    let spans: Vec<_> = of_channels("reg", numbers).into_iter().flatten().collect();
    let mut end = 0x6000_0000;
    for span in spans {
        assert_eq!(span[0] + span[1], end);
        end = span[0];
    }
}

#[test]
fn a_block_channel_says_which_bytes_of_which_disk_it_serves() {
    assert_eq!(of_channels("bulkhead,disk", word), [Some(1), Some(0), None, None, None, None]);
    assert_eq!(of_channels("bulkhead,partition", text)[..2], [Some("data".to_string()), None]);
    assert_eq!(of_channels("bulkhead,range", numbers)[..2], [None, Some(vec![512, 1024])]);
    assert_eq!(of_channels("bulkhead,read-only", <[u8]>::len)[..2], [Some(0), None]);
}

#[test]
fn a_ram_disk_lies_below_the_channels() {
    let ram_disk = of_channels("bulkhead,ram-disk", numbers).swap_remove(2).unwrap();
    let lowest = of_channels("reg", numbers).into_iter().flatten().map(|span| span[0]).min().unwrap();
    assert_eq!(ram_disk, [lowest - (1 << 20), 1 << 20]);
}

#[test]
fn a_network_channel_has_an_address_and_a_limit() {
    assert_eq!(of_channels("local-mac-address", <[u8]>::to_vec)[3], Some(vec![0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    assert_eq!(of_channels("bulkhead,rate-limit", word)[3], Some(1000));
}

#[test]
fn a_socket_channel_has_a_cid_and_those_of_its_peers() {
    let socket = |name: &str, core: u32, cid: u32, peers: &str| {
        format!(
            "[[vm]]\nname = \"{name}\"\nmemory = \"32 MiB\"\ncores = [{core}]\nkernel = \"small\"\n\
             [[vm.device]]\nkind = \"virtio-vsock\"\ncid = {cid}\npeers = [{peers}]\n"
        )
    };
    let alpha = socket("beta", 2, 0xffff_fffe, "\"alpha\", \"gamma\"") + &socket("gamma", 3, 5, "\"beta\"");
    let system = SYSTEM.to_owned() + "[[vm.device]]\nkind = \"virtio-vsock\"\ncid = 3\npeers = [\"beta\"]\n" + &alpha;
    let tree = tree_of(&system, "driver");
    let tree = Fdt::new(&tree).unwrap();
    let cells =
        |bytes: &[u8]| -> Vec<u32> { bytes.as_chunks().0.iter().map(|cell| u32::from_be_bytes(*cell)).collect() };
    let mut found: Vec<_> = tree
        .all_nodes()
        .filter(|node| node.property("bulkhead,kind").is_some_and(|kind| kind.as_str() == Some("socket")))
        .map(|node| {
            ["bulkhead,cid", "bulkhead,peers", "bulkhead,filled-queues"]
                .map(|name| cells(node.property(name).unwrap().value))
        })
        .collect();
    found.sort();
    let expected = [
        [vec![3], vec![0xffff_fffe], vec![0b101]],
        [vec![5], vec![0xffff_fffe], vec![0b101]],
        [vec![0xffff_fffe], vec![3, 5], vec![0b101]],
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_driver_domain_finds_every_slot_of_the_board_and_its_doorbell() {
    let tree = tree("driver");
    let tree = Fdt::new(&tree).unwrap();
    let slots: Vec<_> = tree.all_nodes().filter(|node| node.name.starts_with("virtio_mmio@")).collect();
    assert_eq!(slots.len(), 32);
    let last = tree.find_node("/virtio_mmio@a003e00").unwrap();
    assert_eq!(last.property("interrupts").unwrap().value, [0, 0, 0, 0, 0, 0, 0, 47, 0, 0, 0, 1]);
    assert_eq!(numbers(last.property("reg").unwrap().value), [0x0a00_3e00, 0x200]);
    let doorbell = tree.find_node("/doorbell").unwrap();
    assert_eq!(doorbell.compatible().unwrap().first(), abi::io::DOORBELL_COMPATIBLE);
    assert_eq!(doorbell.property("interrupts").unwrap().value, [0, 0, 0, 0, 0, 0, 0, 80, 0, 0, 0, 1]);
}

#[test]
fn a_driver_domain_finds_the_page_of_calls_where_its_system_gives_it_one() {
    let find = |system: &str| {
        let tree = tree_of(system, "driver");
        let tree = Fdt::new(&tree).unwrap();
        let page = tree.all_nodes().find(|node| {
            node.compatible().is_some_and(|names| names.all().any(|name| name == abi::io::CALLS_COMPATIBLE))
        });
        page.map(|page| numbers(page.property("reg").unwrap().value))
    };
    assert_eq!(find(SYSTEM), None);
    let with_page = |keys: &str| {
        SYSTEM.replace(
            "driver_domain = true\n",
            &format!("driver_domain = true\n[[vm.device]]\nkind = \"calls\"\n{keys}\n"),
        )
    };
    assert_eq!(find(&with_page("")), Some(vec![0x0902_0000, 0x1000]));
    assert_eq!(find(&with_page("address = 0x0b000000")), Some(vec![0x0b00_0000, 0x1000]));
}

#[test]
fn a_client_finds_one_slot_for_each_device_and_no_channel() {
    let tree = tree("alpha");
    let tree = Fdt::new(&tree).unwrap();
    let slots = tree.all_nodes().filter(|node| node.name.starts_with("virtio_mmio@")).count();
    assert_eq!(slots, 6);
    assert!(tree.find_node("/virtio_mmio@a005000").unwrap().property("dma-coherent").is_some());
    assert!(tree.all_nodes().all(|node| !node.name.starts_with("channel@") && node.name != "doorbell"));
}

#[test]
fn two_disks_have_two_serial_numbers() {
    let serials: Vec<_> = of_channels("bulkhead,serial", text).into_iter().flatten().collect();
    assert_eq!(serials.len(), 3, "{serials:?}");
    assert_eq!(serials.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{serials:?}");
    assert!(serials.iter().all(|serial| (1..=SERIAL_SIZE).contains(&serial.len())), "{serials:?}");
}

#[test]
fn a_serial_number_is_the_disks_name_or_a_number_where_that_cannot_be() {
    let disk = |name: &str| Disk {
        name: name.to_string(),
        size: 4096,
        partitions: Vec::new(),
        file: None,
        owner: None,
        line: None,
    };
    let disks = ["main", "a-name-of-more-than-twenty", "/tmp/a.img", "/tmp/b.img"].map(disk);
    let serial = |disk| {
        let backend = Backend::Disk { disk, slice: Slice::Whole, read_only: false, shared: false };
        super::serial(&backend, &disks).unwrap()
    };
    assert_eq!((serial(0).as_str(), serial(1).len()), ("main", 16));
    assert_ne!(serial(2), serial(3));
}
