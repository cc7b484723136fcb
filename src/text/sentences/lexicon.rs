//! The word lists of the splitter. Abbreviations are lower-case, without their last stop, sorted.

/// How an abbreviation stands to the end of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abbreviation {
    /// Something always follows it: `Fig.`, `Dr.`, `vs.`
    Leading,
    /// A number follows it, else it is a word like others: `No. 5`, but `The answer is no.`
    Numbered,
    /// It may end a sentence; what follows must then be a word that opens one: `et al.`, `i.v.`
    Either,
}

const LEADING: &[&str] = &[
    "a.k.a", "approx", "c.f", "cf", "dept", "dr", "drs", "e.g", "eg", "eq", "eqn", "eqns", "eqs", "esp", "excl", "fig",
    "figs", "hosp", "i.e", "ie", "incl", "messrs", "mr", "mrs", "prof", "st", "supp", "suppl", "univ", "viz", "vs",
];

const NUMBERED: &[&str] = &[
    "app", "apr", "art", "aug", "ca", "cat", "ch", "chap", "chaps", "col", "dec", "ex", "exp", "expt", "feb", "jan",
    "jul", "jun", "mar", "no", "nos", "nov", "nr", "oct", "op", "par", "para", "pp", "pt", "ref", "refs", "sec",
    "sect", "sep", "sept", "ser", "tab", "ver", "vol", "vols",
];

const EITHER: &[&str] = &[
    "a.m",
    "abs",
    "acad",
    "al",
    "assoc",
    "b.d",
    "b.i.d",
    "biol",
    "biovar",
    "bros",
    "bull",
    "bv",
    "clin",
    "co",
    "conc",
    "corp",
    "curr",
    "cv",
    "d.c",
    "def",
    "dil",
    "e.c",
    "ed",
    "eds",
    "est",
    "et.al",
    "etc",
    "f.sp",
    "gen",
    "genet",
    "gov",
    "i.c",
    "i.c.v",
    "i.d",
    "i.g",
    "i.m",
    "i.n",
    "i.p",
    "i.t",
    "i.u",
    "i.v",
    "ibid",
    "immunol",
    "inc",
    "int",
    "jr",
    "llc",
    "ltd",
    "max",
    "med",
    "microbiol",
    "min",
    "natl",
    "p.m",
    "p.o",
    "pathol",
    "ph.d",
    "pharmacol",
    "phd",
    "physiol",
    "plc",
    "prep",
    "proc",
    "psychiatr",
    "pty",
    "pv",
    "q.d",
    "resp",
    "rev",
    "s.c",
    "s.d",
    "s.e",
    "s.e.m",
    "s.l",
    "s.s",
    "sci",
    "sp",
    "spp",
    "sr",
    "ssp",
    "str",
    "subsp",
    "surg",
    "t.i.d",
    "temp",
    "trans",
    "u.k",
    "u.s",
    "u.s.a",
    "var",
    "vet",
    "wt",
];

