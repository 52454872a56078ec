//! What Bulkhead counted at its para-virtual devices: found in a run's output, and shown as a table.
//!
//! Bulkhead writes two kinds of line when a virtual machine turns off:
//!
//! ```text
//! [bulkhead] vm alpha virtio 0: id=2 doorbells=12 …
//! [bulkhead] vm alpha virtio 0 queue 0: requests=40 bytes=163840 …
//! ```

use crate::session::Outcome;
use crate::system::virtio::name_of;
use std::{collections::BTreeMap, fmt::Write};

/// Numbers by name.
pub(crate) type Numbers = BTreeMap<String, u64>;

/// What Bulkhead counted at one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// What it is: `virtio-blk`.
    pub(crate) kind: String,
    /// What its queues share: `doorbells`, `stale`, `refused-…`.
    pub(crate) shared: Numbers,
    /// What each queue has: `requests`, `kicks`.
    pub(crate) queues: Vec<Numbers>,
}

impl Device {
    /// The exits of client and driver domain that its requests have cost: notifications and doorbells, the driver
    /// domain's calls, and for each interrupt its arrival and its acknowledgement.
    pub(crate) fn exits(&self) -> u64 {
        let shared = |name: &str| self.shared.get(name).copied().unwrap_or(0);
        let all = |name: &str| self.queues.iter().filter_map(|queue| queue.get(name)).sum::<u64>();
        all("kicks") + shared("doorbells") + shared("calls") + 2 * all("interrupts")
    }
}

/// Devices by their client and their place among its para-virtual devices.
pub(crate) type Devices = BTreeMap<(String, usize), Device>;

/// The columns: their titles, the names of what is counted, and of what was saved by not having to happen.
const COLUMNS: [(&str, &str, Option<&str>); 11] = [
    ("requests", "requests", None),
    ("bytes", "bytes", None),
    ("kicks", "kicks", Some("suppressed_kicks")),
    ("interrupts", "interrupts", Some("suppressed_interrupts")),
    ("doorbells", "doorbells", Some("suppressed_doorbells")),
    ("calls", "calls", None),
    ("copies", "copies", None),
    ("grants", "grants", None),
    ("replays", "replays", None),
    ("dropped", "dropped", None),
    ("stale", "stale", None),
];
/// What the names of refusals begin with.
const REFUSED: &str = "refused-";

/// What the queues of `vm` have counted as `name` in a run, together.
pub(crate) fn counted(outcome: &Outcome, vm: &str, name: &str) -> u64 {
    let devices = collect(&outcome.lines);
    let own = devices.iter().filter(|((owner, _), _)| owner == vm);
    own.flat_map(|(_, device)| &device.queues).filter_map(|queue| queue.get(name)).sum()
}

/// The devices that Bulkhead's `lines` tell of.
pub(crate) fn collect(lines: &[String]) -> Devices {
    let mut devices = Devices::new();
    for (place, queue, words) in lines.iter().filter_map(|line| parse(line)) {
        let device: &mut Device = devices.entry(place).or_default();
        let numbers = words.split(' ').filter_map(|word| word.split_once('='));
        let numbers = numbers.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect();
        match queue {
            Some(queue) if queue == device.queues.len() => device.queues.push(numbers),
            Some(queue) => {
                if let Some(earlier) = device.queues.get_mut(queue) {
                    *earlier = numbers;
                }
            }
            None => {
                device.shared = numbers;
                device.kind = words
                    .split(' ')
                    .find_map(|word| word.strip_prefix("id="))
                    .and_then(|id| name_of(id.parse().ok()?))
                    .unwrap_or_default()
                    .to_owned();
            }
        }
    }
    devices
}

/// The device, the queue if it is about one, and the numbers.
fn parse(line: &str) -> Option<((String, usize), Option<usize>, &str)> {
    let (head, words) = line.strip_prefix("[bulkhead] vm ")?.split_once(": ")?;
    let head: Vec<_> = head.split(' ').collect();
    let (vm, device, queue) = match head.as_slice() {
        [vm, "virtio", device] => (vm, device, None),
        [vm, "virtio", device, "queue", queue] => (vm, device, Some(queue.parse().ok()?)),
        _ => return None,
    };
    Some((((*vm).to_owned(), device.parse().ok()?), queue, words))
}

