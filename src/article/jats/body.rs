//! JATS blocks become passages: a paragraph, a list item, a caption's title or paragraph, a table.
//!
//! Figures, tables, boxes and footnotes that stand inside a paragraph do not tear its sentences apart:
//! their passages follow the paragraph's. A table is one passage, a line for each row, its cells
//! separated by tabs. Of `alternatives` one is taken, MathML before TeX.

use crate::article::record::Reason;
use crate::article::section;
use crate::article::xml::text::{Joint, TextBuilder};
use crate::article::xml::{Node, Record, attribute, local_name, mathml};
use crate::article::{Passage, Section};
use quick_xml::events::BytesStart;

/// Where a block stands.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) section: Section,
    /// What the passages have as their heading.
    pub(super) heading: Option<String>,
    /// The heading of the sections around: a title's own comes after it.
    pub(super) around: Option<String>,
    pub(super) language: Option<String>,
}

impl Context {
    pub(super) fn new(section: Section) -> Self {
        Self { section, heading: None, around: None, language: None }
    }

    fn passage(&self, text: String) -> Passage {
        Passage { section: self.section, heading: self.heading.clone(), language: self.language.clone(), text }
    }

    /// The context inside a section in this one; its title is still to come.
    fn section(&self, section: Section) -> Self {
        Self { section, heading: self.around.clone(), ..self.clone() }
    }

    /// The context inside something beside the text, which has a heading of its own.
    fn beside(&self, section: Section) -> Self {
        Self { language: self.language.clone(), ..Self::new(section) }
    }
}

/// The passages so far.
#[derive(Default)]
pub(super) struct Blocks {
    passages: Vec<Passage>,
}

/// What a title says of the blocks beside it.
#[derive(Clone, Copy, PartialEq)]
enum Title {
    /// It is their heading: the title of an abstract, of a list.
    OfGroup,
    /// It is their heading, and stands before those of the sections among them.
    OfSection,
    /// It may also say which section this is.
    NamesSection,
}

/// How an element takes part in the blocks around it.
enum Role {
    /// Its children are blocks of a section of their own, named by its title.
    Section(Section),
    /// Its children are blocks of the same section.
    Group,
    /// Beside the text: its label is its heading.
    Float(Section),
    /// A footnote: beside the text, under the heading that it stands under.
    Note(Section),
    Paragraph,
    Caption,
    Table,
    Definition,
    Title,
    Label,
    LeftOut,
    /// Part of a line of text.
    Inline,
}

fn role(start: &BytesStart<'_>, context: &Context) -> Role {
    match local_name(start) {
        "sec" => Role::Section(context.section),
        "ack" => Role::Section(Section::Acknowledgements),
        "app" => Role::Section(Section::Appendix),
        "glossary" => Role::Section(Section::Abbreviations),
        "fn" => match attribute(start, "fn-type").as_deref() {
            Some("financial-disclosure" | "supported-by") => Role::Note(Section::Funding),
            Some("abbr") => Role::Note(Section::Abbreviations),
            _ => Role::Note(context.section),
        },
        "fig" | "fig-group" | "table-wrap" | "table-wrap-group" | "chem-struct-wrap" | "media" => {
            Role::Float(Section::Caption)
        }
        "supplementary-material" => Role::Float(Section::Supplement),
        "boxed-text" => Role::Section(context.section),
        "p" | "preformat" | "code" | "attrib" => Role::Paragraph,
        "caption" => Role::Caption,
        "table" => Role::Table,
        "def-item" => Role::Definition,
        "title" => Role::Title,
        "label" => Role::Label,
        "list" | "list-item" | "def-list" | "disp-quote" | "verse-group" | "speech" | "statement" | "fn-group"
        | "app-group" | "notes" | "table-wrap-foot" | "body" | "def" | "sec-meta" | "question" | "answer" => {
            Role::Group
        }
        // In a float, `alternatives` hold a table and its picture; in a line, a formula.
        "alternatives" if context.section == Section::Caption => Role::Group,
        _ if joint(start) == Joint::LeftOut => Role::LeftOut,
        _ => Role::Inline,
    }
}

