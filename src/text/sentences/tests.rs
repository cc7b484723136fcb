use super::*;
use proptest::prelude::*;

fn split(text: &str) -> Vec<&str> {
    sentences(text).into_iter().map(|range| &text[range]).collect()
}

/// Each case is a text with `‖` where a sentence ends; the mark and the blank after it are taken out.
fn check(marked: &str) {
    let expected: Vec<&str> = marked.split('‖').map(str::trim).collect();
    let text = marked.replace('‖', "");
    assert_eq!(split(&text), expected, "{text:?}");
}

#[test]
fn abbreviations() {
    for case in [
        "As shown in Fig. 2 and Figs. S1 and S2, it binds.‖ The rest does not.",
        "See Eq. 3, Ref. 12, No. 5 and Suppl. Table 2 for details.‖ All agree.",
        "Smith et al. found it.‖ Jones et al. (2001) did not.‖ It was confirmed by Smith et al.‖ The cause is unknown.",
        "Growth of E. coli and S. cerevisiae fell.‖ C. elegans grew.",
        "Mice were treated i.v. with IL-2.‖ Rats were injected i.p.‖ Blood was taken.",
        "Normal vs. Cre mice, i.e. Both alleles, e.g. Brca1, cf. Table 2.",
        "It took approx. 5 h at ca. 37 C.‖ Samples were frozen for 30 min.‖ Lysates were spun.",
        "Dr. Smith and Prof. Jones wrote it.‖ We thank Drs. A. El-Amraoui and C. Petit.",
        "Streptomyces sp. PCC6803 and Vibrio spp. were found.‖ It was a Streptococcus sp.‖ The others were not.",
        "A. thaliana cv. Columbia and S. enterica subsp. Enterica were used.",
        "It maps to chr. 10 (Chr. 19 in man).‖ It is No. 7.‖ The answer is no.‖ But why?",
        "Antibodies (Sigma Chemical Co., St. Louis, MO) were bought.‖ Data are from Qiagen Inc.‖ We used them.",
        "EST were found.‖ We used one EST.‖ Regions were cloned.",
        "By the U.S. Army; M.D. Smith of the U.S.‖ The end.",
    ] {
        check(case);
    }
}

#[test]
fn numbers() {
    for case in [
        "It was significant (p < 0.05).‖ The mean was 3.14.‖ In 1995 it was 2.",
        "The mean was 1.5 in 1995.‖ 12 patients died.",
        "It was 37. 85% (P < 0. 05) here.",
        "Levels of IL-2.‖ 24-hour samples were taken.",
        "See 10.1016/j.cell.2001 or www.example.com/a.b for more.",
        "Software v. 1.32 was used for 24 h.‖ 5 mice died.",
    ] {
        check(case);
    }
}

#[test]
fn names_and_letters() {
    for case in [
        "We thank J. Smith, A.K. Jones, and R. B. Meyer for reagents.‖ We also thank J.-P. Martin.",
        "Mice lacked vitamin D.‖ Patients with hepatitis B and C.‖ Lungs with amphotericin B.‖ Explants grew.",
        "It blocks NF-kappa B.‖ Having shown this, we stopped.‖ Cells were in metaphase I.‖ Double mutants were not.",
        "Unpublished data (S. Kim and D. Zarkower).‖ They agree.",
        "Cells died.‖ p53 is lost.‖ mTOR was not.‖ c-Myc fell.‖ α-synuclein rose.‖ mRNA was stable.‖ miR-122 too.",
        "It (IL-2) rose.‖ The cells (IL-2).‖ The end.",
        "Shoulder pain.‖ n = 5 mice.‖ hf, head fold; n, notochord.",
    ] {
        check(case);
    }
}

#[test]
fn marks_after_the_stop() {
    for case in [
        "It was seen in cells.12‖ The rest was not.",
        "It was seen in cells [12].‖ The rest was not.",
        "It was seen in cells.[12]‖ The rest was not.",
        "It was seen in cells. [3, 5–7]‖ The rest was not.",
        "It was seen in cells.¹²‖ The rest was not.",
        "Has it a \"death domain.\"‖ Another has.‖ (It was not seen.)‖ “Why not?”‖ We don't know!‖ It is so.",
        "Is it so?‖ It is!‖ Perhaps ...‖ We shall see.",
        "Standard procedures.‖Blots were washed (not shown).‖The end.",
        "Mice were used.‖ * p < 0.05.‖ **, p < 0.01 against controls.",
        "Panels of (A) cells and (B) mice.‖ (C) Rats.‖ (d–f) Embryos, see (g).",
        "这是一个句子。‖第二句！‖第三句",
    ] {
        check(case);
    }
}

