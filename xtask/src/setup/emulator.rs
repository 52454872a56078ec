//! QEMU, and which one: any recent version runs the systems; counting instructions on several cores takes a newer one.

use super::apt;
use crate::{qemu::PROGRAM as QEMU, workspace::Workspace};
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PACKAGE: &str = "qemu-system-arm";
/// From this version on, `-icount` shares its time fairly between cores that all run: earlier ones give each core
/// slices of up to 100 ms, and what two cores do together cannot be measured.
pub(crate) const MEASURES: u32 = 9;
/// The last Debian whose own QEMU is older than that; its backports have a newer one.
const OLD_DEBIAN: u32 = 12;
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MACHINE_SOURCES: &str = "/etc/apt/sources.list";

/// Makes sure that QEMU is there, and where this machine's package sources have a version that can measure, that one.
///
/// Where no such version can be had, an older QEMU is kept, with one sentence the first time.
///
/// # Errors
/// One sentence that says what to install, where there is none and this machine does not let us install it.
pub(crate) fn qemu(workspace: &Workspace) -> anyhow::Result<()> {
    let found = version();
    if let Some(reason) = known_fault(&name()) {
        eprintln!("set-up: {reason}");
    }
    let kept = workspace.cache().join("old-qemu-is-kept");
    if found.is_some_and(|major| major >= MEASURES || kept.is_file()) {
        return Ok(());
    }
    let attempt = newer(&workspace.cache());
    if found.is_none() && version().is_none() {
        // Where the newer one cannot be had, the usual one will do.
        let installed = apt::install(PACKAGE);
        let reason = installed.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
        ensure!(
            apt::exists(QEMU),
            "there is no `{QEMU}`{reason}: install QEMU 7.2 or newer for AArch64 (Debian and Ubuntu: `sudo apt-get install \
             {PACKAGE}`; Fedora: `sudo dnf install qemu-system-aarch64`; macOS: `brew install qemu`) and run the command \
             again"
        );
    }
    let now = version().with_context(|| format!("`{QEMU} --version` does not say which version it is"))?;
    if now < MEASURES {
        let reason = attempt.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
        eprintln!(
            "set-up: QEMU {now} is kept{reason}: systems run on it, but measurements and scenarios that count ticks want \
             QEMU {MEASURES} or newer"
        );
        fs::create_dir_all(workspace.cache())?;
        fs::write(&kept, "Delete this file to let the set-up look for a newer QEMU once more.\n")?;
    }
    Ok(())
}

/// As [`qemu`], for runs that count instructions on several cores.
///
/// # Errors
/// As [`qemu`], and where the QEMU of this machine is too old for that.
pub(crate) fn measuring_qemu(workspace: &Workspace) -> anyhow::Result<()> {
    qemu(workspace)?;
    let found = version().unwrap_or(0);
    ensure!(
        found >= MEASURES,
        "measurements want QEMU {MEASURES} or newer, and this machine has QEMU {found}: install a newer one and run the \
         command again"
    );
    Ok(())
}

/// This machine's QEMU as it names itself: `QEMU emulator version 10.0.2 (…)`.
pub(crate) fn name() -> String {
    let output = Command::new(QEMU).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    text.lines().next().unwrap_or("an unknown QEMU").to_owned()
}

/// The major version of this machine's QEMU, if it has one.
pub(crate) fn version() -> Option<u32> {
    major(&name())
}

/// The oldest QEMU on which systems have been seen to run, as major and minor version.
const OLDEST: (u32, u32) = (7, 2);

/// What is known to go wrong with the QEMU that says this about itself.
fn known_fault(text: &str) -> Option<String> {
    let (_, version) = text.split_once("version ")?;
    let mut numbers = version.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    ((major, minor) < OLDEST).then(|| {
        format!(
            "QEMU {major}.{minor} is older than {}.{}, the oldest on which systems have been seen to run: install a newer \
             one where something fails",
            OLDEST.0, OLDEST.1
        )
    })
}

/// The major version in what a QEMU says about itself: `QEMU emulator version 10.0.2 (Debian …)`.
fn major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version ")?;
    version.split('.').next()?.parse().ok()
}

/// Installs a QEMU that can measure: the machine's own candidate if it is new enough, or else the one of Debian's
/// backports. The machine's package sources stay as they are.
///
/// # Errors
/// apt's own message, or a sentence that says why there is none.
fn newer(cache: &Path) -> anyhow::Result<()> {
    if apt::candidate(PACKAGE).and_then(|version| candidate_major(&version)).is_some_and(|major| major >= MEASURES) {
        return apt::install(PACKAGE);
    }
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = old_debian(&system).context("this machine's packages have no newer one")?;
    let directory = cache.join("apt/backports");
    let result = from_backports(codename, &directory);
    // Sixty megabytes of packages that nobody needs again; that they stay is no reason to fail.
    let _ = fs::remove_dir_all(&directory);
    result
}

fn from_backports(codename: &str, directory: &Path) -> anyhow::Result<()> {
    let suite = format!("{codename}-backports");
    let private = PrivateSources::write(codename, &suite, directory)?;
    apt::install_from(&private.options, Some(&suite), PACKAGE)
}

