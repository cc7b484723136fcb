//! How fast a candidate is beside the champion: both tag the same documents, in turns.

use crate::dataset::Dataset;
use crate::error::Error;
use crate::evaluate::document_of;
use futures::{StreamExt, TryStreamExt};
use litflow::article::Document;
use litflow::model::{Model, Options};
use litflow::tagger::Tag;
use litflow::tagger::engine::{self, Engine};
use std::path::Path;
use std::time::Instant;

/// Rounds, after one to warm up.
const ROUNDS: usize = 5;
/// Bytes of text in a round, about: a second or two of a small model on two cores.
const BYTES: usize = 100_000;

/// The candidate's speed as a share of the champion's: the median over rounds, in each of which first one and then the
/// other tags the same documents. The machine's other work falls on both.
pub fn ratio(candidate: &Path, champion: &Path, data: &Dataset, options: &Options) -> Result<Option<f64>, Error> {
    let documents = round_of(data)?;
    if documents.is_empty() {
        return Ok(None);
    }
    let engine = |folder: &Path| -> Result<Engine, Error> {
        Ok(Engine::start(Model::load(folder, options)?, &engine::Options::default())?)
    };
    let (candidate, champion) = (engine(candidate)?, engine(champion)?);
    let mut ratios = Vec::with_capacity(ROUNDS);
    for round in 0..=ROUNDS {
        let (before, after) = (seconds(&champion, &documents)?, seconds(&candidate, &documents)?);
        if round > 0 {
            ratios.push(before / after);
        }
    }
    ratios.sort_by(f64::total_cmp);
    Ok(Some(ratios[ROUNDS / 2]))
}

/// The documents of a round: the first ones, again where they are few.
fn round_of(data: &Dataset) -> Result<Vec<Document>, Error> {
    let bytes = |document: &Document| document.passages.iter().map(|passage| passage.text.len()).sum::<usize>();
    let (mut few, mut found) = (Vec::new(), 0);
    for document in data.documents() {
        few.push(document_of(&document?));
        found += few.last().map_or(0, bytes);
        if found >= BYTES {
            break;
        }
    }
    let times = if found == 0 { 0 } else { BYTES.div_ceil(found) };
    Ok(few.iter().cycle().take(times * few.len()).cloned().collect())
}

fn seconds(engine: &Engine, documents: &[Document]) -> Result<f64, Error> {
    const AT_A_TIME: usize = 64;
    let started = Instant::now();
    let tagging = futures::stream::iter(documents).map(|document| engine.tag(document.clone()));
    let tagging = tagging.buffered(AT_A_TIME).try_for_each(|_| futures::future::ready(Ok(())));
    futures::executor::block_on(tagging)?;
    Ok(started.elapsed().as_secs_f64())
}
