//! The store: publishes versions, lists, reads and removes them.
//!
//! A version is there when its `manifest.json` is; everything else is uploaded before it. Two publishers of one
//! version never mix their files: who begins leaves a claim with the digest of its manifest, created only where
//! there is none, and whoever comes with another digest is refused.

use super::location::{Location, Missing, Named};
use super::{Error, Options, names};
use crate::bus::records::{ModelFile, ModelVersion};
use crate::model::directory::{self, CONFIG, FileDigest, MANIFEST, Manifest, digest_of};
use crate::model::{self, Config};
use futures::TryStreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{Error as Cause, GetResult, ObjectStoreExt as _, PutMode, PutPayload, WriteMultipart};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use tokio::runtime::Runtime;

/// The most files that a version may have.
const MAX_FILES: usize = 256;
/// The largest manifest and the largest small file (`config.json`, `metrics.json`) that is read into memory.
const MAX_SMALL_FILE: u64 = 1 << 20;
/// What is sent at a time; object stores take parts of 5 MiB or more.
pub(super) const PART: usize = 8 << 20;
/// Parts on their way at a time.
pub(super) const PARTS_AT_A_TIME: usize = 4;
/// The claim of a publisher at work, beside the version's files.
pub(super) const CLAIM: &str = ".publishing";
/// Where the evaluation figures stand.
const METRICS: &str = "metrics.json";

/// Model versions in a folder or an object store.
pub struct Store {
    pub(super) location: Location,
    pub(super) max_version_bytes: u64,
    /// Taken when the store is dropped.
    runtime: Option<Runtime>,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The version, with no aliases.
    pub version: ModelVersion,
    /// Whether it was not there before.
    pub new: bool,
}

/// A version as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// URI of its directory.
    pub location: String,
    /// Number of files, the manifest among them.
    pub files: usize,
    /// Their sizes together.
    pub bytes: u64,
    /// When the newest of them was written, milliseconds since the epoch.
    pub modified_at: i64,
    /// Whether it has a manifest. One without is being published, or its publication was broken off.
    pub whole: bool,
}

