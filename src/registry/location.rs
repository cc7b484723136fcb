//! From a name in the configuration to an object store: a folder, or a URI whose scheme chooses.

use super::Error;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreScheme};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// A store as somebody has named it.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a> {
    /// A folder or a URI.
    pub store: &'a str,
    /// The key or flag that named it.
    pub key: &'static str,
    /// Settings of the object store, and the section that they stand in.
    pub options: &'a BTreeMap<String, String>,
    pub options_key: &'static str,
}

/// An opened store.
pub(crate) struct Location {
    pub objects: Arc<dyn ObjectStore>,
    /// Where in `objects` the place named is.
    pub root: ObjectPath,
    /// Its URI, without a slash at its end.
    pub uri: String,
}

/// Whether a local folder that is not there is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Refuse,
    Create,
}

impl Location {
    pub fn open(named: Named<'_>, missing: Missing) -> Result<Self, Error> {
        let Some(url) = parse(named)? else {
            return local(Path::new(named.store), named, missing);
        };
        let (scheme, root) =
            ObjectStoreScheme::parse(&url).map_err(|e| refused(named, &format!("no store's URI: {e}")))?;
        if scheme == ObjectStoreScheme::Local {
            let folder = url.to_file_path().map_err(|()| refused(named, "no path of a file"))?;
            return local(&folder, named, missing);
        }
        Ok(Self { objects: cloud(&scheme, &url, named)?, root, uri: url.as_str().trim_end_matches('/').to_owned() })
    }
}

/// The URI, none for the path of a folder.
fn parse(named: Named<'_>) -> Result<Option<Url>, Error> {
    let store = named.store;
    if !store.contains("://") && !store.starts_with("file:") {
        return Ok(None);
    }
    let url = Url::parse(store).map_err(|e| refused(named, &format!("no URI: {e}")))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        // It stands in logs, records and messages, so it is not even repeated here.
        let shown = format!("{}://…", url.scheme());
        let reason = format!("only scheme, bucket and path; credentials belong into {}", named.options_key);
        return Err(refused(Named { store: &shown, ..named }, &reason));
    }
    Ok(Some(url))
}

fn local(folder: &Path, named: Named<'_>, missing: Missing) -> Result<Location, Error> {
    if missing == Missing::Create {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let folder: PathBuf = match folder.canonicalize() {
        Ok(folder) if folder.is_dir() => folder,
        Ok(_) => return Err(refused(named, "no folder")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NoStore { folder: folder.to_owned() });
        }
        Err(e) => return Err(Error::io(folder, e)),
    };
    let uri = Url::from_file_path(&folder).map_err(|()| refused(named, "no absolute path"))?;
    let uri = uri.as_str().trim_end_matches('/').to_owned();
    let objects = LocalFileSystem::new_with_prefix(&folder)
        .map_err(|cause| Error::Store { place: uri.clone(), cause })?
        .with_automatic_cleanup(true)
        .with_fsync(true); // a version that is announced outlives a power cut
    Ok(Location { objects: Arc::new(objects), root: ObjectPath::default(), uri })
}

fn refused(named: Named<'_>, reason: &str) -> Error {
    let shown = crate::config::secrets::mask_url(named.store);
    Error::Options(format!("{} {shown:?} is refused: {reason}", named.key))
}

/// A builder with the cloud's own environment variables, then the options; one that it does not know is an error.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
macro_rules! build {
    ($builder:ty, $url:expr, $named:expr) => {{
        let mut builder = <$builder>::from_env().with_url($url.as_str()).with_retry(retries());
        for (key, value) in $named.options {
            let known = key.parse().map_err(|_| {
                Error::Options(format!("{}.{key}: {} does not know this option", $named.options_key, $url.scheme()))
            })?;
            builder = builder.with_config(known, value);
        }
        let store = builder.build().map_err(|e| refused($named, &e.to_string()))?;
        Ok(Arc::new(store) as Arc<dyn ObjectStore>)
    }};
}

/// Short enough for a person at a command; who serves tries again with a back-off of its own.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn retries() -> object_store::RetryConfig {
    object_store::RetryConfig {
        max_retries: 5,
        retry_timeout: std::time::Duration::from_secs(30),
        ..Default::default()
    }
}

#[allow(unused_variables)] // without the features there is nothing to build
fn cloud(scheme: &ObjectStoreScheme, url: &Url, named: Named<'_>) -> Result<Arc<dyn ObjectStore>, Error> {
    match scheme {
        #[cfg(feature = "s3")]
        ObjectStoreScheme::AmazonS3 => build!(object_store::aws::AmazonS3Builder, url, named),
        #[cfg(feature = "gcs")]
        ObjectStoreScheme::GoogleCloudStorage => build!(object_store::gcp::GoogleCloudStorageBuilder, url, named),
        #[cfg(feature = "azure")]
        ObjectStoreScheme::MicrosoftAzure => build!(object_store::azure::MicrosoftAzureBuilder, url, named),
        _ => Err(refused(
            named,
            "use a folder, file://, s3://, gs:// or az:// (as far as this program was built with them)",
        )),
    }
}
