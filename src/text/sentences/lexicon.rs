//! The word lists of the splitter. Abbreviations are lower-case, without their last stop, sorted.

/// How an abbreviation stands to the end of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abbreviation {
    /// Something always follows it: `Fig.`, `Dr.`, `vs.`
    Leading,
    /// A number follows it, else it is a word like others: `No. 5`, but `The answer is no.`
    Numbered,
    /// A part of names that may end a sentence; what follows must then be a word that opens one: `et al.`, `Inc.`
    Inner,
    /// It may end a sentence, and does so before a capitalised word: `i.v.`, `spp.`, `10 min.`
    Unit,
}

#[rustfmt::skip]
const LEADING: &[&str] = &[
    "a.k.a", "approx", "c.f", "cf", "dept", "dr", "drs", "e.g", "eg", "eq", "eqn", "eqns", "eqs", "esp", "excl",
    "fig", "figs", "hosp", "i.e", "ie", "incl", "messrs", "mr", "mrs", "prof", "st", "supp", "suppl", "univ", "viz",
    "vs",
];

#[rustfmt::skip]
const NUMBERED: &[&str] = &[
    "app", "apr", "art", "aug", "ca", "cat", "ch", "chap", "chaps", "chr", "chrs", "col", "dec", "ex", "exp", "expt",
    "feb", "jan", "jul", "jun", "mar", "no", "nos", "nov", "nr", "oct", "op", "par", "para", "pp", "pt", "ref",
    "refs", "sect", "sep", "sept", "ser", "tab", "ver", "vol", "vols",
];

#[rustfmt::skip]
const INNER: &[&str] = &[
    "al", "biovar", "bros", "bv", "co", "corp", "cv", "d.c", "ed", "eds", "et.al", "f.sp", "gov", "ibid", "inc",
    "int", "jr", "llc", "ltd", "ph", "ph.d", "phd", "plc", "pty", "pv", "s.l", "s.s", "sr", "ssp", "str", "subsp",
    "u.k", "u.s", "u.s.a", "var",
];

/// Words of journals' and societies' names, as written; they stand like [`Abbreviation::Inner`].
#[rustfmt::skip]
const TITLES: &[&str] = &[
    "Abstr", "Acad", "Am", "Anal", "Anat", "Anim", "Ann", "Annu", "Appl", "Arch", "Assoc", "Biochem", "Biol",
    "Biomed", "Biophys", "Biotechnol", "Br", "Brit", "Bull", "Can", "Chem", "Circ", "Clin", "Commun", "Compar",
    "Curr", "Dev", "Diagn", "Dis", "Endocrinol", "Environ", "Epidemiol", "Eur", "Exp", "Gastroenterol", "Gen",
    "Genet", "Gynecol", "Hematol", "Histochem", "Hosp", "Hum", "Immun", "Immunol", "Infect", "Int", "Intern",
    "Invest", "Jpn", "Lett", "Med", "Metab", "Microbiol", "Mol", "Morphol", "Mt", "Nat", "Natl", "Neurobiol",
    "Neurol", "Neurosci", "Nutr", "Obstet", "Oncol", "Ophthalmol", "Orthop", "Parasitol", "Pathol", "Pediatr",
    "Pharm", "Pharmacol", "Philos", "Physiol", "Proc", "Psychiatr", "Psychol", "Publ", "Radiol", "Rep", "Reprod",
    "Res", "Rev", "Sci", "Soc", "Surg", "Symp", "Technol", "Ther", "Toxicol", "Trans", "Trop", "Urol", "Vet", "Virol",
];

#[rustfmt::skip]
const UNIT: &[&str] = &[
    "a.m", "b.d", "b.i.d", "conc", "dil", "e.c", "etc", "hr", "hrs", "i.c", "i.c.v", "i.d", "i.g", "i.m", "i.n",
    "i.p", "i.t", "i.u", "i.v", "max", "min", "p.m", "p.o", "q.d", "q.i.d", "s.c", "s.d", "s.e", "s.e.m", "sec", "sp",
    "spp", "t.i.d", "temp", "wt",
];

