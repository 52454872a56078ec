//! Debian's Xen as the peer: the measuring guest as its only domain, started by Xen itself ("dom0less").
//!
//! Xen finds its domains in the board's device tree (docs/misc/arm/device-tree/booting.txt in Xen's source): QEMU's own
//! tree gets a node for the domain, and QEMU's loader puts the guest's image where that node says.

use crate::{qemu, workspace::Workspace};
use anyhow::{Context, anyhow, ensure};
use fdt::{Fdt, node::FdtNode};
use std::{path::Path, process::Command};
use vm_fdt::{Error, FdtWriter};

const MACHINE: &str = "virt,virtualization=on,gic-version=3";
/// Clear of Xen, of QEMU's device tree, and of what Xen gives to the domain.
const IMAGE_ADDRESS: u64 = 0x5800_0000;
const GUEST_KIB: u64 = 64 << 10;
/// What Xen puts before each line of its first domain.
const GUEST_PREFIX: &str = "(XEN) DOM1: ";

/// One way to start Xen. Each has the setting that is fastest for it: a virtual CPU with a core of its own need not
/// leave it in WFI, two on one core must.
struct Setting {
    name: &'static str,
    cores: u8,
    options: &'static str,
    command_line: &'static str,
}

const SETTINGS: [Setting; 2] = [
    Setting { name: "alone", cores: 2, options: " vwfi=native", command_line: "" },
    Setting { name: "shared", cores: 1, options: "", command_line: "bench=shared" },
];

/// The commands that start the guest under the Xen `image`.
///
/// # Errors
/// When QEMU does not describe its board, or the description cannot be extended.
pub(super) fn commands(workspace: &Workspace, cpu: &str, image: &Path, guest: &Path) -> anyhow::Result<Vec<Command>> {
    let directory = workspace.cache().join("bench/xen");
    std::fs::create_dir_all(&directory).with_context(|| format!("{} cannot be created", directory.display()))?;
    let guest_size = std::fs::metadata(guest).with_context(|| format!("{} cannot be read", guest.display()))?.len();
    SETTINGS
        .iter()
        .map(|setting| {
            let board = directory.join(format!("{}.board.dtb", setting.name));
            describe_board(cpu, setting.cores, &board)?;
            let tree = extend(&std::fs::read(&board)?, &Domain { setting, guest_size })?;
            let path = directory.join(format!("{}.dtb", setting.name));
            std::fs::write(&path, tree).with_context(|| format!("{} cannot be written", path.display()))?;
            let mut command = qemu::reproducible(MACHINE, cpu, setting.cores);
            command.arg("-kernel").arg(image).arg("-dtb").arg(&path).arg("-device");
            command.arg(format!("loader,file={},addr={IMAGE_ADDRESS:#x},force-raw=on", guest.display()));
            Ok(command)
        })
        .collect()
}

/// What the guest printed in a line of Xen's console; nothing where Xen itself speaks.
pub(super) fn guest_line(line: &str) -> &str {
    line.strip_prefix(GUEST_PREFIX).unwrap_or("")
}

/// Lets QEMU write its own device tree to `path`.
fn describe_board(cpu: &str, cores: u8, path: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(qemu::PROGRAM);
    let machine = format!("{MACHINE},dtb-randomness=off,dumpdtb={}", path.display());
    command.args(["-M", &machine, "-cpu", cpu, "-smp", &cores.to_string(), "-m", "512M"]);
    let output = command.args(["-display", "none", "-nic", "none"]).output().context("QEMU could not be started")?;
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && path.is_file(), "QEMU does not describe its board: {}", reason.trim());
    Ok(())
}

/// The domain that Xen is to start.
struct Domain<'a> {
    setting: &'a Setting,
    guest_size: u64,
}

/// QEMU's device tree with `/chosen` for Xen.
fn extend(tree: &[u8], domain: &Domain<'_>) -> anyhow::Result<Vec<u8>> {
    let parsed = Fdt::new(tree).map_err(|error| anyhow!("QEMU's device tree cannot be read: {error}"))?;
    let root = parsed.find_node("/").context("QEMU's device tree has no root")?;
    let write = || {
        let mut writer = FdtWriter::new()?;
        copy(&mut writer, "", root, domain)?;
        writer.finish()
    };
    write().map_err(|error: Error| anyhow!("the device tree for Xen cannot be written: {error}"))
}

