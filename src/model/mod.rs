//! Encoders and heads.

pub mod crf;
