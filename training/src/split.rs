//! Which documents no training sees: a share by hash, or a list that stays the same over the months.
//!
//! A hash of the id decides for each document alone, so its side never changes when others are added; the types are
//! then held out at the same share only by expectation. [`choose`] keeps the share for each type, rare ones
//! first, which no rule for single documents can: so its choice is written down, and from then on the list
//! decides.

use crate::dataset::{Dataset, LabeledDocument};
use crate::error::Error;
use crate::files;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;

/// A rule for what is held out.
#[derive(Debug, Clone, PartialEq)]
pub enum HoldOut {
    /// This share, 0 to 1, of the documents that are annotated for every type, by a hash of their ids.
    Share(f64),
    /// The documents with these ids, whatever they are annotated for.
    Frozen(BTreeSet<String>),
}

impl HoldOut {
    /// Reads a list: an id a line, or a JSON string where the id is an odd one (it has a line break, or spaces at its ends).
    /// Lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// A file that cannot be read, or names no document.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).map_err(|error| Error::io(file, error))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let id = |line: &str| if line.starts_with('"') { serde_json::from_str(line) } else { Ok(line.to_owned()) };
        let ids: Result<BTreeSet<String>, _> = lines.map(id).collect();
        let ids =
            ids.map_err(|error| Error::Usage(format!("{}: a quoted id is no JSON string: {error}", file.display())))?;
        if ids.is_empty() {
            return Err(Error::Usage(format!("{} names no document to hold out", file.display())));
        }
        Ok(Self::Frozen(ids))
    }

    /// Whether the document is held out.
    pub fn holds(&self, document: &LabeledDocument) -> bool {
        match self {
            Self::Share(share) => document.is_complete() && unit_hash(local_id(&document.id)) < *share,
            Self::Frozen(ids) => ids.contains(&document.id),
        }
    }

    /// How many documents the list names; a share has none.
    pub fn listed(&self) -> usize {
        match self {
            Self::Share(_) => 0,
            Self::Frozen(ids) => ids.len(),
        }
    }

    /// Whether the list names the document; a share has none.
    pub fn names(&self, id: &str) -> bool {
        matches!(self, Self::Frozen(ids) if ids.contains(id))
    }
}

/// The ids of a share of the documents, stratified by type: from the rarest type on, documents that mention it and
/// no rarer one are taken in the order of their hashes until the share of its mentions is reached (after Sechidis
/// et al. 2011, for several labels a document). Only documents that are annotated for every type, where there are any.
pub fn choose(dataset: &Dataset, share: f64) -> Result<Vec<String>, Error> {
    let candidate = |document: Result<LabeledDocument, Error>| document.map(|d| Candidate::of(d, dataset.types.len()));
    let mut candidates = dataset.documents().map(candidate).collect::<Result<Vec<_>, _>>()?;
    if candidates.iter().any(|candidate| candidate.is_complete) {
        candidates.retain(|candidate| candidate.is_complete);
    }
    candidates.sort_by(|a, b| a.hash.total_cmp(&b.hash).then_with(|| a.id.cmp(&b.id)));
    let mentions: Vec<&[u64]> = candidates.iter().map(|candidate| candidate.mentions.as_slice()).collect();
    let totals: Vec<u64> = (0..dataset.types.len()).map(|of| mentions.iter().map(|counts| counts[of]).sum()).collect();

    let mut chosen = vec![false; candidates.len()];
    let mut held = vec![0; totals.len()];
    let mut by_frequency: Vec<usize> = (0..totals.len()).collect();
    by_frequency.sort_by_key(|&of| totals[of]);
    for (rank, &of) in by_frequency.iter().enumerate() {
        let wanted = share * totals[of] as f64;
        // Those that mention a rarer type have had their turn.
        let is_rarest =
            |at: &usize| mentions[*at][of] > 0 && by_frequency[..rank].iter().all(|&r| mentions[*at][r] == 0);
        for at in (0..candidates.len()).filter(is_rarest) {
            // A document is taken where that brings the share nearer.
            if held[of] as f64 + mentions[at][of] as f64 / 2.0 <= wanted {
                chosen[at] = true;
                held.iter_mut().zip(mentions[at]).for_each(|(held, count)| *held += count);
            }
        }
    }
    // Documents without any mention teach what is none: they are held out at the same share.
    let empty = |at: &usize| mentions[*at].iter().all(|&count| count == 0);
    let empty: Vec<usize> = (0..candidates.len()).filter(empty).collect();
    let wanted = (share * empty.len() as f64).round() as usize;
    empty.iter().take(wanted).for_each(|&at| chosen[at] = true);
    let mut ids: Vec<String> = candidates
        .iter()
        .zip(chosen)
        .filter(|(_, chosen)| *chosen)
        .map(|(candidate, _)| candidate.id.clone())
        .collect();
    ids.sort();
    Ok(ids)
}

/// What decides whether a document is chosen.
struct Candidate {
    id: String,
    hash: f64,
    is_complete: bool,
    /// Of each type.
    mentions: Vec<u64>,
}

