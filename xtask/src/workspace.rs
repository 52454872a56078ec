//! Where things are: the repository, cargo's target directory, and the cache of what set-up has fetched.

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand};
use std::path::{Path, PathBuf};

/// The repository and the directories that belong to it.
pub(crate) struct Workspace {
    /// What cargo knows of the workspace's packages, without their dependencies' own.
    pub(crate) metadata: Metadata,
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Asks cargo where this workspace is.
    ///
    /// # Errors
    /// Cargo's own message, when a manifest cannot be read.
    pub(crate) fn find() -> anyhow::Result<Self> {
        // Cargo sets the variable for `cargo xtask`; a copied xtask binary falls back to the current directory.
        let start = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let metadata_in = |directory: PathBuf| {
            MetadataCommand::new()
                .current_dir(directory)
                .no_deps()
                .exec()
                .context("cargo cannot read the workspace; fix the Cargo.toml it names")
        };
        let root = metadata_in(start)?.workspace_root.into_std_path_buf();
        // Elsewhere than at the root, cargo takes the package of that directory for the workspace's default.
        let metadata = metadata_in(root.clone())?;
        let target = metadata.target_directory.clone().into_std_path_buf();
        Ok(Self { metadata, root, target })
    }

    /// The repository's root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory, wherever the environment has put it.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// What is fetched or made once and kept: kernel, root file system, flat images, logs.
    pub(crate) fn cache(&self) -> PathBuf {
        self.target.join("bulkhead")
    }

    /// `path` as a person in the repository would write it: relative to the root where it lies below it.
    pub(crate) fn display<'path>(&self, path: &'path Path) -> std::path::Display<'path> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
