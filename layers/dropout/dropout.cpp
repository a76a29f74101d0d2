#include "lamella/layers/dropout.h"

#include <cmath>

#include "autograd/record.h"
#include "core/check.h"
#include "layers/dense.h"
#include "layers/dropout/kernels.h"

namespace lamella {

using namespace detail;

namespace {

Tensor drop(const char* op, const Tensor& given, double p, bool training, bool per_sample) {
  check_floating(op, "input", given);
  LAMELLA_CHECK(ShapeError, p >= 0 && p <= 1, op, ": p is ", p, "; it must be in [0, 1]");
  LAMELLA_CHECK(ShapeError, !per_sample || given.dim() >= 1, op, ": input ", given.describe(),
                " has no axis of samples");
  if (!training || p == 0) return given;
  const Tensor x = as_dense(given);
  const MemoryFormat format = x.memory_format();

  DropoutMask mask;
  mask.key = next_random_key(x.device());
  mask.threshold = static_cast<std::uint32_t>(std::ceil(p * 0x1p24));
  mask.scale = p < 1 ? 1 / (1 - p) : 0;
  mask.per_sample = per_sample;
  mask.batch = x.dim() > 0 ? x.size(0) : 1;
  mask.channels = x.dim() > 1 ? x.size(1) : 1;
  for (int axis = 2; axis < x.dim(); ++axis) mask.inner *= x.size(axis);
  mask.channels_last = format == MemoryFormat::ChannelsLast;

  const Output y = Output::like(x);
  LAMELLA_KERNEL(x.device(), dropout(read(x), mask, y.write(), GradientWrite::Overwrite));
  return record(op, {x}, y, [mask, format](GradientContext& context) {
    const Tensor grad = context.grad().contiguous(format);
    DenseTarget dx(context, 0, format);
    LAMELLA_KERNEL(grad.device(), dropout(read(grad), mask, dx.view(), dx.write()));
    dx.finish();
  });
}

}  // namespace

Tensor dropout(const Tensor& x, double p, bool training) { return drop("dropout", x, p, training, false); }

Tensor drop_path(const Tensor& x, double p, bool training) { return drop("drop_path", x, p, training, true); }

}  // namespace lamella
