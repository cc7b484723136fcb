//! Whether a model may be loaded beside the one in force: an allocation that fails in the middle of it would not
//! be an error, but the end of the process by the kernel.

use super::load::Error;
use crate::model::directory;
use std::path::Path;

/// What loading takes at its peak, in sizes of the files: their bytes, the tensors, and those as the kernels want
/// them.
const PEAK: u64 = 3;
const MB: u64 = 1 << 20;

/// Refuses a model that may take more memory than is free. Where that is not known, it is let through.
pub fn check(folder: &Path) -> Result<(), Error> {
    let needed = PEAK * directory::used_bytes(folder);
    match available() {
        Some(available) if available < needed => {
            Err(Error::Memory { needed: needed.div_ceil(MB), available: available / MB })
        }
        _ => Ok(()),
    }
}

/// Bytes that this process may still take: the least of what the machine and its control group (v2) have.
fn available() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(file).ok();
    let group = |file: &str| read(&format!("/sys/fs/cgroup/{file}"));
    let of_machine = read("/proc/meminfo").and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib << 10);
    let of_group = || {
        let limit: u64 = group("memory.max")?.trim().parse().ok()?; // "max" is no limit
        let used: u64 = group("memory.current")?.trim().parse().ok()?;
        // Cached files are given back when memory is needed.
        let cached = group("memory.stat").and_then(|text| field(&text, "inactive_file")).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(cached)))
    };
    of_machine.into_iter().chain(of_group()).min()
}

/// The number behind a name in a file of lines.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_read_where_the_kernel_tells() {
        let meminfo = "MemTotal:       24576000 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(field(meminfo, "MemAvailable:"), Some(1024));
        assert_eq!(field("inactive_file_x 3\ninactive_file 7\n", "inactive_file"), Some(7));
        assert_eq!(field(meminfo, "MemFree:"), None);
        assert!(available().is_none_or(|bytes| bytes > MB));
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path()).unwrap();
        let Some(free) = available() else { return };
        // As large as it claims, without a byte on the disk.
        let weights = std::fs::File::create(folder.path().join(directory::SAFETENSORS)).unwrap();
        weights.set_len(free).unwrap();
        assert!(matches!(check(folder.path()), Err(Error::Memory { .. })));
    }
}
