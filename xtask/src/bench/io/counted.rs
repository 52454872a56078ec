//! Instructions for a request or a frame, and exits.
//!
//! Under `-icount` time is the instructions of all cores, as long as one of them has something to do. That is so from
//! the start of a request to its end where the disk is RAM in the driver domain, and for frames between two guests. A
//! real disk makes all of them wait for the host, and QEMU then lets time jump to the next timer: there the disk is one
//! that QEMU answers at once, and the median request counts, which no jump falls into.

use super::{
    CPU, Effort,
    starts::{self, CLIENT, Hosted, Reports},
};
use crate::{
    bench::{Figure, Figures, Measured, Platform},
    counters::{self, Devices},
    session::Outcome,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::path::PathBuf;

/// Requests to RAM disks: the row, the work, how often. In the order of the client's disks.
const REQUESTS: [(&str, &str, u64); 6] = [
    ("io-read-4k", "read-4k", 2000),
    ("io-read-4k-deep", "read-4k-deep", 2000),
    ("io-write-4k", "write-4k", 2000),
    ("io-write-4k-deep", "write-4k-deep", 2000),
    ("io-read-1m", "read-1m", 64),
    ("io-write-1m", "write-1m", 64),
];
/// The rows of exits: that of the requests, and theirs.
const EXITS: [(&str, &str); 3] = [
    ("io-read-4k", "io-read-4k-exits"),
    ("io-read-4k-deep", "io-read-4k-deep-exits"),
    ("io-read-1m", "io-read-1m-exits"),
];
/// Requests to the real disk, likewise. One at a time: a median says nothing of several that are on their way together.
const DISK_REQUESTS: [(&str, &str, u64); 4] = [
    ("io-disk-read-4k", "read-4k", 2000),
    ("io-disk-write-4k", "write-4k", 2000),
    ("io-disk-read-1m", "read-1m", 128),
    ("io-disk-write-1m", "write-1m", 128),
];
/// The same with a disk that the guest has itself.
const ASSIGNED_REQUESTS: [(&str, &str, u64); 2] =
    [("io-assigned-read-4k", "read-4k", 2000), ("io-assigned-read-1m", "read-1m", 128)];
/// Where the peer serves: `bench-io-guests.toml`.
const PEER: &str = "server=10.0.2.102:7001";
/// How often it is asked, and what is sent to it, in pieces of 64 KiB.
const QUESTIONS: u64 = 2000;
const CHUNKS: u64 = 96;

/// How often everything is counted, and how often at most until that many in a row are alike.
const RUNS: u32 = 3;
const RUNS_MAX: u32 = 7;
/// How much two runs may differ: a Linux guest's own clock and its boot put a tick or a writeback elsewhere.
const DIFFERENCE_MAX: f64 = 0.003;
/// A disk that QEMU answers at once.
const NULL_DISK: &str = "null-co://";
/// It does so before the guest's next instruction, not when its main loop finds the time.
const AT_ONCE: [&str; 2] = ["-global", "virtio-mmio.ioeventfd=off"];

/// Counts.
///
/// # Errors
/// Which run failed, or which row was not alike in several runs.
pub(super) fn measure(workspace: &Workspace, effort: Effort) -> anyhow::Result<Measured> {
    let words = |requests: &[(&str, &str, u64)]| -> Vec<String> {
        requests.iter().map(|(_, work, count)| format!("{work}={count}")).collect()
    };
    let disks = ('a'..).take(REQUESTS.len()).map(|letter| format!("disk=/dev/vd{letter}"));
    let ram = Hosted::new(workspace, "bench-io-ram", &disks.chain(words(&REQUESTS)).collect::<Vec<_>>(), true)?;
    let traffic = [
        PEER.to_owned(),
        format!("tcp-rr={QUESTIONS}"),
        format!("udp-rr={QUESTIONS}"),
        format!("tcp-bulk={CHUNKS}"),
        "stop".to_owned(),
    ];
    let guests = Hosted::new(workspace, "bench-io-guests", &traffic, true)?;

    let once = || -> anyhow::Result<Figures> {
        let mut figures = requests(&ram)?;
        figures.extend(frames(&guests)?);
        Ok(figures)
    };
    let mut measured = Measured::default();
    let figures = match effort {
        Effort::Once => once()?,
        Effort::Repeatedly => alike(once)?,
    };
    measured.of_mut(Platform::Bulkhead).extend(figures);
    if effort == Effort::Repeatedly {
        let first = std::iter::once("disk=/dev/vda".to_owned());
        let words: Vec<String> = first.chain(words(&DISK_REQUESTS)).collect();
        let mut real = Hosted::new(workspace, "bench-io", &words, true)?;
        real.use_disk(PathBuf::from(NULL_DISK));
        real.machine.extra.extend(AT_ONCE.map(Into::into));
        let virtio = real.machine.virtio.as_ref().context("the system has no devices")?;
        let mut bare = starts::bare(workspace, &words, virtio, true)?;
        bare.args(AT_ONCE);
        let mut assigned = Hosted::new(workspace, "bench-assigned", &words, true)?;
        assigned.use_disk(PathBuf::from(NULL_DISK));
        assigned.machine.extra.extend(AT_ONCE.map(Into::into));
        let native = starts::run_bare(&bare)?;
        measured.of_mut(Platform::Native).extend(medians(&native, &DISK_REQUESTS)?);
        measured.of_mut(Platform::Native).extend(medians(&native, &ASSIGNED_REQUESTS)?);
        measured.of_mut(Platform::Bulkhead).extend(medians(&real.run()?.0, &DISK_REQUESTS)?);
        measured.of_mut(Platform::Bulkhead).extend(medians(&assigned.run()?.0, &ASSIGNED_REQUESTS)?);
    }
    Ok(measured)
}

/// Counts until [`RUNS`] runs in a row are alike.
fn alike(once: impl Fn() -> anyhow::Result<Figures>) -> anyhow::Result<Figures> {
    let mut figures = once()?;
    let mut alike = 1;
    for _ in 1..RUNS_MAX {
        if alike == RUNS {
            break;
        }
        let again = once()?;
        let differs = |name: &str, figure: &Figure| {
            let other = again.get(name).map_or(0.0, Figure::average);
            (figure.average() - other).abs() > figure.average() * DIFFERENCE_MAX
        };
        let difference = figures.iter().find(|(name, figure)| differs(name, figure));
        alike = match difference {
            None => alike + 1,
            Some((name, figure)) => {
                let now = again.get(name).map_or(0.0, Figure::average);
                println!("`{name}` ({CPU}) was {:.1} and is {now:.1}; counting anew", figure.average());
                1
            }
        };
        figures = again;
    }
    ensure!(
        alike == RUNS,
        "{RUNS_MAX} runs gave no {RUNS} in a row that are alike within {} %: leave this machine to itself and try again",
        DIFFERENCE_MAX * 100.0
    );
    Ok(figures)
}

fn requests(ram: &Hosted) -> anyhow::Result<Figures> {
    let (reports, outcome) = ram.run()?;
    let devices = counters::collect(&outcome.lines);
    let mut figures = Figures::default();
    for (disk, (row, work, _)) in REQUESTS.iter().enumerate() {
        let report = report(&reports, work)?;
        figures.insert(row, Figure { rounds: report.rounds, total: report.nanoseconds, empty: 0 });
        if let Some((_, exits_row)) = EXITS.iter().find(|(requests, _)| requests == row) {
            figures.insert(exits_row, exits(&devices, disk, report.rounds)?);
        }
    }
    Ok(figures)
}

/// The exits at one device, for each of `rounds`. What the kernel asks of a disk when it finds it is in them, as in
/// every start, and is little beside the rest.
fn exits(devices: &Devices, disk: usize, rounds: u64) -> anyhow::Result<Figure> {
    let device = devices.get(&(CLIENT.to_owned(), disk)).context("Bulkhead has not said what happened at a disk")?;
    Ok(Figure { rounds, total: device.exits(), empty: 0 })
}

fn frames(guests: &Hosted) -> anyhow::Result<Figures> {
    let (reports, outcome) = guests.run()?;
    let mut figures = Figures::default();
    for (row, work) in [("io-tcp-rr", "tcp-rr"), ("io-udp-rr", "udp-rr")] {
        let report = report(&reports, work)?;
        figures.insert(row, Figure { rounds: report.rounds, total: report.nanoseconds, empty: 0 });
    }
    let stream = report(&reports, "tcp-bulk")?;
    figures.insert("io-tcp-frame", Figure { rounds: stream.frames, total: stream.nanoseconds, empty: 0 });
    figures.insert("io-frame-exits", exits_of_frames(&outcome)?);
    Ok(figures)
}

/// The exits at both cards for each frame that went from one to the other.
fn exits_of_frames(outcome: &Outcome) -> anyhow::Result<Figure> {
    let devices = counters::collect(&outcome.lines);
    let total = devices.values().map(counters::Device::exits).sum();
    // What is sent has its own queue, the second (VIRTIO 1.2, 5.1.2).
    let sent = devices.values().filter_map(|device| device.queues.get(1)?.get("requests"));
    let rounds: u64 = sent.sum();
    ensure!(rounds > 0, "Bulkhead has not said how many frames the guests have sent");
    Ok(Figure { rounds, total, empty: 0 })
}

fn medians(reports: &Reports, rows: &[(&'static str, &'static str, u64)]) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    for (row, work, _) in rows {
        figures.insert(row, Figure::once(report(reports, work)?.median));
    }
    Ok(figures)
}

fn report<'a>(reports: &'a Reports, work: &str) -> anyhow::Result<&'a io_bench::report::Report> {
    reports.get(work).with_context(|| format!("the guest has not done `{work}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn runs(totals: &'static [u64]) -> anyhow::Result<Figures> {
        let next = Cell::new(0);
        alike(|| {
            let total = totals.get(next.replace(next.get() + 1)).copied().unwrap_or(0);
            let mut figures = Figures::default();
            figures.insert("io-read-4k", Figure::once(total));
            Ok(figures)
        })
    }

    #[test]
    fn runs_that_differ_by_a_tick_are_alike() {
        let figures = runs(&[10_000, 10_020, 10_000]).expect("alike");
        assert_eq!(figures.get("io-read-4k"), Some(&Figure::once(10_000)));
    }

    #[test]
    fn a_run_that_differs_starts_the_count_anew_and_never_alike_is_an_error() {
        assert!(runs(&[10_000, 20_000, 20_000, 20_000]).is_ok());
        assert!(runs(&[1, 2, 3, 4, 5, 6, 7]).is_err());
    }
}
