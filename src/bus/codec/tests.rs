//! Types and schema files agree in both directions; nothing that arrives makes the decoder panic.

mod arbitrary;
mod released;

use super::*;
use crate::bus::records::*;
use apache_avro::types::Value;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashMap;

/// Rust → bytes → Rust is the identity, and a generic reader finds the same fields in the bytes.
fn from_rust<T: Record + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = value.encode().unwrap();
    assert_eq!(&T::decode(&bytes).unwrap(), value);
    let reader = GenericDatumReader::builder(T::codec().schema()).build().unwrap();
    let generic = reader.read_value(&mut &bytes[SINGLE_OBJECT_HEADER..]).unwrap();
    assert_eq!(&from_value::<T>(&generic).unwrap(), value);
}

/// A generic writer's value reads as the Rust type and is written again as the same bytes.
fn from_schema<T: Record>(value: &Value) {
    let mut bytes = T::codec().header.to_vec();
    T::codec().writer.write_value_ref(&mut bytes, value).unwrap();
    assert_eq!(T::decode(&bytes).unwrap().encode().unwrap(), bytes);
}

macro_rules! agreement {
    ($($test:ident: $type:ty = $strategy:expr;)*) => {$(
        mod $test {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(128))]
                #[test]
                fn rust_follows_schema(value in $strategy) {
                    from_rust::<$type>(&value);
                }

                #[test]
                fn schema_follows_rust(value in arbitrary::generic(<$type>::codec().schema(), &mut HashMap::new())) {
                    from_schema::<$type>(&value);
                }

                #[test]
                fn arbitrary_bytes_are_an_error_or_a_value(body in vec(any::<u8>(), 0..200), header in 0..3) {
                    let mut bytes = match header {
                        0 => Vec::new(),
                        1 => <$type>::codec().header.to_vec(),
                        _ => vec![CONFLUENT_MAGIC, 0, 0, 0, 7],
                    };
                    bytes.extend(body);
                    let _ = <$type>::decode(&bytes);
                }

                #[test]
                fn damaged_values_do_not_panic(value in $strategy, at in any::<prop::sample::Index>(), bit in 0..8) {
                    let mut bytes = value.encode().unwrap();
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1u8 << bit;
                    let _ = <$type>::decode(&bytes);
                    prop_assert!(<$type>::decode(&bytes[..at]).is_err());
                }
            }
        }
    )*};
}

agreement! {
    article_event_agrees: ArticleEvent = arbitrary::article_event();
    annotations_agree: Annotations = arbitrary::annotations();
    entity_mention_agrees: EntityMention = arbitrary::entity_mention();
    labeled_document_agrees: LabeledDocument = arbitrary::labeled_document();
    model_version_agrees: ModelVersion = arbitrary::model_version();
    shadow_tally_agrees: ShadowTally = arbitrary::shadow_tally();
}

fn model() -> ModelVersion {
    ModelVersion {
        name: "biored-minilm".into(),
        version: "1.0.0".into(),
        digest: "sha256:00".into(),
        location: "file:///models".into(),
        files: Vec::new(),
        entity_types: vec!["Gene".into()],
        metrics: [("dev.strict.micro.f1".into(), 0.83)].into(),
        parent: None,
        encoder: None,
        created_at: Some(1),
        ..ModelVersion::default()
    }
}

#[test]
fn unknown_fingerprint_is_named() {
    let mut bytes = model().encode().unwrap();
    bytes[2..10].copy_from_slice(&[0xAB; 8]);
    let error = ModelVersion::decode(&bytes).unwrap_err();
    assert!(matches!(&error, Error::UnknownFingerprint { fingerprint, .. } if fingerprint == "abababababababab"));
    assert_eq!(error.class(), ErrorClass::Poison);
}

#[test]
fn confluent_wire_format_is_read_whole_or_not_at_all() {
    let mut bytes = vec![0, 0, 0, 0, 42];
    bytes.extend(&model().encode().unwrap()[SINGLE_OBJECT_HEADER..]);
    assert_eq!(ModelVersion::decode(&bytes).unwrap(), model());
    bytes.push(0);
    assert!(matches!(ModelVersion::decode(&bytes), Err(Error::TrailingBytes { bytes: 1, .. })));
}

