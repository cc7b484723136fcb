//! From a source's own section names to the fixed list of [`Section`].

use super::Section;

/// Words that decide, in lower case, also with a plural's `s`; those with `*` as prefixes. The first word
/// of a heading that is found here decides: `Materials and methods`, `RESULTS AND DISCUSSION` (results),
/// `Authors' conclusions`.
const WORDS: &[(&str, Section)] = &[
    ("background", Section::Background),
    ("context", Section::Background),
    ("importance", Section::Background),
    ("objective", Section::Objective),
    ("aim", Section::Objective),
    ("purpose", Section::Objective),
    ("goal", Section::Objective),
    ("hypothes*", Section::Objective),
    ("question", Section::Objective),
    ("intro", Section::Introduction),
    ("introduction", Section::Introduction),
    ("method", Section::Methods),
    ("material", Section::Methods),
    ("experimental", Section::Methods),
    ("procedure", Section::Methods),
    ("design", Section::Methods),
    ("setting", Section::Methods),
    ("patient", Section::Methods),
    ("participant", Section::Methods),
    ("subject", Section::Methods),
    ("intervention", Section::Methods),
    ("measurement", Section::Methods),
    ("outcome", Section::Methods),
    ("statistic*", Section::Methods),
    ("exposure", Section::Methods),
    ("data", Section::Methods),
    ("result", Section::Results),
    ("finding", Section::Results),
    ("discussion", Section::Discussion),
    ("comment", Section::Discussion),
    ("interpretation", Section::Discussion),
    ("limitation", Section::Discussion),
    ("conclusion", Section::Conclusion),
    ("implication", Section::Conclusion),
    ("significance", Section::Conclusion),
    ("relevance", Section::Conclusion),
    ("summary", Section::Conclusion),
    ("case", Section::CaseReport),
    ("acknowledg*", Section::Acknowledgements),
    ("funding", Section::Funding),
    ("financial", Section::Funding),
    ("supplement*", Section::Supplement),
    ("supporting", Section::Supplement),
    ("additional", Section::Supplement),
    ("append*", Section::Appendix),
    ("abbreviation", Section::Abbreviations),
    ("keyword", Section::Keywords),
    ("registration", Section::Other),
    ("contribution", Section::Other),
    ("competing", Section::Other),
    ("conflict", Section::Other),
    ("disclosure", Section::Other),
    ("ethic*", Section::Other),
    ("availability", Section::Other),
];

/// Whole headings that the words would misjudge.
const HEADINGS: &[(&str, Section)] = &[
    ("data availability", Section::Other),
    ("availability of data and materials", Section::Other),
    ("conflict of interest", Section::Other),
    ("trial registration", Section::Other),
    ("study design", Section::Methods),
    ("main outcomes and measures", Section::Methods),
    ("main results", Section::Results),
    ("conclusions and relevance", Section::Conclusion),
    ("conclusion and significance", Section::Conclusion),
    ("display objects", Section::Body),
];

/// Longer headings say what was found (`Patients with low BRCA1 …`), not which section this is.
const MAX_HEADING_WORDS: usize = 6;

/// The longest heading in characters, for every passage below it has a copy. Real ones, together with those
/// around them, have up to 320.
const MAX_HEADING: usize = 500;

/// What passages have as their heading: the title that they stand under, after the heading of the section around
/// it (`Methods / 2.1 Mice`). `None` where there is neither.
pub(super) fn heading(around: Option<&str>, title: &str) -> Option<String> {
    let parts: Vec<&str> = around.into_iter().chain([title]).filter(|part| !part.is_empty()).collect();
    let mut heading = parts.join(" / ");
    if heading.chars().nth(MAX_HEADING).is_some() {
        heading = heading.chars().take(MAX_HEADING - 1).chain(['…']).collect();
    }
    Some(heading).filter(|heading| !heading.is_empty())
}

