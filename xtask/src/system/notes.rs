//! What a system's author should know, although nothing is wrong: whom the board has to trust, and which guests are not
//! heard.

use super::{
    Source, VmSource,
    backend::{Backend, Client},
};

/// Linux's names for the consoles that a guest can have, each with the device behind it.
const CONSOLES: [(&str, &str); 2] = [("ttyAMA0", "pl011"), ("hvc0", "virtio-console")];

impl Source {
    /// The guests whose only console is virtio: they print through their driver domain alone.
    pub(crate) fn heard_by_virtio_alone(&self) -> impl Iterator<Item = &VmSource> {
        self.vms.iter().filter(|vm| has_virtio_console(vm) && !has_uart(vm))
    }

    /// One sentence for each thing.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for vm in &self.vms {
            let masters: Vec<_> = vm.assigned.iter().filter(|device| device.dma).map(|device| &*device.name).collect();
            if let Some(first) = masters.first() {
                notes.push(format!(
                    "vm {:?} owns devices that master the bus ({first}), and no SMMU stands between: their DMA reaches \
                     all memory, and is trusted",
                    vm.name
                ));
            }
        }
        for vm in self.heard_by_virtio_alone() {
            notes.push(format!(
                "vm {:?} has no pl011: it prints through its driver domain alone, which it cannot do before it has loaded \
                 a driver for virtio's console",
                vm.name
            ));
        }
        for vm in self.vms.iter().filter(|vm| vm.doorbell.is_none()) {
            if !has_uart(vm) && !has_virtio_console(vm) {
                notes.push(format!("vm {:?} has no console: nothing that it prints is seen", vm.name));
            } else if let Some((name, device)) = missing_console(vm) {
                notes.push(format!(
                    "the command line of vm {:?} has console={name}, but it has no {device}: nothing is printed there",
                    vm.name
                ));
            }
        }
        notes
    }
}

fn has_uart(vm: &VmSource) -> bool {
    vm.devices.iter().any(|device| device.kind == "pl011")
}

fn has_virtio_console(vm: &VmSource) -> bool {
    let is_console = |client: &Client| matches!(client.backend, Backend::Console);
    vm.clients.iter().flatten().any(is_console)
}

/// The console that Linux is to print on, if the guest does not have it, and the device that is missing.
fn missing_console(vm: &VmSource) -> Option<(&'static str, &'static str)> {
    let mut words = vm.command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("console="));
    words.find_map(|console| {
        let name = console.split(',').next().unwrap_or_default();
        let (name, device) = CONSOLES.into_iter().find(|(known, _)| *known == name)?;
        vm.devices.iter().all(|other| other.kind != device).then_some((name, device))
    })
}

#[cfg(test)]
mod tests {
    use crate::system::reader::parse;
    use std::path::Path;

    fn notes(guest: &str) -> Vec<String> {
        let text = format!(
            "board = \"qemu-virt\"\nmemory = \"1 GiB\"\ncores = 1\n\
             [[vm]]\nname = \"a\"\nmemory = \"64 MiB\"\ncores = [0]\nkernel = \"debian\"\n{guest}\n\
             [[vm]]\nname = \"io\"\nmemory = \"64 MiB\"\ncores = [0]\nkernel = \"guest:driver-domain\"\n\
             owns = [\"virtio-mmio\"]\ndriver_domain = true\n"
        );
        parse(Path::new("notes.toml"), &text).unwrap_or_else(|problem| panic!("{problem}")).notes()
    }

    const TRUST: &str = "vm \"io\" owns devices that master the bus (virtio-mmio), and no SMMU stands between: their DMA \
                         reaches all memory, and is trusted";

    #[test]
    fn whoever_masters_the_bus_is_named() {
        assert_eq!(notes("[[vm.device]]\nkind = \"pl011\""), [TRUST]);
    }

    #[test]
    fn a_guest_that_is_not_heard_is_named() {
        assert_eq!(notes(""), [TRUST, "vm \"a\" has no console: nothing that it prints is seen"]);
        let notes = notes("command_line = \"console=hvc0\"\n[[vm.device]]\nkind = \"virtio-console\"");
        assert!(notes.len() == 2 && notes[1].starts_with("vm \"a\" has no pl011: it prints through"), "{notes:?}");
    }

    #[test]
    fn a_console_that_is_not_there_is_named() {
        let uart = "[[vm.device]]\nkind = \"pl011\"";
        let missing = notes(&format!("command_line = \"console=hvc0\"\n{uart}"));
        let expected = "the command line of vm \"a\" has console=hvc0, but it has no virtio-console: nothing is printed \
                        there";
        assert_eq!(missing, [TRUST, expected]);
        assert_eq!(notes(&format!("command_line = \"console=ttyAMA0,115200\"\n{uart}")), [TRUST]);
    }

    /// The text of a file of the repository, paragraph by paragraph, each in one line.
    fn paragraphs(path: &str) -> Vec<String> {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).expect(path);
        let line = |line: &str| line.trim_start_matches(['/', '!', '#', ' ']).to_owned();
        let paragraph = |lines: &str| lines.lines().map(line).collect::<Vec<_>>().join(" ");
        text.replace("\n//!\n", "\n\n").split("\n\n").map(paragraph).collect()
    }

    #[test]
    fn what_documents_say_of_isolation_they_say_of_cpus_and_tell_of_dma_beside() {
        let claims = ["disturb one another", "never their memory", "never a client's memory"];
        let documents = [
            "README.md",
            "hypervisor/ARCHITECTURE.md",
            "guests/systems/two-linux.toml",
            "guests/driver-domain/src/main.rs",
        ];
        for document in documents {
            let paragraphs = paragraphs(document);
            let found = paragraphs.iter().filter(|text| claims.iter().any(|claim| text.contains(claim)));
            let found: Vec<_> = found.collect();
            assert!(!found.is_empty(), "{document} does not say what is kept apart");
            for paragraph in found {
                let sentences = paragraph.split_inclusive(". ");
                for sentence in sentences.filter(|text| claims.iter().any(|claim| text.contains(claim))) {
                    assert!(sentence.contains("CPU"), "{document}: {sentence}");
                }
                assert!(paragraph.contains("DMA"), "{document}: {paragraph}");
            }
        }
    }

    #[test]
    fn the_readme_leads_to_the_table_that_says_what_dma_can() {
        const LINK: &str = "(hypervisor/ARCHITECTURE.md#assigned-devices-and-what-has-to-be-trusted)";
        assert!(paragraphs("README.md").iter().any(|text| text.contains(LINK) && text.contains("DMA")));
        let map = paragraphs("hypervisor/ARCHITECTURE.md");
        let heading = map.iter().position(|text| text == "Assigned devices, and what has to be trusted");
        let section: Vec<_> = map.iter().skip(heading.expect("the heading") + 1).take(6).collect();
        assert!(section.iter().any(|text| text.contains("**its DMA is trusted**")), "{section:?}");
        let table = section.iter().find(|text| text.starts_with("| a hostile driver domain")).expect("the table");
        assert!(table.contains("| can, through DMA | read and write all RAM, EL2's included."), "{table}");
        // Bulkhead's own word, when it starts such a system, is the table's.
        let said = notes("[[vm.device]]\nkind = \"pl011\"");
        assert!(said.iter().any(|note| note.ends_with("their DMA reaches all memory, and is trusted")), "{said:?}");
    }
}
