//! Bundles of made-up images, read back as EL2 reads them.

use super::*;
use crate::system::reader::parse;

const TWO_GUESTS: &str = r#"
board = "qemu-virt"

[[vm]]
name = "alpha"
memory = "64 MiB"
cores = [0, 1]
kernel = "kernel"
initrd = "initrd"
command_line = "console=ttyAMA0"

[[vm.device]]
kind = "pl011"

[[vm]]
name = "beta"
memory = "32 MiB"
cores = [2]
kernel = "kernel"
initrd = "initrd"
"#;

/// A kernel that is a raw binary, and an initrd.
struct TestImages;

impl Images for TestImages {
    fn kernel(&self, name: &str, _directory: &Path) -> Result<PathBuf, String> {
        match name {
            "kernel" => Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/invalid/small.kernel")),
            _ => Err("nobody made it; make it".to_string()),
        }
    }

    fn initrd(&self, _name: &str, _vm: &VmSource, _directory: &Path) -> Result<Contents, String> {
        Ok(Contents::Bytes(b"initrd".to_vec()))
    }
}

fn build(text: &str, extra_command_line: &str) -> Result<Bundle, Problems> {
    let source = parse(Path::new("two.toml"), text)?;
    bundle(&source, &TestImages, &BundleOptions { extra_command_line: extra_command_line.to_string() })
}

#[test]
fn the_manifest_in_the_bundle_is_the_system() {
    let bundle = build(TWO_GUESTS, "").unwrap();
    assert_eq!(manifest::Bundle::new(&bundle.cpio).manifest().unwrap(), bundle.system);
    assert_eq!(bundle.system.name, "two");
}

#[test]
fn a_guest_is_loaded_as_qemu_loads_it() {
    let bundle = build(TWO_GUESTS, "").unwrap();
    let alpha = &bundle.system.vms[0];
    let loads: Vec<_> = alpha.loads.iter().map(|load| (load.file.as_str(), load.address)).collect();
    let (kernel, initrd) = (("kernel.kernel", 0x4008_0000), ("initrd.initrd", 0x4200_0000));
    assert_eq!(loads, [kernel, initrd, ("alpha.dtb", 0x4220_0000), ("alpha.dtb", 0x4000_0000)]);
    assert_eq!((alpha.entry, alpha.device_tree), (0x4008_0000, 0x4220_0000));
}

#[test]
fn seeds_are_guest_addresses_within_the_device_trees() {
    let bundle = build(TWO_GUESTS, "").unwrap();
    for vm in &bundle.system.vms {
        let size = manifest::Bundle::new(&bundle.cpio).find(&format!("{}.dtb", vm.name)).unwrap().len() as u64;
        // A raw binary has two device trees, and each its own random bytes.
        for base in [vm.device_tree, 0x4000_0000] {
            let tree = Span::new(base, size);
            let seeds = vm.seeds.iter().filter(|seed| tree.contains(Span::new(seed.address, seed.size.into())));
            assert_eq!(seeds.count(), 2);
        }
        assert_eq!(vm.seeds.len(), 4);
    }
}

#[test]
fn guests_share_what_is_the_same() {
    let bundle = build(TWO_GUESTS, "").unwrap();
    let names: Vec<_> =
        manifest::Bundle::new(&bundle.cpio).entries().map(|entry| entry.unwrap().name.to_string()).collect();
    assert_eq!(names, ["manifest.bin", "kernel.kernel", "initrd.initrd", "alpha.dtb", "beta.dtb"]);
}

#[test]
fn the_command_line_is_that_of_the_file_and_the_caller_and_the_guests_identity() {
    let bundle = build(TWO_GUESTS, "bulkhead.selfcheck").unwrap();
    let bootargs = |name| {
        let bytes = manifest::Bundle::new(&bundle.cpio).find(name).unwrap();
        let tree = fdt::Fdt::new(bytes).unwrap();
        tree.chosen().bootargs().unwrap().to_string()
    };
    assert_eq!(
        bootargs("alpha.dtb"),
        "console=ttyAMA0 bulkhead.selfcheck bulkhead.name=alpha bulkhead.vcpus=2 bulkhead.memory=67108864"
    );
    assert_eq!(bootargs("beta.dtb"), "bulkhead.selfcheck bulkhead.name=beta bulkhead.vcpus=1 bulkhead.memory=33554432");
}

#[test]
fn what_the_images_say_is_told_with_file_and_line() {
    let problem = build(&TWO_GUESTS.replacen("\"kernel\"", "\"none\"", 1), "").unwrap_err();
    assert_eq!(
        problem.to_string(),
        "two.toml:8: the kernel \"none\" of vm \"alpha\" is missing: nobody made it; make it"
    );
}

#[test]
fn the_same_system_gives_the_same_bytes() {
    assert_eq!(build(TWO_GUESTS, "").unwrap().cpio, build(TWO_GUESTS, "").unwrap().cpio);
}

#[test]
fn every_system_of_the_repository_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/systems");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let systems: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(!systems.is_empty());
    for path in systems {
        if let Err(problem) = crate::system::load(&path, &|_| Ok(())) {
            panic!("{problem}");
        }
    }
}