#[test]
fn lists_and_labels() {
    for case in [
        "1. Cells were grown.‖ 2. Mice were bred.",
        "Two things are new: 1). It is first. and 2) it is last.",
        "Binding in controls was 1.0 x 10(-10) M).‖ However, the capacity fell.",
        "It needs: (i) cells; (ii) mice; and (iii) patience.",
        "A–D. Mice were bred.‖ E. The rest.",
        "BACKGROUND: Cells die.‖ METHODS: We looked.‖ RESULTS: They do.",
    ] {
        check(case);
    }
}

#[test]
fn tokenised_text() {
    check("The receptor ( GHS-R ) .‖ GHS-R is found in cells .‖ Smith et al . found it ( Fig . 2 ) .‖ It is so .");
}

#[test]
fn line_breaks() {
    for case in [
        "A title without a stop‖\n\nThe first paragraph.‖\n\n\nThe second",
        "A paragraph goes on\n\n".trim(),
        "Results‖\nMice were bred and cells were grown until all of them had been counted.",
        "This text was wrapped by hand, so that a name such as\nBrca1 may begin a line, and the sentence goes on.‖ New\nsentence.",
        "We used the following cells:‖\n• HeLa cells‖\n• U937 cells",
        "The steps were as follows:‖\n1. Grow cells;‖\n2. Count cells.",
    ] {
        check(case);
    }
    check("windows line\r\nbreaks go on,‖\r\n\r\nparagraphs end");
}

#[test]
fn nothing_to_split() {
    for text in ["", " ", "\n\n\t", "\u{2003}"] {
        assert!(sentences(text).is_empty(), "{text:?}");
    }
    for text in [".", "...", ")", "(", "1.", "α", "\u{feff}", "\u{200b}", "\u{301}", "…"] {
        assert_eq!(split(text), [text]);
    }
}

/// Sizes that would take hours were anything quadratic.
#[test]
fn hostile_sizes() {
    const SIZE: usize = 1_000_000;
    assert_eq!(sentences(&"a".repeat(50 * SIZE)).len(), 1);
    assert_eq!(sentences(&"Cells died. ".repeat(100_000)).len(), 100_000);
    assert_eq!(sentences(&".".repeat(SIZE)).len(), 1);
    assert_eq!(sentences(&"a\n".repeat(SIZE)).len(), 1);
    for unit in [". ", ".)", "1). ", "a. [1", ".[", "\n", "\r\n ", "(A. ", "…", "\u{e9}.", " \n.", ".1,", "' . "] {
        check_bounds(&unit.repeat(SIZE / 2));
    }
    check_bounds(&format!("a.{}b", " ".repeat(SIZE)));
    check_bounds(&format!("{}.", "A.".repeat(SIZE)));
}

#[track_caller]
fn check_bounds(text: &str) {
    let mut last = 0;
    for range in sentences(text) {
        assert!(text[last..range.start].trim().is_empty(), "characters before {range:?} are in no sentence");
        assert!(range.start < range.end);
        assert_eq!(text[range.clone()].trim(), &text[range.clone()]);
        last = range.end;
    }
    assert!(text[last..].trim().is_empty());
}

#[test]
fn space_before_a_closing_bracket_may_follow_any_letter() {
    let text = "The noise had a standard deviation (σ ). Patients with BRCA1 were studied.";
    assert_eq!(split(text), ["The noise had a standard deviation (σ ).", "Patients with BRCA1 were studied."]);
    assert_eq!(split("(×10 (−10 M)\u{2003}). Cells grew."), ["(×10 (−10 M)\u{2003}).", "Cells grew."]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bounds_hold_for_any_text(text in "\\PC{0,60}") {
        check_bounds(&text);
    }

    #[test]
    fn bounds_hold_for_any_punctuation(
        text in "([.?!…。]|[()\\[\\]\"'”]|[ \n\r\t\u{c}\u{2003}]|[A-Za-z0-9]{1,3}|α|́|🧬|Fig|et al|[-–,;:*†=<]){0,60}"
    ) {
        check_bounds(&text);
    }

    /// One label, unit or Greek letter in brackets after another, with space where none belongs.
    #[test]
    fn bounds_hold_for_any_bracket(text in "([A-Za-z]{0,3} ?[(\\[] ?[0-9A-Zivσ–\u{2003}-]{0,2}[ \u{a0}]?[)\\]]?[.] ?[A-Zσ]?){0,6}") {
        check_bounds(&text);
    }

    /// The text after an empty line does not change the sentences before it.
    #[test]
    fn paragraphs_are_independent(first in "[A-Za-z0-9.()\\[\\]* \n]{0,40}", second in "[A-Za-z0-9.()\\[\\]* \n]{0,40}") {
        let (first, second) = (first.trim(), second.trim());
        let joined = format!("{first}\n\n{second}");
        let apart: Vec<&str> = split(first).into_iter().chain(split(second)).collect();
        prop_assert_eq!(split(&joined), apart);
    }
}
