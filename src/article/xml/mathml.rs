//! MathML as one line of text: `<msub>T c</msub>` becomes `Tc`, `<mfrac>x 2</mfrac>` becomes `x/2`.
//!
//! A chemist writes Ca²⁺ as a formula as often as with `<sup>`, so scripts are glued to their base, as
//! `<sub>` and `<sup>` are; other words of a formula are kept apart.

use super::text::TextBuilder;
use super::{Node, Record, attribute, local_name};
use crate::article::record::Reason;
use quick_xml::events::BytesStart;

/// Appends the formula that is the innermost open element (`math`).
pub(crate) fn formula(record: &mut Record<'_>, builder: &mut TextBuilder) -> Result<(), Reason> {
    let text = row(record)?;
    builder.begin();
    builder.push(&text);
    builder.end();
    Ok(())
}

/// The content of the innermost open element, its children side by side.
fn row(record: &mut Record<'_>) -> Result<String, Reason> {
    let mut row = TextBuilder::default();
    while let Some(node) = record.next_inside()? {
        match node {
            Node::Text(text) if text.trim().is_empty() => {} // between elements: layout
            Node::Text(text) => row.push(&text),
            Node::Start(start) => {
                let spaced = matches!(local_name(&start), "mtr" | "mlabeledtr" | "mtd" | "mspace");
                let text = element(record, &start)?;
                let gap = if spaced { TextBuilder::space } else { TextBuilder::boundary };
                gap(&mut row);
                row.push(&text);
                gap(&mut row);
            }
        }
    }
    Ok(row.finish())
}

fn element(record: &mut Record<'_>, start: &BytesStart<'_>) -> Result<String, Reason> {
    Ok(match local_name(start) {
        "msub" | "msup" | "msubsup" | "munder" | "mover" | "munderover" => children(record)?.concat(),
        "mmultiscripts" => multiscripts(record)?,
        "mfrac" => children(record)?.join("/"),
        "msqrt" => format!("√{}", row(record)?),
        "mroot" => {
            let mut parts = children(record)?;
            let index = if parts.len() > 1 { parts.remove(1) } else { String::new() };
            format!("{index}√{}", parts.concat())
        }
        "mfenced" => {
            let open = attribute(start, "open").unwrap_or_else(|| "(".to_owned());
            let close = attribute(start, "close").unwrap_or_else(|| ")".to_owned());
            let separator: String =
                attribute(start, "separators").map_or(",".to_owned(), |s| s.chars().take(1).collect());
            format!("{open}{}{close}", children(record)?.join(&separator))
        }
        "semantics" => children(record)?.into_iter().next().unwrap_or_default(),
        // The same formula again, in TeX or in content markup.
        "annotation" | "annotation-xml" => {
            record.skip(start)?;
            String::new()
        }
        _ => row(record)?,
    })
}

/// Each child's text.
fn children(record: &mut Record<'_>) -> Result<Vec<String>, Reason> {
    let mut children = Vec::new();
    while let Some(child) = record.next_child()? {
        children.push(element(record, &child)?);
    }
    Ok(children)
}

/// Base and scripts in the order in which they are read: scripts before the base come first.
fn multiscripts(record: &mut Record<'_>) -> Result<String, Reason> {
    let (mut after, mut before) = (String::new(), String::new());
    let mut in_prescripts = false;
    while let Some(child) = record.next_child()? {
        in_prescripts |= local_name(&child) == "mprescripts";
        let text = element(record, &child)?;
        if in_prescripts { &mut before } else { &mut after }.push_str(&text);
    }
    Ok(before + &after)
}
