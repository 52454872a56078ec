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
  Bulkhead  16 MiB   -                            chosen at boot
  spare     910 MiB  -                            -
  board     1 GiB    -                            0x4000_0000–0x7fff_ffff

Cores
  core  virtual cpus     use
  0     alpha 0          not shared
  1     alpha 1, beta 0  shared in turn
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
    let bundle = Bundle { cpio: vec![0; 5 << 20], system, images: vec![images] };
    let found = report(&source, Some(&bundle));
    let expected = "
Images
  owner  role         size    guest addresses          entry        image
  alpha  kernel       32 MiB  0x4020_0000–0x421f_ffff  0x4020_0000  made up
  alpha  device tree  5 KiB   0x4000_0000–0x4000_1387  -            made up
";
    assert!(found.ends_with(expected), "found:\n{found}");
    assert!(
        found.contains("\n  bundle    5 MiB    -                            chosen by the boot loader\n"),
        "{found}"
    );
    assert!(found.contains("\n  spare     905 MiB  -                            -\n"), "{found}");
}
