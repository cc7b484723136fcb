//! Files and folders that are there whole or not at all.

use crate::error::Error;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// `FILE.new`: where a file is written until it is whole.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    file.with_file_name(name)
}

/// A file that is written in parts, beside the one whose place it takes when it is whole. Dropped before, it is removed.
pub struct Successor {
    opened: File,
    new: TempPath,
    file: PathBuf,
}

impl Successor {
    /// Opens it. Where `file` is a link, what it leads to is replaced.
    pub fn create(file: &Path) -> Result<Self, Error> {
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let new = beside(&file);
        let opened = File::create(&new).map_err(|error| Error::io(&new, error))?;
        let new = TempPath::try_from_path(&new).map_err(|error| Error::io(&new, error))?;
        Ok(Self { opened, new, file })
    }

    /// Where to write.
    pub fn writer(&self) -> Result<File, Error> {
        self.opened.try_clone().map_err(|error| Error::io(&self.new, error))
    }

    /// Takes the place of the file before.
    pub fn replace(self) -> Result<(), Error> {
        self.opened.sync_all().map_err(|error| Error::io(&self.new, error))?;
        let renamed = self.new.persist(&self.file).map_err(|error| error.error);
        renamed.and_then(|()| sync_entry(&self.file)).map_err(|error| Error::io(&self.file, error))
    }
}

/// Writes a file whole or not at all.
pub fn write_whole(file: &Path, content: &[u8]) -> Result<(), Error> {
    let new = beside(file);
    let written = File::create(&new).and_then(|mut opened| opened.write_all(content).and_then(|()| opened.sync_all()));
    written.map_err(|error| Error::io(&new, error))?;
    fs::rename(&new, file).and_then(|()| sync_entry(file)).map_err(|error| Error::io(file, error))
}

/// Writes a file whole, unless there is one: then it stays as it is, and the answer is false.
pub fn write_new(file: &Path, content: &[u8]) -> Result<bool, Error> {
    let folder = folder_of(file);
    // As any new file has them: the umask is taken off.
    let new = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    let mut new = new.map_err(|error| Error::io(folder, error))?;
    let written = new.write_all(content).and_then(|()| new.as_file().sync_all());
    written.map_err(|error| Error::io(file, error))?;
    match new.persist_noclobber(file) {
        Ok(_) => sync_entry(file).map(|()| true).map_err(|error| Error::io(file, error)),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io(file, error.error)),
    }
}

/// Waits until the folder of a new name has it on the disk.
fn sync_entry(file: &Path) -> std::io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Moves a folder to where there is none. Its files are on the disk before it has its new name.
pub fn move_whole(from: &Path, to: &Path) -> Result<(), Error> {
    sync(from)?;
    fs::rename(from, to).and_then(|()| sync_entry(to)).map_err(|error| Error::io(to, error))
}

/// Removes a folder, if it is there.
pub fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, error)),
        _ => Ok(()),
    }
}

/// Waits until a folder and all in it are on the disk, as a rename that replaces them must.
pub fn sync(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let entry = entry.map_err(|error| Error::io(folder, error))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(|error| Error::io(folder, error))?);
        if kind.is_dir() {
            sync(&path)?;
        } else if kind.is_file() {
            File::open(&path).and_then(|file| file.sync_all()).map_err(|error| Error::io(&path, error))?;
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| Error::io(folder, error))
}
