//! A schema registry: the ids that stand before values in Confluent's wire format, for the schemas behind them.
//!
//! [`Registry`] knows ids both ways and asks for those that it does not know; [`Subjects`] looks after what is kept
//! under `<topic>-value`. Both speak the REST API that Confluent's registry, Apicurio's (`/apis/ccompat/v7`) and
//! Karapace have in common.
//!
//! A registry that is away holds up only what needs an id that is not known yet, and nothing is refused for it: only
//! its own answer makes a value unreadable.

mod client;
mod ids;
mod subjects;

pub use ids::{Known, Registry};
pub use subjects::{COMPATIBILITY, Registered, Subjects};

use crate::ErrorClass;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use url::Url;

/// The section `kafka.schema_registry` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where the API begins, several with commas, tried in turn; none: there is no registry.
    pub url: Option<String>,
    /// For basic authentication.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A bearer token, in the place of user and password.
    pub token: Option<String>,
    /// PEM file with the only authorities that its certificate may be signed by; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this client's certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with that certificate's key, in PKCS #8.
    pub key_file: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: None,
            username: None,
            password: None,
            token: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            timeout_ms: 5_000,
        }
    }
}

impl Options {
    /// Refuses what cannot work, naming the key.
    pub fn check(&self) -> Result<(), String> {
        let given = |key: &str| Err(format!("kafka.schema_registry.{key}"));
        match self {
            Self { url: None, username, password, token, ca_file, certificate_file, key_file, .. } => {
                let keys = [
                    ("username", username.is_some()),
                    ("password", password.is_some()),
                    ("token", token.is_some()),
                    ("ca_file", ca_file.is_some()),
                    ("certificate_file", certificate_file.is_some()),
                    ("key_file", key_file.is_some()),
                ];
                match keys.iter().find(|(_, is_set)| *is_set) {
                    Some((key, _)) => given(&format!("{key} has no effect without kafka.schema_registry.url")),
                    None => Ok(()),
                }
            }
            Self { timeout_ms: 0, .. } => given("timeout_ms must be at least 1"),
            Self { username: Some(_), token: Some(_), .. } | Self { password: Some(_), token: Some(_), .. } => {
                given("token and a user cannot both be given: leave one out")
            }
            Self { username: Some(_), password: None, .. } => given("username is given without password"),
            Self { username: None, password: Some(_), .. } => given("password is given without username"),
            Self { certificate_file: Some(_), key_file: None, .. } => {
                given("certificate_file is given without key_file")
            }
            Self { certificate_file: None, key_file: Some(_), .. } => {
                given("key_file is given without certificate_file")
            }
            Self { url: Some(_), .. } => self.urls().map(drop),
        }
    }

    /// The addresses, each one that paths can be appended to.
    fn urls(&self) -> Result<Vec<Url>, String> {
        let addresses = self.url.iter().flat_map(|urls| urls.split(','));
        addresses
            .map(|text| {
                // The text is not repeated: it may hold a password.
                let refused = |why: &str| format!("kafka.schema_registry.url {why}");
                let url =
                    Url::parse(text.trim()).map_err(|e| refused(&format!("has an address that is no URL: {e}")))?;
                if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
                    return Err(refused("must be an address with http:// or https://"));
                }
                if !url.username().is_empty() || url.password().is_some() {
                    return Err(refused("must not hold a user: set kafka.schema_registry.username and password"));
                }
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(refused("must end with a path, where the API begins"));
                }
                Ok(url)
            })
            .collect()
    }
}

/// What a registry does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is away, too busy, or something else answers in its place.
    #[error("the schema registry does not answer: {reason}")]
    #[allow(missing_docs)]
    Unavailable { reason: String },
    /// It does not let this client in, or this client does not trust it; waiting does not help.
    #[error("the schema registry at {url} and this client do not agree: {reason}; {way_out}")]
    #[allow(missing_docs)]
    Refused { url: String, reason: String, way_out: &'static str },
    /// The subject does not have the schema that values are written with.
    #[error(
        "the schema registry does not have this version of {schema} under the subject {subject}: `litflow topics \
         create` registers it"
    )]
    #[allow(missing_docs)]
    NotRegistered { subject: String, schema: &'static str },
    /// The subject has versions that the schema is not compatible with.
    #[error(
        "the schema registry does not take the schema of this version for the subject {subject}, whose versions it is \
         not compatible with: {reason}"
    )]
    #[allow(missing_docs)]
    Incompatible { subject: String, reason: String },
    /// Any other answer.
    #[error("the schema registry at {url} refuses to {call}: {reason}")]
    #[allow(missing_docs)]
    Rejected { url: String, call: String, reason: String },
}

impl Error {
    /// Retriable: it may answer later.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable { .. } => ErrorClass::Retriable,
            Self::Refused { .. } | Self::NotRegistered { .. } | Self::Incompatible { .. } | Self::Rejected { .. } => {
                ErrorClass::Fatal
            }
        }
    }
}

/// The subject of a topic's values.
fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let some = |text: &str| Some(text.to_owned());
        let url = || some("https://registry:8081/apis/ccompat/v7, http://other:8081");
        let good = Options { url: url(), username: some("ada"), password: some("p"), ..Options::default() };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.urls().unwrap().len(), 2);
        assert_eq!(Options::default().check(), Ok(()));
        for (refused, key) in [
            (Options { token: some("t"), ..Options::default() }, "token has no effect"),
            (Options { token: some("t"), ..good.clone() }, "token and a user"),
            (Options { password: None, ..good.clone() }, "username is given without"),
            (Options { key_file: Some("key.pem".into()), ..good.clone() }, "key_file is given without"),
            (Options { timeout_ms: 0, ..good.clone() }, "timeout_ms"),
            (Options { url: some("registry:8081"), ..good.clone() }, "url must be"),
            (Options { url: some("http://ada:hunter2@registry"), ..good.clone() }, "url must not hold a user"),
            (Options { url: some("http://one,"), ..good.clone() }, "url has an address"),
            (Options { url: some("http://one?x=y"), ..good }, "url must end"),
        ] {
            let reason = refused.check().unwrap_err();
            assert!(reason.starts_with(&format!("kafka.schema_registry.{key}")), "{reason}");
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