/// Words that open a sentence far more often than they are a name.
#[rustfmt::skip]
const OPENERS: &[&str] = &[
    "A", "About", "Accordingly", "Activation", "Additional", "Additionally", "After", "All", "Although", "Among",
    "An", "Analysis", "And", "Animals", "Another", "Any", "As", "At", "Background", "Because", "Before", "Besides",
    "Between", "Both", "But", "By", "Cells", "Children", "Clinical", "Compared", "Conclusions", "Consequently",
    "Consistent", "Controls", "Conversely", "Data", "Despite", "Due", "During", "Each", "Eight", "Either", "Eleven",
    "Even", "Every", "Evidence", "Experiments", "Expression", "Few", "Finally", "Findings", "First", "Five",
    "Following", "For", "Four", "From", "Further", "Furthermore", "Given", "Having", "He", "Hence", "Here", "Herein",
    "How", "However", "If", "Importantly", "In", "Increased", "Incubation", "Indeed", "Instead", "Interestingly",
    "It", "Its", "Later", "Like", "Likewise", "Many", "Mean", "Men", "Methods", "Mice", "Moreover", "Most", "Much",
    "Neither", "Nevertheless", "New", "Nine", "No", "None", "Nonetheless", "Not", "Notably", "Now", "Objective", "Of",
    "On", "Once", "One", "Only", "Other", "Our", "Out", "Over", "Overall", "Patients", "Previous", "Previously",
    "Prior", "Rats", "Recent", "Recently", "Results", "Second", "Seven", "Several", "She", "Similar", "Similarly",
    "Since", "Six", "So", "Some", "Stimulation", "Studies", "Study", "Subjects", "Such", "Surprisingly", "Taken",
    "Ten", "That", "The", "Their", "Then", "There", "Therefore", "These", "They", "Third", "This", "Those", "Three",
    "Through", "Thus", "To", "Together", "Treatment", "Twelve", "Twenty", "Two", "Under", "Unlike", "Until", "Upon",
    "Using", "Was", "We", "What", "When", "Whereas", "Whether", "Which", "While", "Why", "With", "Within", "Without",
    "Women", "Yet",
];

/// Nouns, capitalised at times, that a single letter completes: `Panel B.`, `Vitamin D.` end a sentence.
#[rustfmt::skip]
const LETTERED: &[&str] = &[
    "appendix", "box", "class", "factor", "figure", "form", "grade", "group", "hepatitis", "influenza", "panel",
    "part", "phase", "protein", "stage", "table", "type", "vitamin",
];

/// Words after which a single capital is the initial of a name.
#[rustfmt::skip]
const BEFORE_NAMES: &[&str] = &[
    "against", "also", "and", "as", "between", "by", "containing", "dr", "drs", "for", "from", "gift", "in", "into",
    "like", "of", "on", "or", "prof", "professor", "serotype", "serovar", "species", "than", "thank", "thanks",
    "that", "the", "to", "towards", "versus", "via", "was", "were", "when", "where", "with", "within",
];

/// Longer words are in no list.
const LONGEST: usize = 16;

/// The abbreviation that `word`, which a stop follows, is; `None` for ordinary words.
pub(super) fn abbreviation(word: &str) -> Option<Abbreviation> {
    if contains(TITLES, word) {
        return Some(Abbreviation::Inner);
    }
    let mut buffer = [0; LONGEST];
    let word = lowercase(word, &mut buffer)?;
    if contains(LEADING, word) {
        Some(Abbreviation::Leading)
    } else if contains(NUMBERED, word) {
        Some(Abbreviation::Numbered)
    } else if contains(INNER, word) {
        Some(Abbreviation::Inner)
    } else if contains(UNIT, word) {
        Some(Abbreviation::Unit)
    } else {
        None
    }
}

/// Whether `word`, as written, usually opens a sentence.
pub(super) fn opens_sentence(word: &str) -> bool {
    let is_heading = word.len() > 6 && word.bytes().all(|byte| byte.is_ascii_uppercase()); // "CONCLUSION"
    let is_adverb = word.len() > 5 && word.ends_with("ly");
    contains(OPENERS, word) || is_adverb || is_heading
}

/// Whether a single letter after `word` belongs to it.
pub(super) fn takes_letter(word: &str) -> bool {
    let mut buffer = [0; LONGEST];
    lowercase(word, &mut buffer).is_some_and(|word| contains(LETTERED, word))
}

/// Whether a single capital after `word` is an initial: "by J. Smith", "with E. Coli".
pub(super) fn precedes_name(word: &str) -> bool {
    contains(BEFORE_NAMES, word)
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
        for list in [LEADING, NUMBERED, INNER, TITLES, UNIT, OPENERS, LETTERED, BEFORE_NAMES] {
            for pair in list.windows(2) {
                assert!(pair[0] < pair[1], "{} before {}", pair[0], pair[1]);
            }
            assert!(list.iter().all(|word| word.len() <= LONGEST));
        }
        let mut abbreviations = [LEADING, NUMBERED, INNER, UNIT].concat();
        abbreviations.sort_unstable();
        for pair in abbreviations.windows(2) {
            assert_ne!(pair[0], pair[1], "in two lists");
        }
    }
}
