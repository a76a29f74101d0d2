#include "autograd/autocast.h"
#include "autograd/record.h"
#include "core/check.h"
#include "core/profiling_bytes.h"
#include "lamella/autograd/autograd.h"
#include "lamella/layers/loss.h"
#include "layers/dense.h"
#include "layers/loss/kernels.h"

namespace lamella {

using namespace detail;

namespace {

void check(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options) {
  check_floating("cross_entropy", "logits", logits);
  check_defined("cross_entropy", "target", target);
  check_same_device("cross_entropy", logits, target);
  LAMELLA_CHECK(ShapeError, logits.dim() >= 2 && logits.size(1) >= 1, "cross_entropy: logits ",
                logits.describe(), "; they must be [N,C] or [N,C,d1,...] with C at least 1");
  Shape labels = logits.shape();
  labels.erase(1);
  const bool probabilities = is_floating(target.dtype());
  LAMELLA_CHECK(DTypeError, probabilities || target.dtype() == DType::Int64, "cross_entropy: target ",
                target.describe(), "; it must be int64 class indices or floating probabilities");
  LAMELLA_CHECK(ShapeError, target.shape() == (probabilities ? logits.shape() : labels),
                "cross_entropy: target ", target.describe(), " for logits ", logits.describe(),
                "; it must be ", labels.to_string(), " int64 class indices or ", logits.shape().to_string(),
                " floating probabilities");
  LAMELLA_CHECK(ShapeError, options.label_smoothing >= 0 && options.label_smoothing <= 1,
                "cross_entropy: label_smoothing ", options.label_smoothing, "; it must be in [0, 1]");
  if (!options.weight.defined()) return;
  const Tensor& weight = options.weight;
  check_floating("cross_entropy", "weight", weight);
  check_same_device("cross_entropy", logits, weight);
  LAMELLA_CHECK(ShapeError, weight.dim() == 1 && weight.size(0) == logits.size(1), "cross_entropy: weight ",
                weight.describe(), " for logits ", logits.describe(), "; it must be [", logits.size(1), ']');
  LAMELLA_CHECK(
      DTypeError,
      weight.dtype() == logits.dtype() || (size_of(logits.dtype()) == 2 && weight.dtype() == DType::Float32),
      "cross_entropy: weight ", weight.describe(), " for logits ", logits.describe());
  LAMELLA_CHECK(Error, !wants_gradient(weight), "cross_entropy: weight ", weight.describe(),
                " requires a gradient, which there is none of; detach() it");
}

void check_labels(const Tensor& labels, const CrossEntropyShape& shape) {
  if (!labels.device().is_cpu()) return;
  const profiling::BytesApart no_kernel_checks;
  std::int64_t bad = -1;
  cpu::find_bad_label(read(labels), shape, &bad);
  if (bad < 0) return;
  Dims position = Dims::filled(labels.dim(), 0);
  std::int64_t rest = bad;
  for (int axis = labels.dim() - 1; axis >= 0; --axis) {
    position[axis] = rest % labels.size(axis);
    rest /= labels.size(axis);
  }
  throw Error(concat("cross_entropy: label ", read(labels).as<std::int64_t>()[bad], " at ",
                     position.to_string(), " of target ", labels.describe(), "; with ", shape.classes,
                     " classes labels are 0 to ", shape.classes - 1, " (or ignore_index ", shape.ignore_index,
                     ')'));
}

}  // namespace

Tensor cross_entropy(const Tensor& given_logits, const Tensor& given_target,
                     const CrossEntropyOptions& options) {
  check(given_logits, given_target, options);
  const Tensor logits = as_dense(detail::raised(given_logits));
  const MemoryFormat format = logits.memory_format();
  const Device device = logits.device();

  CrossEntropyShape shape;
  shape.batch = logits.size(0);
  shape.classes = logits.size(1);
  for (int axis = 2; axis < logits.dim(); ++axis) shape.inner *= logits.size(axis);
  shape.channels_last = format == MemoryFormat::ChannelsLast;
  shape.indices = !is_floating(given_target.dtype());
  shape.smoothing = options.label_smoothing;
  shape.ignore_index = options.ignore_index;
  shape.reduction = options.reduction;

  const DType compute = logits.dtype() == DType::Float64 ? DType::Float64 : DType::Float32;
  const Tensor target =
      shape.indices ? given_target.contiguous() : given_target.to(compute).contiguous(format);
  if (shape.indices) check_labels(target, shape);
  const Tensor weight = options.weight;
  const auto view_of_weight = [](const Tensor& w) { return w.defined() ? read(w) : ConstTensorView{}; };

  Shape result;
  if (shape.reduction == Reduction::None) {
    result = logits.shape();
    result.erase(1);
  }
  const Output loss(result, logits.dtype(), device);
  const Tensor log_sum = allocate({shape.samples()}, DType::Float64, device);
  const Tensor divisor = allocate({}, DType::Float64, device);
  LAMELLA_KERNEL(
      device, cross_entropy_forward(read(logits), read(target), view_of_weight(weight), shape, loss.write(),
                                    write(log_sum, "cross_entropy"), write(divisor, "cross_entropy")));
  return record("cross_entropy", {logits, target}, loss,
                [logits = Saved(logits), target = Saved(target), weight = Saved(weight), shape, format,
                 log_sum, divisor, view_of_weight](GradientContext& context) {
                  const Tensor grad = context.grad().contiguous(), x = logits.get(), w = weight.get();
                  if (DenseTarget to(context, 0, format); to) {
                    const Tensor t = target.get();
                    LAMELLA_KERNEL(grad.device(), cross_entropy_backward(
                                                      read(grad), read(x), read(t), view_of_weight(w), shape,
                                                      read(log_sum), read(divisor), to.view(), to.write()));
                    to.finish();
                  }
                  if (DenseTarget to(context, 1, format); to) {
                    LAMELLA_KERNEL(grad.device(), cross_entropy_backward_target(
                                                      read(grad), read(x), view_of_weight(w), shape,
                                                      read(log_sum), read(divisor), to.view(), to.write()));
                    to.finish();
                  }
                });
}

}  // namespace lamella
