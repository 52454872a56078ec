//! How large Bulkhead is: its code, its constants, and the RAM that its image takes while it runs.

use super::{Figure, Figures};
use crate::{
    bare_metal::{self, Flavor},
    systems,
    workspace::Workspace,
};
use anyhow::Context;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};

/// The system whose heap counts: the one that runs if none is asked for.
const SYSTEM: &str = "two-linux";

/// Adds the sizes of Bulkhead's ELF file to `figures`.
///
/// # Errors
/// When Bulkhead does not build, or its file cannot be read.
pub(super) fn measure(workspace: &Workspace, figures: &mut Figures) -> anyhow::Result<()> {
    let elf = bare_metal::build_hypervisor(workspace, Flavor::Product)?.elf;
    let bytes = std::fs::read(&elf).with_context(|| format!("{} cannot be read", elf.display()))?;
    let file = object::File::parse(bytes.as_slice()).with_context(|| format!("{} is not ELF", elf.display()))?;
    let size = |section: &str| {
        let section = file.section_by_name(section).with_context(|| format!("Bulkhead has no section {section}"));
        section.map(|section| section.size())
    };
    // The limit is `.text`'s, as with any kernel that drops its boot code: what is there while guests run.
    let (boot, mapped) = (size(".init.text")?, size(".text")?);
    for (row, size) in
        [("text", mapped), ("text-boot", boot), ("text-all", boot + mapped), ("rodata", size(".rodata")?)]
    {
        figures.insert(row, Figure::once(size));
    }
    // From the first byte of the image to the last of BSS and stacks, of which cores that a board does not have need
    // none; and the heap. What is built beside it at boot is the virtual machines' own: their stage-2 tables.
    let starts = file.segments().map(|segment| segment.address());
    let ends = file.segments().map(|segment| segment.address() + segment.size());
    let image = ends.max().zip(starts.min()).map_or(0, |(end, start)| end - start);
    let source = systems::find(workspace, SYSTEM)?;
    let system = source.skeleton();
    let manifest = manifest::encode(&system).map_err(|error| anyhow::anyhow!("{error}"))?;
    let heap = system.heap_bytes() + manifest::takes::reading(manifest.len());
    let is_stacks = |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|name| name.contains("6STACKS"));
    let stacks = file.symbols().find(is_stacks).context("Bulkhead has no stacks")?.size();
    let most = source.board().cores_max;
    let spare = stacks / u64::from(most) * u64::from(most.saturating_sub(source.cores()));
    figures.insert("ram", Figure::once(image + heap - spare));
    Ok(())
}
