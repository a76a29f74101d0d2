#include "tensor/kernels/gemm.h"

#include <cstddef>

#include "core/cuda/blas.h"
#include "core/cuda/check.h"
#include "core/cuda/stream.h"
#include "core/workspace.h"
#include "lamella/core/precision.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/copy.h"
#include "tensor/kernels/reduce.h"
#include "tensor/view.h"

/// Products by cuBLAS. It wants matrices with neighbouring rows or columns, one stride per batch, and one
/// type for A and B; what is not like that goes through a dense copy.
namespace lamella::cuda {

using detail::ConstTensorView;
using detail::Gemm;
using detail::GemmOperand;
using detail::GradientWrite;
using detail::TensorView;
using detail::Workspace;

namespace {

/// A matrix as BLAS sees it: column-major of leading dimension `ld`, or such a one transposed.
struct BlasMatrix {
  const void* data;
  DType dtype;
  cublasOperation_t op;
  std::int64_t ld, batch_stride;
};

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::Float64:
      return CUDA_R_64F;
    case DType::BFloat16:
      return CUDA_R_16BF;
    case DType::Float16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

Device device_of(const void* data) {
  cudaPointerAttributes attributes{};
  detail::cuda::check(cudaPointerGetAttributes(&attributes, data), "gemm");
  return Device::cuda(attributes.device);
}

/// Whether the batch axes are one, with a single stride; gives that stride.
bool one_stride(const Dims& batch, const Strides& strides, std::int64_t& stride) {
  stride = 0;
  std::int64_t expected = -1;
  for (int axis = batch.size() - 1; axis >= 0; --axis) {
    if (batch[axis] == 1) continue;
    if (expected < 0)
      stride = strides[axis];
    else if (strides[axis] != expected)
      return false;
    expected = strides[axis] * batch[axis];
  }
  return true;
}

/// Whether BLAS can read rows × columns with these strides.
bool fits(std::int64_t rows, std::int64_t columns, std::int64_t row, std::int64_t column) {
  const bool column_major = (row == 1 || rows == 1) && (column >= rows || columns == 1);
  const bool row_major = (column == 1 || columns == 1) && (row >= columns || rows == 1);
  return column_major || row_major;
}

/// X, of rows × columns, read column-major.
BlasMatrix as_blas(const void* data, DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t row,
                   std::int64_t column, std::int64_t batch_stride) {
  const bool column_major = (row == 1 || rows == 1) && (column >= rows || columns == 1);
  if (column_major)
    return {data, dtype, CUBLAS_OP_N, std::max<std::int64_t>({1, rows, columns == 1 ? rows : column}),
            batch_stride};
  return {data, dtype, CUBLAS_OP_T, std::max<std::int64_t>({1, columns, rows == 1 ? columns : row}),
          batch_stride};
}

/// `from` over batch axes, rows and columns.
ConstTensorView view_of(const GemmOperand& from, const Dims& batch, std::int64_t rows, std::int64_t columns,
                        Device device) {
  ConstTensorView view{from.data, batch, from.batch, from.dtype, device};
  view.shape.push_back(rows);
  view.shape.push_back(columns);
  view.strides.push_back(from.row);
  view.strides.push_back(from.column);
  return view;
}

TensorView dense_view(void* data, const Dims& batch, std::int64_t rows, std::int64_t columns, DType dtype,
                      Device device) {
  TensorView view{data, batch, {}, dtype, device};
  view.shape.push_back(rows);
  view.shape.push_back(columns);
  view.strides = dense_strides(view.shape);
  return view;
}

/// An operand in `dtype`, in place if BLAS can read it so, else copied.
class Operand {
 public:
  Operand(const GemmOperand& from, const Dims& batch, std::int64_t rows, std::int64_t columns, DType dtype,
          Device device)
      : operand_(from),
        copies_(from.dtype != dtype || !fits(rows, columns, from.row, from.column) ||
                !one_stride(batch, from.batch, stride_)),
        memory_(device,
                copies_ ? batch.product() * rows * columns * static_cast<std::int64_t>(size_of(dtype)) : 0) {
    if (!copies_) return;
    const TensorView copied = dense_view(memory_.as<void>(), batch, rows, columns, dtype, device);
    copy(view_of(from, batch, rows, columns, device), copied, GradientWrite::Overwrite);
    operand_.data = copied.data;
    operand_.dtype = dtype;
    operand_.row = columns;
    operand_.column = 1;
    stride_ = rows * columns;
  }
  /// Rows × columns of it, or transposed.
  BlasMatrix blas(std::int64_t rows, std::int64_t columns, bool transposed) const {
    const std::int64_t row = transposed ? operand_.column : operand_.row,
                       column = transposed ? operand_.row : operand_.column;
    return as_blas(operand_.data, operand_.dtype, rows, columns, row, column, stride_);
  }

