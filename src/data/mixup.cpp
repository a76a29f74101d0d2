#include <cmath>

#include "core/check.h"
#include "lamella/data/transforms.h"
#include "lamella/tensor/create.h"

namespace lamella::data {

Mixup::Mixup(double alpha, std::int64_t classes) : alpha_(alpha), classes_(classes) {
  LAMELLA_CHECK(Error, alpha >= 0.0 && std::isfinite(alpha) && classes >= 1, "Mixup: alpha ", alpha, " with ",
                classes, " classes; alpha must be at least 0, classes at least 1");
}

Batch Mixup::operator()(Batch batch, Random& random) const {
  LAMELLA_CHECK(Error, batch.images.defined() && batch.labels.defined(),
                "Mixup: images or labels are undefined");
  LAMELLA_CHECK(DeviceError, batch.images.device().is_cpu() && batch.labels.device().is_cpu(),
                "Mixup: images ", batch.images.describe(), " and labels ", batch.labels.describe(),
                " must both be on the CPU");
  LAMELLA_CHECK(DTypeError, batch.images.dtype() == float32 && batch.labels.dtype() == int64,
                "Mixup: images ", batch.images.describe(), " must be float32, labels ",
                batch.labels.describe(), " int64");
  LAMELLA_CHECK(
      ShapeError,
      batch.images.dim() == 4 && batch.labels.dim() == 1 && batch.labels.size(0) == batch.images.size(0),
      "Mixup: images ", batch.images.describe(), " must be [N,C,H,W], labels ", batch.labels.describe(),
      " [N]");
  const std::int64_t count = batch.images.size(0);
  const float kept = alpha_ > 0.0 ? static_cast<float>(random.beta(alpha_)) : 1.0f, other = 1.0f - kept;

  const auto classes = batch.labels.to_vector<std::int64_t>();
  Batch mixed{batch.images, zeros({count, classes_})};
  float* probabilities = mixed.labels.mutable_data<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t own = classes[static_cast<std::size_t>(i)];
    const std::int64_t before = classes[static_cast<std::size_t>(i == 0 ? count - 1 : i - 1)];
    LAMELLA_CHECK(ShapeError, own >= 0 && own < classes_, "Mixup: label ", own, " at position ", i,
                  " is out of range; there are ", classes_, " classes");
    if (before >= 0 && before < classes_) probabilities[i * classes_ + before] += other;
    probabilities[i * classes_ + own] += kept;
  }
  if (kept == 1.0f) return mixed;

  const MemoryFormat format = batch.images.memory_format();
  const Tensor source = batch.images.detach().contiguous(format);
  mixed.images = empty(source.shape(), {.format = format});
  const std::int64_t image = count == 0 ? 0 : source.numel() / count;
  const float* from = source.data<float>();
  float* to = mixed.images.mutable_data<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    const float* own = from + i * image;
    const float* before = from + (i == 0 ? count - 1 : i - 1) * image;
    for (std::int64_t k = 0; k < image; ++k) to[i * image + k] = kept * own[k] + other * before[k];
  }
  return mixed;
}

}  // namespace lamella::data
