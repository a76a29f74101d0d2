#pragma once

#include <cstdint>
#include <vector>

#include "layers/depthwise_conv2d/cpu/taps.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"
#include "tensor/view.h"

namespace lamella::cpu {

/// Element `index` of a floating view's storage as T.
template <class T>
T load_as(const detail::ConstTensorView& view, std::int64_t index) {
  switch (view.dtype) {
    case DType::Float64:
      return static_cast<T>(view.as<double>()[index]);
    case DType::BFloat16:
      return static_cast<T>(static_cast<float>(view.as<BFloat16>()[index]));
    case DType::Float16:
      return static_cast<T>(static_cast<float>(view.as<Float16>()[index]));
    default:
      return static_cast<T>(view.as<float>()[index]);
  }
}
template <class T>
void store_from(const detail::TensorView& view, std::int64_t index, T value) {
  switch (view.dtype) {
    case DType::Float64:
      view.as<double>()[index] = static_cast<double>(value);
      return;
    case DType::BFloat16:
      view.as<BFloat16>()[index] = BFloat16(static_cast<float>(value));
      return;
    case DType::Float16:
      view.as<Float16>()[index] = Float16(static_cast<float>(value));
      return;
    default:
      view.as<float>()[index] = static_cast<float>(value);
  }
}

/// Weight and bias as T in the order in which the loops read them: for each pair of a row class and a column
/// class a block [kw][kh], with the channels outside (planar) or innermost (channels-last).
template <class T>
class PackedTaps {
 public:
  PackedTaps(const detail::ConstTensorView& weight, const detail::ConstTensorView& bias,
             const std::vector<AxisTaps>& rows, const std::vector<AxisTaps>& columns, bool planar)
      : planar_(planar),
        channels_(weight.shape[0]),
        padded_((channels_ + kOverread - 1) / kOverread * kOverread) {
    for (const AxisTaps& row : rows) {
      for (const AxisTaps& column : columns) {
        block_.push_back(taps_);
        taps_ += row.taps() * column.taps();
      }
    }
    classes_ = static_cast<std::int64_t>(columns.size());
    weights_.assign(static_cast<std::size_t>(taps_ * (planar ? channels_ : padded_)), T{0});
    std::int64_t tap = 0;
    for (const AxisTaps& row : rows) {
      for (const AxisTaps& column : columns) {
        for (const std::int64_t kw : column.tap) {
          for (const std::int64_t kh : row.tap) {
            for (std::int64_t o = 0; o < channels_; ++o) {
              const std::int64_t at = planar ? o * taps_ + tap : tap * padded_ + o;
              weights_[static_cast<std::size_t>(at)] =
                  load_as<T>(weight, o * weight.strides[0] + kh * weight.strides[2] + kw * weight.strides[3]);
            }
            ++tap;
          }
        }
      }
    }
    if (bias.data == nullptr) return;
    bias_.assign(static_cast<std::size_t>(padded_), T{0});
    for (std::int64_t o = 0; o < channels_; ++o) {
      bias_[static_cast<std::size_t>(o)] = load_as<T>(bias, o * bias.strides[0]);
    }
  }

  const T* weights(std::int64_t row_class, std::int64_t column_class, std::int64_t channel) const {
    const std::int64_t block = block_[static_cast<std::size_t>(row_class * classes_ + column_class)];
    return weights_.data() + (planar_ ? channel * taps_ + block : block * padded_ + channel);
  }
  const T* bias(std::int64_t channel) const { return bias_.empty() ? nullptr : bias_.data() + channel; }
  std::int64_t weight_step() const { return planar_ ? 1 : padded_; }

 private:
  bool planar_;
  std::int64_t channels_, padded_, classes_ = 0, taps_ = 0;
  std::vector<std::int64_t> block_;
  std::vector<T> weights_, bias_;
};

}  // namespace lamella::cpu
