//! `image`: a directory with all that a start takes, which works wherever it is moved to.

use crate::{
    disks,
    launch::{self, BoardOptions, Prepared},
    qemu::{Machine, Uart},
    systems, u_boot,
    workspace::Workspace,
};
use anyhow::Context;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The start script.
pub(crate) const SCRIPT: &str = "start.sh";

/// The options of `image`.
#[derive(clap::Args)]
pub(super) struct Image {
    /// A system of guests/systems, or the path of a .toml file
    #[arg(default_value = super::DEFAULT_SYSTEM)]
    system: String,
    /// Where to write bulkhead.bin, SYSTEM.bundle, the disks, and the scripts that start it all
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    board: BoardOptions,
}

impl Image {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        self.write(workspace)?;
        println!("{}", self.output.join(SCRIPT).display());
        Ok(ExitCode::SUCCESS)
    }

    fn write(&self, workspace: &Workspace) -> anyhow::Result<Prepared> {
        let prepared = launch::prepare_image(workspace, systems::find(workspace, &self.system)?, "")?;
        let name = prepared.source.name().to_owned();
        let bundle = format!("{name}.bundle");
        prepared.write_bundle(&self.output.join(&bundle))?;
        let kernel = self.output.join("bulkhead.bin");
        fs::copy(&prepared.program.image, &kernel)
            .with_context(|| format!("{} cannot be written", kernel.display()))?;
        let machine = prepared.machine_with(
            workspace,
            &self.board,
            Uart::Terminal,
            Vec::new(),
            "bulkhead.bin".into(),
            bundle.clone().into(),
        )?;
        let machine = self.with_own_disks(&prepared, machine)?;
        let script = self.output.join(SCRIPT);
        write(&script, start_script(&name, &machine).as_bytes())?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let commands = u_boot::commands(&name, &bundle);
        write(&self.output.join("boot.cmd"), commands.as_bytes())?;
        write(&self.output.join("boot.scr"), &u_boot::script_image(&commands))?;
        Ok(prepared)
    }

    /// `machine` with copies of its disks, all of it by names relative to the directory.
    fn with_own_disks(&self, prepared: &Prepared, mut machine: Machine) -> anyhow::Result<Machine> {
        let Some(virtio) = &mut machine.virtio else { return Ok(machine) };
        for ((_, path), disk) in virtio.disks.iter_mut().zip(prepared.source.disks()) {
            let name = format!("{}.img", disk.name);
            let copy = self.output.join(&name);
            disks::copy_sparse(path, &copy).with_context(|| format!("{} cannot be written", copy.display()))?;
            *path = name.into();
        }
        if let Some((_, path)) = &mut virtio.console {
            *path = "consoles.log".into();
        }
        Ok(machine)
    }
}

/// Writes the image of `system` to the directory `output`.
///
/// # Errors
/// As the command.
pub(crate) fn write_to(workspace: &Workspace, system: &str, output: &Path) -> anyhow::Result<Prepared> {
    Image { system: system.to_owned(), output: output.to_owned(), board: BoardOptions::default() }.write(workspace)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

/// Starts QEMU among the files beside the script, wherever that is; what it is given, QEMU gets too.
fn start_script(name: &str, machine: &Machine) -> String {
    format!(
        "#!/bin/sh\n# Starts the system {name} under QEMU; arguments go to QEMU.\ncd \"$(dirname \"$0\")\" || exit 1\n\
         exec {} \"$@\"\n",
        machine.line()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::{Virtio, tests::machine};

    #[test]
    fn the_start_script_works_wherever_its_directory_is() {
        let virtio = Virtio {
            disks: vec![(0, "main.img".into())],
            console: Some((1, "consoles.log".into())),
            ..Virtio::default()
        };
        let script = start_script("two", &Machine { virtio: Some(virtio), extra: Vec::new(), ..machine() });
        let mut lines = script.lines();
        assert_eq!(lines.next(), Some("#!/bin/sh"));
        assert!(script.contains("\ncd \"$(dirname \"$0\")\" || exit 1\nexec qemu-system-aarch64 "), "{script}");
        // No word of the command is an absolute path, nor the value of an option.
        let command = lines.last().unwrap_or_default();
        assert!(!command.split([' ', '=', ',']).any(|word| word.starts_with('/')), "{command}");
        assert!(command.ends_with(" \"$@\""), "{command}");
    }
}
