//! One run of a system at a time: two would write the same disks, consoles and bundle.
//!
//! The lock is the kernel's, on a file below `locks`, so it ends with the process, however that ends.

use crate::{system::Source, workspace::Workspace};
use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

/// So many runs of images from the command line may go on at once.
const NUMBERED_MAX: u32 = 64;
/// A lock that this process has given up is free after this long at most, and is tried again this often.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(5);

/// A system that no other process runs, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Claim {
    _file: File,
}

/// Claims `source`. A system from the command line has no disks of its own and gets a number where its name is taken.
///
/// # Errors
/// Who runs the system, and what to do.
pub(crate) fn claim(workspace: &Workspace, source: &mut Source) -> anyhow::Result<Arc<Claim>> {
    claim_in(&workspace.cache().join("locks"), source)
}

fn claim_in(directory: &Path, source: &mut Source) -> anyhow::Result<Arc<Claim>> {
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
    let lock = |name: &str| take(&directory.join(format!("{name}.lock")));
    if source.text.is_some() {
        return match lock(&source.name)? {
            Ok(claim) => Ok(claim),
            Err(owner) => bail!(
                "the system `{}` is in use by {owner}; wait until that ends or end it, or copy the system's .toml to \
                 another name, under which it has disks of its own",
                source.name
            ),
        };
    }
    for number in 1..=NUMBERED_MAX {
        let name = if number == 1 { source.name.clone() } else { format!("{}-{number}", source.name) };
        if let Ok(claim) = lock(&name)? {
            source.name = name;
            return Ok(claim);
        }
    }
    bail!("{NUMBERED_MAX} images from the command line run already; end one of them")
}

/// Takes the lock `path`, or says who has it. A process may take it several times.
fn take(path: &Path) -> anyhow::Result<Result<Arc<Claim>, String>> {
    static HELD: Mutex<BTreeMap<PathBuf, Weak<Claim>>> = Mutex::new(BTreeMap::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(claim) = held.get(path).and_then(Weak::upgrade) {
        return Ok(Ok(claim));
    }
    let unusable = || format!("{} cannot be used", path.display());
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(path).with_context(unusable)?;
    let own_name = format!("process {} ", std::process::id());
    let give_up = Instant::now() + ENDS_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.rewind()?;
                file.read_to_string(&mut owner).with_context(unusable)?;
                // This process has given it up, and a child that it starts elsewhere has the file open until its own
                // program begins.
                if owner.starts_with(&own_name) && Instant::now() < give_up {
                    thread::sleep(RETRY);
                    continue;
                }
                return Ok(Err(if owner.is_empty() { "another process".to_owned() } else { owner }));
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(unusable),
        }
    }
    // Those who find the lock taken are told by whom.
    file.set_len(0)?;
    file.rewind()?;
    let words: Vec<String> = std::env::args().skip(1).take(2).collect();
    write!(file, "{own_name}(`cargo xtask {}`)", words.join(" ")).with_context(unusable)?;
    let claim = Arc::new(Claim { _file: file });
    held.insert(path.to_owned(), Arc::downgrade(&claim));
    Ok(Ok(claim))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock below `directory` that another open file has, which counts as another process.
    fn held(directory: &Path, name: &str) -> File {
        let mut file = File::create(directory.join(name)).expect("a file");
        file.lock().expect("a lock");
        write!(file, "process 7 (`cargo xtask run {name}`)").expect("a write");
        file
    }

    #[test]
    fn a_second_run_of_a_system_is_told_who_has_it_and_what_to_do() {
        let directory = std::env::temp_dir().join(format!("bulkhead-claims-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("created");
        let workspace = Workspace::find().expect("a workspace");
        let mut source = crate::systems::find(&workspace, "test-hello").expect("a system");
        let other = held(&directory, "test-hello.lock");
        let sentence = claim_in(&directory, &mut source).expect_err("it is in use").to_string();
        assert_eq!(
            sentence,
            "the system `test-hello` is in use by process 7 (`cargo xtask run test-hello.lock`); wait until that ends or \
             end it, or copy the system's .toml to another name, under which it has disks of its own"
        );
        // What comes from the command line has no disks of its own, and goes on under a number.
        source.text = None;
        let claim = claim_in(&directory, &mut source).expect("another name");
        assert_eq!(source.name, "test-hello-2");
        drop((claim, other));
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_lock_that_another_has_names_the_owner_and_ends_with_it() {
        let path = std::env::temp_dir().join(format!("bulkhead-claim-{}.lock", std::process::id()));
        let name = path.file_name().expect("a name").to_str().expect("text");
        let other = held(&std::env::temp_dir(), name);
        let owner = take(&path).expect("a file").err();
        assert_eq!(owner, Some(format!("process 7 (`cargo xtask run {name}`)")));
        drop(other);
        let claim = take(&path).expect("a file").expect("a free lock");
        let again = take(&path).expect("a file").expect("its own lock");
        assert!(Arc::ptr_eq(&claim, &again));
        let _ = fs::remove_file(path);
    }

    #[test]
    fn a_lock_that_this_process_gives_up_is_waited_for() {
        let path = std::env::temp_dir().join(format!("bulkhead-claim-given-up-{}.lock", std::process::id()));
        let claim = take(&path).expect("a file").expect("a free lock");
        // As a child has the file that is about to begin its own program.
        let inherited = claim._file.try_clone().expect("a second handle");
        drop(claim);
        let child = thread::spawn(move || {
            thread::sleep(20 * RETRY);
            drop(inherited);
        });
        take(&path).expect("a file").expect("the lock, as soon as it is free");
        child.join().expect("ended");
        let _ = fs::remove_file(path);
    }
}
