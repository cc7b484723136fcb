//! Any value of each record, of the Rust type or as its schema has it.

use crate::article::{ArticleEvent, ArticleIds, Claim, MeshHeading, Op, Passage, RawDocument, Section};
use crate::bus::records::*;
use crate::tagger::ModelRef;
use apache_avro::Schema;
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

pub fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,12}", any::<String>()]
}

pub fn maybe() -> impl Strategy<Value = Option<String>> {
    option::of(text())
}

pub fn section() -> impl Strategy<Value = Section> {
    prop::sample::select(&SECTIONS[..])
}

pub fn passage() -> impl Strategy<Value = Passage> {
    (section(), maybe(), maybe(), text()).prop_map(|(section, heading, language, text)| Passage {
        section,
        heading,
        language,
        text,
    })
}

pub fn model_ref() -> impl Strategy<Value = ModelRef> {
    (text(), text(), text()).prop_map(|(name, version, digest)| ModelRef { name, version, digest })
}

pub fn source() -> impl Strategy<Value = SourceRecord> {
    (text(), any::<i32>(), any::<i64>()).prop_map(|(topic, partition, offset)| SourceRecord {
        topic,
        partition,
        offset,
    })
}

pub fn mesh() -> impl Strategy<Value = MeshHeading> {
    (text(), text(), any::<bool>(), vec(text(), 0..3)).prop_map(|(id, name, major, qualifiers)| MeshHeading {
        id,
        name,
        major,
        qualifiers,
    })
}

pub fn article_event() -> impl Strategy<Value = ArticleEvent> {
    let ids = (maybe(), maybe(), maybe()).prop_map(|(pmid, pmcid, doi)| ArticleIds { pmid, pmcid, doi });
    let op = prop_oneof![Just(Op::Upsert), Just(Op::Delete)];
    let claim = (text(), text(), option::of(any::<i64>())).prop_map(|(uri, sha256, size)| Claim { uri, sha256, size });
    let raw = (text(), vec(any::<u8>(), 0..40), option::of(claim));
    let raw = raw.prop_map(|(content_type, bytes, claim)| RawDocument { content_type, bytes, claim });
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

pub fn mention() -> impl Strategy<Value = AnnotatedMention> {
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

pub fn annotations() -> impl Strategy<Value = Annotations> {
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

pub fn entity_mention() -> impl Strategy<Value = EntityMention> {
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

pub fn labeled_document() -> impl Strategy<Value = LabeledDocument> {
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

pub fn model_version() -> impl Strategy<Value = ModelVersion> {
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

pub fn shadow_tally() -> impl Strategy<Value = ShadowTally> {
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

pub fn alias_change() -> impl Strategy<Value = AliasChange> {
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
pub fn generic(schema: &Schema, names: &mut HashMap<String, Schema>) -> BoxedStrategy<Value> {
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
