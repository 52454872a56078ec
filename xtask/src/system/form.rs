//! The TOML form: what the file may say, with the place of each part. It says nothing about what is right.

use serde::{
    Deserialize, Deserializer,
    de::{self, value::SeqAccessDeserializer},
};
use std::fmt;
use toml::Spanned;

use super::size::Size;

/// A file of `guests/systems`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SystemForm {
    pub(crate) description: Option<String>,
    pub(crate) board: Spanned<String>,
    pub(crate) cores: Option<Spanned<u64>>,
    pub(crate) memory: Option<Spanned<Size>>,
    #[serde(default)]
    pub(crate) disk: Vec<Spanned<DiskForm>>,
    pub(crate) network: Option<Spanned<NetworkForm>>,
    #[serde(default)]
    pub(crate) card: Vec<Spanned<CardForm>>,
    #[serde(default)]
    pub(crate) vm: Vec<Spanned<VmForm>>,
}

/// A `[[disk]]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskForm {
    pub(crate) name: Spanned<String>,
    pub(crate) size: Spanned<Size>,
    pub(crate) owner: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) partition: Vec<Spanned<PartitionForm>>,
}

/// A `[[disk.partition]]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartitionForm {
    pub(crate) name: Spanned<String>,
    pub(crate) size: Spanned<Size>,
    pub(crate) content: Option<Spanned<String>>,
}

/// The `[network]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkForm {
    pub(crate) uplink: Spanned<String>,
}

/// A `[[card]]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CardForm {
    pub(crate) owner: String,
    pub(crate) mac: Option<Spanned<String>>,
}

/// A `[[vm]]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VmForm {
    pub(crate) name: Spanned<String>,
    pub(crate) memory: Spanned<MemoryForm>,
    pub(crate) cores: Spanned<Vec<Spanned<u64>>>,
    pub(crate) kernel: Spanned<String>,
    pub(crate) initrd: Option<Spanned<String>>,
    pub(crate) command_line: Option<String>,
    pub(crate) owns: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) driver_domain: Option<Spanned<bool>>,
    pub(crate) heartbeat_ms: Option<Spanned<u32>>,
    pub(crate) request_deadline_ms: Option<Spanned<u32>>,
    pub(crate) startup_deadline_ms: Option<Spanned<u32>>,
    pub(crate) restart_limit: Option<Spanned<u32>>,
    pub(crate) restart_window_ms: Option<Spanned<u32>>,
    #[serde(default)]
    pub(crate) device: Vec<Spanned<DeviceForm>>,
}

/// A `[[vm.device]]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceForm {
    pub(crate) kind: Spanned<String>,
    pub(crate) address: Option<Spanned<u64>>,
    pub(crate) interrupt: Option<Spanned<u32>>,
    pub(crate) driver: Option<Spanned<String>>,
    pub(crate) disk: Option<Spanned<String>>,
    pub(crate) partition: Option<Spanned<String>>,
    pub(crate) range: Option<Spanned<RangeForm>>,
    pub(crate) ram_disk: Option<Spanned<Size>>,
    pub(crate) read_only: Option<Spanned<bool>>,
    pub(crate) shared: Option<Spanned<bool>>,
    pub(crate) queues: Option<Spanned<u16>>,
    pub(crate) mac: Option<Spanned<String>>,
    pub(crate) rate_limit: Option<Spanned<Size>>,
}

/// Bytes of a disk.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RangeForm {
    pub(crate) at: Size,
    pub(crate) size: Size,
}

/// A virtual machine's RAM: one size, or a list of regions.
#[derive(Debug)]
pub(crate) enum MemoryForm {
    /// One region at the usual address.
    Size(Size),
    /// Regions with addresses.
    Regions(Vec<Spanned<RegionForm>>),
}

/// A region of RAM with its addresses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegionForm {
    pub(crate) at: u64,
    pub(crate) size: Size,
    pub(crate) physical: Option<u64>,
}

// Written by hand because an untagged enum of serde's forgets the places inside it.
impl<'de> Deserialize<'de> for MemoryForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemoryVisitor)
    }
}

struct MemoryVisitor;

impl<'de> de::Visitor<'de> for MemoryVisitor {
    type Value = MemoryForm;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a size such as \"256 MiB\", or a list of { at, size, physical }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MemoryForm, E> {
        Size::deserialize(de::value::StrDeserializer::new(text)).map(MemoryForm::Size)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<MemoryForm, E> {
        Size::deserialize(de::value::I64Deserializer::new(bytes)).map(MemoryForm::Size)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, regions: A) -> Result<MemoryForm, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(regions)).map(MemoryForm::Regions)
    }
}
