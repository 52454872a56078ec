//! The root partition of a Linux guest: an ext4 image with the root file system in it, made without the host's root.
//!
//! The image depends on the guest's name, the size and the files alone: identifiers come from the name, every time
//! stamp is the same fixed second, and the host's users do not appear.

use super::{
    boot_script::{self, boot_script},
    root_file_system::{self, Entry, Node},
};
use crate::{setup, workspace::Workspace};
use anyhow::{Context, ensure};
use std::{
    fmt::Write as _,
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// What the guests look for.
const LABEL: &str = "root";
/// busybox, a journal and room to write.
const SIZE_BYTES_MIN: u64 = 16 << 20;
/// mke2fs takes KiB, the file system has blocks of 4 KiB, and sectors are counted in eights of these.
const BLOCK_BYTES: u64 = 4096;
/// What Linux 6.1 knows, whatever is newer in the host's mke2fs.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,dir_nlink,extra_isize,metadata_csum";
/// 2020-01-01T00:00:00Z, in seconds.
const TIME_SECONDS: &str = "1577836800";

/// Whether a root partition has the kernel that starts from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// It is loaded from elsewhere.
    Elsewhere,
    /// It is on the partition, with its initial archive and a script for U-Boot.
    OnPartition,
}

/// Makes the image `output`, of exactly `size_bytes`, for the virtual machine `vm`. It is sparse.
///
/// # Errors
/// One sentence: `mke2fs` is missing, the size is too small or has no whole blocks, or mke2fs's own message.
pub(crate) fn root_partition(vm: &str, kernel: Kernel, size_bytes: u64, output: &Path) -> anyhow::Result<()> {
    ensure!(
        size_bytes >= SIZE_BYTES_MIN && size_bytes.is_multiple_of(BLOCK_BYTES),
        "a Linux root partition of {size_bytes} bytes cannot be made; give it {} MiB or more, in steps of 4 KiB",
        SIZE_BYTES_MIN >> 20
    );
    let workspace = Workspace::find()?;
    let programs = setup::file_system_programs()?;
    let files = setup::linux(&workspace)?;
    let mut entries = root_file_system::tree(&files.scripts, &files.busybox)?;
    if kernel == Kernel::OnPartition {
        entries.extend(boot_files(&files)?);
    }
    make(&programs, &entries, vm, size_bytes, output)
}

/// What U-Boot starts Linux from.
fn boot_files(files: &setup::LinuxImages) -> anyhow::Result<[Entry; 4]> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let (kernel, initrd) = (read(&files.kernel)?, read(&files.initrd_with_modules)?);
    let script = boot_script(kernel.len(), initrd.len());
    let entry = |path: &str, node| Entry { path: path.to_owned(), node };
    Ok([
        entry("boot", Node::Directory),
        entry(boot_script::PATH, Node::Data(script)),
        entry(boot_script::KERNEL, Node::Data(kernel)),
        entry(boot_script::INITRD, Node::Data(initrd)),
    ])
}

