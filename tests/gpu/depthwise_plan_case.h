#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "lamella/lamella.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/run.h"

/// Plans of one family beside a plan of another, which must compute the same.
namespace lamella::test {

/// A pass of a depthwise convolution, and how its tensors are.
struct PlanSetting {
  depthwise::Pass pass = depthwise::Pass::Forward;
  DType dtype = bfloat16;
  MemoryFormat format = MemoryFormat::Contiguous;
  std::int64_t images = 1, channels = 1;
  Size2 in{1}, kernel{3}, padding{1}, stride{1}, dilation{1};
  std::int64_t outputs = 1;  ///< of a channel
  depthwise::Hook hook = depthwise::Hook::None;
  bool bias = false;        ///< forward, or its gradient
  bool transforms = false;  ///< as a hook does
  bool accumulates = false;
  DType tap_dtype = dtype;
};

/// The tensors of a setting on the GPU, filled with the same numbers always.
class PlanCase {
 public:
  explicit PlanCase(const PlanSetting& setting);

  /// False: the GPU has no kernel for the problem but the generic ones.
  bool describe(depthwise::Problem& problem);
  /// False: no kernel can be compiled.
  bool run(const depthwise::Plan& plan);
  /// All that a pass may write, and its input.
  std::vector<std::vector<double>> numbers() const;

  Tensor weight, x, y, dx;

 private:
  cuda::depthwise::Operands operands();

  PlanSetting of_;
  Conv2dGeometry geometry_;
  Tensor bias_, dweight_, dbias_, scale_, shift_, center_, first_, second_;
  cuda::depthwise::Parts to_;
};

/// Whether what both have written differs by no more than `rounding`, as a ratio of norms.
void expect_close(const PlanCase& got, const PlanCase& wanted, double rounding);

/// What expect_plans_agree() is told: the plans of a family; the same rounding for all settings.
inline auto of_family(depthwise::Plan::Family family) {
  return [family](const depthwise::Plan& plan) { return plan.family == family; };
}
inline auto always(double rounding) {
  return [rounding](const PlanSetting&) { return rounding; };
}

/// Runs every `every`-th of the wanted plans (each is compiled) and one that is not wanted; their results may
/// differ by `rounding`, as a ratio of norms. Skips the test where the GPU or the machine can have none.
void expect_plans_agree(const std::vector<PlanSetting>& settings,
                        const std::function<bool(const depthwise::Plan&)>& is_wanted, std::size_t every,
                        const std::function<double(const PlanSetting&)>& rounding);

}  // namespace lamella::test
