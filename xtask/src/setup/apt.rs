//! Debian's package manager, used in two ways: to install a missing program on this machine, and, with directories of
//! its own, to fetch packages of another architecture without this machine's package lists noticing.

use anyhow::{Context, bail, ensure};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Whether `program` can be started.
pub(crate) fn exists(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
}

/// Whether this process runs as root, as the files it creates would tell.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Installs `package` on this machine with apt-get.
///
/// Gives `false`, having changed nothing, where that is not this machine's way or not this user's right.
///
/// # Errors
/// apt-get's own message, when it tried and failed.
pub(crate) fn install(package: &str) -> anyhow::Result<bool> {
    if !may_install() {
        return Ok(false);
    }
    // A mirror that cannot be reached may not matter; what matters is whether the package can then be installed.
    let updated = privileged(&[], &["update"]);
    privileged(&[], &["install", "--no-install-recommends", package])
        .or_else(|error| updated.and(Err(error)))
        .with_context(|| format!("apt-get cannot install {package}"))?;
    Ok(true)
}

/// Whether apt-get is this machine's way to install programs, and this user may use it without being asked for a
/// password.
pub(crate) fn may_install() -> bool {
    exists("apt-get") && (is_root() || (exists("sudo") && succeeds(Command::new("sudo").args(["-n", "true"]))))
}

/// Runs apt-get with the right to change this machine; see [`may_install`].
///
/// # Errors
/// apt-get's own message.
pub(crate) fn privileged(options: &[String], arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = if is_root() { Command::new("env") } else { Command::new("sudo") };
    if !is_root() {
        command.args(["-n", "env"]);
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get", "--quiet", "--yes"]);
    run(command.args(options).args(arguments))
}

/// The version of `package` that apt-get would install, as far as this machine's package lists know.
pub(crate) fn candidate(package: &str) -> Option<String> {
    let output = Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).map(str::to_owned)
}

/// This machine's package sources, as pairs of mirror and release, whether their lists have been fetched or not.
///
/// # Errors
/// When there is no apt-get, or it says nothing.
pub(crate) fn targets() -> anyhow::Result<Vec<(String, String)>> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]);
    let output = command.env("LC_ALL", "C").output().context("apt-get could not be started")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pair = |line: &str| line.split_once(' ').map(|(mirror, release)| (mirror.to_owned(), release.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

/// apt with its own package lists, its own cache, and an empty view of what is installed, for arm64 packages.
pub(crate) struct ForeignApt {
    options: Vec<OsString>,
}

impl ForeignApt {
    /// Prepares the directories below `directory`. With `sources`, that file replaces the machine's own sources.
    ///
    /// # Errors
    /// When the directories cannot be created.
    pub(crate) fn new(directory: &Path, sources: Option<&Path>) -> anyhow::Result<Self> {
        let lists = directory.join("lists");
        let cache = directory.join("cache");
        for needed in [lists.join("partial"), cache.join("archives/partial")] {
            std::fs::create_dir_all(&needed).with_context(|| format!("{} cannot be created", needed.display()))?;
        }
        let mut options: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &std::ffi::OsStr| {
            let mut option = OsString::from(format!("-o{name}="));
            option.push(value);
            options.push(option);
        };
        option("APT::Architecture", "arm64".as_ref());
        option("APT::Architectures", "arm64".as_ref());
        option("Dir::State::Lists", lists.as_ref());
        option("Dir::State::status", "/dev/null".as_ref());
        option("Dir::Cache", cache.as_ref());
        option("Acquire::Languages", "none".as_ref());
        option("Acquire::Retries", "3".as_ref());
        if is_root() {
            // apt fetches as user _apt, who may not write below a home directory.
            option("APT::Sandbox::User", "root".as_ref());
        }
        if let Some(sources) = sources {
            option("Dir::Etc::SourceList", sources.as_ref());
            option("Dir::Etc::SourceParts", "/dev/null".as_ref());
        }
        Ok(Self { options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").args(&self.options);
        command
    }

    /// Fetches the package lists.
    ///
    /// # Errors
    /// apt-get's own message. Sources without arm64 packages are no error.
    pub(crate) fn update(&self) -> anyhow::Result<()> {
        run(self.command("apt-get").args(["--quiet", "update"]))
    }

    /// The value of `field` in the newest version of `package`, if there is such a package.
    pub(crate) fn field(&self, package: &str, field: &str) -> Option<String> {
        let output = self.command("apt-cache").args(["--no-all-versions", "show", package]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": ")).map(str::to_owned)
    }

    /// Downloads `packages` into `directory`; apt checks them against the signed lists.
    ///
    /// # Errors
    /// apt-get's own message.
    pub(crate) fn download(&self, packages: &[&str], directory: &Path) -> anyhow::Result<()> {
        run(self.command("apt-get").args(["--quiet", "download"]).args(packages).current_dir(directory))
    }
}

/// Runs `command` without input, and keeps its output for the case that it fails.
///
/// # Errors
/// The last lines of what the command printed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("{name} could not be started"))?;
    if !status.success() {
        let text = if stderr.is_empty() { stdout } else { stderr };
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("W: ")).collect();
        let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("; ");
        let cause = super::room::cause(&text).map(|cause| format!("{cause} - ")).unwrap_or_default();
        bail!("{cause}{name} failed ({status}): {last}");
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Copies the one file called `member` out of a Debian package, to `destination`.
///
/// # Errors
/// When `dpkg-deb` is missing or the package has no such file.
pub(crate) fn extract(package: &Path, member: &str, destination: &Path) -> anyhow::Result<()> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(package).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut unpack = unpack.spawn().context("dpkg-deb could not be started; install dpkg")?;
    let archive = unpack.stdout.take().context("dpkg-deb has no output")?;
    let file = std::fs::File::create(destination)?;
    let select = Command::new("tar")
        .args(["--extract", "--to-stdout", "--file", "-", member])
        .stdin(archive)
        .stdout(file)
        .status();
    let unpacked = unpack.wait()?;
    let selected = select.context("tar could not be started; install tar")?;
    ensure!(selected.success() && unpacked.success(), "{} has no file {member}, or is damaged", package.display());
    Ok(())
}
