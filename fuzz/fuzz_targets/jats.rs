#![no_main]
#![allow(missing_docs)] // see litflow_fuzz

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| litflow_fuzz::articles::jats(bytes));
