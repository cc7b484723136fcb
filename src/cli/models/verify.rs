//! `litflow models verify`: whether a model is whole, loads, and answers as it did when it was made.

use super::super::exit::Exit;
use super::super::{flags, paint::Painter};
use super::{Common, is_version, state, version_of};
use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use litflow::config::{Config, Flag};
use litflow::model::directory::{MANIFEST, Manifest};
use litflow::model::{self, Model};
use litflow::registry::golden::{self, GOLDEN, Report, Tolerance};
use litflow::registry::{Announcements, Error, Store};
use litflow::tagger::{Engine, Tag as _};
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A sentence for models without golden ones: a model with NaN among its weights fails at any.
const PROBE: &str = "Mutations in BRCA1 cause breast cancer.";
const GOOD: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));

#[derive(clap::Args)]
pub struct Args {
    /// A model directory, or with VERSION the name of a model in the store
    #[arg(value_name = "DIR|NAME")]
    model: PathBuf,
    /// A version in the store, or an alias
    version: Option<String>,
    /// The most that a golden mention's score may differ
    #[arg(long, value_name = "SHARE", default_value_t = Tolerance::default().score)]
    score_tolerance: f32,
    /// The share of the golden mentions that may be missing or new
    #[arg(long, value_name = "SHARE", default_value_t = Tolerance::default().mentions)]
    mention_tolerance: f32,
    /// auto, cpu or cuda:N [config: model.device]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// auto, fp32 or bf16 [config: model.precision]
    #[arg(long, value_name = "PRECISION")]
    precision: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

/// What was found out.
struct Verified {
    name: String,
    version: String,
    digest: String,
    /// Number of files that the manifest names; none where there is no manifest.
    files: Option<usize>,
    golden: Option<Report>,
}

impl Args {
    pub fn flags(&self) -> Vec<Flag> {
        let (device, precision) = (&self.device, &self.precision);
        flags::collect([("--device", "model.device", device), ("--precision", "model.precision", precision)])
    }

    pub fn run(&self, config: &Config) -> anyhow::Result<Exit> {
        let verified = match &self.version {
            None => self.verify(&self.model, config)?,
            Some(version) => {
                let name = self.model.to_str().context("the model's name is not UTF-8")?;
                let store = Store::open(&config.registry)?;
                let announcements = Announcements::read(&config.kafka)?;
                let announced = announcements.get(name)?;
                let version = match announced {
                    None if is_version(version) => version.clone(),
                    _ => version_of(state(&announcements, name)?, version)?,
                };
                let (_, digest) = store.manifest(name, &version)?;
                if let Some(state) = announced {
                    state.check_digest(&version, &digest, &store.location(name, &version))?;
                }
                let past_the_cache = tempfile::tempdir().context("no folder to fetch the version into")?;
                let folder = store.fetch(name, &version, &digest, past_the_cache.path())?;
                self.verify(&folder, config)?
            }
        };
        self.tell(&verified)
    }

    fn verify(&self, folder: &Path, config: &Config) -> anyhow::Result<Verified> {
        let model = Model::load(folder, &config.model.options())?;
        let engine = Engine::start(model, &config.tagger)?;
        let refused = |reason: String| Error::Damaged { place: folder.display().to_string(), reason };
        let golden = golden::read(&folder.join(GOLDEN))?;
        let report = match &golden {
            Some(golden) => {
                let report = golden::check(&engine, golden).map_err(|e| refused(e.to_string()))?;
                let tolerance = Tolerance { score: self.score_tolerance, mentions: self.mention_tolerance };
                report.check(&tolerance).map_err(refused)?;
                Some(report)
            }
            None => {
                golden::record(&engine, &[PROBE.to_owned()]).map_err(|e| refused(e.to_string()))?;
                None
            }
        };
        let manifest_file = folder.join(MANIFEST);
        let files = match std::fs::read(&manifest_file) {
            Ok(json) => Some(Manifest::parse(&json, &manifest_file)?.files.len()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(cause) => return Err(model::Error::Io { file: manifest_file, cause }.into()),
        };
        let reference = engine.model();
        Ok(Verified {
            name: reference.name.clone(),
            version: reference.version.clone(),
            digest: reference.digest.clone(),
            files,
            golden: report,
        })
    }

    fn tell(&self, verified: &Verified) -> anyhow::Result<Exit> {
        let Verified { name, version, digest, files, golden } = verified;
        let mut out = anstream::stdout().lock();
        if self.common.json {
            let value = json!({
                "name": name, "version": version, "digest": digest, "files": files, "golden": golden, "ok": true,
            });
            writeln!(out, "{value:#}")?;
            return Ok(Exit::Done);
        }
        let files = match files {
            Some(files) => format!("{files} files as the manifest says"),
            None => "no manifest to check the files against".to_owned(),
        };
        let golden = match golden {
            Some(Report { sentences, mentions, missing, unexpected, largest_shift, .. }) => format!(
                "{sentences} golden sentences with {mentions} mentions: {} missing, {} new, scores within {largest_shift:.4}",
                missing.len(),
                unexpected.len()
            ),
            None => format!("no {GOLDEN} to tag again"),
        };
        let ok = Painter::for_stdout().styled(GOOD, "ok");
        writeln!(out, "{ok}  {name} {version}  {digest}\n    {files}\n    loaded\n    {golden}")?;
        Ok(Exit::Done)
    }
}
