#include "layers/depthwise_conv2d/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/depthwise_conv2d/cpu/correlate_f64.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "layers/depthwise_conv2d/cpu/correlate-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
CorrelateFn<double> correlate_f64(bool planar, std::int64_t taps_h, std::int64_t row_step, bool consecutive) {
  return correlate_any<double>(planar, taps_h, row_step, consecutive);
}
}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamella::cpu {
HWY_EXPORT(correlate_f64);
template <>
CorrelateFn<double> correlate_loop<double>(bool planar, std::int64_t taps_h, std::int64_t row_step,
                                           bool consecutive) {
  return HWY_DYNAMIC_DISPATCH(correlate_f64)(planar, taps_h, row_step, consecutive);
}
}  // namespace lamella::cpu
#endif
