#include "layers/depthwise_conv2d/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/depthwise_conv2d/cpu/correlate_planar_f64.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "layers/depthwise_conv2d/cpu/correlate-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
CorrelateFn<double> planar_f64(std::int64_t taps_h, std::int64_t taps_w, std::int64_t row_step,
                               bool consecutive) {
  return correlate_for<true, double>(taps_h, taps_w, row_step, consecutive);
}
}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamella::cpu {
HWY_EXPORT(planar_f64);
template <>
CorrelateFn<double> planar_loop<double>(std::int64_t taps_h, std::int64_t taps_w, std::int64_t row_step,
                                        bool consecutive) {
  return HWY_DYNAMIC_DISPATCH(planar_f64)(taps_h, taps_w, row_step, consecutive);
}
}  // namespace lamella::cpu
#endif
