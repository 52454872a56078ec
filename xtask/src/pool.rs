//! Work that is done side by side: as much at a time as this machine has cores for.

use crate::{results::Results, session};
use anyhow::{anyhow, ensure};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// More jobs at a time are not started, however many cores there are: each may take some GiB of RAM.
const CORES_MAX: usize = 4;

/// A piece of work that needs none of the others.
pub(crate) struct Job<'a> {
    /// The step that it is a part of.
    pub(crate) step: &'static str,
    /// What no two jobs may use at the same time, if anything; those that use the same, and take as many cores, run in
    /// their order.
    pub(crate) uses: Option<String>,
    /// How many of this machine's cores it keeps busy. One that takes more than there are has all of them.
    pub(crate) cores: usize,
    /// Does it.
    pub(crate) work: Box<dyn FnOnce() -> anyhow::Result<Results> + Send + 'a>,
}

/// What came of a job.
pub(crate) struct Done {
    /// The step that it was a part of.
    pub(crate) step: &'static str,
    /// Its results.
    pub(crate) results: Results,
    /// How long it took.
    pub(crate) time: Duration,
}

/// Does all of `jobs`. One that cannot be done counts as a failure, and the others go on.
///
/// # Errors
/// When the user ends this program: what runs comes to an end, and nothing else is started.
pub(crate) fn run(jobs: Vec<Job<'_>>) -> anyhow::Result<Vec<Done>> {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(CORES_MAX);
    let done = run_on(cores, jobs, session::interrupted);
    ensure!(!session::interrupted(), "interrupted");
    Ok(done)
}

fn run_on(cores: usize, mut waiting: Vec<Job<'_>>, interrupted: impl Fn() -> bool) -> Vec<Done> {
    // Large ones first, or small ones would leave cores without work again and again while a large one waits for all.
    waiting.sort_by_key(|job| job.cores < cores);
    let (sender, finished) = mpsc::channel();
    let mut done = Vec::new();
    thread::scope(|scope| {
        let mut running: Vec<Running> = Vec::new();
        let mut numbers = 0..;
        loop {
            while !interrupted()
                && let Some(index) = next(&waiting, &running, cores)
                && let Some(number) = numbers.next()
            {
                let Job { step, uses, cores, work } = waiting.remove(index);
                running.push(Running { number, uses, cores });
                let sender = sender.clone();
                scope.spawn(move || {
                    let started = Instant::now();
                    let results = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(anyhow!("a panic")));
                    // The receiver is there for as long as anything runs.
                    let _ =
                        sender.send((number, Done { step, results: counted(step, results), time: started.elapsed() }));
                });
            }
            if running.is_empty() {
                break;
            }
            let Ok((number, job)) = finished.recv() else { break };
            running.retain(|other| other.number != number);
            done.push(job);
        }
    });
    done
}

/// A job that runs.
struct Running {
    number: usize,
    uses: Option<String>,
    cores: usize,
}

/// The first of those who wait that may start: nobody who runs, and nobody before it, uses what it uses, and it has the
/// cores that it wants. One that waits for cores is not overtaken: small ones could keep a large one waiting for ever.
fn next(waiting: &[Job<'_>], running: &[Running], cores: usize) -> Option<usize> {
    let busy: usize = running.iter().map(|job| job.cores.min(cores)).sum();
    let used: Vec<&str> = running.iter().filter_map(|job| job.uses.as_deref()).collect();
    for (index, job) in waiting.iter().enumerate() {
        match job.uses.as_deref() {
            Some(name) if used.contains(&name) => {}
            _ if busy + job.cores.min(cores) <= cores => return Some(index),
            _ => return None,
        }
    }
    None
}

/// The results of a job of `step`; that it could not be done is a failure, for it has shown nothing.
fn counted(step: &str, results: anyhow::Result<Results>) -> Results {
    results.unwrap_or_else(|error| {
        let failure = format!("{step}: {error:#}");
        println!("FAIL {failure}");
        Results::failed(failure)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    /// Notes what runs.
    #[derive(Default)]
    struct Board {
        /// The cores that are busy now, and the most that were.
        busy: AtomicUsize,
        most: AtomicUsize,
        /// Starts and ends of each user of a system.
        log: Mutex<Vec<String>>,
    }

    impl Board {
        fn job<'a>(&'a self, name: &'static str, uses: Option<&str>, cores: usize) -> Job<'a> {
            let work = move || {
                let busy = self.busy.fetch_add(cores, Ordering::SeqCst) + cores;
                self.most.fetch_max(busy, Ordering::SeqCst);
                self.log.lock().expect("a log").push(format!("{name} starts"));
                thread::sleep(Duration::from_millis(20));
                self.log.lock().expect("a log").push(format!("{name} ends"));
                self.busy.fetch_sub(cores, Ordering::SeqCst);
                let mut results = Results::default();
                results.tally.count(true);
                Ok(results)
            };
            Job { step: "test", uses: uses.map(str::to_owned), cores, work: Box::new(work) }
        }

        fn run(&self, cores: usize, jobs: Vec<Job<'_>>) -> u32 {
            run_on(cores, jobs, || false).iter().map(|done| done.results.tally.passed).sum()
        }
    }

    #[test]
    fn every_job_is_done_and_no_more_cores_are_busy_than_there_are() {
        let board = Board::default();
        let jobs = (0..12).map(|number| board.job("x", None, 1 + number % 2)).collect();
        assert_eq!(board.run(3, jobs), 12);
        assert!((2..=3).contains(&board.most.load(Ordering::SeqCst)));
    }

    #[test]
    fn a_job_that_wants_more_cores_than_there_are_runs_alone() {
        let board = Board::default();
        let jobs = vec![board.job("small", None, 1), board.job("large", None, 5), board.job("larger", None, 9)];
        assert_eq!(board.run(2, jobs), 3);
        let log = board.log.lock().expect("a log");
        assert_eq!(
            log[..],
            ["large starts", "large ends", "larger starts", "larger ends", "small starts", "small ends"]
        );
    }

    #[test]
    fn jobs_that_use_the_same_run_one_after_the_other_and_in_their_order() {
        let board = Board::default();
        let jobs = ["a", "b", "c"]
            .into_iter()
            .flat_map(|name| [board.job(name, Some("disk"), 1), board.job("other", None, 1)]);
        assert_eq!(board.run(4, jobs.collect()), 6);
        let log = board.log.lock().expect("a log");
        let users: Vec<_> = log.iter().filter(|line| !line.starts_with("other")).collect();
        assert_eq!(users, ["a starts", "a ends", "b starts", "b ends", "c starts", "c ends"]);
    }

    #[test]
    fn what_could_not_be_done_has_failed() {
        let job = |work| Job { step: "test", uses: None, cores: 1, work };
        let jobs = vec![job(Box::new(|| Err(anyhow!("no disk"))) as _), job(Box::new(|| Ok(Results::default())) as _)];
        let done = run_on(1, jobs, || false);
        assert_eq!(done.iter().map(|done| done.results.tally.failed).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(done[0].results.failures, ["test: no disk"]);
    }

    #[test]
    fn nothing_is_started_once_the_user_has_ended_it() {
        let board = Board::default();
        let jobs = vec![board.job("x", None, 1)];
        assert!(run_on(1, jobs, || true).is_empty());
    }
}