 private:
  GemmOperand operand_;
  std::int64_t stride_ = 0;
  bool copies_;
  Workspace memory_;
};

/// Column-major C (m × n) = A·B + beta · C.
void multiply(Device device, std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t batches,
              const BlasMatrix& a, const BlasMatrix& b, void* c, DType c_type, std::int64_t c_ld,
              std::int64_t c_stride, bool add) {
  const bool wide = c_type == DType::Float64;
  const float one = 1, beta = add ? 1 : 0;
  const double wide_one = 1, wide_beta = beta;
  const bool tf32 = a.dtype == DType::Float32 && b.dtype == DType::Float32 && allow_tf32();
  const cublasComputeType_t compute = wide   ? CUBLAS_COMPUTE_64F
                                      : tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                             : CUBLAS_COMPUTE_32F;
  const void* const alpha_at = wide ? static_cast<const void*>(&wide_one) : &one;
  const void* const beta_at = wide ? static_cast<const void*>(&wide_beta) : &beta;
  detail::cuda::check(
      cublasGemmStridedBatchedEx_64(detail::cuda::blas(device), a.op, b.op, m, n, k, alpha_at, a.data,
                                    cuda_type(a.dtype), a.ld, a.batch_stride, b.data, cuda_type(b.dtype),
                                    b.ld, b.batch_stride, beta_at, c, cuda_type(c_type), c_ld, c_stride,
                                    batches, compute, CUBLAS_GEMM_DEFAULT),
      "gemm");
}

}  // namespace

void gemm(const Gemm& g) {
  const std::int64_t batches = g.batch.product();
  if (g.m == 0 || g.n == 0 || batches == 0) return;
  const Device device = device_of(g.c);
  const bool add = g.write == GradientWrite::Accumulate;
  // One product after another along axes that C lacks would round each time: they are added up at the end.
  Dims c_batch = g.batch;
  bool sums = false;
  for (int axis = 0; axis < g.batch.size(); ++axis)
    if (g.c_batch[axis] == 0 && g.batch[axis] > 1) {
      sums = true;
      c_batch[axis] = 1;
    }
  const auto view_of_c = [&](const Dims& batch) {
    TensorView view{g.c, batch, g.c_batch, g.c_dtype, device};
    view.shape.push_back(g.m);
    view.shape.push_back(g.n);
    view.strides.push_back(g.c_row);
    view.strides.push_back(g.c_column);
    return view;
  };
  const TensorView c = view_of_c(c_batch);
  const bool biased = g.bias.data != nullptr && !add;
  ConstTensorView bias;
  if (biased) {
    bias = view_of(g.bias, g.batch, g.m, g.n, device);
    // Of axes that C lacks, the bias counts once.
    bias.shape = c.shape;
  }
  if (g.k == 0) {
    if (biased) {
      copy(bias, c, GradientWrite::Overwrite);
    } else if (!add) {
      const Workspace zero(device, sizeof(double));
      detail::cuda::check(
          cudaMemsetAsync(zero.as<void>(), 0, sizeof(double), detail::cuda::stream_of(device)), "gemm");
      copy({zero.as<void>(), c.shape, Dims::filled(c.shape.size(), 0), c.dtype, device}, c,
           GradientWrite::Overwrite);
    }
    return;
  }
  const bool wide = g.c_dtype == DType::Float64;
  const bool half = g.a.dtype == g.b.dtype && size_of(g.a.dtype) == 2;
  const DType type = wide ? DType::Float64 : half ? g.a.dtype : DType::Float32;
  const Operand a(g.a, g.batch, g.m, g.k, type, device), b(g.b, g.batch, g.k, g.n, type, device);

  // Straight into C where cuBLAS can write it: its type must be that of the operands, or float32.
  std::int64_t c_stride = 0;
  const bool direct =
      !sums && fits(g.m, g.n, g.c_row, g.c_column) && one_stride(g.batch, g.c_batch, c_stride) &&
      (g.c_dtype == type || g.c_dtype == DType::Float32 || wide) && !(biased && size_of(g.c_dtype) == 2);
  const DType work_type = wide ? DType::Float64 : DType::Float32;
  const Workspace work(device,
                       direct ? 0 : batches * g.m * g.n * static_cast<std::int64_t>(size_of(work_type)));
  const TensorView result = direct ? c : dense_view(work.as<void>(), g.batch, g.m, g.n, work_type, device);
  if (!direct) c_stride = g.m * g.n;
  const bool bias_first = biased && !sums;
  if (bias_first) copy(bias, result, GradientWrite::Overwrite);
  const bool onto = bias_first || (direct && add);
  const int axes = result.shape.size();
  const std::int64_t row = result.strides[axes - 2], column = result.strides[axes - 1];
  const bool column_major = (row == 1 || g.m == 1) && (column >= g.m || g.n == 1);
  if (column_major)
    multiply(device, g.m, g.n, g.k, batches, a.blas(g.m, g.k, false), b.blas(g.k, g.n, false), result.data,
             result.dtype, std::max<std::int64_t>({1, g.m, g.n == 1 ? g.m : column}), c_stride, onto);
  else  // row-major: Cᵀ = Bᵀ·Aᵀ
    multiply(device, g.n, g.m, g.k, batches, b.blas(g.n, g.k, true), a.blas(g.k, g.m, true), result.data,
             result.dtype, std::max<std::int64_t>({1, g.n, g.m == 1 ? g.n : row}), c_stride, onto);
  if (direct) return;
  if (!sums && !add) {
    copy(result, c, GradientWrite::Overwrite);
    return;
  }
  // What is left: the sum over the axes that C lacks, plus what C or the bias holds, rounded once.
  const Workspace summed(device,
                         sums ? c.shape.product() * static_cast<std::int64_t>(size_of(work_type)) : 0);
  TensorView total = result;
  if (sums) {
    total = {summed.as<void>(), c.shape, dense_strides(c.shape), work_type, device};
    reduce(detail::ReduceKind::Sum, result, total, 1);
  }
  if (biased) bias.shape = total.shape;
  const bool plus = add || biased;
  if (plus && c.dtype != work_type) {
    const Workspace before(device, c.shape.product() * static_cast<std::int64_t>(size_of(work_type)));
    const TensorView wider{before.as<void>(), c.shape, dense_strides(c.shape), work_type, device};
    copy(add ? ConstTensorView(c) : bias, wider, GradientWrite::Overwrite);
    copy(total, wider, GradientWrite::Accumulate);
    copy(wider, c, GradientWrite::Overwrite);
  } else if (plus) {
    if (!add) copy(bias, c, GradientWrite::Overwrite);
    copy(total, c, GradientWrite::Accumulate);
  } else {
    copy(total, c, GradientWrite::Overwrite);
  }
}

}  // namespace lamella::cuda