/// A model version as this schema writes it.
fn written_by(writer: &Schema, value: &ModelVersion) -> Vec<u8> {
    let bytes = value.encode().unwrap();
    let reader = GenericDatumReader::builder(ModelVersion::codec().schema()).build().unwrap();
    let ours = reader.read_value(&mut &bytes[SINGLE_OBJECT_HEADER..]).unwrap();
    GenericDatumWriter::builder(writer).build().unwrap().write_value_to_vec(ours.resolve(writer).unwrap()).unwrap()
}

/// The schema, with this done to its fields.
fn changed(change: impl Fn(&mut Vec<serde_json::Value>)) -> (Schema, Writer) {
    let mut json: serde_json::Value = serde_json::from_str(ModelVersion::SCHEMA).unwrap();
    change(json["fields"].as_array_mut().unwrap());
    (Schema::parse(&json).unwrap(), Writer::parse(&json.to_string()).unwrap())
}

#[test]
fn values_by_a_registrys_schema_resolve_to_ours() {
    let codec = ModelVersion::codec();
    let same = Writer::parse(ModelVersion::SCHEMA).unwrap();
    let bytes = codec.encode_with_id(258, &model()).unwrap();
    assert_eq!(bytes[..5], [0, 0, 0, 1, 2]);
    let (id, body) = confluent(&bytes).unwrap();
    assert_eq!((id, codec.decode_by::<ModelVersion>(id, &same, body).unwrap()), (258, model()));
    assert!(matches!(
        codec.decode_by::<ModelVersion>(id, &same, &bytes[4..]),
        Err(Error::Malformed { .. } | Error::TrailingBytes { .. })
    ));

    let (schema, older) = changed(|fields| fields.retain(|field| field["name"] != "metrics"));
    let found = codec.decode_by::<ModelVersion>(7, &older, &written_by(&schema, &model())).unwrap();
    assert_eq!(found, ModelVersion { metrics: Default::default(), ..model() });
    let (schema, newer) = changed(|fields| {
        fields.reverse();
        fields.insert(0, serde_json::json!({"name": "licence", "type": "string", "default": "Apache-2.0"}));
    });
    let mut body = written_by(&schema, &model());
    assert_eq!(codec.decode_by::<ModelVersion>(7, &newer, &body).unwrap(), model());
    body.push(0);
    let left_over = codec.decode_by::<ModelVersion>(7, &newer, &body);
    assert!(matches!(left_over, Err(Error::TrailingBytes { bytes: 1, .. })), "{left_over:?}");

    let (schema, without_name) = changed(|fields| fields.retain(|field| field["name"] != "name"));
    let nameless = codec.decode_by::<ModelVersion>(7, &without_name, &written_by(&schema, &model())).unwrap_err();
    assert!(matches!(&nameless, Error::Incompatible { id: 7, .. }) && nameless.class() == ErrorClass::Poison);
}

proptest! {
    #[test]
    fn arbitrary_bytes_by_a_registrys_schema_are_an_error_or_a_value(body in vec(any::<u8>(), 0..200)) {
        let (_, writer) = changed(|fields| fields.reverse());
        let _ = ModelVersion::codec().decode_by::<ModelVersion>(7, &writer, &body);
    }
}

#[test]
fn text_and_nothing_are_not_avro() {
    for bytes in [&b""[..], b"{\"id\":1}", b"\xC3\x01\x00", b"\x00\x00"] {
        assert!(matches!(ArticleEvent::decode(bytes), Err(Error::NotAvro { .. })));
    }
}

