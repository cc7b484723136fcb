//! The model directory: read whole and verified before anything is parsed, written with its manifest last.
//!
//! What is verified is what is used: the files are read once, checked against `manifest.json` where there
//! is one, and parsed from memory. `docs/model-directory.md` describes the files.

use super::{Config, Error, Weights, checkpoint, tokenizer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The configuration's file name.
pub const CONFIG: &str = "config.json";
/// The weights' file name.
pub const SAFETENSORS: &str = "model.safetensors";
/// The weights' file name in older checkpoints.
pub const PYTORCH: &str = "pytorch_model.bin";
/// The tokenizer's file name.
pub const TOKENIZER: &str = "tokenizer.json";
/// What the tokenizer is built from where there is no `tokenizer.json`.
pub const VOCABULARY: &str = "vocab.txt";
/// The tokenizer's settings, for [`VOCABULARY`].
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The files that a model is loaded from, and the size above which one is refused unread.
const USED_FILES: [(&str, u64); 7] = [
    (MANIFEST, 1 << 20),
    (CONFIG, 1 << 20),
    (SAFETENSORS, 8 << 30),
    (PYTORCH, 8 << 30),
    (TOKENIZER, 256 << 20),
    (VOCABULARY, 64 << 20),
    (TOKENIZER_CONFIG, 16 << 20),
];

/// `manifest.json`: what makes a directory one version of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Every file of the model but the manifest itself.
    pub files: BTreeMap<String, FileDigest>,
    /// Digest of the manifest of the model that this one was trained from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Digest of the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Where the snapshot of the topic `labels` ended that the training data was: partition to the offset
    /// after its last record. Empty for data from files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offsets: BTreeMap<i32, i64>,
    /// Name and version of the program that made the model, `litflow-train 0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl Manifest {
    /// Parses `manifest.json`; `file` is where it lies, for the message.
    pub fn parse(json: &[u8], file: &Path) -> Result<Self, Error> {
        let manifest: Self =
            serde_json::from_slice(json).map_err(|e| Error::file(file, format!("not a model manifest: {e}")))?;
        for name in manifest.files.keys() {
            if name.contains(['/', '\\', '\0']) || name == ".." || name == "." || name.is_empty() {
                return Err(Error::file(file, format!("`{name}` is not the plain name of a file")));
            }
        }
        Ok(manifest)
    }

    /// The bytes of `manifest.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("strings and numbers can be written as JSON");
        json.push(b'\n');
        json
    }

    /// Writes `manifest.json` over all files that lie in the directory now, whatever `files` held; it is the
    /// last file to be written. Returns the model's digest, as [`Directory::digest`] will give it.
    pub fn write(self, directory: &Path) -> Result<String, Error> {
        let json = Self { files: digests(directory)?, ..self }.to_json();
        let manifest_file = directory.join(MANIFEST);
        // Whole or not at all: a reader never sees half a manifest.
        let mut temporary = tempfile::Builder::new();
        #[cfg(unix)] // like any other file of the model, where temporary ones are their owner's alone
        temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let temporary = temporary.tempfile_in(directory).map_err(|e| Error::io(directory, e))?;
        std::fs::write(temporary.path(), &json).map_err(|e| Error::io(temporary.path(), e))?;
        temporary.as_file().sync_all().map_err(|e| Error::io(temporary.path(), e))?;
        temporary.persist(&manifest_file).map_err(|e| Error::io(&manifest_file, e.error))?;
        Ok(digest_of(&json))
    }
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Lower-case hexadecimal SHA-256 of its bytes.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

impl FileDigest {
    /// Of `contents`.
    pub fn of(contents: &[u8]) -> Self {
        Self { sha256: hex::encode(Sha256::digest(contents)), bytes: contents.len() as u64 }
    }

