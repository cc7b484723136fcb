//! The worker's side: brings what was claimed, and nothing else.

use super::prefix::{Prefix, plain};
use super::{Error, Options};
use crate::article::Claim;
use crate::registry::location::{Location, Missing, Named};
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Error as Cause, ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The pause after the first attempt that failed; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// What room for documents is counted in.
const PERMIT_BYTES: usize = 1 << 10;

/// Brings claimed documents, as far as it is allowed to. The default allows nothing.
pub struct Claims {
    allowed: Vec<Allowed>,
    max_bytes: usize,
    timeout: Duration,
    /// For the documents that are being worked on.
    room: Arc<Semaphore>,
    permits: usize,
}

/// A prefix and the store that it lies in.
struct Allowed {
    prefix: Prefix,
    store: Store,
}

enum Store {
    /// A folder of this machine. It is opened with each document: a share may be mounted late, or again.
    Folder(PathBuf),
    /// What lies below `root`.
    Objects { objects: Arc<dyn ObjectStore>, root: ObjectPath },
}

/// A document as it was claimed. As long as this is held it counts among those worked on.
#[derive(Debug)]
pub struct Fetched {
    /// The document.
    pub bytes: Vec<u8>,
    /// Its room.
    pub room: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Claims {
    /// Without the stores: their settings hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.allowed.iter().map(|allowed| allowed.prefix.url.as_str())).finish()
    }
}

impl Default for Claims {
    fn default() -> Self {
        Self::new(&Options::default()).expect("the defaults name no store that could be refused")
    }
}