fn copy(writer: &mut FdtWriter, name: &str, node: FdtNode<'_, '_>, domain: &Domain<'_>) -> Result<(), Error> {
    let open = writer.begin_node(name)?;
    for property in node.properties() {
        writer.property(property.name, property.value)?;
    }
    if name == "chosen" {
        write_domain(writer, domain)?;
    }
    for child in node.children() {
        copy(writer, child.name, child, domain)?;
    }
    writer.end_node(open)
}

/// What Xen reads in `/chosen`: its own command line, and one node for each domain.
fn write_domain(writer: &mut FdtWriter, domain: &Domain<'_>) -> Result<(), Error> {
    let Setting { options, command_line, .. } = domain.setting;
    let strings = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
    writer.property_u32("#address-cells", 2)?;
    writer.property_u32("#size-cells", 2)?;
    let options = format!("console=dtuart dtuart=/pl011@9000000 bootscrub=0{options}");
    writer.property_string("xen,xen-bootargs", &options)?;

    let node = writer.begin_node("domain1")?;
    writer.property_string("compatible", "xen,domain")?;
    writer.property_u32("#address-cells", 2)?;
    writer.property_u32("#size-cells", 2)?;
    writer.property_u32("cpus", 2)?;
    writer.property_u64("memory", GUEST_KIB)?;
    writer.property_null("vpl011")?;
    let module = writer.begin_node(&format!("module@{IMAGE_ADDRESS:x}"))?;
    writer.property_string_list("compatible", strings(["multiboot,kernel", "multiboot,module"]))?;
    writer.property_array_u64("reg", &[IMAGE_ADDRESS, domain.guest_size])?;
    writer.property_string("bootargs", command_line)?;
    writer.end_node(module)?;
    writer.end_node(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small_tree() -> Vec<u8> {
        let write = || {
            let mut writer = FdtWriter::new()?;
            let root = writer.begin_node("")?;
            writer.property_u32("#address-cells", 2)?;
            let chosen = writer.begin_node("chosen")?;
            writer.property_string("stdout-path", "/pl011@9000000")?;
            writer.end_node(chosen)?;
            let uart = writer.begin_node("pl011@9000000")?;
            writer.property_array_u64("reg", &[0x0900_0000, 0x1000])?;
            writer.end_node(uart)?;
            writer.end_node(root)?;
            writer.finish()
        };
        write().map_err(|error: Error| error.to_string()).expect("a device tree")
    }

    #[test]
    fn xen_finds_its_domain_and_the_board_as_it_was() {
        let bytes = extend(&small_tree(), &Domain { setting: &SETTINGS[1], guest_size: 0x1234 }).expect("extended");
        let tree = Fdt::new(&bytes).expect("a device tree");
        let domain = tree.find_node("/chosen/domain1").expect("a domain");
        assert_eq!(domain.property("compatible").and_then(|value| value.as_str()), Some("xen,domain"));
        let module = tree.find_node("/chosen/domain1/module@58000000").expect("its kernel");
        let reg: Vec<u8> = [0x5800_0000_u64, 0x1234].iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(module.property("reg").map(|value| value.value), Some(reg.as_slice()));
        let uart = tree.find_node("/pl011@9000000").expect("the board's UART");
        assert_eq!(uart.property("reg").map(|value| value.value.len()), Some(16));
        assert!(tree.find_node("/chosen").expect("chosen").property("stdout-path").is_some());
    }

    #[test]
    fn xens_own_lines_are_not_the_guests() {
        assert_eq!(guest_line("(XEN) DOM1: bench hvc rounds=1 total=2 loop=3"), "bench hvc rounds=1 total=2 loop=3");
        assert_eq!(guest_line("(XEN) Brought up 2 CPUs"), "");
    }
}
