//! From markup to text: whitespace collapsed, nothing glued together, nothing lost.

use super::mathml;
use super::{Node, Record, local_name};
use crate::article::record::Reason;

/// Collects the text of a passage. Runs of XML whitespace (space, tab, line ends) become one space,
/// leading and trailing ones vanish; other spaces (no-break, thin, …) are characters like any other.
#[derive(Default)]
pub(crate) struct TextBuilder {
    text: String,
    gap: Gap,
}

/// What stands between the text so far and the text to come.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    /// A space if two words would grow together otherwise.
    Words,
    /// The begin of a formula or a mark: it does not grow together with a word before it.
    Begin,
    /// The end of a formula or a mark: a word does not grow together with it.
    End,
    /// A space.
    Space,
}

impl TextBuilder {
    /// Appends text, its whitespace collapsed.
    pub(crate) fn push(&mut self, text: &str) {
        let is_space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        let mut rest = text;
        while !rest.is_empty() {
            let spaces = rest.bytes().take_while(|b| is_space(b)).count();
            if spaces > 0 {
                self.gap = Gap::Space;
                rest = &rest[spaces..];
                continue;
            }
            // Up to the first whitespace that is not a single space between words.
            let bytes = rest.as_bytes();
            let end = memchr::memchr3_iter(b'\n', b'\t', b'\r', bytes).next().unwrap_or(bytes.len());
            let end = memchr::memmem::find(&bytes[..end], b"  ").unwrap_or(end);
            let run = rest[..end].trim_end_matches(' ');
            self.push_run(run);
            rest = &rest[run.len()..];
        }
    }

    fn push_run(&mut self, run: &str) {
        let left = self.text.chars().next_back();
        let right = run.chars().next();
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let needs_space = match self.gap {
            Gap::None => false,
            Gap::Words => is_word(left) && is_word(right),
            Gap::Begin => is_word(left) && (is_word(right) || right.is_some_and(|c| "([{√".contains(c))),
            Gap::End => left.is_some_and(|c| !"([{/".contains(c)) && is_word(right),
            Gap::Space => left.is_some(),
        };
        if needs_space {
            self.text.push(' ');
        }
        self.gap = Gap::None;
        self.text.push_str(run);
    }

    /// Words before and after this place do not grow together.
    pub(crate) fn boundary(&mut self) {
        self.gap = self.gap.max(Gap::Words);
    }

    /// A formula or a mark begins at this place: `the<math>x</math>` becomes `the x`.
    pub(crate) fn begin(&mut self) {
        self.gap = self.gap.max(Gap::Begin);
    }

    /// A formula or a mark ends at this place: `<math>Ca2+</math>rose` becomes `Ca2+ rose`.
    pub(crate) fn end(&mut self) {
        self.gap = self.gap.max(Gap::End);
    }

    /// There is a space at this place.
    pub(crate) fn space(&mut self) {
        self.gap = Gap::Space;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The text, without the whitespace at its end.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// The text so far; the builder begins again.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(self).finish()
    }
}

/// How an element's text joins the text around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joint {
    /// Directly: `10<sup>-3</sup>`, `<i>p</i>53`.
    Glued,
    /// Directly, but two words do not grow together: formulas, citation marks.
    Boundary,
    /// With a space: paragraphs, line breaks, displayed formulas, list items.
    Spaced,
    /// A formula in MathML.
    Math,
    /// Not at all: the element's text is no text of the passage.
    LeftOut,
}

