//! Types and schema files agree in both directions; nothing that arrives makes the decoder panic.

use super::*;
use crate::article::{ArticleIds, MeshHeading, Op, Passage, RawDocument, Section};
use crate::bus::records::*;
use crate::tagger::ModelRef;
use apache_avro::types::Value;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::HashMap;

const SECTIONS: [Section; 20] = [
    Section::Title,
    Section::Abstract,
    Section::Background,
    Section::Objective,
    Section::Introduction,
    Section::Methods,
    Section::Results,
    Section::Discussion,
    Section::Conclusion,
    Section::CaseReport,
    Section::Caption,
    Section::Table,
    Section::Keywords,
    Section::Acknowledgements,
    Section::Funding,
    Section::Supplement,
    Section::Appendix,
    Section::Abbreviations,
    Section::Body,
    Section::Other,
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,12}", any::<String>()]
}

fn maybe() -> impl Strategy<Value = Option<String>> {
    option::of(text())
}

fn section() -> impl Strategy<Value = Section> {
    prop::sample::select(&SECTIONS[..])
}

fn passage() -> impl Strategy<Value = Passage> {
    (section(), maybe(), maybe(), text()).prop_map(|(section, heading, language, text)| Passage {
        section,
        heading,
        language,
        text,
    })
}

fn model_ref() -> impl Strategy<Value = ModelRef> {
    (text(), text(), text()).prop_map(|(name, version, digest)| ModelRef { name, version, digest })
}

fn source() -> impl Strategy<Value = SourceRecord> {
    (text(), any::<i32>(), any::<i64>()).prop_map(|(topic, partition, offset)| SourceRecord {
        topic,
        partition,
        offset,
    })
}

fn mesh() -> impl Strategy<Value = MeshHeading> {
    (text(), text(), any::<bool>(), vec(text(), 0..3)).prop_map(|(id, name, major, qualifiers)| MeshHeading {
        id,
        name,
        major,
        qualifiers,
    })
}

fn article_event() -> impl Strategy<Value = ArticleEvent> {
    let ids = (maybe(), maybe(), maybe()).prop_map(|(pmid, pmcid, doi)| ArticleIds { pmid, pmcid, doi });
    let op = prop_oneof![Just(Op::Upsert), Just(Op::Delete)];
    let raw = (text(), vec(any::<u8>(), 0..40)).prop_map(|(content_type, bytes)| RawDocument { content_type, bytes });
    let metadata = (maybe(), maybe(), maybe(), maybe(), vec(text(), 0..3), any::<bool>(), vec(mesh(), 0..3));
    let content = (maybe(), vec(passage(), 0..4), option::of(raw));
    (text(), any::<i64>(), op, ids, text(), metadata, content).prop_map(
        |(id, version, op, ids, source, metadata, (title, passages, raw))| {
            let (published, revised, language, journal, publication_types, retracted, mesh) = metadata;
            ArticleEvent {
                id,
                version,
                op,
                ids,
                source,
                published,
                revised,
                language,
                journal,
                publication_types,
                retracted,
                mesh,
                title,
                passages,
                raw,
            }
        },
    )
}

fn mention() -> impl Strategy<Value = AnnotatedMention> {
    let numbers = any::<[u32; 6]>();
    let linked = (vec(text(), 0..3), option::of(any::<bool>()), maybe());
    (text(), text(), text(), numbers, 0f32..=1.0, linked).prop_map(
        |(id, entity_type, text, numbers, score, (identifiers, negated, long_form))| {
            let [passage, begin, end, document_begin, document_end, sentence] = numbers;
            AnnotatedMention {
                id,
                entity_type,
                text,
                passage,
                begin,
                end,
                document_begin,
                document_end,
                sentence,
                score,
                identifiers,
                negated,
                long_form,
            }
        },
    )
}

