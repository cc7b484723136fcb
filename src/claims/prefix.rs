//! The places that claims may lead to.

use object_store::path::Path as ObjectPath;
use std::path::PathBuf;
use url::Url;

/// What a scheme must be to be one of a store that is read.
const SCHEMES: [&str; 4] = ["file", "s3", "gs", "az"];

/// A folder of a store, or of this machine: all that lies below it is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Its path ends with a slash: `s3://bucket/a/` does not allow `s3://bucket/ab`.
    pub url: Url,
}

impl Prefix {
    /// Reads an entry of `claims.allow`; the message names the key.
    pub fn parse(uri: &str) -> Result<Self, String> {
        let refused = |reason: &str| {
            let shown = crate::config::secrets::mask_url(uri);
            format!("claims.allow has {shown:?}, {reason}")
        };
        let mut url = plain(uri).map_err(|reason| refused(&reason))?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        if url.scheme() == "file" {
            if url.path() == "/" {
                return Err(refused("which is every file of this machine: name a folder"));
            }
            url.to_file_path().map_err(|()| refused("which is no folder of this machine"))?;
        } else if url.host_str().is_none_or(str::is_empty) {
            return Err(refused("which names no bucket"));
        }
        Ok(Self { url })
    }

    /// The folder, where it is one of this machine.
    pub fn folder(&self) -> Option<PathBuf> {
        (self.url.scheme() == "file").then(|| self.url.to_file_path().ok()).flatten()
    }

    /// The path of a document below the prefix; `None` where it is not below it.
    ///
    /// # Errors
    /// A path that leads out of the folder once it is decoded, or is none.
    pub fn path_of(&self, document: &Url) -> Option<Result<ObjectPath, String>> {
        let is_same_store = document.scheme() == self.url.scheme() && document.host_str() == self.url.host_str();
        let below = document.path().strip_prefix(self.url.path()).filter(|_| is_same_store)?;
        // Decoding makes a slash of `%2F`: what is parsed is what the store is asked for. It takes no `..`.
        Some(match ObjectPath::from_url_path(below) {
            Ok(path) if path.as_ref().is_empty() => Err("it names a folder".to_owned()),
            Ok(path) => Ok(path),
            Err(reason) => Err(reason.to_string()),
        })
    }
}

/// A URI of scheme, bucket and path. Dots in the path (`..`, `%2e%2e`) are resolved.
pub(super) fn plain(uri: &str) -> Result<Url, String> {
    let url = Url::parse(uri).map_err(|e| format!("which is no URI: {e}"))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(format!("whose scheme is none of {}", SCHEMES.join(", ")));
    }
    let is_more = !url.username().is_empty()
        || url.password().is_some()
        || url.port().is_some()
        || url.query().is_some()
        || url.fragment().is_some();
    if is_more || url.cannot_be_a_base() { Err("which is more than scheme, bucket and path".into()) } else { Ok(url) }
}
