//! What may name a model, a version, an alias and a file of a version: names that mean the same in a path, an
//! object store's key, a URI and a topic's record key.

use super::Error;

/// Refuses a model name that is not 1 to 128 letters, digits, `.`, `_` and `-` that begin with a letter or digit.
pub fn check_name(name: &str) -> Result<(), Error> {
    let fits = plain(name, 128) && name.starts_with(|first: char| first.is_ascii_alphanumeric());
    refuse_unless(fits, "model name", name, "1 to 128 of A-Z a-z 0-9 . _ - that begin with a letter or digit")
}

/// Refuses a version that is not 1 to 64 letters, digits, `.`, `_`, `+` and `-` that begin with a digit.
pub fn check_version(version: &str) -> Result<(), Error> {
    let fits = plain(version, 64) && version.starts_with(|first: char| first.is_ascii_digit());
    refuse_unless(fits, "version", version, "1 to 64 of A-Z a-z 0-9 . _ + - that begin with a digit")
}

/// Refuses an alias that is not 1 to 64 lower-case letters, digits, `_` and `-` that begin with a letter: no
/// alias is a version, and no version an alias.
pub fn check_alias(alias: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let fits = alias.len() <= 64 && alias.starts_with(|c: char| c.is_ascii_lowercase()) && alias.chars().all(allowed);
    refuse_unless(fits, "alias", alias, "1 to 64 of a-z 0-9 _ - that begin with a letter")
}

/// Refuses a file name that would leave its folder, or that some file system or object store spells differently.
pub(super) fn check_file(name: &str) -> Result<(), Error> {
    let fits = plain(name, 200) && name != "." && name != ".." && name != super::store::CLAIM;
    refuse_unless(fits, "file name", name, "1 to 200 of A-Z a-z 0-9 . _ + -")
}

/// Characters that every store takes as they are.
fn plain(name: &str, longest: usize) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    (1..=longest).contains(&name.len()) && name.chars().all(allowed)
}

fn refuse_unless(fits: bool, what: &'static str, name: &str, rule: &'static str) -> Result<(), Error> {
    if fits { Ok(()) } else { Err(Error::Name { what, name: name.to_owned(), rule }) }
}
