//! Two devices must not have bytes of a real disk in common unless the system says so.

use manifest::Span;

use super::{
    Problem,
    backend::Backend,
    size::show_size,
    source::{Source, VmSource},
};

/// A block device on a real disk.
struct Owner<'a> {
    vm: &'a VmSource,
    device: usize,
    disk: usize,
    span: Span,
    read_only: bool,
    shared: bool,
}

/// Refuses two devices that have bytes of a disk in common which one of them writes, unless both say that they share.
/// Each problem is at the second of them.
pub(crate) fn check_overlaps(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut owners: Vec<Owner<'_>> = Vec::new();
    for vm in &source.vms {
        for (device, client) in vm.clients.iter().enumerate() {
            let Some(Backend::Disk { disk, slice, read_only, shared }) = client.as_ref().map(|client| &client.backend)
            else {
                continue;
            };
            let Some(whole) = source.disks.get(*disk) else { continue };
            let span = whole.span_of(*slice);
            let owner = Owner { vm, device, disk: *disk, span, read_only: *read_only, shared: *shared };
            for other in owners.iter().filter(|other| other.disk == owner.disk && other.span.overlaps(owner.span)) {
                if !(owner.shared && other.shared || owner.read_only && other.read_only) {
                    problems.push(source.problem(vm.lines.device(device), overlap(&whole.name, &owner, other)));
                }
            }
            owners.push(owner);
        }
    }
    problems
}

fn overlap(disk: &str, owner: &Owner<'_>, other: &Owner<'_>) -> String {
    let first = owner.span.base.max(other.span.base);
    let end = |owner: &Owner<'_>| owner.span.end().unwrap_or(u64::MAX);
    let size = end(owner).min(end(other)).saturating_sub(first);
    let whose = |owner: &Owner<'_>| {
        let kind = owner.vm.devices.get(owner.device).map_or("", |device| &device.kind);
        format!("device {kind:?} of vm {:?}", owner.vm.name)
    };
    format!(
        "{} and {} have {} of disk {disk:?} in common, from byte {first:#x}; give them different slices, make both \
         read_only, or say shared = true in both",
        whose(other),
        whose(owner),
        show_size(size)
    )
}
