//! What docs/guarantees.md says: each test that it names is there.

#![allow(clippy::unwrap_used)] // a helper of a test may fail like the test

use std::path::Path;

#[test]
fn each_fault_has_the_tests_that_are_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let table = text.split("## What breaks, and what happens").nth(1).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells[0].parse::<u32>().is_ok())
        .collect();
    let numbers: Vec<usize> = rows.iter().map(|cells| cells[0].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=32).collect::<Vec<_>>());
    for cells in rows.into_iter().filter(|cells| cells[2] != "not shown yet") {
        let tests: Vec<&str> = cells[3].split(", ").map(|test| test.trim_matches('`')).collect();
        for test in tests {
            let (file, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{cells:?} names no test"));
            let path = match file.split_once('/') {
                Some((folder, file)) => root.join(folder).join("tests").join(file),
                None => root.join("tests").join(file),
            };
            let code = std::fs::read_to_string(path.with_extension("rs")).unwrap_or_else(|e| panic!("{test}: {e}"));
            assert!(code.contains(&format!("#[test]\nfn {name}() {{")), "there is no {test}");
        }
    }
}
