//! Requests and megabytes a second, with the host's clock: under Bulkhead and on the bare board by turns, so that
//! whatever else this machine does falls on both. The middle of each work's ratios counts.

use super::{
    starts::{self, Hosted, Reports},
    works::{Work, Works},
};
use crate::{setup, workspace::Workspace};
use anyhow::Context;
use io_bench::server::{self, Server};
use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

/// How long each work runs in each run.
const AMOUNT: &str = "2s";
/// How much the highest ratio of a work may be above its lowest: beyond that, something else than Bulkhead decides.
const SPREAD_MAX: f64 = 1.5;
/// How often each platform runs, unless told otherwise.
pub(crate) const RUNS_DEFAULT: u32 = 3;
/// A file system in RAM: a disk of the host's would measure the host.
const SHARED_MEMORY: &str = "/dev/shm";
/// The host, as QEMU's user network shows it to guests.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const SYSTEM: &str = "bench-io";
/// The system whose guest has the devices itself.
const ASSIGNED_SYSTEM: &str = "bench-assigned";

/// One comparison, done.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    /// What was done.
    pub(super) work: Work,
    /// The median rate on the bare board.
    pub(super) native: f64,
    /// The median rate under Bulkhead.
    pub(super) bulkhead: f64,
    /// The median of the ratios of each pair of runs.
    pub(super) ratio: f64,
    /// The lowest and the highest of them.
    pub(super) spread: (f64, f64),
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Bulkhead reaches what it must.
    Reached,
    /// It does not.
    Missed,
    /// The pairs of runs differ so much that they say nothing.
    Unsettled,
}

impl Verdict {
    /// In a word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Reached => "ok",
            Self::Missed => "TOO LITTLE",
            Self::Unsettled => "UNSETTLED",
        }
    }
}

impl Compared {
    /// What it says; nothing where Bulkhead need reach nothing.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let at_least = self.work.at_least?;
        let (lowest, highest) = self.spread;
        Some(if highest > lowest * SPREAD_MAX {
            Verdict::Unsettled
        } else if self.ratio >= at_least {
            Verdict::Reached
        } else {
            Verdict::Missed
        })
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Throughput {
    /// In the order in which they are shown.
    pub(super) compared: Vec<Compared>,
    /// How often each platform ran.
    pub(super) runs: u32,
}

impl Throughput {
    /// Prints it.
    pub(crate) fn print(&self) {
        println!("{}: rates with the host's clock, medians of {} runs by turns", super::CPU, self.runs);
        for compared in &self.compared {
            let Compared { work, native, bulkhead, ratio, spread } = compared;
            let unit = work.unit.to_string();
            let limit = work.at_least.map_or(String::new(), |share| format!("at least {:.0} %", share * 100.0));
            let verdict = compared.verdict().map_or("", Verdict::word);
            let best = work.quoted.best_share();
            let best = best.map_or(String::new(), |share| format!("best peer {:.0} %", share * 100.0));
            let line = format!(
                "  {:<48} native {native:>8.1} {unit:<5} Bulkhead {bulkhead:>8.1} {unit:<5} {:>5.1} % ({:.0}–{:.0})  {limit:<13} \
                 {best:<14} {verdict}",
                work.title,
                ratio * 100.0,
                spread.0 * 100.0,
                spread.1 * 100.0
            );
            println!("{}", line.trim_end());
        }
    }

    /// What Bulkhead must reach and does not, or cannot be seen to reach.
    pub(crate) fn missed(&self) -> impl Iterator<Item = String> {
        self.compared.iter().filter_map(|compared| {
            let Compared { work, ratio, spread, .. } = compared;
            let percent = |share: f64| format!("{:.1} %", share * 100.0);
            match compared.verdict()? {
                Verdict::Reached => None,
                Verdict::Missed => Some(format!(
                    "`{}` reaches {} of the bare board's rate, and must reach {}",
                    work.title,
                    percent(*ratio),
                    percent(work.at_least.unwrap_or(0.0))
                )),
                Verdict::Unsettled => Some(format!(
                    "`{}` reached between {} and {} of the bare board's rate, which says nothing: leave this machine to \
                     itself and try again",
                    work.title,
                    percent(spread.0),
                    percent(spread.1)
                )),
            }
        })
    }
}

/// Runs the bare board, Bulkhead, and Bulkhead with the devices in the guest's own hands `runs` times each, by turns.
///
/// # Errors
/// What this machine lacks, or which run failed.
pub(crate) fn measure(workspace: &Workspace, works: &Works, runs: u32) -> anyhow::Result<Throughput> {
    setup::qemu(workspace)?;
    let server = HostServer::start()?;
    let first = ["disk=/dev/vda".to_owned(), format!("server={}", SocketAddrV4::new(HOST, server.address.port()))];
    let words: Vec<String> =
        first.into_iter().chain(works.all().map(|work| format!("{}={AMOUNT}", work.name))).collect();
    let mut hosted = Hosted::new(workspace, SYSTEM, &words, false)?;
    let mut assigned = Hosted::new(workspace, ASSIGNED_SYSTEM, &words, false)?;
    let image =
        Image::like(hosted.machine.virtio.as_ref().and_then(|virtio| virtio.disks.first()).map(|(_, disk)| disk))?;
    hosted.use_disk(image.0.clone());
    assigned.use_disk(image.0.clone());
    let virtio = hosted.machine.virtio.as_ref().context("the system has no devices")?;
    let bare = starts::bare(workspace, &words, virtio, false)?;

    let mut served_pairs = Vec::new();
    let mut assigned_pairs = Vec::new();
    for run in 1..=runs {
        println!("run {run} of {runs}");
        let native = starts::run_bare(&bare)?;
        served_pairs.push((native.clone(), hosted.run()?.0));
        assigned_pairs.push((native, assigned.run()?.0));
    }
    let mut compared = Vec::new();
    for work in works.all() {
        compared.push(compare(work, &served_pairs)?);
        if let Some(work) = work.assigned() {
            compared.push(compare(&work, &assigned_pairs)?);
        }
    }
    Ok(Throughput { compared, runs })
}

fn compare(work: &Work, pairs: &[(Reports, Reports)]) -> anyhow::Result<Compared> {
    let rate = |reports: &Reports| {
        let report = reports.get(&work.name).with_context(|| format!("the guest has not done `{}`", work.name));
        report.map(|report| work.unit.rate(report))
    };
    let rates = pairs.iter().map(|(native, bulkhead)| Ok((rate(native)?, rate(bulkhead)?)));
    let rates: Vec<(f64, f64)> = rates.collect::<anyhow::Result<_>>()?;
    let ratios: Vec<f64> = rates.iter().map(|(native, bulkhead)| bulkhead / native.max(f64::MIN_POSITIVE)).collect();
    Ok(Compared {
        work: work.clone(),
        native: median(rates.iter().map(|(native, _)| *native)),
        bulkhead: median(rates.iter().map(|(_, bulkhead)| *bulkhead)),
        ratio: median(ratios.iter().copied()),
        spread: (ratios.iter().copied().fold(f64::INFINITY, f64::min), ratios.iter().copied().fold(0.0, f64::max)),
    })
}

/// The middle one; of an even number the mean of the middle two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    if values.len().is_multiple_of(2) {
        f64::midpoint(at((values.len() / 2).saturating_sub(1)), at(values.len() / 2))
    } else {
        at(values.len() / 2)
    }
}

