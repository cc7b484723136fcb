//! The publisher's side: stores documents under their digests, and makes claims of them.

use super::Options;
use crate::article::{ArticleEvent, Claim, Passage, RawDocument};
use crate::registry::Error;
use crate::registry::location::{Location, Missing, Named};
use object_store::{Error as Cause, ObjectStoreExt as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Where documents are left.
pub struct Deposit {
    location: Location,
}

/// The content of an article as `litflow`'s JSON lines have it (`docs/articles.md`); all else stays in the event.
#[derive(Serialize)]
struct Content<'a> {
    id: &'a str,
    title: Option<&'a str>,
    passages: &'a [Passage],
}

impl Deposit {
    /// Opens `store`, a folder or a URI, with the settings of `options`. A local folder is made where it is missing.
    pub fn open(store: &str, options: &Options) -> Result<Self, Error> {
        let named = Named { store, key: "--claim-check", options: &options.options, options_key: "claims.options" };
        Ok(Self { location: Location::open(named, Missing::Create)? })
    }

    /// Stores an article's title and passages, and returns its event with the claim instead. The same content has
    /// the same name, so that nothing is stored twice, and what another event claims never changes.
    pub async fn store(&self, event: ArticleEvent) -> Result<ArticleEvent, Error> {
        let content = Content { id: &event.id, title: event.title.as_deref(), passages: &event.passages };
        let document = serde_json::to_vec(&content).expect("text can be written as JSON");
        let sha256 = hex::encode(Sha256::digest(&document));
        let size = document.len() as u64;
        let name = format!("{}/{sha256}.json", &sha256[..2]);
        let uri = format!("{}/{name}", self.location.uri);
        let failed = |cause| Error::Store { place: uri.clone(), cause };

        let path = name.split('/').fold(self.location.root.clone(), |path, part| path.join(part));
        let is_there = match self.location.objects.head(&path).await {
            Ok(found) => found.size == size,
            Err(Cause::NotFound { .. }) => false,
            Err(cause) => return Err(failed(cause)),
        };
        if !is_there {
            self.location.objects.put(&path, document.into()).await.map_err(failed)?;
        }
        let claim = Claim { uri, sha256, size: i64::try_from(size).ok() };
        let raw = RawDocument { claim: Some(claim), ..RawDocument::new("application/json", []) };
        Ok(ArticleEvent { title: None, passages: Vec::new(), raw: Some(raw), ..event })
    }
}
