//! The TOML form: what the file may say, with the place of each part. It says nothing about what is right.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    decode::{Context, Decode, Keys, Value},
    size::{Rate, Size},
};

/// Declares a form: each field is a key. What is an `Option` or a `Vec` may be left out.
macro_rules! forms {
    ($($(#[doc = $doc:literal])* $name:ident, called $called:expr => { $($key:ident: $kind:ty,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug)]
        pub(crate) struct $name {
            $(pub(crate) $key: $kind,)*
        }

        impl Decode for $name {
            const EXPECTED: &'static str = "a table";

            fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
                let mut keys = Keys::of(value, &[$(stringify!($key)),*], context, $called)?;
                // All are read before one that is missing ends it, so that all mistakes are found.
                $(let $key = keys.take(stringify!($key));)*
                Some(Self { $($key: $key?,)* })
            }
        }
    )*};
}

forms! {
    /// A file of `guests/systems`.
    SystemForm, called |_, _| "the system".to_string() => {
        description: Option<String>,
        board: Spanned<String>,
        cores: Option<Spanned<u64>>,
        memory: Option<Spanned<Size>>,
        disk: Vec<Spanned<DiskForm>>,
        network: Option<Spanned<NetworkForm>>,
        card: Vec<Spanned<CardForm>>,
        vm: Vec<Spanned<VmForm>>,
    }

    /// A `[[disk]]` section.
    DiskForm, called |table, _| named("disk", "name", table) => {
        name: Spanned<String>,
        size: Option<Spanned<Size>>,
        image: Option<Spanned<String>>,
        owner: Option<Spanned<String>>,
        partition: Vec<Spanned<PartitionForm>>,
    }

    /// A `[[disk.partition]]` section.
    PartitionForm, called |table, disk| format!("{} of {disk}", named("partition", "name", table)) => {
        name: Spanned<String>,
        size: Spanned<Size>,
        content: Option<Spanned<String>>,
    }

    /// The `[network]` section.
    NetworkForm, called |_, _| "the network".to_string() => {
        uplink: Spanned<String>,
    }

    /// A `[[card]]` section.
    CardForm, called |_, _| "the card".to_string() => {
        owner: String,
        mac: Option<Spanned<String>>,
        ip_address: Option<Spanned<String>>,
        gateway: Option<Spanned<String>>,
    }

    /// A `[[vm]]` section.
    VmForm, called |table, _| named("vm", "name", table) => {
        name: Spanned<String>,
        memory: Spanned<MemoryForm>,
        cores: Spanned<Vec<Spanned<u64>>>,
        shared_cores: Option<Spanned<bool>>,
        kernel: Spanned<String>,
        initrd: Option<Spanned<String>>,
        command_line: Option<String>,
        owns: Option<Spanned<Vec<Spanned<String>>>>,
        driver_domain: Option<Spanned<bool>>,
        heartbeat_ms: Option<Spanned<u32>>,
        request_deadline_ms: Option<Spanned<u32>>,
        startup_deadline_ms: Option<Spanned<u32>>,
        restart_limit: Option<Spanned<u32>>,
        restart_window_ms: Option<Spanned<u32>>,
        device: Vec<Spanned<DeviceForm>>,
    }

    /// A `[[vm.device]]` section.
    DeviceForm, called |table, vm| format!("{} of {vm}", named("device", "kind", table)) => {
        kind: Spanned<String>,
        address: Option<Spanned<u64>>,
        interrupt: Option<Spanned<u32>>,
        configuration: Option<Spanned<String>>,
        driver: Option<Spanned<String>>,
        disk: Option<Spanned<String>>,
        partition: Option<Spanned<String>>,
        range: Option<Spanned<RangeForm>>,
        ram_disk: Option<Spanned<Size>>,
        read_only: Option<Spanned<bool>>,
        shared: Option<Spanned<bool>>,
        queues: Option<Spanned<u16>>,
        mac: Option<Spanned<String>>,
        ip_address: Option<Spanned<String>>,
        gateway: Option<Spanned<String>>,
        rate_limit: Option<Spanned<Rate>>,
        cid: Option<Spanned<u64>>,
        peers: Option<Spanned<Vec<Spanned<String>>>>,
    }

    /// Bytes of a disk.
    RangeForm, called |_, device| format!("the range of {device}") => {
        at: Size,
        size: Size,
    }

    /// A region of RAM with its addresses.
    RegionForm, called |_, vm| format!("a region of memory of {vm}") => {
        at: u64,
        size: Size,
        physical: Option<u64>,
    }
}

/// `vm "alpha"`, or `a vm` where it has no name.
fn named(what: &str, key: &str, table: &DeTable<'_>) -> String {
    match table.get(key).map(Spanned::get_ref) {
        Some(DeValue::String(name)) => format!("{what} {name:?}"),
        _ => format!("a {what}"),
    }
}

/// A virtual machine's RAM: one size, or a list of regions.
#[derive(Debug)]
pub(crate) enum MemoryForm {
    /// One region at the usual address.
    Size(Size),
    /// Regions with addresses.
    Regions(Vec<Spanned<RegionForm>>),
}

impl Decode for MemoryForm {
    const EXPECTED: &'static str = "a size such as \"256 MiB\", or a list of { at, size, physical }";

    fn stand_in() -> Option<Self> {
        Some(Self::Size(Size(manifest::MEMORY_ALIGN)))
    }

    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => Vec::decode(value, context).map(Self::Regions),
            DeValue::String(_) | DeValue::Integer(_) => Size::decode(value, context).map(Self::Size),
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
                context.mismatch(&value, Self::EXPECTED, "write one of these");
                None
            }
        }
    }
}
