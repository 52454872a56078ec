//! Debian's package manager, used in two ways: to install a missing program on this machine, and, with directories of
//! its own, to fetch packages of another architecture without this machine's package lists noticing.

use crate::progress;
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
/// # Errors
/// Why this user or this machine cannot ([`hindrance`]), or apt-get's own message.
pub(crate) fn install(package: &str) -> anyhow::Result<()> {
    install_from(&[], None, package)
}

/// As [`install`], with `options` for apt-get, and from the release `release` where one is named.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_from(options: &[String], release: Option<&str>, package: &str) -> anyhow::Result<()> {
    if let Some(reason) = hindrance(exists("apt-get"), user()) {
        bail!("{reason}");
    }
    let mut arguments = vec!["install", "--no-install-recommends", package];
    arguments.extend(release.iter().flat_map(|release| ["--target-release", release]));
    // A mirror that cannot be reached may not matter; what matters is whether the package can then be installed.
    let updated = updated(privileged(options).arg("update"));
    progress::step(
        &format!("installing {package}{}", release.map(|name| format!(" of {name}")).unwrap_or_default()),
        || run(privileged(options).args(&arguments)).or_else(|error| updated.and(Err(error))),
    )
}

/// What the user of this program may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Root,
    /// `sudo` makes them root without a password.
    Trusted,
    /// `sudo` asks for a password.
    Asked,
    /// There is no `sudo`.
    Plain,
}

fn user() -> User {
    if is_root() {
        User::Root
    } else if !exists("sudo") {
        User::Plain
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        User::Trusted
    } else {
        User::Asked
    }
}

/// Why `user` cannot install a package on a machine with or without apt-get, if that is so.
const fn hindrance(has_apt: bool, user: User) -> Option<&'static str> {
    match user {
        _ if !has_apt => Some("this machine has no apt-get to install it with"),
        User::Root | User::Trusted => None,
        User::Asked => Some("only root may install it, and `sudo` asks for a password"),
        User::Plain => Some("only root may install it, and there is no `sudo`"),
    }
}

/// apt-get with the right to change this machine; see [`hindrance`].
fn privileged(options: &[String]) -> Command {
    let mut command = if is_root() { Command::new("env") } else { Command::new("sudo") };
    if !is_root() {
        command.args(["-n", "env"]);
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get", "--quiet", "--yes"]).args(options);
    command
}

/// Runs `command`, an `apt-get update`.
///
/// # Errors
/// What is known to have kept it from a source. It fails for none itself, since the lists that it has may do.
fn updated(command: &mut Command) -> anyhow::Result<()> {
    reached(&run_for_warnings(command)?)
}

/// # Errors
/// See [`updated`], which has said `warnings`.
fn reached(warnings: &str) -> anyhow::Result<()> {
    match super::room::cause(warnings) {
        Some(cause) if warnings.contains("Failed to fetch") => Err(anyhow::Error::msg(cause)),
        _ => Ok(()),
    }
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
    /// apt-get's own message, or what has kept it from a source. Sources without arm64 packages are no error.
    pub(crate) fn update(&self) -> anyhow::Result<()> {
        updated(self.command("apt-get").args(["--quiet", "update"]))
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
    run_for_warnings(command).map(drop)
}

/// As [`run`]; gives what the command has said to its standard error, although it succeeded.
fn run_for_warnings(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("{name} could not be started"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr).into_owned());
    if !status.success() {
        let text = if stderr.is_empty() { &stdout } else { stderr.as_str() };
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("W: ")).collect();
        let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("; ");
        let cause = super::room::cause(text).map(|cause| format!("{cause} - ")).unwrap_or_default();
        bail!("{cause}{name} failed ({status}): {last}");
    }
    Ok(stderr)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_without_a_network_is_told_from_one_without_a_package() {
        let away = "W: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure \
                    resolving 'deb.debian.org'\nW: Some index files failed to download. They have been ignored, or \
                    old ones used instead.\n";
        let sentence = reached(away).expect_err("nothing is reached").to_string();
        assert!(sentence.starts_with("there is no network"), "{sentence}");
        reached("W: Skipping acquire of configured file 'main/binary-arm64/Packages'\n")
            .expect("a source without arm64");
        reached("").expect("all is well");
    }

    #[test]
    fn what_hinders_a_user_is_named() {
        let users = [User::Root, User::Trusted, User::Asked, User::Plain];
        for user in users {
            assert_eq!(hindrance(false, user), Some("this machine has no apt-get to install it with"), "{user:?}");
        }
        assert_eq!(
            users.map(|user| hindrance(true, user)),
            [
                None,
                None,
                Some("only root may install it, and `sudo` asks for a password"),
                Some("only root may install it, and there is no `sudo`"),
            ]
        );
    }

    #[test]
    fn a_success_gives_its_warnings_and_a_failure_its_cause() {
        let shell = |script: &str| run_for_warnings(Command::new("sh").args(["-c", script]));
        assert_eq!(shell("echo out; echo warning >&2").expect("a success"), "warning\n");
        let text = format!("{:#}", shell("echo 'No space left on device' >&2; exit 3").expect_err("a failure"));
        assert!(text.starts_with("the disk is full: "), "{text}");
    }
}
