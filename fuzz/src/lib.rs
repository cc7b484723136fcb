//! What must hold for any bytes that litflow's decoders are given. One function a fuzz target, which panics where
//! it does not hold; `tests/fuzz.rs` and `training/tests/fuzz.rs` call the same functions with the committed inputs.

pub mod articles;
pub mod avro;
pub mod labels;
mod memory;
pub mod model;
