//! `pytorch_model.bin`: a state dict as `torch.save` writes it.
//!
//! Since PyTorch 1.6 the file is a zip archive: `…/data.pkl` names the tensors, `…/data/KEY` holds their
//! elements. Before, it was a sequence of pickles followed by the elements; BioBERT's first upload is of that
//! time. Both are read from memory by the restricted [`Pickle`] reader.

use super::pickle::{Pickle, Storage, Value};
use super::{Error, Weights};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::Path;
use tch::Tensor;
use zip::{CompressionMethod, ZipArchive};

/// A state dict of thousands of tensors is pickled in some hundred kilobytes.
const LARGEST_PICKLE: u64 = 16 << 20;
/// The first value of a file from before PyTorch 1.6.
const LEGACY_MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const LEGACY_PROTOCOL: i64 = 1001;

/// The tensors in the bytes of `file`.
pub fn read_weights(bytes: &[u8], file: &Path) -> Result<Weights, Error> {
    if bytes.starts_with(b"PK") {
        read_zip(bytes, file)
    } else if bytes.starts_with(&[0x80, 0x02]) {
        read_legacy(bytes, file)
    } else {
        Err(Error::file(file, "not a file that torch.save wrote"))
    }
}

fn read_zip(bytes: &[u8], file: &Path) -> Result<Weights, Error> {
    let error = |reason: String| Error::file(file, reason);
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|e| error(format!("not a whole zip archive: {e}")))?;
    let pickles: Vec<&str> = archive.file_names().filter(|name| name.ends_with("/data.pkl")).collect();
    let [pickle_name] = pickles[..] else {
        return Err(error("a zip archive, but not one that torch.save wrote: it has no single data.pkl".into()));
    };
    let pickle_name = pickle_name.to_owned();
    let folder = pickle_name.trim_end_matches("data.pkl").to_owned();
    let byte_order = read_entry(&mut archive, &format!("{folder}byteorder"), 16).unwrap_or_default();
    if byte_order == b"big" {
        return Err(error("its numbers are big-endian: save it again on a little-endian machine".into()));
    }

    let pickled = read_entry(&mut archive, &pickle_name, LARGEST_PICKLE).map_err(error)?;
    let pickle = Pickle::read(&pickled).map_err(error)?;
    // Entries may overlap in a hostile archive; an honest one has no more elements than bytes.
    let mut left = bytes.len() as u64;
    named_tensors(&pickle, file, |storage| {
        let entry = format!("{folder}data/{}", storage.key);
        let elements = read_entry(&mut archive, &entry, left)?;
        left -= elements.len() as u64;
        storage_tensor(storage, &elements)
    })
}

/// An entry's bytes. PyTorch never compresses, so no entry can grow beyond the file.
fn read_entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, limit: u64) -> Result<Vec<u8>, String> {
    let entry = archive.by_name(name).map_err(|e| format!("{name}: {e}"))?;
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!("{name} is compressed, which torch.save never does"));
    }
    if entry.size() > limit {
        return Err(format!("{name} says that it has {} bytes, more than can be", entry.size()));
    }
    // To the end and one further, where the archive's checksum is compared.
    let mut contents = Vec::new();
    entry.take(limit + 1).read_to_end(&mut contents).map_err(|e| format!("{name}: {e}"))?;
    Ok(contents)
}

/// Pickles one after the other: magic, protocol, machine, state dict, storage keys; then each storage in the
/// order of the keys, its number of elements (int64) before it.
fn read_legacy(bytes: &[u8], file: &Path) -> Result<Weights, Error> {
    let error = |reason: String| Error::file(file, reason);
    let mut rest = bytes;
    let mut next_pickle = || -> Result<Pickle<'_>, Error> {
        let pickle = Pickle::read(&rest[..rest.len().min(LARGEST_PICKLE as usize)]).map_err(error)?;
        rest = &rest[pickle.consumed..];
        Ok(pickle)
    };
    let (magic, protocol) = (next_pickle()?, next_pickle()?);
    if magic.root() != &Value::LongInt(LEGACY_MAGIC) || protocol.root() != &Value::Int(LEGACY_PROTOCOL) {
        return Err(error("a pickle, but not one that torch.save wrote".into()));
    }
    let (_machine, state, keys) = (next_pickle()?, next_pickle()?, next_pickle()?);
    let Value::List(keys_in_order) = keys.root() else { return Err(error("it has no list of storages".into())) };

    let kinds: HashMap<&str, Storage<'_>> = state.storages().map(|storage| (storage.key, storage)).collect();
    let mut stored: HashMap<&str, &[u8]> = HashMap::new();
    for &key in keys_in_order {
        let Value::Text(key) = keys.value(key) else { return Err(error("a storage's key that is no string".into())) };
        let Some(storage) = kinds.get(key) else { return Err(error(format!("no tensor uses storage `{key}`"))) };
        let cut = || error(format!("it ends within storage `{key}`: copy the file again, whole"));
        let (count, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        if u64::from_le_bytes(*count) != storage.elements as u64 {
            return Err(error(format!("storage `{key}` is not of the size that its tensors say")));
        }
        let size = storage.elements.checked_mul(storage.kind.elt_size_in_bytes()).ok_or_else(cut)?;
        let (elements, after) = after.split_at_checked(size).ok_or_else(cut)?;
        stored.insert(key, elements);
        rest = after;
    }
    named_tensors(&state, file, |storage| match stored.get(storage.key) {
        Some(elements) => storage_tensor(storage, elements),
        None => Err(format!("storage `{}` is missing", storage.key)),
    })
}

/// The state dict's tensors; `read` gives each storage as a flat tensor and is asked once for each key.
fn named_tensors(
    pickle: &Pickle<'_>,
    file: &Path,
    mut read: impl FnMut(&Storage<'_>) -> Result<Tensor, String>,
) -> Result<Weights, Error> {
    let Value::Dict(pairs) = pickle.root() else {
        return Err(Error::file(file, "it holds something else than a state dict"));
    };
    let mut flat: HashMap<&str, (Storage<'_>, Tensor)> = HashMap::new();
    let mut tensors = Vec::new();
    for &(key, value) in pairs {
        let (Value::Text(name), Value::Tensor(view)) = (pickle.value(key), pickle.value(value)) else { continue };
        let Value::Storage(storage) = pickle.value(view.storage) else { continue };
        if !flat.contains_key(storage.key) {
            let tensor =
                read(storage).map_err(|reason| Error::tensor(file, name, format!("cannot be read: {reason}")))?;
            flat.insert(storage.key, (*storage, tensor));
        }
        let (known, tensor) = &flat[storage.key];
        if known != storage {
            return Err(Error::tensor(file, name, "contradicts another tensor about the storage that they share"));
        }
        tensors.push(((*name).to_owned(), tensor.f_as_strided(&view.size[..], &view.stride[..], view.offset)?));
    }
    Weights::from_tensors(tensors, file)
}

/// A storage as a tensor of one dimension.
fn storage_tensor(storage: &Storage<'_>, bytes: &[u8]) -> Result<Tensor, String> {
    let expected = storage.elements.checked_mul(storage.kind.elt_size_in_bytes());
    if expected != Some(bytes.len()) {
        return Err(format!("storage `{}` has {} bytes instead of {expected:?}", storage.key, bytes.len()));
    }
    Tensor::f_from_data_size(bytes, &[storage.elements as i64], storage.kind).map_err(|e| e.to_string())
}
