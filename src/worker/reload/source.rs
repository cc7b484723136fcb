//! Where it stands which version is to be served.

use super::choose::Look;
use super::load::Error;
use super::{Place, Wanted};
use crate::bus;
use crate::bus::records::{AliasChange, ModelVersion};
use crate::model::directory::{self, Directory};
use crate::registry::Announcements;
use crate::registry::aliases::CANDIDATE;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A directory is left alone until nothing in it has changed for so long: somebody is writing to it.
const SETTLED: Duration = Duration::from_secs(1);

/// The version that lies in a model directory, by its manifest. One without a manifest is looked at only when
/// somebody asks, because all of its weights must be read to tell the version.
pub fn directory(path: PathBuf) -> Look {
    let mut watched = Watched { path, seen: None, wanted: None };
    Box::new(move |asked| watched.look(asked, Instant::now()))
}

/// The champions of a model that are announced on the topic `models`: the present one, then those that a rollback
/// would go to, one after the other.
pub fn announced(kafka: bus::Options, name: String) -> Look {
    followed(kafka, name, champions)
}

/// The candidate of a model that is announced on the topic `models`, where there is one.
pub fn candidate(kafka: bus::Options, name: String) -> Look {
    followed(kafka, name, candidate_of)
}

/// Those versions of the newest announcement of a model that `choose` names.
fn followed<V>(kafka: bus::Options, name: String, choose: fn(&ModelVersion) -> V) -> Look
where
    V: IntoIterator<Item = Wanted> + 'static,
{
    let mut announcements: Option<Announcements> = None;
    let mut known = Vec::new();
    Box::new(move |_| {
        let (following, is_news) = match announcements.take() {
            Some(mut following) => {
                let changed = following.wait(Duration::ZERO)?;
                (following, changed.contains(&name))
            }
            None => (Announcements::read(&kafka)?, true),
        };
        if is_news {
            known = following.get(&name)?.into_iter().flat_map(choose).collect();
        }
        announcements = Some(following); // after an error everything is read again
        Ok(known.clone())
    })
}

pub(super) fn champions(state: &ModelVersion) -> Vec<Wanted> {
    let announced = Arc::new(state.clone());
    let wanted = |change: &AliasChange| Wanted {
        place: Place::Registry { name: state.name.clone(), version: change.version.clone() },
        digest: change.digest.clone(),
        occasion: change.at,
        announced: Some(announced.clone()),
    };
    state.champions().into_iter().map(wanted).collect()
}

pub(super) fn candidate_of(state: &ModelVersion) -> Option<Wanted> {
    let target = state.alias(CANDIDATE)?;
    let mut changes = state.history.iter().rev();
    let given = changes.find(|change| change.alias == CANDIDATE && change.digest == target.digest);
    Some(Wanted {
        place: Place::Registry { name: state.name.clone(), version: target.version.clone() },
        digest: target.digest.clone(),
        occasion: given.map_or(0, |change| change.at),
        announced: Some(Arc::new(state.clone())),
    })
}

pub(super) struct Watched {
    path: PathBuf,
    /// What the directory looked like, and since when.
    seen: Option<(u64, Instant)>,
    /// The version in it, once that has been read.
    wanted: Option<Wanted>,
}

impl Watched {
    pub fn look(&mut self, asked: bool, now: Instant) -> Result<Vec<Wanted>, Error> {
        let fingerprint = directory::fingerprint(&self.path);
        let since = match self.seen {
            Some((seen, since)) if seen == fingerprint => since,
            _ => now,
        };
        if since == now {
            self.wanted = None;
        }
        self.seen = Some((fingerprint, since));
        if asked || (self.wanted.is_none() && now >= since + SETTLED) {
            let digest = match directory::manifest_digest(&self.path)? {
                Some(digest) => Some(digest),
                None if asked => Some(Directory::read(&self.path)?.digest().to_owned()),
                None => None,
            };
            let place = Place::Directory(self.path.clone());
            self.wanted = digest.map(|digest| Wanted { place, digest, occasion: fingerprint as i64, announced: None });
        }
        Ok(self.wanted.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::directory::MANIFEST;
    use std::fs;

    #[test]
    fn a_directory_is_told_by_its_manifest_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mut watched = Watched { path: path.clone(), seen: None, wanted: None };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        fs::write(path.join(MANIFEST), "one").unwrap();
        assert_eq!(watched.look(false, at(0)).unwrap(), []);
        let first = watched.look(false, at(1)).unwrap();
        assert_eq!(first[0].digest, directory::digest_of(b"one"));
        assert_eq!(watched.look(false, at(2)).unwrap(), first);

        fs::write(path.join(MANIFEST), "other").unwrap();
        assert_eq!(watched.look(false, at(3)).unwrap(), [], "it may not be whole yet");
        fs::write(path.join(directory::CONFIG), "{}").unwrap();
        assert_eq!(watched.look(false, at(4)).unwrap(), []);
        let second = watched.look(false, at(5)).unwrap();
        assert_eq!(second[0].digest, directory::digest_of(b"other"));
        assert_ne!(second[0].occasion, first[0].occasion);

        fs::write(path.join(directory::SAFETENSORS), "repaired").unwrap();
        let asked = watched.look(true, at(6)).unwrap();
        assert_eq!(asked[0].digest, second[0].digest);
        assert_ne!(asked[0].occasion, second[0].occasion, "the same version on another occasion");
    }

    #[test]
    fn without_a_manifest_the_weights_tell_but_only_whoever_asks() {
        let folder = tempfile::tempdir().unwrap();
        let mut watched = Watched { path: folder.path().to_owned(), seen: None, wanted: None };
        fs::write(folder.path().join(directory::SAFETENSORS), "weights").unwrap();
        let start = Instant::now();
        assert_eq!(watched.look(false, start).unwrap(), []);
        assert_eq!(watched.look(false, start + 5 * SETTLED).unwrap(), []);
        let asked = watched.look(true, start + 6 * SETTLED).unwrap();
        assert_eq!(asked[0].digest, directory::digest_of(b"weights"));
    }
}