/// Appends the text of the innermost open element, whose children join as `joint` says.
pub(crate) fn inline(
    record: &mut Record<'_>,
    builder: &mut TextBuilder,
    joint: fn(&quick_xml::events::BytesStart<'_>) -> Joint,
) -> Result<(), Reason> {
    // The joints of the open elements below the one that was entered.
    let mut open: Vec<Joint> = Vec::new();
    loop {
        match record.next_inside()? {
            Some(Node::Text(text)) => builder.push(&text),
            Some(Node::Start(start)) => match joint(&start) {
                Joint::LeftOut => record.skip(&start)?,
                Joint::Math => mathml::formula(record, builder)?,
                inner => {
                    inner.begin(builder);
                    open.push(inner);
                }
            },
            None => match open.pop() {
                Some(inner) => inner.end(builder),
                None => return Ok(()),
            },
        }
    }
}

impl Joint {
    /// The gap that this joint leaves at an element's begin.
    pub(crate) fn begin(self, builder: &mut TextBuilder) {
        match self {
            Self::Glued | Self::LeftOut => {}
            Self::Boundary | Self::Math => builder.begin(),
            Self::Spaced => builder.space(),
        }
    }

    /// The gap that this joint leaves at an element's end.
    pub(crate) fn end(self, builder: &mut TextBuilder) {
        match self {
            Self::Glued | Self::LeftOut => {}
            Self::Boundary | Self::Math => builder.end(),
            Self::Spaced => builder.space(),
        }
    }
}

/// The joints of PubMed's few elements.
pub(crate) fn pubmed_joint(start: &quick_xml::events::BytesStart<'_>) -> Joint {
    match local_name(start) {
        "i" | "b" | "u" | "sub" | "sup" => Joint::Glued,
        "math" => Joint::Math,
        "DispFormula" | "p" | "br" | "li" | "ul" | "ol" | "div" => Joint::Spaced,
        _ => Joint::Boundary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::article::record::Options;
    use proptest::prelude::*;

    fn text_of(xml: &str) -> String {
        let xml = format!("<t>{xml}</t>");
        let mut record = Record::new(xml.as_bytes(), &Options::default()).unwrap();
        record.root().unwrap();
        let mut builder = TextBuilder::default();
        inline(&mut record, &mut builder, pubmed_joint).unwrap();
        builder.finish()
    }

    #[test]
    fn markup_becomes_text() {
        for (xml, text) in [
            ("10<sup>-3</sup> M Ca<sup>2+</sup>", "10-3 M Ca2+"),
            ("<i>p</i>53 and <b>  BRCA1 </b>gene", "p53 and BRCA1 gene"),
            ("one<p>two</p><p>three</p>four<br/>five", "one two three four five"),
            (" \n a \t\r\n b\u{A0} c ", "a b\u{A0} c"),
            ("&lt;i&gt; &#946;-&#x3b1; &minus;&amp;", "<i> β-α −&"),
            ("a<!-- no -->b<?pi no?>c<![CDATA[<d>&amp;]]>", "abc<d>&amp;"),
            ("(<math>x</math>), TGF-<math>β</math>-like", "(x), TGF-β-like"),
            ("of<math>NO<mo>-</mo></math>rose", "of NO- rose"),
            ("", ""),
        ] {
            assert_eq!(text_of(xml), text, "{xml}");
        }
    }

    #[test]
    fn formulas_become_text() {
        let math = |inner: &str| format!("the<mml:math>{inner}</mml:math>ion");
        for (inner, text) in [
            ("<mml:msub><mml:mi>T</mml:mi><mml:mi>c</mml:mi></mml:msub>", "the Tc ion"),
            ("<mml:mi>a</mml:mi>\n<mml:mo>=</mml:mo>\n<mml:mn>2</mml:mn><mml:mi>b</mml:mi>", "the a=2 b ion"),
            (
                "<mml:mmultiscripts><mml:mtext>C</mml:mtext><mml:mprescripts/><mml:none/><mml:mn>14</mml:mn>\
                 </mml:mmultiscripts>",
                "the 14C ion",
            ),
            ("<mml:mfrac><mml:mi>x</mml:mi><mml:mn>2</mml:mn></mml:mfrac>", "the x/2 ion"),
            ("<mml:msqrt><mml:mi>x</mml:mi></mml:msqrt>", "the √x ion"),
            ("<mml:semantics><mml:mi>x</mml:mi><mml:annotation>\\x</mml:annotation></mml:semantics>", "the x ion"),
            ("<mml:mfenced><mml:mi>x</mml:mi><mml:mi>y</mml:mi></mml:mfenced>", "the (x,y) ion"),
            (
                "<mml:mtable><mml:mtr><mml:mtd><mml:mn>1</mml:mn></mml:mtd><mml:mtd><mml:mn>0</mml:mn></mml:mtd></mml:mtr></mml:mtable>",
                "the 1 0 ion",
            ),
        ] {
            assert_eq!(text_of(&math(inner)), text, "{inner}");
        }
    }

    #[test]
    fn what_is_not_xml_is_refused() {
        let deep = "<p>".repeat(300);
        for (xml, reason) in [
            ("<t>a & b</t>", "an `&` that begins no entity"),
            ("<t>&boom;</t>", "undefined entity `&boom;`"),
            ("<t>&#0;</t>", "is no character"),
            ("<t>&#x1F;</t>", "is no character"),
            ("<t><b></t></b>", "expected `</b>`, but `</t>` was found"),
            ("<t>a", "ends inside an element"),
            ("<t>\u{1}</t>", "control character 0x01 at byte 3"),
            (&format!("<t>{deep}"), "nested deeper than 256"),
        ] {
            let read = || -> Result<(), Reason> {
                let mut record = Record::new(xml.as_bytes(), &Options::default())?;
                record.root()?;
                record.value().map(drop)
            };
            let error = read().unwrap_err().to_string();
            assert!(error.contains(reason), "{xml}: {error}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_comes_back(text in "[^\\p{Cc}]{0,80}") {
            let collapsed = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(text_of(&quick_xml::escape::escape(&text)), collapsed);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(mut record) = Record::new(&bytes, &Options::default())
                && record.root().is_ok()
            {
                let _ = record.value();
            }
        }

        #[test]
        fn arbitrary_markup_never_panics(xml in "(<(/?)(t|math|msub|mfrac|mmultiscripts|mfenced|p|i)( a='&lt;')?(/?)>|[a-z &;]|&amp;){0,40}") {
            let xml = format!("<t>{xml}");
            let mut record = Record::new(xml.as_bytes(), &Options::default()).unwrap();
            record.root().unwrap();
            let _ = inline(&mut record, &mut TextBuilder::default(), pubmed_joint);
        }
    }
}