/// Words that open a sentence far more often than they are a name.
const OPENERS: &[&str] = &[
    "A",
    "About",
    "Accordingly",
    "Additional",
    "Additionally",
    "After",
    "All",
    "Although",
    "Among",
    "An",
    "Analysis",
    "And",
    "Another",
    "Any",
    "As",
    "At",
    "Because",
    "Before",
    "Besides",
    "Between",
    "Both",
    "But",
    "By",
    "Cells",
    "Clinical",
    "Compared",
    "Consequently",
    "Consistent",
    "Conversely",
    "Data",
    "Despite",
    "Due",
    "During",
    "Each",
    "Eight",
    "Either",
    "Eleven",
    "Even",
    "Every",
    "Evidence",
    "Experiments",
    "Few",
    "Finally",
    "Findings",
    "First",
    "Five",
    "Following",
    "For",
    "Four",
    "From",
    "Furthermore",
    "Given",
    "He",
    "Hence",
    "Here",
    "Herein",
    "How",
    "However",
    "I",
    "If",
    "Importantly",
    "In",
    "Indeed",
    "Instead",
    "Interestingly",
    "It",
    "Its",
    "Later",
    "Like",
    "Likewise",
    "Many",
    "Mean",
    "Mice",
    "Moreover",
    "Most",
    "Much",
    "Neither",
    "Nevertheless",
    "New",
    "Nine",
    "No",
    "None",
    "Nonetheless",
    "Not",
    "Notably",
    "Now",
    "Of",
    "On",
    "Once",
    "One",
    "Only",
    "Other",
    "Our",
    "Over",
    "Overall",
    "Patients",
    "Previous",
    "Previously",
    "Prior",
    "Rats",
    "Recent",
    "Recently",
    "Results",
    "Second",
    "Seven",
    "Several",
    "She",
    "Similar",
    "Similarly",
    "Since",
    "Six",
    "So",
    "Some",
    "Such",
    "Surprisingly",
    "Taken",
    "Ten",
    "That",
    "The",
    "Their",
    "Then",
    "There",
    "Therefore",
    "These",
    "They",
    "Third",
    "This",
    "Those",
    "Three",
    "Through",
    "Thus",
    "To",
    "Together",
    "Treatment",
    "Twelve",
    "Twenty",
    "Two",
    "Under",
    "Unlike",
    "Until",
    "Upon",
    "Using",
    "Was",
    "We",
    "What",
    "When",
    "Whereas",
    "Whether",
    "Which",
    "While",
    "Why",
    "With",
    "Within",
    "Without",
    "Yet",
];

/// Nouns that a single letter completes: `vitamin D.`, `hepatitis B.` end a sentence, initials don't.
const LETTERED: &[&str] = &[
    "and",
    "appendix",
    "box",
    "class",
    "concanavalin",
    "condition",
    "cyclosporin",
    "cyclosporine",
    "cytochalasin",
    "factor",
    "fig",
    "figure",
    "form",
    "grade",
    "group",
    "hepatitis",
    "influenza",
    "isoform",
    "lipid",
    "or",
    "panel",
    "part",
    "phase",
    "protein",
    "quadrant",
    "schedule",
    "site",
    "stage",
    "strain",
    "subgroup",
    "subtype",
    "subunit",
    "table",
    "to",
    "type",
    "variant",
    "vitamin",
];

/// Longer words are in no list.
const LONGEST: usize = 16;

/// The abbreviation that `word`, which a stop follows, is; `None` for ordinary words.
pub(super) fn abbreviation(word: &str) -> Option<Abbreviation> {
    let mut buffer = [0; LONGEST];
    let word = lowercase(word, &mut buffer)?;
    if contains(LEADING, word) {
        Some(Abbreviation::Leading)
    } else if contains(NUMBERED, word) {
        Some(Abbreviation::Numbered)
    } else if contains(EITHER, word) {
        Some(Abbreviation::Either)
    } else {
        None
    }
}

/// Whether `word`, as written, usually opens a sentence.
pub(super) fn opens_sentence(word: &str) -> bool {
    contains(OPENERS, word)
}

/// Whether a single letter after `word` belongs to it.
pub(super) fn takes_letter(word: &str) -> bool {
    let mut buffer = [0; LONGEST];
    lowercase(word, &mut buffer).is_some_and(|word| contains(LETTERED, word))
}

fn contains(list: &[&str], word: &str) -> bool {
    list.binary_search(&word).is_ok()
}

/// ASCII lower case without an allocation; `None` for words too long to be in a list.
fn lowercase<'b>(word: &str, buffer: &'b mut [u8; LONGEST]) -> Option<&'b str> {
    let lower = buffer.get_mut(..word.len())?;
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_disjoint() {
        for list in [LEADING, NUMBERED, EITHER, OPENERS, LETTERED] {
            for pair in list.windows(2) {
                assert!(pair[0] < pair[1], "{} before {}", pair[0], pair[1]);
            }
            assert!(list.iter().all(|word| word.len() <= LONGEST));
        }
        for word in NUMBERED {
            assert!(!contains(LEADING, word) && !contains(EITHER, word), "{word}");
        }
        assert!(LEADING.iter().all(|word| !contains(EITHER, word)));
    }
}
