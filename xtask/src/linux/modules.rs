//! The kernel modules that a Linux guest with virtio devices needs, and the order to load them in.
//!
//! Debian's kernel package comes without `modules.dep` (depmod writes that when the package is installed), so the order
//! is found from what each module says of itself in its section `.modinfo` (Linux: scripts/mod/modpost.c).

use anyhow::{Context, ensure};
use object::{Object, ObjectSection};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What a guest with devices loads, besides what these depend on. The console comes first, since it may be the only
/// one. `crc32c_generic` is no dependency that a module names: ext4 asks for the algorithm `crc32c` by its name.
pub(crate) const WANTED: &[&str] = &[
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
    "virtio_net",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
];
/// What the modules have in their names that only a guest with a socket device loads.
const SOCKETS: &str = "vsock";
/// More directories inside each other than a kernel package has.
const DEPTH_MAX: u32 = 16;

/// What ends a signed module (Linux: include/linux/module_signature.h). Before it stands a `struct module_signature` of
/// 12 bytes, whose last four are the size of the signature before that, big-endian.
const SIGNATURE_MARKER: &[u8] = b"~Module signature appended~\n";
const SIGNATURE_HEADER_BYTES: usize = 12;

/// Whether the module file `path` is of use only to a guest with a socket device.
pub(crate) fn is_for_sockets(path: &str) -> bool {
    path.contains(SOCKETS)
}

/// `module` without its signature. Checking a dozen of them is most of what loading the modules takes an emulated
/// guest, and Debian's kernel only notes that there is none.
pub(crate) fn without_signature(module: &[u8]) -> &[u8] {
    let stripped = || {
        let signed = module.strip_suffix(SIGNATURE_MARKER)?;
        let (rest, header) = signed.split_at_checked(signed.len().checked_sub(SIGNATURE_HEADER_BYTES)?)?;
        let size = u32::from_be_bytes(*header.last_chunk()?);
        rest.get(..rest.len().checked_sub(usize::try_from(size).ok()?)?)
    };
    stripped().unwrap_or(module)
}

/// The modules below `directory` in the order to load them, as pairs of name and file. A module that is not there
/// counts as built into the kernel.
///
/// # Errors
/// When a file cannot be read or is no module, or modules depend on each other in a circle.
pub(crate) fn in_load_order(directory: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut files = BTreeMap::new();
    collect(directory, DEPTH_MAX, &mut files)?;
    let mut order = Vec::new();
    for name in WANTED {
        visit(name, &|name| dependencies_of(&files, name), &mut Vec::new(), &mut order)?;
    }
    Ok(order.into_iter().filter_map(|name| files.get(&name).cloned().map(|file| (name, file))).collect())
}

/// The module files below `directory`, by module name.
fn collect(directory: &Path, depth: u32, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    ensure!(depth > 0, "{} lies deeper than any module", directory.display());
    let entries = fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, depth - 1, files)?;
        } else if let Some(stem) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
            files.insert(module_name(stem), path);
        }
    }
    Ok(())
}

/// The name that other modules use: Linux takes `-` and `_` for the same character in it.
fn module_name(stem: &str) -> String {
    stem.replace('-', "_")
}

fn dependencies_of(files: &BTreeMap<String, PathBuf>, name: &str) -> anyhow::Result<Vec<String>> {
    let Some(path) = files.get(name) else { return Ok(Vec::new()) };
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let module = object::File::parse(&*bytes).with_context(|| format!("{} is no kernel module", path.display()))?;
    let section = module.section_by_name(".modinfo").with_context(|| format!("{} has no .modinfo", path.display()))?;
    Ok(depends(section.data()?))
}

/// The modules that the NUL-separated `KEY=VALUE` strings of a `.modinfo` section name under `depends`.
fn depends(modinfo: &[u8]) -> Vec<String> {
    let strings = modinfo.split(|byte| *byte == 0).filter_map(|string| std::str::from_utf8(string).ok());
    let values = strings.filter_map(|string| string.strip_prefix("depends="));
    values.flat_map(|value| value.split(',')).filter(|name| !name.is_empty()).map(module_name).collect()
}

/// Puts `name` into `order`, after everything it depends on. `path` is what led to it.
fn visit(
    name: &str,
    depends: &dyn Fn(&str) -> anyhow::Result<Vec<String>>,
    path: &mut Vec<String>,
    order: &mut Vec<String>,
) -> anyhow::Result<()> {
    if order.iter().any(|done| done == name) {
        return Ok(());
    }
    ensure!(path.iter().all(|above| above != name), "the kernel module {name} depends on itself");
    path.push(name.to_owned());
    for needed in depends(name)? {
        visit(&needed, depends, path, order)?;
    }
    path.pop();
    order.push(name.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_depends_on() {
        let modinfo = b"license=GPL\0depends=jbd2,mbcache,virtio-ring\0name=ext4\0";
        assert_eq!(depends(modinfo), ["jbd2", "mbcache", "virtio_ring"]);
        assert!(depends(b"depends=\0name=crc16\0").is_empty());
    }

    #[test]
    fn a_module_follows_what_it_depends_on_and_is_loaded_once() {
        let depends = |name: &str| -> anyhow::Result<Vec<String>> {
            Ok(match name {
                "virtio_net" => vec!["net_failover".to_owned(), "failover".to_owned()],
                "net_failover" => vec!["failover".to_owned()],
                _ => Vec::new(),
            })
        };
        let mut order = Vec::new();
        visit("virtio_net", &depends, &mut Vec::new(), &mut order).expect("an order");
        assert_eq!(order, ["failover", "net_failover", "virtio_net"]);
    }

    #[test]
    fn a_signature_goes_and_the_module_stays() {
        let mut signed = b"\x7fELF module".to_vec();
        signed.extend(b"signature");
        signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        signed.extend(SIGNATURE_MARKER);
        assert_eq!(without_signature(&signed), b"\x7fELF module");
        assert_eq!(without_signature(b"\x7fELF module"), b"\x7fELF module");
        assert_eq!(without_signature(SIGNATURE_MARKER), SIGNATURE_MARKER);
    }

    #[test]
    fn a_guest_without_sockets_loads_all_but_their_modules() {
        let wanted: Vec<_> = WANTED.iter().filter(|name| !is_for_sockets(name)).collect();
        assert_eq!(wanted.len() + 1, WANTED.len());
        assert!(is_for_sockets("modules/14-vsock.ko"));
    }

    #[test]
    fn a_circle_is_refused() {
        let depends = |name: &str| Ok(vec![if name == "a" { "b" } else { "a" }.to_owned()]);
        visit("a", &depends, &mut Vec::new(), &mut Vec::new()).expect_err("a needs b, and b needs a");
    }

    #[test]
    fn a_package_without_a_module_has_it_built_in() {
        let directory = std::env::temp_dir().join(format!("bulkhead-modules-{}", std::process::id()));
        fs::create_dir_all(directory.join("fs")).expect("created");
        fs::write(directory.join("fs/readme.txt"), "").expect("written");
        let found = in_load_order(&directory).expect("an order");
        fs::remove_dir_all(&directory).expect("removed");
        assert!(found.is_empty(), "{found:?}");
    }
}
