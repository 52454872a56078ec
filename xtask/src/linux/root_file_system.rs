//! What a root file system of the Linux guests holds: busybox, the scripts of `guests/linux`, the directories that they
//! mount on, and, for a guest with devices, the kernel modules for these.

use super::modules::without_signature;
use anyhow::Context;
use std::{fs, path::Path};

/// A directory, a file or a symbolic link.
pub(crate) struct Entry {
    /// Its path, without a leading `/`; what it lies in precedes it.
    pub(crate) path: String,
    /// What it is.
    pub(crate) node: Node,
}

/// What lies at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory that its owner may write to.
    Directory,
    /// A directory for everybody's temporary files.
    SharedDirectory,
    /// A file that can be run.
    Program(Vec<u8>),
    /// A file to be read.
    Data(Vec<u8>),
    /// A symbolic link.
    Link(&'static str),
}

const DIRECTORIES: &[&str] = &["bin", "dev", "etc", "lib", "lib/guest", "proc", "root", "sys"];
const GROUP: &[u8] = b"root:x:0:\n";
const PASSWD: &[u8] = b"root::0:0:root:/root:/bin/sh\n";

/// The tree of busybox (the file `busybox`) and the scripts in `scripts`: `init`, and the others in `/lib/guest`.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn tree(scripts: &Path, busybox: &Path) -> anyhow::Result<Vec<Entry>> {
    let entry = |path: &str, node: Node| Entry { path: path.to_owned(), node };
    let mut tree: Vec<Entry> = DIRECTORIES.iter().map(|directory| entry(directory, Node::Directory)).collect();
    tree.push(entry("tmp", Node::SharedDirectory));
    tree.push(entry("bin/busybox", Node::Program(read(busybox)?)));
    tree.push(entry("bin/sh", Node::Link("busybox")));
    tree.push(entry("etc/group", Node::Data(GROUP.to_vec())));
    tree.push(entry("etc/passwd", Node::Data(PASSWD.to_vec())));
    for path in files(scripts)? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a script has a name")?;
        let target = if name == "init" { name.to_owned() } else { format!("lib/guest/{name}") };
        tree.push(Entry { path: target, node: Node::Program(read(&path)?) });
    }
    Ok(tree)
}

/// The kernel modules in the directory `modules`, in the order of their file names, which is the order to load them in.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn modules(modules: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut entries = vec![Entry { path: "modules".to_owned(), node: Node::Directory }];
    for path in files(modules)? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a module has a name")?;
        let module = without_signature(&read(&path)?).to_vec();
        entries.push(Entry { path: format!("modules/{name}"), node: Node::Data(module) });
    }
    Ok(entries)
}

/// The files in `directory`, in alphabetical order.
fn files(directory: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let unreadable = || format!("{} cannot be read", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        // An editor's own files are none of the guest's.
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if path.is_file() && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A directory with two scripts, busybox and two modules; removed when it is dropped.
    pub(in crate::linux) struct Sources(pub(in crate::linux) PathBuf);

    impl Sources {
        pub(in crate::linux) fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("bulkhead-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("scripts")).expect("created");
            fs::create_dir_all(root.join("modules")).expect("created");
            let files = [
                ("scripts/init", "#!/bin/busybox sh\n"),
                ("scripts/disk", "check() {\n"),
                ("scripts/.disk.swp", "an editor's"),
                ("modules/01-virtio_blk.ko", "second"),
                ("modules/00-virtio_mmio.ko", "first"),
                ("busybox", "\x7fELF"),
            ];
            for (name, text) in files {
                fs::write(root.join(name), text).expect("written");
            }
            Self(root)
        }

        pub(in crate::linux) fn tree(&self) -> Vec<Entry> {
            tree(&self.0.join("scripts"), &self.0.join("busybox")).expect("a tree")
        }
    }

    impl Drop for Sources {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn linux_finds_init_busybox_and_the_scripts() {
        let sources = Sources::new("tree");
        let tree = sources.tree();
        let node = |path: &str| tree.iter().find(|entry| entry.path == path).map(|entry| &entry.node);
        assert_eq!(node("init"), Some(&Node::Program(b"#!/bin/busybox sh\n".to_vec())));
        assert_eq!(node("lib/guest/disk"), Some(&Node::Program(b"check() {\n".to_vec())));
        assert_eq!(node("bin/sh"), Some(&Node::Link("busybox")));
        assert!(node("lib/guest/.disk.swp").is_none());
    }

    #[test]
    fn directories_precede_what_lies_in_them() {
        let sources = Sources::new("order");
        let tree = sources.tree();
        for (index, entry) in tree.iter().enumerate() {
            let Some((parent, _)) = entry.path.rsplit_once('/') else { continue };
            assert!(tree[..index].iter().any(|before| before.path == parent), "{} has no directory", entry.path);
        }
    }

    #[test]
    fn modules_keep_their_order() {
        let sources = Sources::new("modules");
        let entries = modules(&sources.0.join("modules")).expect("entries");
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["modules", "modules/00-virtio_mmio.ko", "modules/01-virtio_blk.ko"]);
    }
}