impl Blocks {
    pub(super) fn into_passages(self) -> Vec<Passage> {
        self.passages
    }

    pub(super) fn push(&mut self, passage: Option<Passage>) {
        self.passages.extend(passage.filter(|passage| !passage.text.is_empty()));
    }

    /// Reads the innermost open element, an abstract, a body or back matter: a title is the heading of
    /// what is directly in it and does not change its section.
    pub(super) fn part(&mut self, record: &mut Record<'_>, context: Context) -> Result<(), Reason> {
        self.blocks(record, context, Title::OfGroup)
    }

    /// Reads the children of the innermost open element; `title` is what a title among them says.
    fn blocks(&mut self, record: &mut Record<'_>, mut context: Context, title: Title) -> Result<(), Reason> {
        let around = context.around.clone();
        let mut line = TextBuilder::default();
        let mut label = None;
        while let Some(node) = record.next_inside()? {
            let start = match node {
                Node::Text(text) => {
                    line.push(&text);
                    continue;
                }
                Node::Start(start) => start,
            };
            let role = role(&start, &context);
            if !matches!(role, Role::Inline | Role::LeftOut) {
                self.push(Some(context.passage(line.take())));
            }
            match role {
                Role::Inline => self.inline_child(record, &start, &mut line, None)?,
                Role::LeftOut => record.skip(&start)?,
                Role::Label => label = inline(record)?,
                Role::Title => {
                    let text = inline(record)?;
                    if title == Title::NamesSection && !says_section(context.section) {
                        context.section = text.as_deref().and_then(Section::from_heading).unwrap_or(context.section);
                    }
                    let parts: Vec<String> = label.take().into_iter().chain(text).collect();
                    context.heading = section::heading(around.as_deref(), &parts.join(" "));
                    if title != Title::OfGroup {
                        context.around.clone_from(&context.heading);
                    }
                }
                _ => self.block(record, &start, role, &context)?,
            }
        }
        self.push(Some(context.passage(line.finish())));
        Ok(())
    }

    /// Reads a block, which is the innermost open element `start`.
    fn block(
        &mut self,
        record: &mut Record<'_>,
        start: &BytesStart<'_>,
        role: Role,
        context: &Context,
    ) -> Result<(), Reason> {
        match role {
            Role::Section(section) => {
                let mut inner = context.section(section);
                let of_type = attribute(start, "sec-type").and_then(|kind| Section::from_heading(&kind));
                if let Some(section) = of_type.filter(|_| !is_fixed(context.section)) {
                    inner.section = section;
                }
                let title = if of_type.is_none() { Title::NamesSection } else { Title::OfSection };
                self.blocks(record, inner, title)
            }
            Role::Group => self.blocks(record, context.clone(), Title::OfGroup),
            Role::Float(section) => self.float(record, context.beside(section)),
            Role::Note(section) => self.blocks(record, Context { section, ..context.clone() }, Title::OfGroup),
            Role::Paragraph => self.paragraph(record, context),
            Role::Caption => self.caption(record, context),
            Role::Table => self.table(record, context),
            Role::Definition => self.definition(record, context),
            Role::LeftOut => record.skip(start),
            Role::Title | Role::Label | Role::Inline => {
                let text = inline(record)?;
                self.push(text.map(|text| context.passage(text)));
                Ok(())
            }
        }
    }

    /// A figure or a table: its label is the heading of all that is in it.
    fn float(&mut self, record: &mut Record<'_>, mut context: Context) -> Result<(), Reason> {
        while let Some(child) = record.next_child()? {
            match role(&child, &context) {
                Role::Label => {
                    let label = inline(record)?.unwrap_or_default();
                    context.heading = section::heading(None, &label).or(context.heading);
                }
                role => self.block(record, &child, role, &context)?,
            }
        }
        Ok(())
    }

    /// A caption's title and paragraphs are passages.
    fn caption(&mut self, record: &mut Record<'_>, context: &Context) -> Result<(), Reason> {
        while let Some(child) = record.next_child()? {
            let role = role(&child, context);
            self.block(record, &child, role, context)?;
        }
        Ok(())
    }

