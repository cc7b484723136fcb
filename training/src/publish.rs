//! The model directory that a run leaves: files first, the manifest last.

use crate::checkpoint::State;
use crate::dataset::Summary;
use crate::error::Error;
use crate::labels::LeftOut;
use crate::recipe::Recipe;
use crate::report::METRICS;
use litflow::model::Config;
use litflow::model::directory::{self, CONFIG, MANIFEST, Manifest, SAFETENSORS, TOKENIZER};
use litflow::model::weights::write_safetensors;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};
use tokenizers::Tokenizer;

/// The recipe as a file of the model directory. `litflow-train eval` reads corpora by it.
pub const RECIPE: &str = "recipe.toml";
const CARD: &str = "README.md";

/// What goes into the directory.
pub struct Publication<'a> {
    /// The directory.
    pub out: &'a Path,
    /// Its `config.json`.
    pub config: &'a Config,
    /// Its weights; stored in bf16.
    pub tensors: &'a [(String, Tensor)],
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How training went.
    pub state: &'a State,
    /// The entity types.
    pub types: &'a [String],
    /// What was learned from.
    pub train: &'a Summary,
    /// What it was measured on.
    pub dev: &'a Summary,
    /// What of the data was left out.
    pub left_out: &'a LeftOut,
    /// The files that the data came from.
    pub files: &'a [PathBuf],
    /// Digest of the encoder that training began with.
    pub parent: &'a str,
}

/// Writes the directory.
pub fn publish(publication: &Publication) -> Result<(), Error> {
    let Publication { out, config, tensors, tokenizer, state, .. } = publication;
    let write = |name: &str, content: &[u8]| {
        let file = out.join(name);
        fs::write(&file, content).map_err(|error| Error::io(&file, error))
    };
    write(CONFIG, &pretty(&serde_json::to_value(config).expect("a configuration is plain data")))?;
    write_safetensors(&out.join(SAFETENSORS), tensors, Kind::BFloat16)?;
    let tokenizer =
        tokenizer.to_string(false).map_err(|error| litflow::tagger::encode::Error::Tokenizer(error.to_string()))?;
    write(TOKENIZER, tokenizer.as_bytes())?;
    let recipe = toml::to_string(&state.recipe).expect("a recipe is plain data");
    write(RECIPE, recipe.as_bytes())?;
    write(METRICS, &pretty(&metrics(publication)))?;
    write(CARD, card(publication).as_bytes())?;
    let manifest = Manifest {
        parent: Some(publication.parent.to_owned()),
        data: Some(publication.train.digest.clone()),
        code: Some(concat!("litflow-train ", env!("CARGO_PKG_VERSION")).to_owned()),
        ..Manifest::default()
    };
    manifest.write(out)?;
    Ok(())
}

/// Calls a directory that [`publish`] wrote another version; all else stays as it is.
pub fn renumber(folder: &Path, version: &str) -> Result<(), Error> {
    let mut config = directory::read_config(folder)?;
    let Some(section) = config.litflow.as_mut().filter(|section| section.version != version) else { return Ok(()) };
    let before = title(&section.name, &section.version);
    let after = title(&section.name, version);
    version.clone_into(&mut section.version);
    let mut recipe = Recipe::read(&folder.join(RECIPE))?;
    version.clone_into(&mut recipe.model.version);
    let read = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file).map_err(|error| Error::io(&file, error))
    };
    let write = |name: &str, content: &[u8]| {
        let file = folder.join(name);
        fs::write(&file, content).map_err(|error| Error::io(&file, error))
    };
    let manifest = Manifest::parse(read(MANIFEST)?.as_bytes(), &folder.join(MANIFEST))?;
    write(CONFIG, &pretty(&serde_json::to_value(config).expect("a configuration is plain data")))?;
    write(RECIPE, toml::to_string(&recipe).expect("a recipe is plain data").as_bytes())?;
    write(CARD, read(CARD)?.replacen(&before, &after, 1).as_bytes())?;
    manifest.write(folder)?;
    Ok(())
}

/// The first line of a model card.
fn title(name: &str, version: &str) -> String {
    format!("# {name} {version}\n")
}

fn pretty(value: &serde_json::Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("a JSON value can be written");
    bytes.push(b'\n');
    bytes
}

fn metrics(publication: &Publication) -> serde_json::Value {
    let Publication { state, types, train, dev, left_out, .. } = publication;
    let size = |data: &Summary| {
        let mentions: BTreeMap<&String, u64> = types.iter().zip(data.mentions.iter().copied()).collect();
        json!({
            "digest": data.digest,
            "documents": data.documents,
            "complete_documents": data.complete,
            "mentions": mentions,
        })
    };
    json!({
        "dev": { "strict": state.best().map(|best| &best.dev) },
        "data": { "train": size(train), "dev": size(dev), "left_out": left_out },
        "epochs": state.epochs,
    })
}

/// The model card: what is known for certain. The recipe's `model.card` says the rest.
fn card(publication: &Publication) -> String {
    let Publication { state, types, train, dev, files, .. } = publication;
    let options = &state.recipe.model;
    let mut card = title(&options.name, &options.version) + "\n";
    if !options.card.is_empty() {
        let _ = writeln!(card, "{}\n", options.card.trim());
    }
    let _ = writeln!(card, "Entity types: {}. Head: linear-chain CRF over BIO tags.\n", types.join(", "));
    let _ = writeln!(card, "## Scores\n");
    match state.best() {
        Some(best) => {
            let _ = writeln!(
                card,
                "Strict entity scores in per cent on {} documents held out for development (they chose the best \
                 epoch, so they flatter a little), with the weights before rounding to bf16:\n\n```\n{}```\n",
                dev.documents,
                best.dev.table()
            );
        }
        None => card.push_str("None: training was stopped within its first epoch.\n\n"),
    }
    let _ = writeln!(
        card,
        "## Training data\n\n{} documents, {} of them annotated for every type, from:\n",
        train.documents, train.complete
    );
    for file in *files {
        let _ = writeln!(card, "- `{}`", file.file_name().unwrap_or_default().to_string_lossy());
    }
    let _ = writeln!(
        card,
        "\nNo document of the development set stands among them. `{RECIPE}` holds the hyperparameters, `{METRICS}` \
         every epoch's scores, `manifest.json` the digests of encoder and data."
    );
    card
}
