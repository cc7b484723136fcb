//! `pytorch_model.bin`: not read yet.

use super::{Error, Weights};
use std::path::Path;

/// Refuses the file.
pub fn read_weights(_bytes: &[u8], file: &Path) -> Result<Weights, Error> {
    Err(Error::file(file, "is not read yet: convert it to model.safetensors"))
}
