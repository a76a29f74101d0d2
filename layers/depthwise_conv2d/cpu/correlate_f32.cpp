#include "layers/depthwise_conv2d/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/depthwise_conv2d/cpu/correlate_f32.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "layers/depthwise_conv2d/cpu/correlate-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
CorrelateFn<float> correlate_f32(bool planar, std::int64_t taps_h, std::int64_t row_step, bool consecutive) {
  return correlate_any<float>(planar, taps_h, row_step, consecutive);
}
}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamella::cpu {
HWY_EXPORT(correlate_f32);
template <>
CorrelateFn<float> correlate_loop<float>(bool planar, std::int64_t taps_h, std::int64_t row_step,
                                         bool consecutive) {
  return HWY_DYNAMIC_DISPATCH(correlate_f32)(planar, taps_h, row_step, consecutive);
}
}  // namespace lamella::cpu
#endif