fn annotations() -> impl Strategy<Value = Annotations> {
    let span = any::<(u32, u32)>().prop_map(|(begin, end)| Span { begin, end });
    let passage = (section(), any::<u32>(), any::<u32>(), vec(span, 0..3))
        .prop_map(|(section, offset, length, sentences)| AnnotatedPassage { section, offset, length, sentences });
    (text(), any::<i64>(), model_ref(), source(), vec(passage, 0..3), vec(mention(), 0..3)).prop_map(
        |(article_id, article_version, model, source, passages, mentions)| Annotations {
            article_id,
            article_version,
            model,
            source,
            passages,
            mentions,
        },
    )
}

fn entity_mention() -> impl Strategy<Value = EntityMention> {
    let around = (section(), any::<(u32, u32)>(), maybe(), model_ref(), source());
    (text(), any::<i64>(), mention(), around).prop_map(|(article_id, article_version, mention, around)| {
        let (section, (sentence_begin, sentence_end), sentence_text, model, source) = around;
        EntityMention {
            article_id,
            article_version,
            id: mention.id,
            entity_type: mention.entity_type,
            text: mention.text,
            passage: mention.passage,
            begin: mention.begin,
            end: mention.end,
            document_begin: mention.document_begin,
            document_end: mention.document_end,
            sentence: mention.sentence,
            score: mention.score,
            identifiers: mention.identifiers,
            negated: mention.negated,
            long_form: mention.long_form,
            section,
            sentence_begin,
            sentence_end,
            sentence_text,
            model,
            source,
        }
    })
}

fn labeled_document() -> impl Strategy<Value = LabeledDocument> {
    let span = (text(), any::<[u32; 3]>(), text(), vec(text(), 0..3)).prop_map(
        |(entity_type, [passage, begin, end], text, identifiers)| GoldSpan {
            entity_type,
            passage,
            begin,
            end,
            text,
            identifiers,
        },
    );
    let open = any::<[u32; 3]>().prop_map(|[passage, begin, end]| OpenSpan { passage, begin, end });
    let rest = (vec(text(), 0..3), text(), maybe(), option::of(any::<i64>()), vec(open, 0..3));
    (text(), vec(passage(), 0..3), vec(span, 0..3), rest).prop_map(
        |(document_id, passages, spans, (entity_types, annotator, guideline, annotated_at, open))| LabeledDocument {
            document_id,
            passages,
            spans,
            entity_types,
            annotator,
            guideline,
            annotated_at,
            open,
        },
    )
}

fn model_version() -> impl Strategy<Value = ModelVersion> {
    let file = (text(), text(), any::<i64>()).prop_map(|(path, sha256, bytes)| ModelFile { path, sha256, bytes });
    let target = (text(), text(), text());
    let target = target.prop_map(|(version, digest, location)| AliasTarget { version, digest, location });
    let rest = (btree_map(text(), -1e9..1e9, 0..4), maybe(), maybe(), option::of(any::<i64>()));
    let state = (btree_map(text(), target, 0..3), vec(alias_change(), 0..3));
    (model_ref(), text(), vec(file, 0..3), vec(text(), 0..3), rest, state).prop_map(
        |(model, location, files, entity_types, (metrics, parent, encoder, created_at), (aliases, history))| {
            ModelVersion {
                name: model.name,
                version: model.version,
                digest: model.digest,
                location,
                files,
                entity_types,
                metrics,
                parent,
                encoder,
                created_at,
                aliases,
                history,
            }
        },
    )
}

fn shadow_tally() -> impl Strategy<Value = ShadowTally> {
    let of_type = (any::<i64>(), any::<i64>(), any::<i64>(), -1e9..1e9)
        .prop_map(|(agreed, added, missing, score_shift)| TypeAgreement { agreed, added, missing, score_shift });
    let counts = (any::<[i64; 4]>(), 0.0..1e9, 0.0..1e9, btree_map(text(), of_type, 0..3));
    let agreement =
        counts.prop_map(|([articles, sentences, failed, dropped], champion_seconds, candidate_seconds, types)| {
            Agreement { articles, sentences, failed, dropped, champion_seconds, candidate_seconds, types }
        });
    (model_ref(), model_ref(), text(), any::<[i64; 2]>(), maybe(), agreement).prop_map(
        |(candidate, champion, worker, [since, updated_at], refused, agreement)| ShadowTally {
            candidate,
            champion,
            worker,
            since,
            updated_at,
            refused,
            agreement,
        },
    )
}