/// The machine's package sources and one more, for a single call of apt: lists, cache and the file that names the
/// sources lie in a directory of our own.
struct PrivateSources {
    options: Vec<String>,
}

impl PrivateSources {
    fn write(codename: &str, suite: &str, directory: &Path) -> anyhow::Result<Self> {
        let lists = directory.join("lists");
        let archives = directory.join("cache");
        for needed in [lists.join("partial"), archives.join("archives/partial")] {
            fs::create_dir_all(&needed).with_context(|| format!("{} cannot be created", needed.display()))?;
        }
        let targets = apt::targets()?;
        // This file takes the place of the machine's, so it begins as a copy of it.
        let mut sources = fs::read_to_string(MACHINE_SOURCES).unwrap_or_default();
        if !targets.iter().any(|(_, release)| release == suite) {
            let mirror = targets.iter().find(|(_, release)| release == codename).map(|(mirror, _)| mirror);
            let mirror = mirror.with_context(|| format!("apt's sources name no mirror of Debian {codename}"))?;
            let keys = if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
            sources.push_str(&format!("\ndeb {keys}{mirror} {suite} main\n"));
        }
        let file: PathBuf = directory.join("sources.list");
        fs::write(&file, sources)?;
        let option = |name: &str, path: &Path| format!("-o{name}={}", path.display());
        Ok(Self {
            options: vec![
                option("Dir::Etc::SourceList", &file),
                option("Dir::State::Lists", &lists),
                option("Dir::Cache", &archives),
                // apt fetches as user _apt, who may not write below a home directory.
                "-oAPT::Sandbox::User=root".to_owned(),
            ],
        })
    }
}

/// The code name of this machine's Debian, if it is one whose QEMU is too old and whose backports have a newer one.
fn old_debian(os_release: &str) -> Option<&str> {
    let value = |key: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(value.trim_matches('"'))
    };
    let old = value("VERSION_ID")?.parse::<u32>().ok()? <= OLD_DEBIAN;
    (value("ID")? == "debian" && old).then(|| value("VERSION_CODENAME"))?
}

/// The major version in a Debian package's: `1:10.0.2+ds-1~bpo12+1`.
fn candidate_major(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, upstream)| upstream);
    upstream.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of its own has an environment of its own.
    #[test]
    fn without_qemu_the_set_up_says_what_to_install() {
        const ALONE: &str = "BULKHEAD_TEST_WITHOUT_PATH";
        let workspace = Workspace::find().expect("a workspace");
        if std::env::var_os(ALONE).is_some() {
            println!("{:#}", qemu(&workspace).expect_err("nothing can be found or installed"));
            return;
        }
        let name = "setup::emulator::tests::without_qemu_the_set_up_says_what_to_install";
        let mut alone = Command::new(std::env::current_exe().expect("a program"));
        // Cargo says where the workspace is.
        alone.args(["--exact", "--nocapture", name]).env(ALONE, "").env("PATH", "/nowhere").env("CARGO", env!("CARGO"));
        let output = alone.output().expect("a run");
        let text = String::from_utf8_lossy(&output.stdout);
        let start = format!(
            "there is no `{QEMU}` (this machine has no apt-get to install it with): install QEMU 7.2 or newer for AArch64 \
             (Debian and Ubuntu: `sudo apt-get install {PACKAGE}`"
        );
        assert!(text.contains(&start), "{text} {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn qemu_says_which_version_it_is() {
        assert_eq!(major("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright"), Some(7));
        assert_eq!(major("QEMU emulator version 10.0.2"), Some(10));
        assert_eq!(major("command not found"), None);
    }

    #[test]
    fn a_qemu_on_which_nothing_has_run_is_named() {
        let sentence = known_fault("QEMU emulator version 6.2.0 (Debian 1:6.2)").expect("too old");
        assert!(sentence.starts_with("QEMU 6.2 is older than 7.2, "), "{sentence}");
        for text in ["QEMU emulator version 7.2.22 (Debian)", "QEMU emulator version 10.0.2", "an unknown QEMU"] {
            assert_eq!(known_fault(text), None, "{text}");
        }
    }

    #[test]
    fn a_packages_version_is_read_with_or_without_an_epoch() {
        assert_eq!(candidate_major("1:10.0.2+ds-2~bpo12+1"), Some(10));
        assert_eq!(candidate_major("9.1"), Some(9));
        assert_eq!(candidate_major("(none)"), None);
    }

    #[test]
    fn backports_are_asked_only_where_debian_is_old() {
        let release = |id, version| format!("NAME=x\nID={id}\nVERSION_ID=\"{version}\"\nVERSION_CODENAME=name\n");
        assert_eq!(old_debian(&release("debian", "12")), Some("name"));
        assert_eq!(old_debian(&release("debian", "13")), None);
        assert_eq!(old_debian(&release("ubuntu", "12")), None);
        assert_eq!(old_debian("ID=debian\n"), None);
    }
}
