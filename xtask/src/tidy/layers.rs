//! The layers: which crate of this repository may depend on which.

use super::{Finding, Severity};
use crate::workspace::Workspace;
use cargo_metadata::{DependencyKind, Package};
use std::fs;

/// Each crate with the crates of ours that it may use. What is not listed here belongs to no layer, and is refused.
const ALLOWED: &[(&str, &[&str])] = &[
    ("bulkhead-abi", &[]),
    ("bulkhead-device-tree", &[]),
    ("bulkhead-vdev", &[]),
    ("bulkhead-platform", &[]),
    ("bulkhead-devices", &["bulkhead-vdev"]),
    ("bulkhead-manifest", &["bulkhead-abi"]),
    ("bulkhead-terminal", &[]),
    ("bulkhead-aarch64", &["bulkhead-vdev", "bulkhead-abi"]),
    ("bulkhead-memory", &[]),
    ("bulkhead-vgic", &["bulkhead-vdev"]),
    ("bulkhead-virtio-transport", &["bulkhead-vdev", "bulkhead-abi", "bulkhead-vm-lifecycle"]),
    ("bulkhead-vm-lifecycle", &["bulkhead-vdev", "bulkhead-abi", "bulkhead-vgic"]),
    (
        "bulkhead-arch",
        &[
            "bulkhead-aarch64",
            "bulkhead-memory",
            "bulkhead-terminal",
            "bulkhead-vgic",
            "bulkhead-abi",
            "bulkhead-device-tree",
            "bulkhead-vdev",
        ],
    ),
    (
        "bulkhead",
        &[
            "bulkhead-abi",
            "bulkhead-arch",
            "bulkhead-devices",
            "bulkhead-manifest",
            "bulkhead-aarch64",
            "bulkhead-memory",
            "bulkhead-terminal",
            "bulkhead-vgic",
            "bulkhead-virtio-transport",
            "bulkhead-vm-lifecycle",
            "bulkhead-platform",
            "bulkhead-vdev",
        ],
    ),
    (
        "bulkhead-xtask",
        &[
            "bulkhead-abi",
            "bulkhead-devices",
            "bulkhead-driver-services",
            "bulkhead-linux-io-bench",
            "bulkhead-manifest",
            "bulkhead-platform",
            "bulkhead-terminal",
            "bulkhead-vdev",
        ],
    ),
    ("bulkhead-linux-io-bench", &[]),
    ("bulkhead-linux-socket-check", &[]),
    ("bulkhead-guest-rt", &["bulkhead-abi"]),
    ("bulkhead-guest-testkit", &["bulkhead-guest-rt"]),
    ("bulkhead-driver-services", &["bulkhead-abi", "bulkhead-terminal"]),
    ("bulkhead-driver-domain", &["bulkhead-abi", "bulkhead-guest-rt", "bulkhead-driver-services"]),
    // One of the tests is a driver domain, a hostile one.
    (
        "bulkhead-guest-tests",
        &["bulkhead-abi", "bulkhead-guest-rt", "bulkhead-guest-testkit", "bulkhead-driver-services"],
    ),
];

/// What a guest that tests or measures may use.
const ALLOWED_TO_GUESTS: &[&str] = &["bulkhead-abi", "bulkhead-guest-rt", "bulkhead-guest-testkit"];

/// The crates that must say `#![forbid(unsafe_code)]`.
const PURE: &[&str] = &[
    "bulkhead-abi",
    "bulkhead-device-tree",
    "bulkhead-devices",
    "bulkhead-driver-services",
    "bulkhead-guest-testkit",
    "bulkhead-manifest",
    "bulkhead-aarch64",
    "bulkhead-memory",
    "bulkhead-vgic",
    "bulkhead-virtio-transport",
    "bulkhead-vm-lifecycle",
    "bulkhead-platform",
    "bulkhead-terminal",
    "bulkhead-vdev",
];

/// Checks the dependencies of every crate, and that the pure crates forbid `unsafe`.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let packages = workspace.metadata.workspace_packages();
    let mut findings = Vec::new();
    for package in &packages {
        let manifest = workspace.display(package.manifest_path.as_std_path()).to_string();
        for dependency in &package.dependencies {
            let ours = packages.iter().any(|package| package.name.as_str() == dependency.name);
            // A test may lean on any crate: it is not part of what runs.
            if ours && dependency.kind != DependencyKind::Development {
                findings.extend(refusal(&package.name, &dependency.name).map(|sentence| refused(&manifest, sentence)));
            }
        }
        if PURE.contains(&package.name.as_str()) && !forbids_unsafe(package) {
            findings
                .push(refused(&manifest, "this crate is pure: its lib.rs must say `#![forbid(unsafe_code)]`".into()));
        }
    }
    findings
}

fn refused(file: &str, sentence: String) -> Finding {
    Finding { file: file.to_owned(), line: 0, sentence, severity: Severity::Refused }
}

/// Why `package` may not depend on `dependency`, if it may not.
fn refusal(package: &str, dependency: &str) -> Option<String> {
    let known = ALLOWED.iter().find(|(name, _)| *name == package).map(|(_, allowed)| *allowed);
    let allowed = match known {
        Some(allowed) => allowed,
        None if package.starts_with("bulkhead-guest-") => ALLOWED_TO_GUESTS,
        None => return Some(format!("`{package}` belongs to no layer; give it a line in xtask/src/tidy/layers.rs")),
    };
    if allowed.contains(&dependency) {
        return None;
    }
    let may = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
    Some(format!("`{package}` may not depend on `{dependency}`: its layer uses {may}"))
}

fn forbids_unsafe(package: &Package) -> bool {
    let library = package.targets.iter().find(|target| target.is_lib());
    let text = library.and_then(|library| fs::read_to_string(&library.src_path).ok()).unwrap_or_default();
    text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_model_cannot_reach_hardware() {
        let sentence = refusal("bulkhead-devices", "bulkhead-arch").expect("refused");
        assert!(sentence.contains("may not depend on `bulkhead-arch`"), "{sentence}");
    }

    #[test]
    fn a_guest_sees_the_abi_and_its_runtime_alone() {
        assert_eq!(refusal("bulkhead-guest-tests", "bulkhead-guest-rt"), None);
        assert!(refusal("bulkhead-guest-tests", "bulkhead-vgic").is_some());
    }

    #[test]
    fn the_driver_domain_has_no_test_kit() {
        assert!(refusal("bulkhead-driver-domain", "bulkhead-guest-testkit").is_some());
        assert!(refusal("bulkhead-guest-rt", "bulkhead-guest-testkit").is_some());
    }

    #[test]
    fn a_new_crate_must_be_given_a_layer() {
        assert!(refusal("bulkhead-shortcuts", "bulkhead-arch").expect("refused").contains("no layer"));
    }

    #[test]
    fn no_two_layers_use_each_other() {
        for (package, allowed) in ALLOWED {
            for dependency in *allowed {
                assert!(refusal(dependency, package).is_some(), "{package} and {dependency}");
            }
        }
    }
}
