#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella::train {

/// Rows of `logits` [N,C] whose label is among the k largest. Of equal logits the lower class comes first; a
/// row with a NaN counts as wrong. `labels` are class indices [N] (integers) or probabilities [N,C]
/// (floating), of which the largest counts. Throws ShapeError or DTypeError where they do not fit, Error
/// for undefined ones, k < 1 or a label outside [0, C). Copies from a GPU.
LAMELLA_API std::int64_t count_correct(const Tensor& logits, const Tensor& labels, int k = 1);

/// Share of rows whose label is the largest logit, float64 [] on their device: nothing waits for a GPU, and
/// nothing is checked but shapes and types. Of equal logits the lower class counts. Throws as
/// count_correct().
LAMELLA_API Tensor accuracy(const Tensor& logits, const Tensor& labels);

/// A running weighted mean.
class LAMELLA_API Average {
 public:
  /// Adds `value` as if it came `weight` times.
  void add(double value, double weight = 1) {
    sum_ += value * weight;
    weight_ += weight;
  }
  /// Adds a tensor's only number, without a gradient. It is summed where it lies: nothing waits for a GPU.
  /// Throws ShapeError unless there is one number.
  void add(const Tensor& value, double weight = 1);
  /// The mean; NaN while nothing was added. Waits for a GPU if numbers were added there.
  double value() const;
  /// Forgets everything.
  void reset() { *this = {}; }

 private:
  double sum_ = 0;
  double weight_ = 0;
  Tensor device_sum_;  ///< float64 [], of what was added on a GPU
};

/// How often each class was taken for each other.
class LAMELLA_API ConfusionMatrix {
 public:
  /// Throws Error unless classes >= 1.
  explicit ConfusionMatrix(std::int64_t classes);

  /// Adds a batch: the prediction is the largest of each row (the first of equals). Throws as
  /// count_correct(), and Error for a row with a NaN, with nothing added.
  void add(const Tensor& logits, const Tensor& labels);

  /// Number of classes.
  std::int64_t classes() const { return classes_; }
  /// How many of class `actual` were predicted as `predicted`. Throws Error out of range.
  std::int64_t at(std::int64_t actual, std::int64_t predicted) const;
  /// Number of rows added.
  std::int64_t total() const;
  /// Share on the diagonal; NaN while empty.
  double accuracy() const;
  /// Share of a class that was found; NaN for a class that did not occur.
  double recall(std::int64_t actual) const;
  /// Share of the predictions of a class that are right; NaN for a class never predicted.
  double precision(std::int64_t predicted) const;
  /// A table: a row for each actual class, with its recall at the end, a column for each predicted one; zeros
  /// are dots. `names` has one entry per class or is empty: then they are numbers. Throws Error for another
  /// number of names.
  std::string to_string(const std::vector<std::string>& names = {}) const;

 private:
  std::int64_t classes_;
  std::vector<std::int64_t> counts_;
};

}  // namespace lamella::train
