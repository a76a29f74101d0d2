#include "layers/depthwise_conv2d/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/depthwise_conv2d/cpu/gradient_f64.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "layers/depthwise_conv2d/cpu/gradient-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
GradientFn<double> gradient_f64(bool planar, std::int64_t row_taps, std::int64_t column_taps) {
  return gradient_any<double>(planar, row_taps, column_taps);
}
GradientFn<double> sum_f64(bool planar) { return planar ? sum_rows<true, double> : sum_rows<false, double>; }
std::int64_t lanes_f64() { return static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<double>())); }
}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamella::cpu {
HWY_EXPORT(gradient_f64);
HWY_EXPORT(sum_f64);
HWY_EXPORT(lanes_f64);
template <>
GradientFn<double> gradient_loop<double>(bool planar, std::int64_t row_taps, std::int64_t column_taps) {
  return HWY_DYNAMIC_DISPATCH(gradient_f64)(planar, row_taps, column_taps);
}
template <>
GradientFn<double> sum_loop<double>(bool planar) {
  return HWY_DYNAMIC_DISPATCH(sum_f64)(planar);
}
template <>
std::int64_t lane_count<double>() {
  return HWY_DYNAMIC_DISPATCH(lanes_f64)();
}
}  // namespace lamella::cpu
#endif