    fn definition(&mut self, record: &mut Record<'_>, context: &Context) -> Result<(), Reason> {
        let mut parts = Vec::new();
        while record.next_child()?.is_some() {
            parts.extend(inline(record)?);
        }
        self.push(Some(context.passage(parts.join(": "))));
        Ok(())
    }

    /// A row is a line, cells are separated by tabs. HTML tables in older articles are upper case.
    fn table(&mut self, record: &mut Record<'_>, context: &Context) -> Result<(), Reason> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut open = 0;
        loop {
            match record.next_inside()? {
                Some(Node::Text(_)) => {}
                Some(Node::Start(start)) => match local_name(&start).to_ascii_lowercase().as_str() {
                    "tr" => {
                        rows.push(Vec::new());
                        open += 1;
                    }
                    "td" | "th" => {
                        let cell = inline(record)?.unwrap_or_default();
                        match rows.last_mut() {
                            Some(row) => row.push(cell),
                            None => rows.push(vec![cell]),
                        }
                    }
                    _ => open += 1,
                },
                None if open == 0 => break,
                None => open -= 1,
            }
        }
        let rows = rows.iter().filter(|row| row.iter().any(|cell| !cell.is_empty())).map(|row| row.join("\t"));
        let text = rows.collect::<Vec<_>>().join("\n");
        self.push(Some(Passage { section: Section::Table, ..context.passage(text) }));
        Ok(())
    }

    fn paragraph(&mut self, record: &mut Record<'_>, context: &Context) -> Result<(), Reason> {
        let mut line = TextBuilder::default();
        let mut floats = Blocks::default();
        self.line(record, &mut line, Some((context, &mut floats)))?;
        self.push(Some(context.passage(line.finish())));
        self.passages.append(&mut floats.passages);
        Ok(())
    }

    /// Reads the innermost open element as a line of text. In a paragraph (`blocks`: its context and
    /// where its floats go) lists and the like end the line and begin another after them.
    fn line(
        &mut self,
        record: &mut Record<'_>,
        line: &mut TextBuilder,
        mut blocks: Option<(&Context, &mut Blocks)>,
    ) -> Result<(), Reason> {
        while let Some(node) = record.next_inside()? {
            match node {
                Node::Text(text) => line.push(&text),
                Node::Start(start) => {
                    let blocks = blocks.as_mut().map(|(context, floats)| (*context, &mut **floats));
                    self.inline_child(record, &start, line, blocks)?;
                }
            }
        }
        Ok(())
    }

    /// Reads an element inside a line.
    fn inline_child(
        &mut self,
        record: &mut Record<'_>,
        start: &BytesStart<'_>,
        line: &mut TextBuilder,
        blocks: Option<(&Context, &mut Blocks)>,
    ) -> Result<(), Reason> {
        if matches!(local_name(start), "inline-formula" | "disp-formula" | "alternatives" | "tex-math") {
            return formula(record, start, line);
        }
        if let Some((context, floats)) = blocks {
            match role(start, context) {
                role @ (Role::Float(_) | Role::Note(_) | Role::Section(_)) => {
                    return floats.block(record, start, role, context);
                }
                role @ (Role::Group | Role::Table) => {
                    self.push(Some(context.passage(line.take())));
                    return self.block(record, start, role, context);
                }
                _ => {}
            }
            return self.joined(record, start, line, Some((context, floats)));
        }
        self.joined(record, start, line, None)
    }

    fn joined(
        &mut self,
        record: &mut Record<'_>,
        start: &BytesStart<'_>,
        line: &mut TextBuilder,
        blocks: Option<(&Context, &mut Blocks)>,
    ) -> Result<(), Reason> {
        match joint(start) {
            Joint::LeftOut => record.skip(start),
            Joint::Math => mathml::formula(record, line),
            joint => {
                joint.begin(line);
                self.line(record, line, blocks)?;
                joint.end(line);
                Ok(())
            }
        }
    }
}

/// Whether a section is known well enough that a heading inside it is not asked.
fn says_section(section: Section) -> bool {
    !matches!(section, Section::Body | Section::Other | Section::Abstract)
}

/// Sections that stay what they are whatever the type of a section inside them.
fn is_fixed(section: Section) -> bool {
    matches!(section, Section::Appendix | Section::Supplement | Section::Acknowledgements | Section::Abbreviations)
}

