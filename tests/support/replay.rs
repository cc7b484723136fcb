//! The committed inputs of a fuzz target: its seeds, and what once broke it.

use std::path::Path;

/// Calls `check` with each; it panics where something does not hold.
pub fn replay(target: &str, check: fn(&[u8])) {
    // The package may be the workspace's root or one below it.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if root.join("fuzz").is_dir() { root } else { root.parent().unwrap() };
    let mut inputs = 0;
    for folder in ["fuzz/seeds", "tests/fixtures/fuzz"] {
        let Ok(files) = std::fs::read_dir(root.join(folder).join(target)) else { continue };
        for file in files.map(|file| file.unwrap().path()) {
            println!("{}", file.display()); // shown where the check panics
            check(&std::fs::read(&file).unwrap());
            inputs += 1;
        }
    }
    assert!(inputs > 0, "no seeds of {target}");
}