impl Section {
    /// The section that a heading names (`2. Materials and Methods`, `CONCLUSIONS:`), a label
    /// (`OBJECTIVE`) or a JATS `sec-type` (`materials|methods`); `None` where it names none.
    pub fn from_heading(heading: &str) -> Option<Self> {
        let words: Vec<String> = heading
            .split(|c: char| !c.is_alphabetic())
            .filter(|word| !word.is_empty())
            .take(MAX_HEADING_WORDS + 1)
            .map(str::to_lowercase)
            .collect();
        if words.len() > MAX_HEADING_WORDS {
            return None;
        }
        let heading = words.join(" ");
        if let Some((_, section)) = HEADINGS.iter().find(|(whole, _)| *whole == heading) {
            return Some(*section);
        }
        let is_word = |word: &str, known: &str| match known.strip_suffix('*') {
            Some(prefix) => word.starts_with(prefix),
            None => word.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest == "s"),
        };
        let section_of = |word: &String| WORDS.iter().find(|(known, _)| is_word(word, known));
        words.iter().find_map(section_of).map(|(_, section)| *section)
    }

    /// The name in schemas, code and output, `case_report` for example.
    pub fn name(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Abstract => "abstract",
            Self::Background => "background",
            Self::Objective => "objective",
            Self::Introduction => "introduction",
            Self::Methods => "methods",
            Self::Results => "results",
            Self::Discussion => "discussion",
            Self::Conclusion => "conclusion",
            Self::CaseReport => "case_report",
            Self::Caption => "caption",
            Self::Table => "table",
            Self::Keywords => "keywords",
            Self::Acknowledgements => "acknowledgements",
            Self::Funding => "funding",
            Self::Supplement => "supplement",
            Self::Appendix => "appendix",
            Self::Abbreviations => "abbreviations",
            Self::Body => "body",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_name_sections() {
        for (heading, section) in [
            ("BACKGROUND", Some(Section::Background)),
            ("2. Materials and Methods", Some(Section::Methods)),
            ("materials|methods", Some(Section::Methods)),
            ("RESULTS AND DISCUSSION:", Some(Section::Results)),
            ("intro", Some(Section::Introduction)),
            ("Authors' conclusions", Some(Section::Conclusion)),
            ("MAIN OUTCOMES AND MEASURES", Some(Section::Methods)),
            ("Case presentation", Some(Section::CaseReport)),
            ("Acknowledgments", Some(Section::Acknowledgements)),
            ("Data availability", Some(Section::Other)),
            ("BRCA1 in yeast", None),
            ("Casein kinases", None),
            ("Patients with low BRCA1 levels have poor outcomes", None),
            ("", None),
            ("方法", None),
        ] {
            assert_eq!(Section::from_heading(heading), section, "{heading}");
        }
    }

    #[test]
    fn headings_are_paths_of_bounded_length() {
        assert_eq!(heading(Some("Methods"), "2.1 Mice").as_deref(), Some("Methods / 2.1 Mice"));
        assert_eq!(heading(Some("Methods"), "").as_deref(), Some("Methods"));
        assert_eq!(heading(None, "2.1 Mice").as_deref(), Some("2.1 Mice"));
        assert_eq!(heading(None, ""), None);
        let longest = "ä".repeat(MAX_HEADING);
        assert_eq!(heading(None, &longest), Some(longest.clone()));
        for longer in [longest.clone() + "x", longest.repeat(1000)] {
            let cut = heading(Some("Methods"), &longer).unwrap();
            assert!(cut.starts_with("Methods / ä") && cut.ends_with("ä…"), "{cut}");
            assert_eq!(cut.chars().count(), MAX_HEADING);
        }
    }

    #[test]
    fn the_name_is_the_serialised_name() {
        for section in [Section::Title, Section::CaseReport, Section::Acknowledgements, Section::Other] {
            assert_eq!(serde_json::to_value(section).unwrap(), section.name());
        }
    }
}