/// The innermost open element as one line of text; `None` where it is empty. What is no text of the
/// line (floats, footnotes) is left out.
pub(super) fn inline(record: &mut Record<'_>) -> Result<Option<String>, Reason> {
    let mut line = TextBuilder::default();
    Blocks::default().line(record, &mut line, None)?;
    Ok(Some(line.finish()).filter(|text| !text.is_empty()))
}

/// A formula, `start`, that may be given several times over: once as MathML or marked-up text, once in
/// TeX, once as a picture. The first is taken, else TeX.
fn formula(record: &mut Record<'_>, start: &BytesStart<'_>, line: &mut TextBuilder) -> Result<(), Reason> {
    let (mut label, mut text, mut tex) = (None, TextBuilder::default(), TextBuilder::default());
    let is_alternatives = local_name(start) == "alternatives";
    let joint = if joint(start) == Joint::Spaced { Joint::Spaced } else { Joint::Boundary };
    if local_name(start) == "tex-math" {
        tex.push(&tex_formula(&record.value()?));
    } else {
        while let Some(node) = record.next_inside()? {
            match node {
                Node::Text(content) => text.push(&content),
                Node::Start(child) => match local_name(&child) {
                    "label" => label = inline(record)?,
                    "tex-math" => tex.push(&tex_formula(&record.value()?)),
                    _ if is_alternatives && !text.is_empty() => record.skip(&child)?,
                    _ => Blocks::default().inline_child(record, &child, &mut text, None)?,
                },
            }
        }
    }
    let chosen = if text.is_empty() { tex } else { text }.finish();
    joint.begin(line);
    line.push(&chosen);
    if let Some(label) = label {
        line.space();
        line.push(&label);
    }
    joint.end(line);
    Ok(())
}

/// The formula in a TeX document, without the document.
fn tex_formula(tex: &str) -> String {
    let body = tex.split_once("\\begin{document}").map_or(tex, |(_, body)| body);
    let body = body.split_once("\\end{document}").map_or(body, |(body, _)| body);
    body.trim_matches(|c: char| c == '$' || c.is_whitespace()).to_owned()
}

/// The joints of JATS's elements inside a line.
fn joint(start: &BytesStart<'_>) -> Joint {
    match local_name(start) {
        // A citation or footnote mark after a word is no part of it: `protein<sup>12</sup>`.
        "xref" => match attribute(start, "ref-type").as_deref() {
            Some("bibr" | "fn" | "table-fn" | "aff" | "corresp") => Joint::Boundary,
            _ => Joint::Glued,
        },
        "italic"
        | "bold"
        | "sub"
        | "sup"
        | "sc"
        | "underline"
        | "overline"
        | "strike"
        | "monospace"
        | "roman"
        | "sans-serif"
        | "styled-content"
        | "named-content"
        | "ext-link"
        | "email"
        | "uri"
        | "abbrev"
        | "private-char"
        | "fixed-case"
        | "milestone-start"
        | "milestone-end"
        | "target"
        | "ITALIC"
        | "BOLD"
        | "SUB"
        | "SUP"
        | "UNDERLINE"
        | "inline-supplementary-material"
        | "institution"
        | "x" => Joint::Glued,
        "math" => Joint::Math,
        "break" | "p" | "disp-formula" | "disp-formula-group" | "title" | "list" | "list-item" | "def-list"
        | "def-item" | "term" | "def" | "disp-quote" | "preformat" | "code" | "sec" | "td" | "tr" | "th" | "hr"
        | "TD" | "TR" | "array" => Joint::Spaced,
        "inline-graphic"
        | "graphic"
        | "object-id"
        | "alt-text"
        | "long-desc"
        | "index-term"
        | "ref-list"
        | "ref"
        | "mixed-citation"
        | "element-citation"
        | "nlm-citation"
        | "citation"
        | "permissions"
        | "fn"
        | "fig"
        | "fig-group"
        | "table-wrap"
        | "table-wrap-group"
        | "supplementary-material"
        | "bio"
        | "processing-meta" => Joint::LeftOut,
        _ => Joint::Boundary,
    }
}
