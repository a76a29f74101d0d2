#include "tensor/kernels/part_sums.h"

namespace lamella::cpu {

using detail::GradientWrite;
using detail::PartSum;

void add_part_sums(const std::vector<PartSum>& all) {
  for (const PartSum& each : all)
    for (std::int64_t i = 0; i < each.rows * each.row; ++i) {
      float& to = each.to.as<float>()[i];
      const float* const from = each.from + i / each.row * each.step + i % each.row;
      double sum = 0;
      for (std::int64_t part = 0; part < each.parts; ++part)
        sum += static_cast<double>(from[part * each.rows * each.step]);
      if (each.write == GradientWrite::Accumulate) sum += static_cast<double>(to);
      to = static_cast<float>(sum);
    }
}

}  // namespace lamella::cpu