impl Store {
    /// Opens the store. A local folder must be there; whether a bucket is, the first use tells.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Self::open_or(options, Missing::Refuse)
    }

    /// Opens the store, and makes its local folder where it is missing.
    pub fn create(options: &Options) -> Result<Self, Error> {
        Self::open_or(options, Missing::Create)
    }

    fn open_or(options: &Options, missing: Missing) -> Result<Self, Error> {
        options.check().map_err(Error::Options)?;
        let named = Named {
            store: &options.store,
            key: "registry.store",
            options: &options.options,
            options_key: "registry.options",
        };
        let location = Location::open(named, missing)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|cause| Error::io(Path::new("the store's runtime"), cause))?;
        Ok(Self { location, max_version_bytes: options.max_version_bytes, runtime: Some(runtime) })
    }

    /// The URI of a version's directory.
    pub fn location(&self, name: &str, version: &str) -> String {
        format!("{}/{name}/{version}", self.location.uri)
    }

    /// Publishes the model directory, whose `config.json` says its name and version. Without a manifest of its
    /// own it gets one that names all of its files.
    ///
    /// A version that is there already with the same content is left as it is; with other content it is an error.
    pub fn publish(&self, folder: &Path) -> Result<Published, Error> {
        let publication = Publication::read(folder)?;
        let Publication { name, version, manifest, .. } = &publication;
        self.check_size(folder.display().to_string(), manifest)?;
        let new = self.block_on(self.upload(&publication))?;
        Ok(Published { version: self.describe(name, version)?, new })
    }

    /// Every version in the store, by name and version; those of `name` only, where it is given.
    pub fn list(&self, name: Option<&str>) -> Result<Vec<Stored>, Error> {
        let prefix = match name {
            Some(name) => {
                names::check_name(name)?;
                self.location.root.clone().join(name)
            }
            None => self.location.root.clone(),
        };
        let objects = self.block_on(async {
            let listed: Result<Vec<_>, _> = self.location.objects.list(Some(&prefix)).try_collect().await;
            listed.map_err(|cause| Error::Store { place: self.location.uri.clone(), cause })
        })?;
        let mut found: BTreeMap<(String, String), Stored> = BTreeMap::new();
        for object in objects {
            let parts = object
                .location
                .prefix_match(&self.location.root)
                .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>());
            let Some([name, version, file]) = parts.as_deref() else { continue }; // not ours
            if names::check_name(name).is_err() || names::check_version(version).is_err() {
                continue;
            }
            let stored = found.entry((name.clone(), version.clone())).or_insert_with(|| Stored {
                name: name.clone(),
                version: version.clone(),
                location: self.location(name, version),
                files: 0,
                bytes: 0,
                modified_at: 0,
                whole: false,
            });
            stored.files += 1;
            stored.bytes += object.size;
            stored.modified_at = stored.modified_at.max(object.last_modified.timestamp_millis());
            stored.whole |= file == MANIFEST;
        }
        Ok(found.into_values().collect())
    }

    /// The version's manifest, and its digest: the model's.
    pub fn manifest(&self, name: &str, version: &str) -> Result<(Manifest, String), Error> {
        let (json, _) =
            self.block_on(self.read_manifest(name, version))?.ok_or_else(|| self.not_found(name, version))?;
        Ok((self.parse_manifest(name, version, &json)?, digest_of(&json)))
    }

    /// What is announced about a version: everything but the aliases, from its manifest, `config.json` and
    /// `metrics.json`, each checked against the manifest.
    pub fn describe(&self, name: &str, version: &str) -> Result<ModelVersion, Error> {
        let (json, written_at) =
            self.block_on(self.read_manifest(name, version))?.ok_or_else(|| self.not_found(name, version))?;
        let manifest = self.parse_manifest(name, version, &json)?;
        let config = self.block_on(self.config(name, version, &manifest))?;
        let metrics = self.block_on(self.small_file(name, version, &manifest, METRICS))?;
        let file = |(path, digest): (&String, &FileDigest)| ModelFile {
            path: path.clone(),
            sha256: digest.sha256.clone(),
            bytes: digest.bytes as i64,
        };
        let own = FileDigest::of(&json);
        let config_place = format!("{}/{CONFIG}", self.location(name, version));
        Ok(ModelVersion {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: digest_of(&json),
            location: self.location(name, version),
            files: manifest.files.iter().chain([(&MANIFEST.to_owned(), &own)]).map(file).collect(),
            entity_types: config.label_set(Path::new(&config_place))?.entity_types().to_vec(),
            metrics: metrics.map(|json| figures(&json)).unwrap_or_default(),
            parent: manifest.parent,
            encoder: None,
            created_at: Some(written_at),
            ..ModelVersion::default()
        })
    }

    /// Removes a version, the manifest first, so that nobody begins to fetch what is going. Returns the number of
    /// bytes removed.
    pub fn remove(&self, name: &str, version: &str) -> Result<u64, Error> {
        let folder = self.folder(name, version)?;
        let failed = |cause| Error::Store { place: self.location(name, version), cause };
        self.block_on(async {
            let objects = &self.location.objects;
            let mut found: Vec<_> = objects.list(Some(&folder)).try_collect().await.map_err(failed)?;
            found.sort_by_key(|object| object.location.filename() != Some(MANIFEST));
            let mut bytes = 0;
            for object in found {
                match objects.delete(&object.location).await {
                    Ok(()) | Err(Cause::NotFound { .. }) => bytes += object.size,
                    Err(cause) => return Err(failed(cause)),
                }
            }
            Ok(bytes)
        })
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("only drop takes the runtime").block_on(future)
    }

    /// Where a version lies in the object store; names that could lie elsewhere are refused.
    pub(super) fn folder(&self, name: &str, version: &str) -> Result<ObjectPath, Error> {
        names::check_name(name)?;
        names::check_version(version)?;
        Ok(self.location.root.clone().join(name).join(version))
    }

    pub(super) fn not_found(&self, name: &str, version: &str) -> Error {
        Error::NotFound { location: self.location(name, version) }
    }

    /// The manifest's bytes and when it was written (milliseconds since the epoch); none where there is none.
    pub(super) async fn read_manifest(&self, name: &str, version: &str) -> Result<Option<(Vec<u8>, i64)>, Error> {
        let path = self.folder(name, version)?.join(MANIFEST);
        let place = || format!("{}/{MANIFEST}", self.location(name, version));
        match self.location.objects.get(&path).await {
            Ok(found) => {
                let written_at = found.meta.last_modified.timestamp_millis();
                Ok(Some((small_contents(found, place()).await?, written_at)))
            }
            Err(Cause::NotFound { .. }) => Ok(None),
            Err(cause) => Err(Error::Store { place: place(), cause }),
        }
    }

    /// The manifest, if it keeps to the store's limits.
    pub(super) fn parse_manifest(&self, name: &str, version: &str, json: &[u8]) -> Result<Manifest, Error> {
        let place = format!("{}/{MANIFEST}", self.location(name, version));
        let manifest = Manifest::parse(json, Path::new(&place))?;
        self.check_size(place, &manifest)?;
        Ok(manifest)
    }

    fn check_size(&self, place: String, manifest: &Manifest) -> Result<(), Error> {
        manifest.files.keys().try_for_each(|file| names::check_file(file))?;
        if manifest.files.len() > MAX_FILES {
            let reason = format!("{} files, more than the {MAX_FILES} that a version may have", manifest.files.len());
            return Err(Error::damaged(place, reason));
        }
        let bytes = manifest.files.values().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
        if bytes > self.max_version_bytes {
            let limit = self.max_version_bytes;
            return Err(Error::damaged(place, format!("{bytes} bytes, registry.max_version_bytes is {limit}")));
        }
        Ok(())
    }

    /// The version's `config.json`. It must call the version what it is called: records name it by that name.
    pub(super) async fn config(&self, name: &str, version: &str, manifest: &Manifest) -> Result<Config, Error> {
        let place = format!("{}/{CONFIG}", self.location(name, version));
        let json = self.small_file(name, version, manifest, CONFIG).await?;
        let json = json.ok_or_else(|| Error::damaged(&place, "is not named in manifest.json"))?;
        let config = Config::parse(&json, Path::new(&place))?;
        let own = config.litflow.as_ref().map(|section| (section.name.as_str(), section.version.as_str()));
        match own {
            Some(own) if own == (name, version) => Ok(config),
            Some((own_name, own_version)) => {
                Err(Error::damaged(place, format!("is {own_name} {own_version}, should be {name} {version}")))
            }
            None => Err(Error::damaged(place, "has no `litflow` section, which says the model's name and version")),
        }
    }

    /// A small file of the version, if it has it, as its manifest says.
    async fn small_file(
        &self,
        name: &str,
        version: &str,
        manifest: &Manifest,
        file: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(expected) = manifest.files.get(file) else { return Ok(None) };
        let path = self.folder(name, version)?.join(file);
        let place = format!("{}/{file}", self.location(name, version));
        let found = self.location.objects.get(&path).await.map_err(|cause| failed(&place, cause))?;
        let contents = small_contents(found, place.clone()).await?;
        expected.check(&FileDigest::of(&contents)).map_err(|reason| Error::damaged(place, reason))?;
        Ok(Some(contents))
    }

    /// Uploads what is not there yet; whether there was anything to do.
    async fn upload(&self, publication: &Publication<'_>) -> Result<bool, Error> {
        let Publication { folder, name, version, manifest, json } = publication;
        let (here, location) = (digest_of(json), self.location(name, version));
        let to = self.folder(name, version)?;
        let (claim, objects) = (to.clone().join(CLAIM), &self.location.objects);
        loop {
            let claimed = match objects.put_opts(&claim, here.clone().into(), PutMode::Create.into()).await {
                Ok(_) => true,
                Err(Cause::AlreadyExists { .. }) => false,
                Err(cause) => return Err(Error::Store { place: location, cause }),
            };
            // Only now: whoever publishes takes the claim away after the manifest is there.
            if let Some((there, _)) = self.read_manifest(name, version).await? {
                let there = digest_of(&there);
                if claimed || there == here {
                    self.delete_claim(&claim).await;
                }
                return if there == here { Ok(false) } else { Err(Error::Taken { location, there, here }) };
            }
            if claimed {
                break;
            }
            let there = match objects.get(&claim).await {
                Ok(found) => small_contents(found, format!("{location}/{CLAIM}")).await?,
                Err(Cause::NotFound { .. }) => continue, // its publisher is done
                Err(cause) => return Err(Error::Store { place: location, cause }),
            };
            if there == here.as_bytes() {
                break; // ours from before, or somebody publishes the same
            }
            let there = String::from_utf8_lossy(&there).into_owned();
            return Err(Error::Claimed { location, there, here });
        }
        for (file, digest) in &manifest.files {
            self.upload_file(&folder.join(file), &to.clone().join(file.as_str()), digest).await?;
        }
        match objects.put_opts(&to.join(MANIFEST), json.clone().into(), PutMode::Create.into()).await {
            Ok(_) | Err(Cause::AlreadyExists { .. }) => {} // then with the same content: so says the claim
            Err(cause) => return Err(Error::Store { place: format!("{location}/{MANIFEST}"), cause }),
        }
        self.delete_claim(&claim).await;
        Ok(true)
    }

    async fn delete_claim(&self, claim: &ObjectPath) {
        match self.location.objects.delete(claim).await {
            Ok(()) | Err(Cause::NotFound { .. }) => {}
            Err(error) => tracing::warn!("the claim {claim} is left behind, which hurts nobody: {error}"),
        }
    }

    /// Sends a file, and refuses one that is not what the manifest says while it is read.
    async fn upload_file(&self, file: &Path, to: &ObjectPath, expected: &FileDigest) -> Result<(), Error> {
        let failed = |cause| Error::Store { place: format!("{}/{to}", self.location.uri), cause };
        let mut opened = std::fs::File::open(file).map_err(|e| Error::io(file, e))?;
        let mut part = Vec::new();
        let mut next_part = || {
            part.clear();
            let read = opened.by_ref().take(PART as u64).read_to_end(&mut part);
            read.map_err(|e| Error::io(file, e)).map(|_| std::mem::take(&mut part))
        };
        let mut found = (Sha256::new(), 0);
        let mut count = |part: &[u8]| {
            found.0.update(part);
            found.1 += part.len() as u64;
        };
        let first = next_part()?;
        count(&first);
        if first.len() < PART {
            check_found(found, expected, file)?;
            self.location.objects.put(to, PutPayload::from(first)).await.map_err(failed)?;
            return Ok(());
        }
        let upload = self.location.objects.put_multipart(to).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        upload.write(&first);
        loop {
            let part = match next_part() {
                Ok(part) => part,
                Err(error) => {
                    let _ = upload.abort().await; // the first error counts
                    return Err(error);
                }
            };
            if part.is_empty() {
                break;
            }
            count(&part);
            upload.wait_for_capacity(PARTS_AT_A_TIME).await.map_err(failed)?;
            upload.write(&part);
        }
        if let Err(error) = check_found(found, expected, file) {
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.finish().await.map_err(failed)?;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // a plain drop panics inside async code
        }
    }
}

