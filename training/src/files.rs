//! Files and folders that are there whole or not at all.

use crate::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

/// Writes a file whole or not at all.
pub fn write_whole(file: &Path, content: &[u8]) -> Result<(), Error> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let written = File::create(&new).and_then(|mut opened| opened.write_all(content).and_then(|()| opened.sync_all()));
    written.map_err(|error| Error::io(&new, error))?;
    fs::rename(&new, file).map_err(|error| Error::io(file, error))
}

/// Removes a folder, if it is there.
pub fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, error)),
        _ => Ok(()),
    }
}

/// Waits until a folder's entries and the files among them are on the disk, as a rename that replaces them must.
pub fn sync(folder: &Path) -> Result<(), Error> {
    let sync = |path: &Path| File::open(path).and_then(|opened| opened.sync_all());
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        if path.is_file() {
            sync(&path).map_err(|error| Error::io(&path, error))?;
        }
    }
    sync(folder).map_err(|error| Error::io(folder, error))
}
