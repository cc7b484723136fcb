//! Text as it is: sentence bounds and offsets over passages that are never altered.

pub mod offsets;
pub mod sentences;

pub use offsets::CodePoints;
pub use sentences::sentences;
