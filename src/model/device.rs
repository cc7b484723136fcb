//! Where a model runs and in which precision.
//!
//! The binary is linked against libtorch for the CPU. Where `libtorch_cuda.so` of the same build is found,
//! it is opened at run time, before the first tensor; it registers itself with libtorch as it is loaded.

use super::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;
use tch::{Device, Kind};

/// Names the folder that holds `libtorch_cuda.so` and the CUDA libraries beside it.
pub const CUDA_FOLDER_VARIABLE: &str = "LITFLOW_LIBTORCH_CUDA";

/// How a model is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `auto` (the first GPU where there is one, else the CPU), `cpu`, or `cuda:N`.
    pub device: DeviceChoice,
    /// `auto` (bf16 where the device computes it natively, else fp32), `fp32`, or `bf16`.
    pub precision: Precision,
}

/// The device asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU, even where there is a GPU.
    Cpu,
    /// This GPU, or an error.
    Cuda(usize),
}

/// The precision asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 where the device computes it natively, else fp32.
    #[default]
    Auto,
    /// Single precision.
    Fp32,
    /// bfloat16 in the linear layers, single precision in sums and norms.
    Bf16,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("`{text}` is not a device: use auto, cpu, or cuda:N")),
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "fp32" => Ok(Self::Fp32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("`{text}` is not a precision: use auto, fp32, or bf16")),
        }
    }
}

/// The device to use. Call it before the first tensor of the process is made: libtorch looks for CUDA once.
pub fn select(choice: DeviceChoice) -> Result<Device, Error> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(index) => match cuda_devices() {
            Ok(count) if index < count => Ok(Device::Cuda(index)),
            Ok(count) => Err(Error::Device(format!("there is no GPU cuda:{index}: {count} found, counted from 0"))),
            Err(reason) => Err(Error::Device(format!("cannot use cuda:{index}: {reason}"))),
        },
        DeviceChoice::Auto => match cuda_devices() {
            Ok(count) => {
                tracing::info!(device = "cuda:0", count, "a GPU was found");
                Ok(Device::Cuda(0))
            }
            Err(reason) => {
                tracing::info!(device = "cpu", reason, "no GPU can be used");
                Ok(Device::Cpu)
            }
        },
    }
}

/// The kind that linear layers compute in.
pub fn compute_kind(precision: Precision, device: Device) -> Kind {
    match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Auto if device == Device::Cpu && !cpu_has_bf16() => Kind::Float,
        Precision::Auto => Kind::BFloat16,
        Precision::Bf16 => {
            if device == Device::Cpu && !cpu_has_bf16() {
                tracing::warn!("this CPU has no fast bf16 instructions: `precision = bf16` is slower than fp32 here");
            }
            Kind::BFloat16
        }
    }
}

/// Whether the CPU multiplies bf16 faster than fp32: with AMX, or with AVX512-BF16 other than Intel's. Intel's
/// AVX512-BF16 without AMX (masked by some hypervisors) was measured at half the rate of fp32.
fn cpu_has_bf16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const AMX_BF16: u32 = 1 << 22; // leaf 7, EDX
    const INTEL: [&[u8; 4]; 3] = [b"Genu", b"ineI", b"ntel"]; // leaf 0, EBX, EDX, ECX
    let vendor = __cpuid(0);
    let is_intel = [vendor.ebx, vendor.edx, vendor.ecx] == INTEL.map(|part| u32::from_le_bytes(*part));
    let has_amx = vendor.eax >= 7 && __cpuid_count(7, 0).edx & AMX_BF16 != 0;
    has_amx || (is_x86_feature_detected!("avx512bf16") && !is_intel)
}

/// How many GPUs there are, at least one, or why none can be used.
fn cuda_devices() -> Result<usize, String> {
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    OPENED.get_or_init(open_cuda).clone()?;
    if !tch::Cuda::is_available() {
        return Err("libtorch_cuda.so was opened, but there is no NVIDIA driver or no GPU".into());
    }
    Ok(tch::Cuda::device_count().max(0) as usize)
}

