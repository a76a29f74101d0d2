#include "layers/depthwise_conv2d/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/depthwise_conv2d/cpu/gradient_f32.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "layers/depthwise_conv2d/cpu/gradient-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
GradientFn<float> gradient_f32(bool planar, std::int64_t row_taps, std::int64_t column_taps) {
  return gradient_any<float>(planar, row_taps, column_taps);
}
GradientFn<float> sum_f32(bool planar) { return planar ? sum_rows<true, float> : sum_rows<false, float>; }
std::int64_t lanes_f32() { return static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<float>())); }
}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamella::cpu {
HWY_EXPORT(gradient_f32);
HWY_EXPORT(sum_f32);
HWY_EXPORT(lanes_f32);
template <>
GradientFn<float> gradient_loop<float>(bool planar, std::int64_t row_taps, std::int64_t column_taps) {
  return HWY_DYNAMIC_DISPATCH(gradient_f32)(planar, row_taps, column_taps);
}
template <>
GradientFn<float> sum_loop<float>(bool planar) {
  return HWY_DYNAMIC_DISPATCH(sum_f32)(planar);
}
template <>
std::int64_t lane_count<float>() {
  return HWY_DYNAMIC_DISPATCH(lanes_f32)();
}
}  // namespace lamella::cpu
#endif
