//! The version that is served now.

use crate::error::Error;
use litflow::registry::aliases::CHAMPION;
use litflow::registry::{self, Registry};
use std::path::PathBuf;

/// The champion.
#[derive(Debug, Clone)]
pub struct Champion {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// Its directory, in the cache.
    pub folder: PathBuf,
}

impl Champion {
    /// The champion of the model, fetched and verified; none where none is announced.
    pub fn find(registry: &Registry, options: &registry::Options, name: &str) -> Result<Option<Self>, Error> {
        let announcements = registry.announcements()?;
        let Some(target) = announcements.get(name)?.and_then(|state| state.alias(CHAMPION)).cloned() else {
            return Ok(None);
        };
        let folder = registry.store().fetch(name, &target.version, &target.digest, &options.cache())?;
        Ok(Some(Self { version: target.version, digest: target.digest, folder }))
    }
}
