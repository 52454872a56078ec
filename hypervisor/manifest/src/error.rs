//! What can be wrong with a bundle or a system: a sentence, and the place it is about.

use core::fmt;

use crate::{Name, Rule, VERSION};

/// Why a bundle or a system is refused. `Display` gives a sentence that says what, where and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<'a> {
    /// The bytes are not what a bundle or a manifest is made of.
    Damaged(Damage),
    /// The bundle has no file of this name.
    NoSuchFile(Name<'a>),
    /// The system breaks a rule.
    Broken {
        /// What the rule is broken by.
        place: Place,
        /// The rule.
        rule: Rule<'a>,
    },
}

/// How the bytes of a bundle or manifest are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A header of the archive lacks the `newc` magic number.
    NotAnArchive {
        /// Where the header was expected, in bytes from the start of the bundle.
        offset: usize,
    },
    /// A header of the archive holds something other than hexadecimal digits, or a name that is not text.
    BadHeader {
        /// The offset of the header in bytes.
        offset: usize,
    },
    /// The archive ends before its trailer.
    Truncated {
        /// The offset of the header whose file is cut off, in bytes.
        offset: usize,
    },
    /// The first file of the bundle is not `manifest.bin`.
    ManifestNotFirst,
    /// The manifest lacks its magic number.
    NotAManifest,
    /// The manifest is shorter or longer than it says, or than a manifest may be.
    WrongLength,
    /// The manifest was written by another version of Bulkhead.
    OtherVersion {
        /// The version it was written for.
        found: u16,
    },
    /// The manifest's checksum does not match its contents.
    WrongChecksum,
    /// The checksum holds, but the contents are not a system.
    NotASystem,
}

/// What a broken rule is about, by index, so that `xtask` can name the line. Further indices count within the virtual
/// machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The system as a whole.
    System,
    /// Its number of cores.
    Cores,
    /// The size of the board's RAM.
    BoardMemory,
    /// A virtual machine as a whole.
    Vm(usize),
    /// The name of a virtual machine.
    Name(usize),
    /// The virtual CPUs of a virtual machine.
    Vcpus(usize),
    /// One virtual CPU.
    Vcpu(usize, usize),
    /// The RAM of a virtual machine.
    Memory(usize),
    /// One region of RAM.
    Region(usize, usize),
    /// One file to load.
    Load(usize, usize),
    /// What a virtual machine starts with: entry point, device tree, seeds.
    Start(usize),
    /// One virtual device.
    Device(usize, usize),
    /// The address of one virtual device.
    DeviceAddress(usize, usize),
    /// The interrupt of one virtual device.
    DeviceInterrupt(usize, usize),
    /// What stands behind one virtual device.
    Service(usize, usize),
    /// One physical device.
    Assigned(usize, usize),
    /// The doorbell of a driver domain.
    Doorbell(usize),
}

impl Error<'_> {
    /// What the error is about: [`Place::System`] for a damaged bundle.
    #[must_use]
    pub const fn place(&self) -> Place {
        match self {
            Self::Broken { place, .. } => *place,
            Self::Damaged(_) | Self::NoSuchFile(_) => Place::System,
        }
    }
}

impl From<Damage> for Error<'_> {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(damage) => damage.fmt(formatter),
            Self::NoSuchFile(name) => {
                write!(formatter, "the bundle has no file {name:?}; make the bundle again with `cargo xtask image`")
            }
            Self::Broken { rule, .. } => rule.fmt(formatter),
        }
    }
}

impl core::error::Error for Error<'_> {}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnArchive { offset } => {
                write!(formatter, "the bundle is not a cpio archive (newc): no header at byte {offset}")?;
            }
            Self::BadHeader { offset } => write!(formatter, "the bundle is damaged: bad header at byte {offset}")?,
            Self::Truncated { offset } => {
                write!(formatter, "the bundle is cut short: the file at byte {offset} ends beyond it")?;
            }
            Self::ManifestNotFirst => formatter.write_str("the bundle does not start with manifest.bin")?,
            Self::NotAManifest => formatter.write_str("manifest.bin of the bundle is not a manifest")?,
            Self::WrongLength => formatter.write_str("manifest.bin of the bundle has the wrong length")?,
            Self::OtherVersion { found } => write!(
                formatter,
                "manifest.bin of the bundle has version {found}, but this Bulkhead reads version {VERSION}"
            )?,
            Self::WrongChecksum => formatter.write_str("manifest.bin of the bundle is damaged: wrong checksum")?,
            Self::NotASystem => formatter.write_str("manifest.bin of the bundle does not describe a system")?,
        }
        formatter.write_str("; make the bundle again with `cargo xtask image`")
    }
}
