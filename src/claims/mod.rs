//! Documents that lie in an object store beside the topic, because they are too large for it (the claim-check
//! pattern): an event carries a [`Claim`], which says where, how large and with which digest, instead of the bytes.
//!
//! [`Deposit`] stores documents and makes claims of them, for `litflow ingest --claim-check`. [`Claims`] brings the
//! documents back, for workers. Whoever publishes events names what he likes, so that a worker follows only claims
//! below the prefixes of [`Options::allow`], none by default, and takes a document only if it is the one that was
//! claimed, to the byte. `docs/articles.md` is the contract.
//!
//! [`Claim`]: crate::article::Claim

mod deposit;
mod fetch;
mod prefix;

pub use deposit::Deposit;
pub use fetch::{Claims, Fetched};

use crate::ErrorClass;
use prefix::Prefix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The section `claims` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The folders that documents may be fetched from, as URIs: `s3://bucket/articles/`, `gs://…`, `az://…`,
    /// `file:///srv/articles/`.
    pub allow: Vec<String>,
    /// A larger document is refused.
    pub max_bytes: usize,
    /// The most bytes of fetched documents that are worked on at a time. A single larger one passes alone.
    pub in_flight_bytes: usize,
    /// How long one attempt to fetch a document may take.
    pub timeout_ms: u64,
    /// Settings of the object stores by the `object_store` crate's names (`aws_region`). They win over the cloud's
    /// own environment variables (`AWS_REGION`).
    pub options: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            max_bytes: 64 << 20,
            in_flight_bytes: 128 << 20,
            timeout_ms: 60_000,
            options: BTreeMap::new(),
        }
    }
}

impl Options {
    /// Values that cannot be; the message names the key.
    pub fn check(&self) -> Result<(), String> {
        for (key, value) in [
            ("max_bytes", self.max_bytes as u64),
            ("in_flight_bytes", self.in_flight_bytes as u64),
            ("timeout_ms", self.timeout_ms),
        ] {
            if value == 0 {
                return Err(format!("claims.{key} must be at least 1"));
            }
        }
        self.allow.iter().try_for_each(|uri| Prefix::parse(uri).map(drop))
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Why a claimed document is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Error {
    /// The claim leads where nobody has allowed to go, or is none.
    #[error("the claim {uri:?} is not followed: {reason}")]
    Refused { uri: String, reason: String },
    /// The store says that there is no such document.
    #[error("there is no {uri}")]
    NotFound { uri: String },
    #[error("{uri} has {found} bytes, more than claims.max_bytes = {limit}")]
    TooLarge { uri: String, found: u64, limit: usize },
    /// What lies there is something else than what was claimed.
    #[error("{uri} is not what was claimed: {reason}")]
    Mismatch { uri: String, reason: String },
    /// The store does not answer, or answers with an error of its own.
    #[error("{uri} cannot be read now: {cause}")]
    Unavailable { uri: String, cause: String },
}

impl Error {
    /// Poison, but for what another attempt may bring.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable { .. } => ErrorClass::Retriable,
            _ => ErrorClass::Poison,
        }
    }

    /// A short name for metrics and dead-letter headers.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "claim_refused",
            Self::NotFound { .. } => "claim_not_found",
            Self::TooLarge { .. } => "claim_too_large",
            Self::Mismatch { .. } => "claim_mismatch",
            Self::Unavailable { .. } => "claim_unavailable",
        }
    }
}

#[cfg(test)]
mod tests;