impl Candidate {
    fn of(document: LabeledDocument, types: usize) -> Self {
        let mut mentions = vec![0; types];
        document.spans().for_each(|span| mentions[span.entity_type] += 1);
        // Not the hash of `HoldOut::Share`: that would take away the documents to develop on.
        let hash = unit_hash(&format!("hold-out {}", local_id(&document.id)));
        Self { hash, is_complete: document.is_complete(), mentions, id: document.id }
    }
}

/// Writes a list that [`HoldOut::read`] reads. A list that is there already stays: what was held out once must not
/// be trained on.
///
/// # Errors
/// A file that is there, or cannot be written.
pub fn write(file: &Path, ids: &[String], header: &str) -> Result<(), Error> {
    let mut text: String = header.lines().map(|line| format!("# {line}\n")).collect();
    ids.iter().for_each(|id| {
        let is_odd = id.starts_with(['#', '"']) || id.trim() != id || id.contains(char::is_control) || id.is_empty();
        if is_odd {
            text += &serde_json::to_string(id).expect("a string can be written as JSON");
        } else {
            text.push_str(id);
        }
        text.push('\n');
    });
    if files::write_new(file, text.as_bytes())? {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} is there already; a hold-out stays as it is, so that versions can be compared on it",
        file.display()
    )))
}

/// An id without its prefix: the part that was hashed before ids had one.
pub(crate) fn local_id(id: &str) -> &str {
    id.split_once(':').map_or(id, |(_, local)| local)
}

/// A number in [0, 1) that depends on the id alone.
pub(crate) fn unit_hash(id: &str) -> f64 {
    let digest = Sha256::digest(id.as_bytes());
    let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(first) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::LabeledPassage;
    use crate::scorer::Span;

    /// Documents of which every tenth mentions the rare type 1; all but every fifth mention type 0.
    fn dataset(ids: std::ops::Range<u32>) -> Dataset {
        let document = |id: u32| {
            let common = (!id.is_multiple_of(5)).then_some(Span { begin: 0, end: 1, entity_type: 0 });
            let rare = (id % 10 == 3).then_some(Span { begin: 2, end: 3, entity_type: 1 });
            let spans = common.into_iter().chain(rare).collect();
            let passage = LabeledPassage { text: "a b".into(), offset: 0, spans, open: Vec::new() };
            LabeledDocument { id: format!("pmid:{id}"), passages: vec![passage], annotated: vec![true, true] }
        };
        Dataset::of(vec!["A".into(), "B".into()], ids.map(document).map(Ok)).unwrap()
    }

    #[test]
    fn the_held_out_share_is_stable_and_disjoint() {
        let (mut few, mut many) = (dataset(0..100), dataset(0..400));
        let rule = HoldOut::Share(0.2);
        let (few_held_out, many_held_out) = (few.hold_out(&rule).unwrap(), many.hold_out(&rule).unwrap());
        let ids = |data: &Dataset| data.ids().unwrap();
        assert!(ids(&few_held_out).is_subset(&ids(&many_held_out)));
        assert!(ids(&many).is_disjoint(&ids(&many_held_out)));
        assert!((50..110).contains(&many_held_out.len()), "{}", many_held_out.len());
        assert_eq!(many.len() + many_held_out.len(), 400);
    }

    #[test]
    fn a_choice_keeps_the_share_of_every_type() {
        for share in [0.1, 0.2, 0.5] {
            let data = dataset(0..300);
            let totals = data.summary().unwrap().mentions;
            let mut rest = data;
            let held = rest.hold_out(&HoldOut::Frozen(choose(&rest, share).unwrap().into_iter().collect())).unwrap();
            for (held, total) in held.summary().unwrap().mentions.into_iter().zip(&totals) {
                assert!((held as f64 - share * *total as f64).abs() <= 1.0, "{held} of {total} at {share}");
            }
            let empty = held.documents().filter(|document| document.as_ref().unwrap().spans().count() == 0).count();
            assert_eq!(empty, (share * 60.0).round() as usize);
        }
    }

    #[test]
    fn a_list_is_written_once_and_decides_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hold-out.txt");
        let ids = choose(&dataset(0..100), 0.2).unwrap();
        write(&file, &ids, "chosen\nof 100").unwrap();
        let error = write(&file, &ids, "").unwrap_err();
        assert!(error.to_string().contains("there already") && error.exit_code() == 2, "{error}");
        let rule = HoldOut::read(&file).unwrap();
        // Other documents come, and a different choice would be made of them all.
        let mut grown = dataset(0..400);
        assert_eq!(grown.hold_out(&rule).unwrap().ids().unwrap(), ids.iter().cloned().collect());
        let odd = ["local:doc#8", "#8", " a ", "a\nb", "\"q\"", "tab\there"].map(str::to_owned);
        let odd_list = folder.path().join("odd.txt");
        write(&odd_list, &odd, "odd ones").unwrap();
        assert_eq!(HoldOut::read(&odd_list).unwrap(), HoldOut::Frozen(odd.into_iter().collect()));
        std::fs::write(&file, "# none\n").unwrap();
        assert!(HoldOut::read(&file).unwrap_err().to_string().contains("names no document"));
    }
}