/// A table of `devices`, a row for each queue; nothing where there are none. Columns of zeroes are left out. A number
/// in brackets says how many more there would have been, had nothing been done in batches.
pub(crate) fn table(devices: &Devices) -> String {
    let mut rows = Vec::new();
    for ((vm, place), device) in devices {
        for (number, queue) in device.queues.iter().enumerate() {
            // What the queues share stands beside the first.
            let value = |name: &str| {
                queue.get(name).or_else(|| device.shared.get(name).filter(|_| number == 0)).copied().unwrap_or(0)
            };
            let cells = COLUMNS.map(|(_, name, saved)| (value(name), saved.map_or(0, value)));
            rows.push((format!("{vm}, {} {place}, queue {number}", device.kind), cells));
        }
    }
    let is_shown: Vec<_> =
        (0..COLUMNS.len()).map(|column| rows.iter().any(|(_, cells)| cells[column] != (0, 0))).collect();
    let shown = |cells: &[String]| -> Vec<String> {
        cells.iter().zip(&is_shown).filter(|(_, shown)| **shown).map(|(cell, _)| cell.clone()).collect()
    };
    let mut lines = vec![(String::new(), shown(&COLUMNS.map(|(title, _, _)| title.to_owned())))];
    lines.extend(rows.iter().map(|(title, cells)| (title.clone(), shown(&cells.map(cell)))));

    let mut text = String::new();
    if rows.is_empty() {
        return text;
    }
    let columns = is_shown.iter().filter(|shown| **shown).count();
    let width = |column: usize| lines.iter().map(|(_, cells)| cells[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let first = lines.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
    for (title, cells) in &lines {
        let mut line = format!("  {title:<first$}");
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for ((vm, place), device) in devices {
        let reasons = device.shared.iter().filter_map(|(name, count)| Some((name.strip_prefix(REFUSED)?, count)));
        let reasons: Vec<_> = reasons.map(|(reason, count)| format!("{reason} {count}")).collect();
        if !reasons.is_empty() {
            let _ = writeln!(text, "  {vm}, {} {place}: refused for {}", device.kind, reasons.join(", "));
        }
    }
    text
}

fn cell((count, saved): (u64, u64)) -> String {
    match (count, saved) {
        (0, 0) => String::new(),
        (count, 0) => count.to_string(),
        (count, saved) => format!("{count} (+{saved})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Devices {
        let lines = [
            "[bulkhead] vm alpha is off",
            "[bulkhead] vm alpha: exits=7",
            "[bulkhead] vm alpha virtio 0: id=2 doorbells=3 suppressed_doorbells=2 stale=0 refused-head=4",
            "[bulkhead] vm alpha virtio 0 queue 0: requests=5 bytes=2560 kicks=4 suppressed_kicks=1",
            "[alpha] [bulkhead] vm alpha virtio 0 queue 1: requests=999",
            "[bulkhead] vm alpha virtio 0 queue 1: requests=0 bytes=0 kicks=0 suppressed_kicks=0",
        ];
        collect(&lines.map(str::to_owned))
    }

    #[test]
    fn each_queue_of_a_device_is_found() {
        let devices = devices();
        let device = &devices[&("alpha".to_owned(), 0)];
        assert_eq!((device.kind.as_str(), device.queues.len(), device.shared["doorbells"]), ("virtio-blk", 2, 3));
        assert_eq!((device.queues[0]["requests"], device.queues[1]["requests"]), (5, 0));
    }

    #[test]
    fn the_table_shows_what_was_saved_and_leaves_out_what_never_happened() {
        let table = table(&devices());
        assert!(table.contains("4 (+1)") && table.contains("3 (+2)"), "{table}");
        assert!(!table.contains("stale") && !table.contains("interrupts"), "{table}");
        assert!(table.ends_with("alpha, virtio-blk 0: refused for head 4\n"), "{table}");
    }

    #[test]
    fn an_interrupt_is_two_exits_and_whatever_was_saved_is_none() {
        let mut device = devices()[&("alpha".to_owned(), 0)].clone();
        device.shared.insert("calls".to_owned(), 6);
        device.queues[1].insert("interrupts".to_owned(), 5);
        assert_eq!(device.exits(), 4 + 3 + 6 + 2 * 5);
    }

    #[test]
    fn a_run_without_devices_has_no_table() {
        assert_eq!(table(&Devices::new()), "");
    }
}