impl Claims {
    /// Opens the stores; none is spoken to before the first claim.
    ///
    /// # Errors
    /// Options that cannot be, settings that an object store does not know. The message names the key.
    pub fn new(options: &Options) -> Result<Self, String> {
        options.check()?;
        let open = |uri: &String| {
            let prefix = Prefix::parse(uri)?;
            let store = match prefix.folder() {
                Some(folder) => Store::Folder(folder),
                None => {
                    let named = Named {
                        store: prefix.url.as_str(),
                        key: "claims.allow",
                        options: &options.options,
                        options_key: "claims.options",
                    };
                    let location = Location::open(named, Missing::Refuse).map_err(|error| error.to_string())?;
                    Store::Objects { objects: location.objects, root: location.root }
                }
            };
            Ok(Allowed { prefix, store })
        };
        let permits = (options.in_flight_bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Ok(Self {
            allowed: options.allow.iter().map(open).collect::<Result<_, String>>()?,
            max_bytes: options.max_bytes,
            timeout: options.timeout(),
            room: Arc::new(Semaphore::new(permits)),
            permits,
        })
    }

    /// Brings the document. Waits until there is room for it, in the order of the first polls, and until its store
    /// answers, as long as that takes.
    ///
    /// # Errors
    /// Those of class poison.
    pub async fn fetch(&self, claim: &Claim) -> Result<Fetched, Error> {
        let (store, path) = self.find(&claim.uri)?;
        let expected = Expected::of(claim, self.max_bytes)?;
        let mut pause = FIRST_PAUSE;
        loop {
            let room = self.room_for(expected.most).await;
            let attempt = tokio::time::timeout(self.timeout, read(store, &path, claim, &expected));
            let error = match attempt.await {
                Ok(Ok(bytes)) => {
                    metrics::counter!("litflow_claims_fetched_total").increment(1);
                    metrics::counter!("litflow_claims_fetched_bytes_total").increment(bytes.len() as u64);
                    return Ok(Fetched { bytes, room });
                }
                Ok(Err(error @ Error::Unavailable { .. })) => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let cause = format!("it has not come within claims.timeout_ms = {}", self.timeout.as_millis());
                    Error::Unavailable { uri: claim.uri.clone(), cause }
                }
            };
            drop(room); // others may have better luck meanwhile
            metrics::counter!("litflow_claims_retries_total").increment(1);
            if pause == FIRST_PAUSE {
                tracing::warn!("{error}; its article waits");
            } else {
                tracing::debug!("{error}; tried again in {pause:?}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The store of a claim and the path in it.
    fn find(&self, uri: &str) -> Result<(&Store, ObjectPath), Error> {
        let refused = |reason: String| Error::Refused { uri: uri.to_owned(), reason };
        let url = plain(uri).map_err(refused)?;
        for Allowed { prefix, store } in &self.allowed {
            if let Some(path) = prefix.path_of(&url) {
                return Ok((store, path.map_err(refused)?));
            }
        }
        let allowed: Vec<&str> = self.allowed.iter().map(|allowed| allowed.prefix.url.as_str()).collect();
        Err(refused(match &allowed[..] {
            [] => "claims.allow names no place that documents may come from".to_owned(),
            allowed => format!("claims.allow names only {}", allowed.join(", ")),
        }))
    }

    async fn room_for(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.permits) as u32;
        self.room.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
    }
}

/// What is taken for the document.
struct Expected {
    sha256: [u8; 32],
    size: Option<u64>,
    /// The most bytes that may come, and the limit that an error names.
    most: usize,
    limit: usize,
}

impl Expected {
    fn of(claim: &Claim, limit: usize) -> Result<Self, Error> {
        let refused = |reason: String| Error::Refused { uri: claim.uri.clone(), reason };
        let mut sha256 = [0; 32];
        hex::decode_to_slice(&claim.sha256, &mut sha256)
            .map_err(|_| refused(format!("its SHA-256 is {:?}, not 64 hex digits", brief(&claim.sha256))))?;
        let size = match claim.size.map(u64::try_from) {
            None => None,
            Some(Ok(size)) if size > limit as u64 => {
                return Err(Error::TooLarge { uri: claim.uri.clone(), found: size, limit });
            }
            Some(Ok(size)) => Some(size),
            Some(Err(_)) => return Err(refused("its size is negative".to_owned())),
        };
        Ok(Self { sha256, size, most: size.map_or(limit, |size| size as usize), limit })
    }

    fn check_size(&self, found: u64, uri: &str) -> Result<(), Error> {
        match self.size {
            Some(size) if size != found => {
                let reason = format!("it has {found} bytes instead of {size}");
                Err(Error::Mismatch { uri: uri.to_owned(), reason })
            }
            _ if found > self.most as u64 => Err(Error::TooLarge { uri: uri.to_owned(), found, limit: self.limit }),
            _ => Ok(()),
        }
    }
}

fn brief(text: &str) -> String {
    text.chars().take(80).collect()
}

/// One attempt.
async fn read(store: &Store, path: &ObjectPath, claim: &Claim, expected: &Expected) -> Result<Vec<u8>, Error> {
    let uri = &claim.uri;
    let failed = |cause: Cause| match cause {
        Cause::NotFound { .. } => Error::NotFound { uri: uri.clone() },
        cause => Error::Unavailable { uri: uri.clone(), cause: cause.to_string() },
    };
    let found = match store {
        Store::Objects { objects, root } => {
            let whole: ObjectPath = root.parts().chain(path.parts()).collect();
            objects.get(&whole).await
        }
        Store::Folder(folder) => {
            let folder = within(folder, path, uri).await?;
            LocalFileSystem::new_with_prefix(folder).map_err(failed)?.get(path).await
        }
    };
    let found = found.map_err(failed)?;
    let size = found.meta.size;
    expected.check_size(size, uri)?;
    let (mut bytes, mut hasher) = (Vec::with_capacity(size as usize), Sha256::new());
    let mut chunks = found.into_stream();
    while let Some(chunk) = chunks.try_next().await.map_err(failed)? {
        if bytes.len() + chunk.len() > expected.most {
            // It said to be smaller.
            let found = (bytes.len() + chunk.len()) as u64;
            return Err(Error::TooLarge { uri: uri.clone(), found, limit: expected.most });
        }
        hasher.update(&chunk);
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() as u64 != size {
        let cause = format!("it ended after {} of {size} bytes", bytes.len());
        return Err(Error::Unavailable { uri: uri.clone(), cause });
    }
    let digest = hasher.finalize();
    if digest[..] != expected.sha256 {
        let reason = format!("its SHA-256 is {} instead of {}", hex::encode(digest), claim.sha256);
        return Err(Error::Mismatch { uri: uri.clone(), reason });
    }
    Ok(bytes)
}

/// The folder as it is now, if the document is a file that lies in it, whatever links say.
async fn within(folder: &Path, path: &ObjectPath, uri: &str) -> Result<PathBuf, Error> {
    let refused = |reason: &str| Error::Refused { uri: uri.to_owned(), reason: reason.to_owned() };
    let unavailable = |cause: String| Error::Unavailable { uri: uri.to_owned(), cause };
    // A folder that is missing is a share that is not mounted.
    let folder =
        tokio::fs::canonicalize(folder).await.map_err(|e| unavailable(format!("{}: {e}", folder.display())))?;
    let file = path.parts().fold(folder.clone(), |file, part| file.join(part.as_ref()));
    let file = match tokio::fs::canonicalize(&file).await {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Err(Error::NotFound { uri: uri.to_owned() });
        }
        Err(e) => return Err(unavailable(e.to_string())),
    };
    if !file.starts_with(&folder) {
        return Err(refused("a link leads out of the folder"));
    }
    match tokio::fs::metadata(&file).await {
        Ok(metadata) if metadata.is_file() => Ok(folder),
        Ok(_) => Err(refused("it is no file")), // a pipe would be read without end
        Err(e) => Err(unavailable(e.to_string())),
    }
}
