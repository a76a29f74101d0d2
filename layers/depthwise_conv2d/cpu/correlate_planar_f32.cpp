#include "layers/depthwise_conv2d/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/depthwise_conv2d/cpu/correlate_planar_f32.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "layers/depthwise_conv2d/cpu/correlate-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
CorrelateFn<float> planar_f32(std::int64_t taps_h, std::int64_t taps_w, std::int64_t row_step,
                              bool consecutive) {
  return correlate_for<true, float>(taps_h, taps_w, row_step, consecutive);
}
}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamella::cpu {
HWY_EXPORT(planar_f32);
template <>
CorrelateFn<float> planar_loop<float>(std::int64_t taps_h, std::int64_t taps_w, std::int64_t row_step,
                                      bool consecutive) {
  return HWY_DYNAMIC_DISPATCH(planar_f32)(taps_h, taps_w, row_step, consecutive);
}
}  // namespace lamella::cpu
#endif