#[test]
fn values_of_a_released_older_schema_resolve_to_the_current_one() {
    let mut json: serde_json::Value = serde_json::from_str(include_str!("../../../schemas/ModelVersion.avsc")).unwrap();
    let fields = json["fields"].as_array_mut().unwrap();
    fields.retain(|field| !["encoder", "metrics", "aliases", "history"].contains(&field["name"].as_str().unwrap()));
    let older: &'static [Schema] = Box::leak(vec![Schema::parse(&json).unwrap()].into_boxed_slice());

    let mut bytes = header(&older[0]).to_vec();
    let fields = vec![
        ("name".to_owned(), Value::String("biored-minilm".into())),
        ("version".to_owned(), Value::String("1.0.0".into())),
        ("digest".to_owned(), Value::String("sha256:00".into())),
        ("location".to_owned(), Value::String("file:///models".into())),
        ("files".to_owned(), Value::Array(Vec::new())),
        ("entity_types".to_owned(), Value::Array(vec![Value::String("Gene".into())])),
        ("parent".to_owned(), Value::Union(0, Box::new(Value::Null))),
        ("created_at".to_owned(), Value::Union(1, Box::new(Value::TimestampMillis(1)))),
    ];
    let writer = GenericDatumWriter::builder(&older[0]).build().unwrap();
    writer.write_value(&mut bytes, Value::Record(fields)).unwrap();

    let codec = Codec::new(ModelVersion::codec().schema(), older);
    let value: ModelVersion = codec.decode(&bytes).unwrap();
    assert_eq!(value, ModelVersion { metrics: Default::default(), ..model() });
    assert!(matches!(ModelVersion::decode(&bytes), Err(Error::UnknownFingerprint { .. })));
}

#[test]
fn every_field_that_may_be_missing_has_a_default() {
    for schema in [
        ArticleEvent::codec().schema(),
        Annotations::codec().schema(),
        EntityMention::codec().schema(),
        LabeledDocument::codec().schema(),
        ModelVersion::codec().schema(),
        ShadowTally::codec().schema(),
    ] {
        let Schema::Record(record) = schema else { panic!("{schema:?} is no record") };
        assert_eq!(record.name.namespace(), Some("org.litflow"));
        assert!(record.doc.is_some());
        for field in &record.fields {
            assert!(field.doc.is_some(), "{}.{} has no doc", record.name, field.name);
            let may_be_missing = matches!(field.schema, Schema::Union(_) | Schema::Array(_) | Schema::Map(_));
            assert!(!may_be_missing || field.default.is_some(), "{}.{} has no default", record.name, field.name);
        }
    }
}

#[test]
fn types_of_one_name_are_the_same_in_every_file() {
    let mut seen: HashMap<String, (String, serde_json::Value)> = HashMap::new();
    for (file, text) in [
        ("ArticleEvent", include_str!("../../../schemas/ArticleEvent.avsc")),
        ("Annotations", include_str!("../../../schemas/Annotations.avsc")),
        ("EntityMention", include_str!("../../../schemas/EntityMention.avsc")),
        ("LabeledDocument", include_str!("../../../schemas/LabeledDocument.avsc")),
        ("ModelVersion", include_str!("../../../schemas/ModelVersion.avsc")),
        ("ShadowTally", include_str!("../../../schemas/ShadowTally.avsc")),
    ] {
        let mut open = vec![serde_json::from_str::<serde_json::Value>(text).unwrap()];
        while let Some(node) = open.pop() {
            if let (Some(name), Some("record" | "enum")) = (node["name"].as_str(), node["type"].as_str()) {
                let mut definition = node.clone();
                definition.as_object_mut().unwrap().remove("namespace");
                let first = seen.entry(name.to_owned()).or_insert((file.to_owned(), definition.clone()));
                if file != first.0 {
                    assert_eq!(parse_in(&definition), parse_in(&first.1), "{name} in {file} and {}", first.0);
                }
            }
            match node {
                serde_json::Value::Object(map) => open.extend(map.into_iter().map(|(_, value)| value)),
                serde_json::Value::Array(values) => open.extend(values),
                _ => {}
            }
        }
    }
}

/// A nested definition without docs; a reference to a type of the same file stays a name.
fn parse_in(definition: &serde_json::Value) -> serde_json::Value {
    match definition {
        serde_json::Value::Object(map) => map
            .iter()
            .filter(|(key, _)| *key != "doc")
            .map(|(key, value)| (key.clone(), parse_in(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        serde_json::Value::Array(values) => values.iter().map(parse_in).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}