    /// Of the file, without reading it into memory.
    pub fn of_file(file: &Path) -> Result<Self, Error> {
        let mut opened = File::open(file).map_err(|e| Error::io(file, e))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; 1 << 16];
        let mut bytes = 0;
        loop {
            let count = opened.read(&mut buffer).map_err(|e| Error::io(file, e))?;
            if count == 0 {
                return Ok(Self { sha256: hex::encode(hasher.finalize()), bytes });
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
    }

    /// How `found` differs from this.
    pub fn check(&self, found: &Self) -> Result<(), String> {
        if found.bytes != self.bytes {
            return Err(format!(
                "{} bytes, the manifest says {}: copy the model again, whole",
                found.bytes, self.bytes
            ));
        }
        if found.sha256 != self.sha256 {
            return Err(format!("its SHA-256 is {}, the manifest says {}", found.sha256, self.sha256));
        }
        Ok(())
    }
}

/// A model directory in memory.
pub struct Directory {
    path: PathBuf,
    files: BTreeMap<&'static str, Vec<u8>>,
    digest: String,
}

impl Directory {
    /// Reads the files of the model at `path` and, where there is a manifest, verifies every file it names.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if !metadata.is_dir() {
            return Err(Error::file(path, "not a directory: a model is a directory in Hugging Face's layout"));
        }
        let has_safetensors = path.join(SAFETENSORS).exists();
        let mut files = BTreeMap::new();
        for (name, limit) in USED_FILES {
            if name == PYTORCH && has_safetensors {
                continue; // the same weights again, in the older format
            }
            if let Some(bytes) = read_file(&path.join(name), limit)? {
                files.insert(name, bytes);
            }
        }
        let mut directory = Self { path: path.to_owned(), files, digest: String::new() };
        directory.digest = match directory.file(MANIFEST) {
            Some(manifest) => {
                directory.verify(manifest)?;
                digest_of(manifest)
            }
            None => digest_of(directory.weights_file()?.1),
        };
        Ok(directory)
    }

    /// Where the directory lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of one of the files that a model is loaded from.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// `sha256:` and the digest of the manifest, or of the weights file where there is no manifest.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Parses `config.json`.
    pub fn config(&self) -> Result<Config, Error> {
        Config::parse(self.required(CONFIG)?, &self.path.join(CONFIG))
    }

    /// Parses `model.safetensors`, or `pytorch_model.bin` where there is none.
    pub fn weights(&self) -> Result<Weights, Error> {
        let (name, bytes) = self.weights_file()?;
        let file = self.path.join(name);
        if name == SAFETENSORS {
            Weights::from_safetensors(bytes, &file)
        } else {
            checkpoint::read_weights(bytes, &file)
        }
    }

    /// The tokenizer, with truncation and padding switched off. From `tokenizer.json`, or built from
    /// `vocab.txt` where there is none.
    pub fn tokenizer(&self, config: &Config) -> Result<tokenizers::Tokenizer, Error> {
        if let Some(json) = self.file(TOKENIZER) {
            return tokenizer::from_json(json, config, &self.path.join(TOKENIZER));
        }
        let Some(vocabulary) = self.file(VOCABULARY) else {
            return Err(Error::file(&self.path, format!("there is neither `{TOKENIZER}` nor `{VOCABULARY}`")));
        };
        let settings = match self.file(TOKENIZER_CONFIG) {
            Some(json) => tokenizer::Settings::parse(json, &self.path.join(TOKENIZER_CONFIG))?,
            None => tokenizer::Settings::default(),
        };
        tokenizer::from_vocabulary(vocabulary, &settings, config, &self.path.join(VOCABULARY))
    }

    fn required(&self, name: &str) -> Result<&[u8], Error> {
        self.file(name).ok_or_else(|| Error::file(&self.path, format!("there is no `{name}`")))
    }

    fn weights_file(&self) -> Result<(&'static str, &[u8]), Error> {
        for name in [SAFETENSORS, PYTORCH] {
            if let Some(bytes) = self.file(name) {
                return Ok((name, bytes));
            }
        }
        Err(Error::file(&self.path, format!("there is neither `{SAFETENSORS}` nor `{PYTORCH}`")))
    }

    /// Every file that the manifest names must match it, and every file that is used must be named.
    fn verify(&self, manifest: &[u8]) -> Result<(), Error> {
        let manifest_file = self.path.join(MANIFEST);
        let manifest = Manifest::parse(manifest, &manifest_file)?;
        for (name, expected) in &manifest.files {
            let file = self.path.join(name);
            let found = match self.file(name) {
                Some(contents) => FileDigest::of(contents),
                None => FileDigest::of_file(&file)?,
            };
            expected.check(&found).map_err(|reason| Error::file(&file, reason))?;
        }
        match self.files.keys().find(|name| **name != MANIFEST && !manifest.files.contains_key(**name)) {
            Some(name) => Err(Error::file(&self.path.join(name), "is not named in manifest.json")),
            None => Ok(()),
        }
    }
}

/// Digests of all files that lie in the directory, but for the manifest.
pub fn digests(directory: &Path) -> Result<BTreeMap<String, FileDigest>, Error> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(|e| Error::io(directory, e))? {
        let entry = entry.map_err(|e| Error::io(directory, e))?;
        let file = entry.path();
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| Error::file(&file, format!("{name:?} is not a name in UTF-8")))?;
        if name != MANIFEST && file.is_file() {
            files.insert(name, FileDigest::of_file(&file)?);
        }
    }
    Ok(files)
}

/// `sha256:` and the hexadecimal digest: a model's digest, where `bytes` are those of its manifest.
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The file's bytes, `None` where there is no such file.
fn read_file(file: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(file, e)),
    };
    let metadata = opened.metadata().map_err(|e| Error::io(file, e))?;
    if !metadata.is_file() {
        return Err(Error::file(file, "not a regular file"));
    }
    if metadata.len() > limit {
        return Err(Error::file(file, format!("{} bytes, more than the {limit} that it may have", metadata.len())));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    opened.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io(file, e))?;
    Ok(Some(bytes))
}

/// Parses the `config.json` of the directory at `path`, alone and unverified.
pub fn read_config(path: &Path) -> Result<Config, Error> {
    let file = path.join(CONFIG);
    let json =
        read_file(&file, limit_of(CONFIG))?.ok_or_else(|| Error::file(path, format!("there is no `{CONFIG}`")))?;
    Config::parse(&json, &file)
}

/// The digest of the directory's manifest, none where there is no manifest: the version that the directory claims
/// to be, unverified.
pub fn manifest_digest(path: &Path) -> Result<Option<String>, Error> {
    Ok(read_file(&path.join(MANIFEST), limit_of(MANIFEST))?.map(|json| digest_of(&json)))
}

/// Bytes of the files that a model is loaded from.
pub fn used_bytes(path: &Path) -> u64 {
    used_metadata(path).map(|(_, metadata)| metadata.len()).sum()
}

/// A number that is another one when a file that a model is loaded from has been written or replaced. None of them
/// is read.
pub fn fingerprint(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (name, metadata) in used_metadata(path) {
        (name, metadata.len(), metadata.modified().ok()).hash(&mut hasher);
        #[cfg(unix)]
        std::os::unix::fs::MetadataExt::ino(&metadata).hash(&mut hasher);
    }
    hasher.finish()
}

fn used_metadata(path: &Path) -> impl Iterator<Item = (&'static str, Metadata)> {
    USED_FILES.iter().filter_map(move |(name, _)| Some((*name, std::fs::metadata(path.join(name)).ok()?)))
}

fn limit_of(name: &str) -> u64 {
    USED_FILES.iter().find(|(used, _)| *used == name).map_or(0, |(_, limit)| *limit)
}