/// Opens libtorch's CUDA libraries for the whole process.
fn open_cuda() -> Result<(), String> {
    const LIBRARY: &str = "libtorch_cuda.so";
    let named = std::env::var_os(CUDA_FOLDER_VARIABLE).map(PathBuf::from);
    let folders = cuda_folders(named, libtorch_folder(), std::env::var_os("LD_LIBRARY_PATH"));
    let folder = folders.iter().find(|folder| folder.join(LIBRARY).is_file()).ok_or_else(|| {
        let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        format!(
            "{LIBRARY} was not found in {}: `make setup CUDA=1` installs it, {CUDA_FOLDER_VARIABLE} names another \
             folder with it",
            folders.join(", ")
        )
    })?;
    for name in ["libc10_cuda.so", LIBRARY] {
        let file = folder.join(name);
        let flags = libc::RTLD_NOW | libc::RTLD_GLOBAL;
        // SAFETY: opening runs the initialisers of libtorch's own libraries, which register themselves with
        // the libtorch that is loaded; `select` is documented to come before the first tensor.
        let library = unsafe { libloading::os::unix::Library::open(Some(&file), flags) }.map_err(|e| {
            // The error itself only says that dlopen failed; its source names the library that is missing.
            let reason = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            format!("{} cannot be opened: {reason}", file.display())
        })?;
        std::mem::forget(library); // libtorch keeps pointers into it: it is never unloaded
    }
    Ok(())
}

/// Where CUDA's libraries may lie, the first first: the folder that the user names, else the libtorch in use, what
/// `make setup CUDA=1` puts beside it, and the search path.
fn cuda_folders(named: Option<PathBuf>, libtorch: Option<PathBuf>, search_path: Option<OsString>) -> Vec<PathBuf> {
    // Of `.libtorch/torch/lib` it is `.libtorch/cuda/lib`.
    let beside = libtorch.as_deref().and_then(|folder| Some(folder.parent()?.parent()?.join("cuda/lib")));
    let search_path = search_path.unwrap_or_default();
    let searched = std::env::split_paths(&search_path).filter(|folder| folder.is_absolute());
    named.into_iter().chain(libtorch).chain(beside).chain(searched).collect()
}

/// The folder of the `libtorch_cpu.so` that this process runs.
fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let file = PathBuf::from(&line[line.find('/')?..]);
    Some(file.parent()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_one_spelling() {
        for (text, choice) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda:3", DeviceChoice::Cuda(3))]
        {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["gpu", "cuda:", "cuda:-1", "CPU", ""] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn options_are_read_by_their_documented_names() {
        let options: Options = serde_json::from_str(r#"{"device": "cuda:1", "precision": "bf16"}"#).unwrap();
        assert_eq!(options, Options { device: DeviceChoice::Cuda(1), precision: Precision::Bf16 });
        assert_eq!(serde_json::from_str::<Options>("{}").unwrap(), Options::default());
        assert!(serde_json::from_str::<Options>(r#"{"devices": "cpu"}"#).is_err());
    }

    #[test]
    fn a_gpu_that_is_not_there_is_a_clear_error_and_auto_falls_back() {
        if cuda_devices().is_ok() {
            println!("skipped: this machine has a GPU");
            return;
        }
        let message = select(DeviceChoice::Cuda(0)).unwrap_err().to_string();
        assert!(message.contains("cuda:0") && message.contains("/cuda/lib"), "{message}");
        assert_eq!(select(DeviceChoice::Auto).unwrap(), Device::Cpu);
    }

    #[test]
    fn cuda_is_looked_for_where_setup_puts_it() {
        let libtorch = PathBuf::from("/clone/.libtorch/torch/lib");
        let search_path = Some("/usr/lib:relative:".into());
        let found = cuda_folders(Some("/named".into()), Some(libtorch.clone()), search_path);
        let expected = ["/named", "/clone/.libtorch/torch/lib", "/clone/.libtorch/cuda/lib", "/usr/lib"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(cuda_folders(None, Some(libtorch), None).len(), 2);
        assert_eq!(cuda_folders(None, None, None), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_libtorch_in_use_is_found() {
        let _ = tch::Tensor::from_slice(&[1.0f32]);
        assert!(libtorch_folder().unwrap().join("libtorch_cpu.so").is_file());
    }
}