fn alias_change() -> impl Strategy<Value = AliasChange> {
    let action = prop_oneof![Just(AliasAction::Assigned), Just(AliasAction::RolledBack), Just(AliasAction::Removed)];
    (any::<i64>(), text(), action, (text(), text(), maybe()), text(), text()).prop_map(
        |(at, alias, action, (version, digest, previous), by, reason)| AliasChange {
            at,
            alias,
            action,
            version,
            digest,
            previous,
            by,
            reason,
        },
    )
}

/// Any value of `schema`, with whole numbers that fit the smallest Rust type that holds them (u32, i32).
fn generic(schema: &Schema, names: &mut HashMap<String, Schema>) -> BoxedStrategy<Value> {
    match schema {
        Schema::Null => Just(Value::Null).boxed(),
        Schema::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Schema::Int => any::<i32>().prop_map(Value::Int).boxed(),
        Schema::Long => any::<u32>().prop_map(|n| Value::Long(n.into())).boxed(),
        Schema::TimestampMillis => any::<i64>().prop_map(Value::TimestampMillis).boxed(),
        Schema::Float => (0f32..1.0).prop_map(Value::Float).boxed(),
        Schema::Double => (-1e9..1e9).prop_map(Value::Double).boxed(),
        Schema::Bytes => vec(any::<u8>(), 0..20).prop_map(Value::Bytes).boxed(),
        Schema::String => text().prop_map(Value::String).boxed(),
        Schema::Array(array) => vec(generic(&array.items, names), 0..3).prop_map(Value::Array).boxed(),
        Schema::Map(map) => btree_map(text(), generic(&map.types, names), 0..2)
            .prop_map(|map| Value::Map(map.into_iter().collect()))
            .boxed(),
        Schema::Union(union) => {
            let variants = union.variants().iter().enumerate().map(|(index, variant)| {
                generic(variant, names).prop_map(move |value| Value::Union(index as u32, Box::new(value))).boxed()
            });
            prop::strategy::Union::new(variants.collect::<Vec<_>>()).boxed()
        }
        Schema::Enum(enumeration) => {
            names.insert(enumeration.name.to_string(), schema.clone());
            let symbols: Vec<_> = enumeration.symbols.iter().cloned().enumerate().collect();
            prop::sample::select(symbols).prop_map(|(index, symbol)| Value::Enum(index as u32, symbol)).boxed()
        }
        Schema::Record(record) => {
            names.insert(record.name.to_string(), schema.clone());
            record
                .fields
                .iter()
                .fold(Just(Vec::new()).boxed(), |fields, field| {
                    let name = field.name.clone();
                    (fields, generic(&field.schema, names))
                        .prop_map(move |(mut fields, value)| {
                            fields.push((name.clone(), value));
                            fields
                        })
                        .boxed()
                })
                .prop_map(Value::Record)
                .boxed()
        }
        Schema::Ref { name } => {
            let named = names[&name.to_string()].clone();
            generic(&named, names)
        }
        other => panic!("the schemas do not use {other:?}"),
    }
}

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
                fn schema_follows_rust(value in generic(<$type>::codec().schema(), &mut HashMap::new())) {
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
    article_event_agrees: ArticleEvent = article_event();
    annotations_agree: Annotations = annotations();
    entity_mention_agrees: EntityMention = entity_mention();
    labeled_document_agrees: LabeledDocument = labeled_document();
    model_version_agrees: ModelVersion = model_version();
    shadow_tally_agrees: ShadowTally = shadow_tally();
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
