#pragma once

#include <gmock/gmock.h>

#include <ostream>
#include <utility>

#include "lamella/testing.h"

/// @file
/// GoogleTest matchers for tensors:
///   EXPECT_THAT(y, IsClose(expected));  EXPECT_THAT(y, IsClose(expected, {.relative = 1e-3}));
///   EXPECT_THAT(y, HasSameBits(expected));
///   EXPECT_TRUE(Passes(gradcheck(f, {x})));
namespace lamella::testing {

/// A Comparison as GoogleTest wants it.
inline ::testing::AssertionResult Passes(const Comparison& comparison) {
  if (comparison) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << comparison.message;
}

namespace detail {
class TensorMatcher {
 public:
  using is_gtest_matcher = void;
  TensorMatcher(Tensor expected, Tolerance tolerance, bool bits)
      : expected_(std::move(expected)), tolerance_(tolerance), bits_(bits) {}
  bool MatchAndExplain(const Tensor& actual, std::ostream* out) const {
    const Comparison result =
        bits_ ? equal_bits(actual, expected_) : all_close(actual, expected_, tolerance_);
    if (!result && out != nullptr) *out << result.message;
    return result.ok;
  }
  void DescribeTo(std::ostream* out) const {
    *out << (bits_ ? "has the bits of " : "is close to ") << expected_;
  }
  void DescribeNegationTo(std::ostream* out) const {
    *out << (bits_ ? "differs in some bit from " : "is not close to ") << expected_;
  }

 private:
  Tensor expected_;
  Tolerance tolerance_;
  bool bits_;
};
}  // namespace detail

/// Matches tensors for which all_close(actual, expected, tolerance) holds.
inline detail::TensorMatcher IsClose(Tensor expected, Tolerance tolerance = {}) {
  return {std::move(expected), tolerance, false};
}
/// Matches tensors for which equal_bits(actual, expected) holds.
inline detail::TensorMatcher HasSameBits(Tensor expected) { return {std::move(expected), {}, true}; }

}  // namespace lamella::testing