fn make(
    programs: &setup::FileSystemPrograms,
    entries: &[Entry],
    vm: &str,
    size_bytes: u64,
    output: &Path,
) -> anyhow::Result<()> {
    let name = output.file_name().context("an image has a name")?.to_string_lossy();
    let staging = Staging::new(output.with_file_name(format!("{name}.tree")))?;
    staging.fill(entries)?;

    // What is not written reads as zeroes, and mke2fs leaves it out.
    let file = File::create(output).with_context(|| format!("{} cannot be created", output.display()))?;
    file.set_len(size_bytes).with_context(|| format!("{} cannot be given its size", output.display()))?;
    drop(file);

    let identifier = identifier(vm);
    let extended = format!("root_owner=0:0,hash_seed={identifier},lazy_itable_init=0,lazy_journal_init=0");
    let mut make = reproducible(&programs.mke2fs);
    make.args(["-q", "-F", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-J", "size=4"]);
    make.args(["-L", LABEL, "-U", &identifier, "-O", FEATURES, "-E", &extended, "-d"]).arg(&staging.0).arg(output);
    setup::run_quietly(&mut make).with_context(|| format!("the root partition of vm {vm:?} cannot be made"))?;

    // mke2fs has copied the owners and times of the files on this machine.
    let commands = staging.0.join("owners");
    fs::write(&commands, owners_and_times(entries))?;
    let mut adopt = reproducible(&programs.debugfs);
    adopt.arg("-w").arg("-f").arg(&commands).arg(output);
    setup::run_quietly(&mut adopt).with_context(|| format!("the files of vm {vm:?} cannot be given to its root"))
}

/// A command that neither the host's configuration nor its clock changes.
fn reproducible(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("MKE2FS_CONFIG", "/dev/null").env("LC_ALL", "C");
    // Up to version 1.47.0, and since.
    command.env("E2FSPROGS_FAKE_TIME", TIME_SECONDS).env("SOURCE_DATE_EPOCH", TIME_SECONDS);
    command
}

/// What debugfs does to make root the owner of everything and its times the same.
fn owners_and_times(entries: &[Entry]) -> String {
    let mut commands = String::new();
    let paths = entries.iter().map(|entry| entry.path.as_str());
    for path in paths.chain(["", "lost+found"]) {
        for field in ["uid", "gid", "atime_extra", "mtime_extra", "ctime_extra", "crtime_extra"] {
            let _ = writeln!(commands, "set_inode_field /{path} {field} 0");
        }
        for field in ["atime", "mtime", "ctime", "crtime"] {
            let _ = writeln!(commands, "set_inode_field /{path} {field} @{TIME_SECONDS}");
        }
    }
    commands
}

/// A UUID (RFC 9562, version 8: of our own making) that `vm` always gets: two 64-bit FNV-1a hashes of its name.
fn identifier(vm: &str) -> String {
    let hash = |seed: u64| {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        vm.bytes().fold(seed, step)
    };
    let (high, low) = (hash(0xcbf2_9ce4_8422_2325), hash(0x6c62_272e_07bb_0142));
    let high = high & !0xf000 | 0x8000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// A directory that holds the tree while mke2fs reads it; removed when dropped.
struct Staging(PathBuf);

impl Staging {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("{} cannot be created", path.display()))?;
        Ok(Self(path))
    }

    fn fill(&self, entries: &[Entry]) -> anyhow::Result<()> {
        for Entry { path, node } in entries {
            let target = self.0.join(path);
            let mode = match node {
                Node::Directory => fs::create_dir(&target).map(|()| Some(0o755)),
                Node::SharedDirectory => fs::create_dir(&target).map(|()| Some(0o1777)),
                Node::Program(data) => fs::write(&target, data).map(|()| Some(0o755)),
                Node::Data(data) => fs::write(&target, data).map(|()| Some(0o644)),
                Node::Link(to) => symlink(to, &target).map(|()| None),
            };
            // Whatever the user's umask is.
            let set = mode.and_then(|mode| {
                mode.map_or(Ok(()), |mode| fs::set_permissions(&target, Permissions::from_mode(mode)))
            });
            set.with_context(|| format!("{} cannot be written", target.display()))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing reads it any more, and the next image of that name replaces what may be left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::root_file_system::tests::Sources;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn each_guest_has_an_identifier_of_its_own() {
        assert_eq!(identifier("alpha"), identifier("alpha"));
        assert_ne!(identifier("alpha"), identifier("beta"));
        let identifier = identifier("alpha");
        assert_eq!(identifier.len(), 36);
        assert_eq!(identifier.as_bytes()[14], b'8', "{identifier}");
        assert!(b"89ab".contains(&identifier.as_bytes()[19]), "{identifier}");
    }

    #[test]
    fn a_size_that_cannot_be_is_refused_before_anything_is_made() {
        let output = Path::new("/nonexistent/root.img");
        for size in [0, SIZE_BYTES_MIN - 4096, SIZE_BYTES_MIN + 512] {
            let sentence = root_partition("alpha", Kernel::Elsewhere, size, output).expect_err("refused").to_string();
            assert!(sentence.contains("16 MiB or more, in steps of 4 KiB"), "{sentence}");
        }
    }

    #[test]
    fn an_image_has_its_size_is_sparse_and_comes_out_the_same_twice() {
        // A machine that only builds need not have the programs.
        let Some(programs) = setup::FileSystemPrograms::find() else { return };
        let sources = Sources::new("partition");
        let (first, second) = (sources.0.join("first.img"), sources.0.join("second.img"));
        make(&programs, &sources.tree(), "alpha", SIZE_BYTES_MIN, &first).expect("made");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        make(&programs, &sources.tree(), "alpha", SIZE_BYTES_MIN, &second).expect("made");
        let metadata = fs::metadata(&first).expect("there");
        assert_eq!(metadata.len(), SIZE_BYTES_MIN);
        assert!(metadata.blocks() * 512 < SIZE_BYTES_MIN / 2, "{} blocks", metadata.blocks());
        assert!(fs::read(&first).expect("read") == fs::read(&second).expect("read"), "two images differ");
        assert!(!sources.0.join("first.img.tree").exists());
    }
}
