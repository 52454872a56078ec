//! The report of a small system, whole.

use super::*;
use crate::system::{bundle::Image, reader::parse};
use manifest::Span;
use std::path::Path;

const SYSTEM: &str = r#"
description = "Three guests on two cores"
board = "qemu-virt"
cores = 3
memory = "1 GiB"

[[vm]]
name = "alpha"
memory = [
  { at = 0x4000_0000, size = "64 MiB", physical = 0x6000_0000 },
  { at = 0x1_0000_0000, size = "2 MiB" },
]
cores = [0, 1]
kernel = "debian"

[[vm.device]]
kind = "pl011"

[[vm]]
name = "beta"
memory = "32 MiB"
cores = [1]
kernel = "debian"
"#;

#[test]
fn it_says_who_owns_what_and_what_is_left() {
    let source = parse(Path::new("three.toml"), SYSTEM).unwrap();
    let expected = "\
System three: Three guests on two cores
Board qemu-virt: QEMU's virt machine with virtualisation extensions and a GICv3

Memory
  owner     size     guest addresses              physical addresses
  alpha     64 MiB   0x4000_0000–0x43ff_ffff      0x6000_0000–0x63ff_ffff
  alpha     2 MiB    0x1_0000_0000–0x1_001f_ffff  chosen at boot
  beta      32 MiB   0x4000_0000–0x41ff_ffff      chosen at boot
  Bulkhead  17 MiB   -                            chosen at boot
  spare     910 MiB  -                            -
  board     1 GiB    -                            0x4000_0000–0x7fff_ffff

Cores
  core  virtual cpus     use
  0     alpha 0          not shared
  1     alpha 1, beta 0  shared
  2     -                spare

Devices and interrupts
  owner  device                guest addresses          interrupt  backed by
  alpha  gicv3 distributor     0x0800_0000–0x0800_ffff  -          model
  alpha  gicv3 redistributors  0x080a_0000–0x080d_ffff  -          model
  alpha  virtual timer         -                        27         hardware, one for each cpu
  alpha  pl011                 0x0900_0000–0x0900_0fff  33         model
  beta   gicv3 distributor     0x0800_0000–0x0800_ffff  -          model
  beta   gicv3 redistributors  0x080a_0000–0x080b_ffff  -          model
  beta   virtual timer         -                        27         hardware, one for each cpu

Notes
  vm \"beta\" has no console: nothing that it prints is seen
";
    let found = report(&source, None);
    assert_eq!(found, expected, "found:\n{found}");
}

#[test]
fn with_a_bundle_it_also_says_what_starts_where() {
    let source = parse(Path::new("three.toml"), SYSTEM).unwrap();
    let image = |role, base, size| Image { role, description: "made up".to_string(), span: Span::new(base, size) };
    let images = vec![image("kernel", 0x4020_0000, 32 << 20), image("device tree", 0x4000_0000, 5000)];
    let mut system = source.skeleton();
    system.vms[0].entry = 0x4020_0000;
    let (page_sizes, own_bytes) = (Vec::new(), 1 << 20);
    let bundle = Bundle { cpio: vec![0; 5 << 20], system, images: vec![images], page_sizes, own_bytes };
    let found = report(&source, Some(&bundle));
    let expected = "
Images
  owner  role         size    guest addresses          entry        image
  alpha  kernel       32 MiB  0x4020_0000–0x421f_ffff  0x4020_0000  made up
  alpha  device tree  5 KiB   0x4000_0000–0x4000_1387  -            made up

Notes
  vm \"beta\" has no console: nothing that it prints is seen
";
    assert!(found.ends_with(expected), "found:\n{found}");
    assert!(
        found.contains("\n  bundle    5 MiB    -                            chosen by the boot loader\n"),
        "{found}"
    );
    assert!(found.contains("\n  spare     904 MiB  -                            -\n"), "{found}");
}

const WITH_DEVICES: &str = r#"
board = "qemu-virt"
memory = "512 MiB"

[[disk]]
name = "main"
size = "16 MiB"

[[disk.partition]]
name = "root"
size = "4 MiB"
content = "linux-root"

[network]
uplink = "user"

[[vm]]
name = "alpha"
memory = "32 MiB"
cores = [0]
kernel = "debian"

[[vm.device]]
kind = "virtio-blk"
disk = "main"
partition = "root"
read_only = true

[[vm.device]]
kind = "virtio-blk"
ram_disk = "1 MiB"

[[vm.device]]
kind = "virtio-net"
mac = "52:54:00:12:34:56"
rate_limit = "10 MiB"

[[vm]]
name = "driver"
memory = "16 MiB"
cores = [1]
kernel = "guest:driver-domain"
owns = ["virtio-mmio"]
driver_domain = true
"#;

#[test]
fn it_says_who_serves_whom_and_with_what() {
    let source = parse(Path::new("devices.toml"), WITH_DEVICES).unwrap();
    let expected = "
Devices and interrupts
  owner   device                guest addresses          interrupt  backed by
  alpha   gicv3 distributor     0x0800_0000–0x0800_ffff  -          model
  alpha   gicv3 redistributors  0x080a_0000–0x080b_ffff  -          model
  alpha   virtual timer         -                        27         hardware, one for each cpu
  alpha   virtio-blk            0x0a00_0000–0x0a00_0fff  48         registers: model; data: channel
  alpha   virtio-blk            0x0a00_1000–0x0a00_1fff  56         registers: model; data: channel
  alpha   virtio-net            0x0a00_2000–0x0a00_2fff  64         registers: model; data: channel
  driver  gicv3 distributor     0x0800_0000–0x0800_ffff  -          model
  driver  gicv3 redistributors  0x080a_0000–0x080b_ffff  -          model
  driver  virtual timer         -                        27         hardware, one for each cpu
  driver  doorbell              -                        112        model
  driver  virtio-mmio           0x0a00_0000–0x0a00_3fff  48–79      hardware, owned

Real devices (those of a page cannot be split)
  page                     devices            interrupts  owner   reaches           in them
  0x0901_0000–0x0901_0fff  pl031              34          -       -                 -
  0x0a00_0000–0x0a00_0fff  virtio-mmio:0-7    48–55       driver  all RAM: trusted  0: disk main, 1: uplink, 2: console, 3: entropy
  0x0a00_1000–0x0a00_1fff  virtio-mmio:8-15   56–63       driver  all RAM: trusted  -
  0x0a00_2000–0x0a00_2fff  virtio-mmio:16-23  64–71       driver  all RAM: trusted  -
  0x0a00_3000–0x0a00_3fff  virtio-mmio:24-31  72–79       driver  all RAM: trusted  -

Channels
  client  device      EL2 heap  slot  driver domain  channel  driver domain's addresses  gives
  alpha   virtio-blk  16 KiB    0     driver         0        0x5fdf_c000–0x5fff_ffff    partition root of disk main, 4 MiB, read-only
  alpha   virtio-blk  16 KiB    1     driver         1        0x5fbf_8000–0x5fdf_bfff    RAM disk, 1 MiB at 0x5fa3_3000
  alpha   virtio-net  13 KiB    2     driver         2        0x5fb3_3000–0x5fbf_7fff    port 52:54:00:12:34:56, at most 10 MiB a second

Disks
  disk  partition  size    bytes                    at first    used by
  main  -          16 MiB  0x0000_0000–0x00ff_ffff  -           -
  main  root       4 MiB   0x0010_0000–0x004f_ffff  linux-root  alpha

Uplink: QEMU's user network, through a card with the address ";
    let found = report(&source, None);
    assert!(found.contains(expected), "found:\n{found}");
}