/// A model directory that is to be published.
struct Publication<'a> {
    folder: &'a Path,
    name: String,
    version: String,
    manifest: Manifest,
    /// The manifest's bytes.
    json: Vec<u8>,
}

impl<'a> Publication<'a> {
    /// Reads the directory and verifies every file that its manifest names.
    fn read(folder: &'a Path) -> Result<Self, Error> {
        let config_file = folder.join(CONFIG);
        let config = std::fs::read(&config_file).map_err(|e| model::Error::io(&config_file, e))?;
        let config = Config::parse(&config, &config_file)?;
        let Some(section) = &config.litflow else {
            let section = r#""litflow": {"name": "…", "version": "1.0.0", "head": "softmax", "max_length": 256}"#;
            let reason = format!("has no `litflow` section, which says the model's name and version; add {section}");
            return Err(Error::damaged(config_file.display().to_string(), reason));
        };
        let (name, version) = (section.name.clone(), section.version.clone());
        let manifest_file = folder.join(MANIFEST);
        let (manifest, json) = match std::fs::read(&manifest_file) {
            Ok(json) => (Manifest::parse(&json, &manifest_file)?, json),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let manifest = Manifest { files: directory::digests(folder)?, ..Manifest::default() };
                let json = manifest.to_json();
                (manifest, json)
            }
            Err(e) => return Err(model::Error::io(&manifest_file, e).into()),
        };
        for (name, expected) in &manifest.files {
            let file = folder.join(name);
            let found = FileDigest::of_file(&file)?;
            expected.check(&found).map_err(|reason| Error::damaged(file.display().to_string(), reason))?;
        }
        Ok(Self { folder, name, version, manifest, json })
    }
}

