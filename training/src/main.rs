//! `litflow-train`: trains and measures litflow's models.

#![warn(clippy::print_stdout)] // it panics where stdout is closed or full: `commands::print` does not

mod commands;

use clap::{Args, Parser, Subcommand};
use commands::print;
use litflow::model::device::{self, DeviceChoice, Options};
use litflow_training::Error;
use litflow_training::evaluate::{Scope, evaluate};
use litflow_training::fit::{Request, fit};
use litflow_training::recipe::Recipe;
use litflow_training::split::HoldOut;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Trains and measures litflow's models.
#[derive(Parser)]
#[command(name = "litflow-train", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fine-tunes an encoder on labelled documents and writes a model directory.
    #[command(after_help = FIT_HELP)]
    Fit(FitArgs),
    /// Measures a model on labelled documents, as the worker would run it.
    #[command(after_help = EVAL_HELP)]
    Eval(EvalArgs),
    Import(commands::import::Args),
    Export(commands::export::Args),
    Snapshot(commands::snapshot::Args),
    HoldOut(commands::hold_out::Args),
    Golden(commands::golden::Args),
    Run(Box<commands::run::Args>),
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 done, but some input was \
left out (counted on stderr); 4 the broker is in a fatal state; 130, 143 ended by Ctrl-C, by SIGTERM. \
`run`: 0 published; 10 nothing new; 11 not better.";

const FIT_HELP: &str = "\
Each file annotates the types that occur in it; of other types its text says nothing. An article in several \
files is one document. Without --dev a share of the completely annotated documents is held out, always the same.
Ctrl-C or SIGTERM leaves a model of the best weights so far and a checkpoint that --resume goes on from.

Examples:
  litflow-train fit --data BioRED_Train.PubTator --encoder encoders/minilm-l6 --out models/mine
  litflow-train fit --data A.PubTator B.PubTator --recipe training/recipes/biored-minilm.toml \\
      --encoder encoders/minilm-l6 --out models/mine --seed 2";

const EVAL_HELP: &str = "\
Prints strict entity scores: a mention counts only with its exact begin, end and type. --json and --report have more: \
overlap and word-by-word scores, kinds of errors, confusion, calibration, confidence intervals.

Examples:
  litflow-train eval --model models/biored-minilm --data BioRED_Test.PubTator
  litflow-train eval --model models/biored-minilm --data BioRED_TrainDev.PubTator --held-out
  litflow-train eval --model models/mine --champion models/biored-minilm \\
      --data A.PubTator --report runs/mine
  litflow-train eval --model models/mine --data A.PubTator --json | jq .strict.micro.f1";

#[derive(Args)]
struct FitArgs {
    /// Snapshots, or files in any format of labels; of copies of an article the first has the say.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// The same to develop on; their articles are taken out of --data.
    #[arg(long, num_args = 1.., value_name = "PATH")]
    dev: Vec<PathBuf>,
    /// A list of documents that training must never see, as `hold-out` makes it.
    #[arg(long, value_name = "FILE")]
    hold_out: Option<PathBuf>,
    /// The pretrained encoder, a directory in Hugging Face's layout; or a model, to go on from: its head is kept for
    /// the labels that it knows.
    #[arg(long, value_name = "DIR")]
    encoder: PathBuf,
    /// Where the model directory is to lie: new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Hyperparameters and how to read the data (TOML).
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Epochs of the last stage, in the recipe's stead.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    epochs: Option<u16>,
    /// Seed, in the recipe's stead.
    #[arg(long)]
    seed: Option<u32>,
    /// Go on from the checkpoint in --out, with the same data and recipe.
    #[arg(long)]
    resume: bool,
    /// The longest time between two checkpoints, in seconds; there is one at the end of each epoch too.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    checkpoint_seconds: u64,
    /// `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

#[derive(Args)]
struct EvalArgs {
    /// The model directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Snapshots, or files in any format of labels.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Only the documents that the model's own recipe held out of its training data.
    #[arg(long)]
    held_out: bool,
    /// Only the documents of this list, as `hold-out` makes it.
    #[arg(long, value_name = "FILE", conflicts_with = "held_out")]
    hold_out: Option<PathBuf>,
    /// Another model, measured on the same documents: is the difference one?
    #[arg(long, value_name = "DIR")]
    champion: Option<PathBuf>,
    /// What the model was trained on: tells mentions that it has seen from those it has not.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    trained_on: Vec<PathBuf>,
    /// Write metrics.json, report.md and plots into this folder.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// JSON instead of a table; fractions, not per cent.
    #[arg(long)]
    json: bool,
    /// `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Fit(args) => run_fit(args),
        Command::Eval(args) => run_eval(&args),
        Command::Import(args) => args.run(),
        Command::Export(args) => args.run(),
        Command::Snapshot(args) => args.run(),
        Command::HoldOut(args) => args.run(),
        Command::Golden(args) => args.run(),
        Command::Run(args) => args.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(error.downcast_ref::<Error>().map_or(1, Error::exit_code))
    })
}

fn run_fit(args: FitArgs) -> anyhow::Result<ExitCode> {
    let mut recipe = args.recipe.as_deref().map_or_else(|| Ok(Recipe::default()), Recipe::read)?;
    if let (Some(epochs), Some(stage)) = (args.epochs, recipe.stages.last_mut()) {
        stage.epochs = epochs.into();
    }
    recipe.seed = args.seed.map_or(recipe.seed, u64::from);

    let signals = commands::Signals::listen()?;
    let device = device::select(args.device).map_err(Error::from)?;
    let out = args.out.clone();
    let request = Request {
        data: args.data,
        dev: args.dev,
        hold_out: args.hold_out,
        encoder: args.encoder,
        out: args.out,
        recipe,
        resume: args.resume,
        checkpoint_every: Duration::from_secs(args.checkpoint_seconds),
        device,
    };
    let outcome = fit(&request, &signals.asked)?;
    if let Some(best) = &outcome.best {
        let table = best.dev.table();
        print(format_args!("best: stage {} epoch {}, development documents\n{table}", best.stage, best.epoch))?;
    }
    print(out.display())?;
    if outcome.interrupted {
        eprintln!("stopped; the same command with --resume goes on");
        return Ok(signals.exit_code());
    }
    Ok(commands::told_left_out(&outcome.left_out))
}

fn run_eval(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let options = Options { device: args.device, ..Options::default() };
    let scope = match &args.hold_out {
        Some(list) => Scope::Listed(HoldOut::read(list)?),
        None if args.held_out => Scope::HeldOut,
        None => Scope::All,
    };
    let evaluation = evaluate(&args.model, &args.data, &scope, &options)?;
    let training = evaluation.training(&args.trained_on)?;
    let champion = match &args.champion {
        Some(directory) => Some(evaluate(directory, &args.data, &scope, &options)?),
        None => None,
    };
    let report = evaluation.report(champion.as_ref(), &training)?;
    if let Some(folder) = &args.report {
        report.write(folder, &evaluation.epochs)?;
        eprintln!("{}", folder.join("report.md").display());
    }
    if args.json {
        let mut json = serde_json::to_value(&report)?;
        json["left_out"] = serde_json::to_value(&evaluation.left_out)?;
        print(format_args!("{json:#}"))?;
    } else {
        let model = &report.model;
        print(format_args!("{} {}, {} documents, strict, per cent\n", model.name, model.version, report.documents))?;
        print(report.metrics.strict.table().trim_end())?;
        if let Some(champion) = &report.champion {
            print(format_args!("\n{}", champion.verdict()))?;
        }
    }
    Ok(commands::told_left_out(&evaluation.left_out))
}
