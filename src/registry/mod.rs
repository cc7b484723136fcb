//! Model versions: kept in a store, announced on the topic `models`, fetched by whoever serves them.
//!
//! A version is a model directory ([`crate::model::directory`]) at `<store>/<name>/<version>/`, in a local folder
//! or an object store. [`Store::publish`] uploads its files first and `manifest.json` last, and a version that
//! has a manifest never changes. [`Store::fetch`] brings one into a local cache by its digest, verified file by
//! file.
//!
//! The topic `models` says which versions there are and what they are for: its newest record of a model's name
//! holds the model's [`aliases`] (`champion` is what workers serve) and their history. [`Announcements`] reads and
//! follows it, [`Registry`] publishes versions and moves aliases. [`golden`] says whether a loaded version
//! is the one that was evaluated, [`retention`] which versions may go. `docs/registry.md` is the contract.
//!
//! Everything here blocks: call it from async code by `spawn_blocking`, or on a thread of its own.

pub mod aliases;
mod announcements;
mod error;
mod fetch;
pub mod golden;
mod lifecycle;
pub(crate) mod location;
pub mod names;
pub mod retention;
mod store;
#[cfg(test)]
mod tests;

pub use aliases::Occasion;
pub use announcements::{Announcements, TRANSACTIONAL_ID};
pub use error::Error;
pub use fetch::cached;
pub use lifecycle::{Moved, Registry};
pub use store::{Published, Store, Stored};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where model versions are kept; the section `registry` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// A folder, or a URI: `file:///…`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
    pub store: String,
    /// The folder that versions are fetched into; none: `litflow/models` in the user's cache folder.
    pub cache: Option<PathBuf>,
    /// A version with more bytes than this is neither published nor fetched.
    pub max_version_bytes: u64,
    /// Settings of the object store by the `object_store` crate's names (`aws_region`). They win over the
    /// cloud's own environment variables (`AWS_REGION`).
    pub options: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { store: "registry".into(), cache: None, max_version_bytes: 16 << 30, options: BTreeMap::new() }
    }
}

impl Options {
    /// Values that cannot be; the message names the key.
    pub fn check(&self) -> Result<(), String> {
        if self.store.trim().is_empty() {
            return Err("registry.store is empty: name a folder, or a URI such as s3://bucket/prefix".into());
        }
        if self.max_version_bytes == 0 {
            return Err("registry.max_version_bytes must be at least 1".into());
        }
        Ok(())
    }

    /// The cache folder in force: `cache`, else below `XDG_CACHE_HOME`, `~/.cache` or the folder for temporary
    /// files.
    pub fn cache(&self) -> PathBuf {
        let user = || {
            let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
            variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))
        };
        let below = || user().unwrap_or_else(std::env::temp_dir).join("litflow").join("models");
        self.cache.clone().unwrap_or_else(below)
    }
}
