//! oneDNN's linear layer with weights laid out beforehand, about twice as fast as libtorch's own.
//!
//! libtorch exports a C ABI for compiled models (`torch/csrc/inductor/aoti_torch/c/shim.h` and
//! `shim_cpu.h`, version 2.11). An `AtenTensorHandle` there is a pointer to an `at::Tensor` on the heap, which
//! is what a `tch::Tensor` owns.

use std::ffi::{CStr, c_char, c_void};
use tch::{TchError, Tensor};

type Handle = *mut c_void;

#[link(name = "torch_cpu")]
unsafe extern "C" {
    fn aoti_torch_call_dispatcher(name: *const c_char, overload: *const c_char, stack: *mut u64) -> i32;
    fn aoti_torch_cpu__linear_pointwise(
        x: Handle,
        weight: Handle,
        bias: *const Handle,
        attribute: *const c_char,
        scalars: *const *const f64,
        scalar_count: i64,
        algorithm: *const *const c_char,
        result: *mut Handle,
    ) -> i32;
}

/// A linear map whose weight lies in oneDNN's own layout. One thread of the caller's computes it.
pub struct PrepackedLinear {
    weight: Tensor, // opaque
    bias: Tensor,   // [out], of the weight's kind
}

impl PrepackedLinear {
    /// Lays out `weight` [out, in]; fp32, or bf16 where the CPU has AVX-512.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Self, TchError> {
        const REORDER: &CStr = c"mkldnn::_reorder_linear_weight";
        let argument = weight.f_contiguous()?.f_detach()?;
        // `_reorder_linear_weight(Tensor weight, int? rows)`: arguments in, result out; 0 is no number of rows.
        let mut stack = [handle(&argument) as u64, 0];
        // SAFETY: the operator takes two arguments and returns one tensor, so two places are enough. The call
        // takes the handle over, therefore `argument` is forgotten.
        let packed = unsafe {
            std::mem::forget(argument);
            let status = aoti_torch_call_dispatcher(REORDER.as_ptr(), c"".as_ptr(), stack.as_mut_ptr());
            take(status, stack[0] as Handle, "_reorder_linear_weight")?
        };
        Ok(Self { weight: packed, bias: bias.f_detach()? })
    }

    /// `x Wᵀ + b`: x [T, in] to [T, out], contiguous, of the weight's kind.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let bias = handle(&self.bias);
        let algorithm = c"".as_ptr();
        let mut result = std::ptr::null_mut();
        // SAFETY: the handles are borrowed for the call only and live as long as the tensors; no scalars are
        // given; the result is a new tensor that the caller owns.
        unsafe {
            let status = aoti_torch_cpu__linear_pointwise(
                handle(x),
                handle(&self.weight),
                &bias,
                c"none".as_ptr(),
                std::ptr::null(),
                0,
                &algorithm,
                &mut result,
            );
            take(status, result, "linear_pointwise")
        }
    }
}

fn handle(tensor: &Tensor) -> Handle {
    tensor.as_ptr() as Handle
}

/// The tensor that a call returned.
///
/// # Safety
/// Where `status` is 0, `result` is null or a handle that nobody else owns.
unsafe fn take(status: i32, result: Handle, operator: &str) -> Result<Tensor, TchError> {
    if status != 0 || result.is_null() {
        return Err(TchError::Torch(format!("oneDNN's {operator} failed (libtorch wrote why on stderr)")));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { Tensor::from_ptr(result.cast()) })
}
