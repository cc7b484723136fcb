//! The work folder: what a run has done so far, and the runs that have ended.
//!
//! | in the folder | |
//! |---|---|
//! | `hold-out.txt` | the documents that no training sees, chosen once |
//! | `quarantine.jsonl` | the labels that the last snapshot left out |
//! | `current/snapshot/` | the labels of the run that is under way |
//! | `current/hold-out.txt` | the list that it keeps to |
//! | `current/run.json` | what was decided: that it trains, and how; before that there is nothing to go on from |
//! | `current/model/` | what [`crate::fit`] leaves, its checkpoint or a model |
//! | `current/report/` | the evaluation |
//! | `current/candidate/` | the version as it is published, whole as soon as it is there |
//! | `VERSION/` | `current/` without `model/`, when the run has ended; `mlflow.txt` in it is the id of its mirror |

use crate::checkpoint;
use crate::error::Error;
use crate::files::{move_whole, remove, write_whole};
use crate::recipe::Recipe;
use crate::snapshot::QUARANTINE;
use litflow::model::directory::MANIFEST;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const LOCK: &str = ".lock";
const PLAN: &str = "run.json";
const MIRRORED: &str = "mlflow.txt";

/// What was decided when a run began. A run that goes on goes by this, whatever it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// When, milliseconds since the epoch, UTC.
    pub begun_at: i64,
    /// The reason to train.
    pub why: String,
    /// What training starts from.
    pub start: Start,
    /// How to train; with the version that comes out.
    pub recipe: Recipe,
}

/// What training starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// A pretrained encoder.
    Encoder {
        /// Its directory.
        path: PathBuf,
    },
    /// The champion at that time.
    Champion {
        /// Its version.
        version: String,
        /// Its digest.
        digest: String,
    },
}

/// The work folder, for this process alone.
pub struct Work {
    folder: PathBuf,
    _lock: File,
}

impl Work {
    /// Opens the folder, and makes it where it is missing.
    ///
    /// # Errors
    /// Another run is at work in it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        let folder = &std::path::absolute(folder).map_err(|error| Error::io(folder, error))?;
        let file = folder.join(LOCK);
        let lock = File::create(&file).map_err(|error| Error::io(&file, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Job(format!("{}: another run is at work in this folder", folder.display())))
            }
            Err(TryLockError::Error(error)) => Err(Error::io(&file, error)),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The list of what is held out, where no other is named.
    pub fn hold_out(&self) -> PathBuf {
        self.folder.join("hold-out.txt")
    }

    /// The list of the labels that the last snapshot left out: it outlives a run that finds nothing new.
    pub fn quarantine(&self) -> PathBuf {
        self.folder.join(QUARANTINE)
    }

    /// The folder of the run that is under way.
    pub fn current(&self) -> PathBuf {
        self.folder.join("current")
    }

    /// The list of what is held out of the run under way: a copy, so that nothing changes while it lasts.
    pub fn chosen(&self) -> PathBuf {
        self.current().join("hold-out.txt")
    }

    /// The run's labels.
    pub fn snapshot(&self) -> PathBuf {
        self.current().join("snapshot")
    }

    /// The model that training leaves.
    pub fn model(&self) -> PathBuf {
        self.current().join("model")
    }

    /// The plan of the run that is under way; none where there is none.
    pub fn plan(&self) -> Result<Option<Plan>, Error> {
        plan_of(&self.current())
    }

    /// The ended runs, the oldest first: folder and plan.
    pub fn ended(&self) -> Result<Vec<(PathBuf, Plan)>, Error> {
        let current = self.current();
        let entries = fs::read_dir(&self.folder).map_err(|error| Error::io(&self.folder, error))?;
        let folders = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let mut ended = Vec::new();
        for folder in folders.filter(|folder| *folder != current && folder.is_dir()) {
            match plan_of(&folder) {
                Ok(plan) => ended.extend(plan.map(|plan| (folder, plan))),
                // It has ended, so nothing depends on it any more.
                Err(Error::Job(reason)) => eprintln!("warning: passed over: {reason}"),
                Err(error) => return Err(error),
            }
        }
        ended.sort_by_key(|(_, plan)| plan.begun_at);
        Ok(ended)
    }

    /// Keeps the snapshot's list of what it left out, in the place of the list before.
    pub fn keep_quarantine(&self) -> Result<(), Error> {
        let (from, to) = (self.snapshot().join(QUARANTINE), self.quarantine());
        fs::copy(&from, &to).map_err(|error| Error::io(&to, error))?;
        Ok(())
    }

    /// Begins the run whose snapshot is there, or goes on with it by another plan.
    pub fn begin(&self, plan: &Plan) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(plan).expect("a plan is plain data");
        write_whole(&self.current().join(PLAN), &json)
    }

    /// Removes the run that is under way.
    pub fn clear(&self) -> Result<(), Error> {
        remove(&self.current())
    }

    /// Whether training has ended.
    pub fn is_fitted(&self) -> Result<bool, Error> {
        Ok(self.model().join(MANIFEST).exists() && !self.has_checkpoint()?)
    }

    /// Whether training can go on. A folder of a run that was killed before its first checkpoint is cleared.
    pub fn has_checkpoint(&self) -> Result<bool, Error> {
        let has = checkpoint::is_there(&self.model());
        if !has && !self.model().join(MANIFEST).exists() {
            remove(&self.model())?;
        }
        Ok(has)
    }

    /// Ends the run under way: its folder becomes that of its version. Returns the folder. What training left is in
    /// the candidate.
    pub fn end(&self, version: &str) -> Result<PathBuf, Error> {
        remove(&self.model())?;
        let folder = self.folder.join(version);
        remove(&folder)?;
        move_whole(&self.current(), &folder)?;
        Ok(folder)
    }
}

/// The plan in a run's folder; none where there is none.
fn plan_of(folder: &Path) -> Result<Option<Plan>, Error> {
    let file = folder.join(PLAN);
    let json = match fs::read(&file) {
        Ok(json) => json,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(&file, error)),
    };
    serde_json::from_slice(&json).map(Some).map_err(|error| {
        let (file, folder) = (file.display(), folder.display());
        Error::Job(format!("{file}: not a run of this version: {error}; remove {folder} to be rid of it"))
    })
}

/// Whether an ended run has its mirror.
pub fn is_mirrored(folder: &Path) -> bool {
    folder.join(MIRRORED).exists()
}

/// Notes the id of an ended run's mirror.
pub fn mark_mirrored(folder: &Path, id: &str) -> Result<(), Error> {
    write_whole(&folder.join(MIRRORED), format!("{id}\n").as_bytes())
}

/// Milliseconds since the epoch.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
