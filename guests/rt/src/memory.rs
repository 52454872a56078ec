//! RAM beyond the image: borrowing a piece of it, and looking at all of it.

use crate::machine::{Region, machine};
use arrayvec::ArrayVec;
use spin::Mutex;

unsafe extern "C" {
    /// The first byte of the image; only its address is used.
    static image_start: u8;
    /// The byte behind the image, BSS and stacks included; only its address is used.
    static image_end: u8;
}

/// What has been lent: from the end of the image to this address.
static LENT: Mutex<u64> = Mutex::new(0);
const ALIGNMENT: u64 = 2 << 20;
/// How many pieces of RAM can be claimed.
const CLAIMS_MAX: usize = 64;
/// What has been claimed.
static CLAIMS: Mutex<ArrayVec<Region, CLAIMS_MAX>> = Mutex::new(ArrayVec::new_const());

/// Where this guest's image lies, BSS and stacks included.
#[must_use]
pub fn image() -> Region {
    let start = &raw const image_start as u64;
    Region { start, size: &raw const image_end as u64 - start }
}

/// The ranges of RAM that the loader or this image uses, or that somebody claimed.
fn occupied() -> impl Iterator<Item = Region> {
    let claims = CLAIMS.lock().clone();
    [image(), machine().device_tree].into_iter().chain(machine().ramdisk).chain(claims)
}

/// Claims `size` bytes from `start` for good, for [`crate::shared`]; `false` where that is not RAM, or in use.
pub(crate) fn claim(start: u64, size: u64) -> bool {
    // Held throughout, so that `take` cannot lend the same bytes meanwhile.
    let lent = LENT.lock();
    let Some(end) = start.checked_add(size).filter(|_| size > 0) else { return false };
    let is_ram = machine().memory.iter().any(|region| region.start <= start && end <= region.end());
    let is_lent = start < *lent && image().end() < end;
    let is_used = occupied().any(|region| region.overlaps(start, size));
    is_ram && !is_lent && !is_used && CLAIMS.lock().try_push(Region { start, size }).is_ok()
}

/// Lends `words` 64-bit words of RAM for good, aligned to 2 MiB; `None` where RAM is too small. Its contents are
/// whatever was there.
pub fn take(words: usize) -> Option<&'static mut [u64]> {
    let bytes = words as u64 * 8;
    let mut lent = LENT.lock();
    let mut start = image().end().max(*lent).next_multiple_of(ALIGNMENT);
    // Each of the occupied ranges can push the start up once.
    for _ in 0..3 + CLAIMS_MAX {
        for region in occupied() {
            if region.overlaps(start, bytes) {
                start = region.end().next_multiple_of(ALIGNMENT);
            }
        }
    }
    let end = start.checked_add(bytes)?;
    machine().memory.iter().find(|region| region.start <= start && end <= region.end())?;
    *lent = end;
    // SAFETY: the range is RAM, aligned, in no use by image, device tree or RAM disk, and `LENT` has moved past it, so
    // it is lent once and `first_nonzero` leaves it alone.
    Some(unsafe { core::slice::from_raw_parts_mut(start as *mut u64, words) })
}

/// The address of the first word of unused RAM that is not zero, and how many words were looked at.
#[must_use]
pub fn first_nonzero() -> (Option<u64>, u64) {
    let lent = LENT.lock();
    let taken = Region { start: image().end(), size: lent.saturating_sub(image().end()) };
    let mut looked = 0;
    for region in &machine().memory {
        let mut address = region.start;
        while address < region.end() {
            let used = || occupied().chain([taken]);
            if let Some(used) = used().find(|used| used.overlaps(address, 8)) {
                address = used.end().next_multiple_of(8);
                continue;
            }
            // The run up to the next range in use, so that the inner loop is plain.
            let end = used().map(|used| used.start).filter(|&start| start > address).fold(region.end(), u64::min) & !7;
            let words = (end.saturating_sub(address) / 8) as usize;
            // SAFETY: the range is RAM that nobody uses, and the lock keeps `take` from lending it meanwhile.
            let run = unsafe { core::slice::from_raw_parts(address as *const u64, words) };
            looked += words as u64;
            if let Some(index) = run.iter().position(|&word| word != 0) {
                return (Some(address + index as u64 * 8), looked);
            }
            address = end.max(address + 8);
        }
    }
    (None, looked)
}