fn check_found((hasher, bytes): (Sha256, u64), expected: &FileDigest, file: &Path) -> Result<(), Error> {
    let found = FileDigest { sha256: hex::encode(hasher.finalize()), bytes };
    expected.check(&found).map_err(|reason| Error::damaged(file.display().to_string(), reason))
}

/// An error of reading an object that the manifest names.
pub(super) fn failed(place: &str, cause: Cause) -> Error {
    match cause {
        Cause::NotFound { .. } => Error::damaged(place, "is missing, the manifest names it"),
        cause => Error::Store { place: place.to_owned(), cause },
    }
}

async fn small_contents(found: GetResult, place: String) -> Result<Vec<u8>, Error> {
    if found.meta.size > MAX_SMALL_FILE {
        let reason = format!("{} bytes, more than the {MAX_SMALL_FILE} that it may have", found.meta.size);
        return Err(Error::damaged(place, reason));
    }
    match found.bytes().await {
        Ok(bytes) => Ok(bytes.into()),
        Err(cause) => Err(Error::Store { place, cause }),
    }
}

/// The evaluation figures of `metrics.json`: every fraction that stands outside a list, by its path. A file that
/// is no JSON has none.
fn figures(json: &[u8]) -> BTreeMap<String, f64> {
    /// More would make the record large for no reader's good.
    const MOST: usize = 256;
    fn collect(path: &str, value: &serde_json::Value, figures: &mut BTreeMap<String, f64>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    collect(&path, value, figures);
                }
            }
            serde_json::Value::Number(number) if number.is_f64() && figures.len() < MOST => {
                figures.extend(number.as_f64().map(|figure| (path.to_owned(), figure)));
            }
            _ => {}
        }
    }
    let mut figures = BTreeMap::new();
    collect("", &serde_json::from_slice(json).unwrap_or_default(), &mut figures);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_fractions_by_path() {
        let json = br#"{"dev": {"strict": {"micro": {"f1": 0.83, "support": 12}}}, "epochs": [{"loss": 0.5}]}"#;
        assert_eq!(figures(json), BTreeMap::from([("dev.strict.micro.f1".to_owned(), 0.83)]));
        assert!(figures(b"no JSON").is_empty());
    }
}
