//! Where bytes come from: files and stdin, plain or gzip, and the files under a directory.

use super::format::Format;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of an input is looked at to tell its format.
const HEAD: u64 = 64 << 10;
const BUFFER: usize = 256 << 10;

/// An opened input, decompressed.
pub struct Input {
    /// Its first bytes, at most 64 KiB; `reader` begins with them again.
    pub head: Vec<u8>,
    /// All of it.
    pub reader: Box<dyn BufRead + Send>,
}

impl Input {
    /// An input that is no file.
    pub fn new(mut reader: impl BufRead + Send + 'static) -> io::Result<Self> {
        let mut head = Vec::new();
        match (&mut reader).take(HEAD).read_to_end(&mut head) {
            Ok(_) => Ok(Self { reader: Box::new(Cursor::new(head.clone()).chain(reader)), head }),
            // A small file that was cut off: what could be decompressed is read, the error comes after it.
            Err(error) if !head.is_empty() => {
                let cut = BufReader::new(Cut { kind: error.kind(), reason: error.to_string() });
                Ok(Self { reader: Box::new(Cursor::new(head.clone()).chain(cut)), head })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it begins like XML.
    pub fn is_xml(&self) -> bool {
        let head = self.head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.head);
        head.trim_ascii_start().starts_with(b"<")
    }
}

/// Opens a file, or stdin for `-`. gzip, also of several members, is known by its first bytes.
/// `consumed` counts the bytes as they are stored.
pub fn open(path: &Path, consumed: Arc<AtomicU64>) -> io::Result<Input> {
    let source: Box<dyn Read + Send> = if is_stdin(path) { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    let mut stored = BufReader::with_capacity(BUFFER, Counted { source, consumed });
    let magic = read_head(&mut stored, 2)?;
    let is_gzip = magic == b"\x1F\x8B";
    let stored = Cursor::new(magic).chain(stored);
    let reader: Box<dyn BufRead + Send> = if is_gzip {
        Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(stored)))
    } else {
        Box::new(stored)
    };
    Input::new(reader)
}

/// Whether a path stands for stdin.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn read_head(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(length).read_to_end(&mut head)?;
    Ok(head)
}

/// Where an input could not be read any further.
struct Cut {
    kind: io::ErrorKind,
    reason: String,
}

impl Read for Cut {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(self.kind, self.reason.clone()))
    }
}

struct Counted<R> {
    source: R,
    consumed: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.consumed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The files that a path stands for: itself, or, for a directory, the files under it whose names are
/// those of articles (`all`: every file), sorted by path. Hidden files and folders are left out, and
/// links to folders are not followed.
pub fn expand(path: &Path, all: bool) -> io::Result<Vec<PathBuf>> {
    if is_stdin(path) || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut folders, mut files) = (vec![path.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.is_file() && (all || Format::is_input_name(&path)) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
