//! Weights files: named tensors, checked as they are taken.
//!
//! Names are brought to one spelling when a file is read, as Transformers does: without the `bert.` prefix,
//! and `weight`/`bias` where older files say `gamma`/`beta`. What the model does not use (a pooler, language
//! model heads, buffers) is never looked at.

use super::Error;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The tensors of one weights file.
pub struct Weights {
    file: PathBuf,
    target: (Kind, Device),
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// The tensors in the bytes of a safetensors file; `file` is named in errors.
    pub fn from_safetensors(bytes: &[u8], file: &Path) -> Result<Self, Error> {
        let archive = SafeTensors::deserialize(bytes)
            .map_err(|e| Error::file(file, format!("not a whole safetensors file: {e}")))?;
        let mut tensors = Vec::with_capacity(archive.len());
        for (name, view) in archive.iter() {
            let kind = kind_of(view.dtype())
                .ok_or_else(|| Error::tensor(file, name, format!("has the unsupported type {:?}", view.dtype())))?;
            let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
            tensors.push((name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, kind)?));
        }
        Self::from_tensors(tensors, file)
    }

    /// Brings the names to one spelling; two tensors that end up with one name are an error.
    pub(super) fn from_tensors(named: Vec<(String, Tensor)>, file: &Path) -> Result<Self, Error> {
        let mut tensors = BTreeMap::new();
        for (stored_name, tensor) in named {
            let name = canonical_name(&stored_name);
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(Error::tensor(file, &name, "is there twice, under two spellings of its name"));
            }
        }
        Ok(Self { file: file.to_owned(), target: (Kind::Float, Device::Cpu), tensors })
    }

    /// Hands the tensors out in this kind on this device; fp32 on the CPU where it is not called.
    pub fn on(mut self, device: Device, kind: Kind) -> Self {
        self.target = (kind, device);
        self
    }

    /// The file that the tensors came from, for messages.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether there is such a tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of this name, in the target's kind and device. An error where it is missing, of another shape, not of a floating
    /// kind, or where it holds a NaN or an infinity.
    pub fn float(&self, name: &str, shape: &[i64]) -> Result<Tensor, Error> {
        let error = |reason: String| Error::tensor(&self.file, name, reason);
        let tensor = self.tensors.get(name).ok_or_else(|| error("is missing".into()))?;
        if tensor.size() != shape {
            return Err(error(format!("has the shape {:?}, config.json asks for {shape:?}", tensor.size())));
        }
        if !matches!(tensor.kind(), Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double) {
            return Err(error(format!("holds {:?}, not floating-point numbers", tensor.kind())));
        }
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(error("holds NaN or infinite values".into()));
        }
        let (kind, device) = self.target;
        Ok(tensor.f_to_device(device)?.f_to_kind(kind)?.f_contiguous()?)
    }
}

/// The one spelling of a tensor's name.
fn canonical_name(stored: &str) -> String {
    let name = stored.strip_prefix("bert.").unwrap_or(stored);
    for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(module) = name.strip_suffix(old) {
            return format!("{module}{new}");
        }
    }
    name.to_owned()
}

/// Writes a safetensors file that Transformers reads, floating tensors in `kind`, the others as they are.
pub fn write_safetensors(file: &Path, tensors: &[(String, Tensor)], kind: Kind) -> Result<(), Error> {
    let mut stored: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?;
        let tensor = if tensor.is_floating_point() { tensor.f_to_kind(kind)? } else { tensor };
        let tensor = tensor.f_contiguous()?;
        let dtype = dtype_of(tensor.kind())
            .ok_or_else(|| Error::tensor(file, name, format!("of kind {:?} cannot be stored", tensor.kind())))?;
        let elements = tensor.numel();
        let mut bytes = vec![0u8; elements * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, elements)?;
        stored.push((name, dtype, tensor.size().iter().map(|&size| size as usize).collect(), bytes));
    }
    let mut views = Vec::with_capacity(stored.len());
    for (name, dtype, shape, bytes) in &stored {
        let view = TensorView::new(*dtype, shape.clone(), bytes)
            .map_err(|e| Error::tensor(file, name, format!("cannot be stored: {e}")))?;
        views.push((*name, view));
    }
    // Transformers refuses files that do not say this.
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(file, e.to_string()))?;
    std::fs::write(file, bytes).map_err(|e| Error::io(file, e))
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(tensors: &[(&str, Tensor)], kind: Kind) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        let named: Vec<_> = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())).collect();
        write_safetensors(&file, &named, kind).unwrap();
        std::fs::read(file).unwrap()
    }

    fn weights(tensors: &[(&str, Tensor)]) -> Result<Weights, Error> {
        Weights::from_safetensors(&written(tensors, Kind::Float), Path::new("model.safetensors"))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let x = Tensor::randn([3, 5], (Kind::Float, Device::Cpu));
        // A transposed view is not contiguous.
        let read = weights(&[("x", x.tr())]).unwrap().float("x", &[5, 3]).unwrap();
        assert_eq!(read, x.tr());
        let bytes = written(&[("x", x.shallow_clone())], Kind::BFloat16);
        let read = Weights::from_safetensors(&bytes, Path::new("m")).unwrap().float("x", &[3, 5]).unwrap();
        assert_eq!(read, x.to_kind(Kind::BFloat16).to_kind(Kind::Float));
    }

    #[test]
    fn every_spelling_of_a_name_is_known() {
        for (stored, name) in [
            ("bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
            ("embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"),
            ("bert.encoder.layer.0.output.dense.weight", "encoder.layer.0.output.dense.weight"),
            ("classifier.weight", "classifier.weight"),
        ] {
            assert_eq!(canonical_name(stored), name);
        }
        let one = Tensor::ones([1], (Kind::Float, Device::Cpu));
        let twice = weights(&[("bert.x.gamma", one.shallow_clone()), ("x.weight", one)]);
        assert!(twice.err().unwrap().to_string().contains("twice"));
    }

    #[test]
    fn a_tensor_that_is_not_as_asked_is_refused_by_name() {
        let options = (Kind::Float, Device::Cpu);
        let weights = weights(&[
            ("short", Tensor::zeros([2, 3], options)),
            ("nan", Tensor::from_slice(&[0.0f32, f32::NAN])),
            ("infinite", Tensor::full([2], f64::INFINITY, options)),
            ("whole", Tensor::zeros([2], (Kind::Int64, Device::Cpu))),
        ])
        .unwrap();
        for (name, shape, said) in [
            ("absent", vec![2], "is missing"),
            ("short", vec![3, 2], "[2, 3]"),
            ("nan", vec![2], "NaN"),
            ("infinite", vec![2], "infinite"),
            ("whole", vec![2], "Int64"),
        ] {
            let message = weights.float(name, &shape).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains(name) && message.contains("model.safetensors"));
        }
    }

    #[test]
    fn a_cut_or_damaged_file_is_an_error() {
        let bytes = written(&[("x", Tensor::ones([40], (Kind::Float, Device::Cpu)))], Kind::Float);
        for cut in [0, 7, 8, 20, bytes.len() - 1] {
            let message = Weights::from_safetensors(&bytes[..cut], Path::new("w")).err().unwrap().to_string();
            assert!(message.contains("not a whole safetensors file"), "{message}");
        }
        for at in 0..bytes.len().min(120) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            // Either refused here, or found by `float`, or a changed number: never a panic.
            if let Ok(weights) = Weights::from_safetensors(&damaged, Path::new("w")) {
                let _ = weights.float("x", &[40]);
            }
        }
    }
}