/// What the guests talk to on the host; it ends with this value.
struct HostServer {
    address: SocketAddrV4,
    serving: Option<JoinHandle<()>>,
}

impl HostServer {
    fn start() -> anyhow::Result<Self> {
        let server =
            Server::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).context("no port for the guests' server")?;
        let address = server.address();
        let serving = thread::spawn(move || {
            if let Err(error) = server.run() {
                eprintln!("warning: the guests' server has failed: {error}");
            }
        });
        Ok(Self { address, serving: Some(serving) })
    }
}

impl Drop for HostServer {
    fn drop(&mut self) {
        if server::stop(self.address).is_ok() {
            let _ = self.serving.take().map(JoinHandle::join);
        }
    }
}

/// A raw image in RAM, full of data, removed at the end.
struct Image(PathBuf);

impl Image {
    /// As large as `other`.
    fn like(other: Option<&PathBuf>) -> anyhow::Result<Self> {
        let other = other.context("the system has no disk")?;
        let size = fs::metadata(other).with_context(|| format!("{} cannot be read", other.display()))?.len();
        let directory = Some(PathBuf::from(SHARED_MEMORY)).filter(|path| path.is_dir());
        let directory = directory.unwrap_or_else(std::env::temp_dir);
        let image = Self(directory.join(format!("bulkhead-bench-io-{}.img", std::process::id())));
        fill(&image.0, size).with_context(|| format!("{} cannot be written", image.0.display()))?;
        Ok(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes all of it: a hole would be quicker to read than a disk.
fn fill(path: &Path, size: u64) -> std::io::Result<()> {
    use std::io::{Read, copy, repeat};
    copy(&mut repeat(0x5a).take(size), &mut File::create(path)?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_bench::report::Report;

    fn reports(rounds: u64) -> Reports {
        let report = Report { rounds, nanoseconds: 1_000_000_000, ..Report::default() };
        Reports::from([("read-4k".to_owned(), report)])
    }

    /// Three pairs of runs: each with so many rounds under Bulkhead for 1000 on the bare board.
    fn compared(at_least: f64, bulkhead: [u64; 3]) -> Compared {
        let works = Works::parse(&format!(
            "[[work]]\nname = \"read-4k\"\ntitle = \"read\"\nunit = \"requests\"\nat_least = {at_least}\n\
             [peers]\nsource = \"\"\n[peers.instructions]\n"
        ));
        let work = works.all().next().expect("a work").clone();
        compare(&work, &bulkhead.map(|rounds| (reports(1000), reports(rounds)))).expect("compared")
    }

    #[test]
    fn the_middle_of_the_ratios_decides() {
        let compared = compared(0.7, [800, 700, 640]);
        assert!((compared.ratio - 0.7).abs() < 1e-9, "{compared:?}");
        assert_eq!(compared.verdict(), Some(Verdict::Reached));
        assert_eq!(super::tests::compared(0.71, [800, 700, 640]).verdict(), Some(Verdict::Missed));
    }

    #[test]
    fn runs_on_a_busy_machine_pass_for_nothing() {
        let compared = compared(0.7, [800, 750, 200]);
        assert_eq!(compared.verdict(), Some(Verdict::Unsettled));
        let throughput = Throughput { compared: vec![compared], runs: 3 };
        assert_eq!(throughput.missed().count(), 1);
    }

    #[test]
    fn a_work_that_was_not_done_is_an_error() {
        let work = compared(0.7, [1, 1, 1]).work;
        compare(&work, &[(Reports::new(), reports(1))]).expect_err("not done");
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert!((median([4.0, 1.0, 3.0, 2.0].into_iter()) - 2.5).abs() < 1e-9);
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
    }
}
