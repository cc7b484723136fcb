//! The label set of a model: the classifier's outputs and their meaning in BIO.

/// What one label says about a token. The number is an index into [`LabelSet::entity_types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// No entity.
    Outside,
    /// The first token of an entity.
    Begin(usize),
    /// A further token of an entity.
    Inside(usize),
}

/// The labels of a model, in the order of the classifier's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSet {
    labels: Vec<String>,
    tags: Vec<Tag>,
    entity_types: Vec<String>,
}

/// The entity type of bare `B` and `I` labels.
const UNNAMED_TYPE: &str = "Entity";

impl LabelSet {
    /// `O`, then `B-X` and `I-X` of each type in order.
    pub fn bio<S: AsRef<str>>(entity_types: &[S]) -> Self {
        let mut labels = vec!["O".to_owned()];
        let mut tags = vec![Tag::Outside];
        for (index, entity_type) in entity_types.iter().enumerate() {
            labels.extend([format!("B-{}", entity_type.as_ref()), format!("I-{}", entity_type.as_ref())]);
            tags.extend([Tag::Begin(index), Tag::Inside(index)]);
        }
        Self { labels, tags, entity_types: entity_types.iter().map(|t| t.as_ref().to_owned()).collect() }
    }

    /// Reads labels in any order: `O`, `B-X`, `I-X`, bare `B` and `I` where there is one type without a name.
    /// The error says which label has no meaning in BIO.
    pub fn parse(labels: Vec<String>) -> Result<Self, String> {
        let mut tags = Vec::with_capacity(labels.len());
        let mut entity_types: Vec<String> = Vec::new();
        for label in &labels {
            let (begins, entity_type) = match label.split_once('-') {
                None if label == "O" => {
                    tags.push(Tag::Outside);
                    continue;
                }
                None if label == "B" || label == "I" => (label == "B", UNNAMED_TYPE),
                Some((prefix @ ("B" | "I"), entity_type)) if !entity_type.is_empty() => (prefix == "B", entity_type),
                _ => return Err(format!("label `{label}` is not `O`, `B-TYPE` or `I-TYPE`: write the labels as BIO")),
            };
            let index = entity_types.iter().position(|t| t == entity_type).unwrap_or_else(|| {
                entity_types.push(entity_type.to_owned());
                entity_types.len() - 1
            });
            tags.push(if begins { Tag::Begin(index) } else { Tag::Inside(index) });
        }
        if let Some(twice) = labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label)) {
            return Err(format!("label `{}` stands there twice", twice.1));
        }
        if !tags.contains(&Tag::Outside) {
            return Err("there is no label `O`".into());
        }
        if entity_types.is_empty() {
            return Err("there is no entity type, only `O`".into());
        }
        Ok(Self { labels, tags, entity_types })
    }

    /// The labels, K of them.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The meaning of each label, K of them.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// The entity types, in the order of their first label.
    pub fn entity_types(&self) -> &[String] {
        &self.entity_types
    }

    /// The index of the label with this meaning.
    pub fn index_of(&self, tag: Tag) -> Option<usize> {
        self.tags.iter().position(|t| *t == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(labels: &[&str]) -> Result<LabelSet, String> {
        LabelSet::parse(labels.iter().map(|l| (*l).to_owned()).collect())
    }

    #[test]
    fn labels_in_any_order_have_their_meaning() {
        let set = parse(&["B-Cell-Line", "I-Cell-Line", "I-Gene", "B-Gene", "O"]).unwrap();
        assert_eq!(set.entity_types(), ["Cell-Line", "Gene"]);
        assert_eq!(set.tags(), [Tag::Begin(0), Tag::Inside(0), Tag::Inside(1), Tag::Begin(1), Tag::Outside]);
        assert_eq!(parse(&["B", "I", "O"]).unwrap().entity_types(), ["Entity"]);
        let bio = LabelSet::bio(&["Gene", "Disease"]);
        assert_eq!(parse(&["O", "B-Gene", "I-Gene", "B-Disease", "I-Disease"]).unwrap(), bio);
    }

    #[test]
    fn labels_without_a_bio_meaning_are_refused() {
        for labels in [vec!["O", "LABEL_1"], vec!["O", "S-Gene"], vec!["B-Gene"], vec!["O"], vec!["O", "O", "B-X"]] {
            assert!(parse(&labels).is_err(), "{labels:?}");
        }
    }
}
