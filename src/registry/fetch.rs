//! From the store into a local cache: `<cache>/<digest's hex digits>/`, there whole or not at all.

use super::store::{PART, PARTS_AT_A_TIME, failed};
use super::{Error, Store};
use crate::model::directory::{FileDigest, MANIFEST, Manifest, digest_of};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use object_store::path::Path as ObjectPath;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How the folders of fetches under way begin.
const UNDER_WAY: &str = ".fetch-";
/// A fetch under way for so long was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// The folder of a version whose manifest has `digest` (`sha256:…`), fetched where the cache does not have
    /// it. Each file is verified against the manifest, the manifest against the digest, and the whole is moved
    /// into place at once: a folder of the cache is whole, whatever was killed when.
    ///
    /// A version in the cache is checked by its manifest's digest and the sizes of its files; loading a model
    /// verifies every byte again.
    pub fn fetch(&self, name: &str, version: &str, digest: &str, cache: &Path) -> Result<PathBuf, Error> {
        let Some(hex) = digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex)) else {
            return Err(Error::damaged(self.location(name, version), format!("{digest:?} is no digest of a manifest")));
        };
        let target = cache.join(hex);
        let (in_place, reason) = (self.folder(name, version)?, is_whole(&target, digest));
        match &reason {
            Ok(()) => return Ok(target),
            Err(reason) if target.exists() => {
                tracing::warn!("{} is fetched again: {reason}", target.display());
            }
            Err(_) => {}
        }
        fs::create_dir_all(cache).map_err(|e| Error::io(cache, e))?;
        clear_abandoned(cache);
        let temporary = tempfile::Builder::new().prefix(UNDER_WAY).tempdir_in(cache);
        let temporary = temporary.map_err(|e| Error::io(cache, e))?;
        let folder = temporary.path().join("model");
        fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
        self.block_on(self.download(name, version, digest, &in_place, &folder))?;
        if reason.is_err() && target.exists() {
            // Of two that repair it, the second finds it whole below.
            let _ = fs::rename(&target, temporary.path().join("damaged"));
        }
        match fs::rename(&folder, &target) {
            Ok(()) => sync(cache).map(|()| target),
            // Somebody else was first.
            Err(_) if is_whole(&target, digest).is_ok() => Ok(target),
            Err(e) => Err(Error::io(&target, e)),
        }
    }

    async fn download(
        &self,
        name: &str,
        version: &str,
        digest: &str,
        from: &ObjectPath,
        folder: &Path,
    ) -> Result<(), Error> {
        let location = self.location(name, version);
        let (json, _) = self.read_manifest(name, version).await?.ok_or_else(|| self.not_found(name, version))?;
        let found = digest_of(&json);
        if found != digest {
            let reason = format!("its digest is {found}, announced is {digest}");
            return Err(Error::damaged(format!("{location}/{MANIFEST}"), reason));
        }
        let manifest = self.parse_manifest(name, version, &json)?;
        self.config(name, version, &manifest).await?; // before the large files
        for (file, expected) in &manifest.files {
            let place = format!("{location}/{file}");
            self.download_file(&from.clone().join(file.as_str()), &place, expected, &folder.join(file)).await?;
        }
        write_synced(&folder.join(MANIFEST), &json)?;
        sync(folder)
    }

    /// In ranges: each request is short however slow the network, and bounded however large the file claims to be.
    async fn download_file(
        &self,
        from: &ObjectPath,
        place: &str,
        expected: &FileDigest,
        to: &Path,
    ) -> Result<(), Error> {
        let objects = &self.location.objects;
        let found = objects.head(from).await.map_err(|cause| failed(place, cause))?;
        if found.size != expected.bytes {
            let reason = format!("{} bytes, the manifest says {}", found.size, expected.bytes);
            return Err(Error::damaged(place, reason));
        }
        let mut file = File::create_new(to).map_err(|e| Error::io(to, e))?;
        let mut hasher = Sha256::new();
        let requests = ranges(expected.bytes).map(|range| objects.get_range(from, range));
        let mut parts = futures::stream::iter(requests).buffered(PARTS_AT_A_TIME);
        let mut bytes = 0;
        while let Some(part) = parts.try_next().await.map_err(|cause| failed(place, cause))? {
            bytes += part.len() as u64;
            hasher.update(&part);
            file.write_all(&part).map_err(|e| Error::io(to, e))?;
        }
        let found = FileDigest { sha256: hex::encode(hasher.finalize()), bytes };
        expected.check(&found).map_err(|reason| Error::damaged(place, reason))?;
        file.sync_all().map_err(|e| Error::io(to, e))
    }
}

/// The folder in `cache` of the version whose manifest has `digest`, if it is there with files of the right sizes.
pub fn cached(digest: &str, cache: &Path) -> Option<PathBuf> {
    let folder = cache.join(digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex))?);
    is_whole(&folder, digest).is_ok().then_some(folder)
}

fn ranges(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    (0..bytes).step_by(PART).map(move |begin| begin..bytes.min(begin + PART as u64))
}

fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the folder holds the manifest with this digest, and files of the sizes that it names.
fn is_whole(folder: &Path, digest: &str) -> Result<(), String> {
    let file = folder.join(MANIFEST);
    let json = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let found = digest_of(&json);
    if found != digest {
        return Err(format!("{}: its digest is {found}", file.display()));
    }
    let manifest = Manifest::parse(&json, &file).map_err(|e| e.to_string())?;
    for (name, expected) in &manifest.files {
        let file = folder.join(name);
        let bytes = fs::metadata(&file).map_err(|e| format!("{}: {e}", file.display()))?.len();
        if bytes != expected.bytes {
            return Err(format!("{}: {bytes} bytes, the manifest says {}", file.display(), expected.bytes));
        }
    }
    Ok(())
}

/// Removes what killed fetches left.
fn clear_abandoned(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(UNDER_WAY);
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
        if is_ours && age.is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_dir_all(entry.path()); // another may be at it
        }
    }
}

fn write_synced(file: &Path, contents: &[u8]) -> Result<(), Error> {
    let mut opened = File::create_new(file).map_err(|e| Error::io(file, e))?;
    opened.write_all(contents).and_then(|()| opened.sync_all()).map_err(|e| Error::io(file, e))
}

fn sync(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(|e| Error::io(folder, e))
}
