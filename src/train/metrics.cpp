#include "lamella/train/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/compare.h"
#include "lamella/tensor/reduce.h"

namespace lamella::train {

namespace {

void check_kinds(const char* op, const Tensor& logits, const Tensor& labels) {
  LAMELLA_CHECK(DTypeError, is_floating(logits.dtype()), op, ": logits ", logits.describe(),
                " must be floating");
  LAMELLA_CHECK(ShapeError, logits.dim() == 2 && logits.size(1) > 0, op, ": logits ", logits.describe(),
                " must be [N,C]");
  LAMELLA_CHECK(ShapeError,
                is_floating(labels.dtype()) ? labels.shape() == logits.shape()
                                            : labels.shape() == Shape({logits.size(0)}),
                op, ": labels ", labels.describe(), " do not fit logits ", logits.describe(),
                ", must be integers [N] or probabilities [N,C]");
  LAMELLA_CHECK(DTypeError, labels.dtype() != DType::Bool, op, ": labels ", labels.describe(),
                " must be integers or floating");
}

/// Logits and labels of a batch, checked and brought to the CPU.
struct Rows {
  std::int64_t count = 0;
  std::int64_t classes = 0;
  std::vector<double> logits;
  std::vector<std::int64_t> labels;

  Rows(const char* op, const Tensor& given, const Tensor& targets) {
    LAMELLA_CHECK(Error, given.defined() && targets.defined(), op, ": logits or labels are undefined");
    check_kinds(op, given, targets);
    const bool probabilities = is_floating(targets.dtype());
    count = given.size(0);
    classes = given.size(1);
    logits = given.detach().to_vector<double>();
    if (probabilities) {
      const std::vector<double> shares = targets.detach().to_vector<double>();
      for (std::int64_t i = 0; i < count; ++i) labels.push_back(largest(shares.data() + i * classes));
      return;
    }
    labels = targets.to_vector<std::int64_t>();
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t label = labels[static_cast<std::size_t>(i)];
      LAMELLA_CHECK(Error, label >= 0 && label < classes, op, ": label ", label, " at ", i,
                    " is outside [0, ", classes, ')');
    }
  }

  const double* row(std::int64_t i) const { return logits.data() + i * classes; }
  std::int64_t label(std::int64_t i) const { return labels[static_cast<std::size_t>(i)]; }
  /// The first of equals; -1 if there is a NaN.
  std::int64_t largest(const double* row) const {
    if (std::any_of(row, row + classes, [](double x) { return std::isnan(x); })) return -1;
    return std::max_element(row, row + classes) - row;
  }
};

std::string percent(double share) {
  if (std::isnan(share)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%%", 100 * share);
  return text;
}

std::string cell(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

}  // namespace

Tensor accuracy(const Tensor& logits, const Tensor& labels) {
  LAMELLA_CHECK(Error, logits.defined() && labels.defined(), "accuracy: logits or labels are undefined");
  check_kinds("accuracy", logits, labels);
  const NoGrad no_grad;
  const Tensor wanted = is_floating(labels.dtype()) ? argmax(labels.detach(), 1) : labels.to(int64);
  return mean(equal(argmax(logits.detach(), 1), wanted).to(float64));
}

void Average::add(const Tensor& value, double weight) {
  LAMELLA_CHECK(ShapeError, value.defined() && value.numel() == 1, "Average: ", value.describe(),
                " is not a single number");
  if (value.device().is_cpu()) return add(value.detach().item(), weight);
  const NoGrad no_grad;
  const Tensor part = mul(value.detach().reshape({}).to(float64), weight);
  device_sum_ = device_sum_.defined() ? device_sum_ + part : part;
  weight_ += weight;
}

double Average::value() const { return (sum_ + (device_sum_.defined() ? device_sum_.item() : 0)) / weight_; }

std::int64_t count_correct(const Tensor& logits, const Tensor& labels, int k) {
  LAMELLA_CHECK(Error, k >= 1, "count_correct: k is ", k, ", must be at least 1");
  const Rows rows("count_correct", logits, labels);
  std::int64_t correct = 0;
  for (std::int64_t i = 0; i < rows.count; ++i) {
    const double* row = rows.row(i);
    const std::int64_t label = rows.label(i);
    if (label < 0 || rows.largest(row) < 0) continue;
    std::int64_t before = 0;  // classes ranked above the label
    for (std::int64_t c = 0; c < rows.classes; ++c)
      before += row[c] > row[label] || (row[c] == row[label] && c < label) ? 1 : 0;
    correct += before < k ? 1 : 0;
  }
  return correct;
}

ConfusionMatrix::ConfusionMatrix(std::int64_t classes) : classes_(classes) {
  LAMELLA_CHECK(Error, classes >= 1, "ConfusionMatrix: ", classes, " classes, must be at least 1");
  counts_.assign(static_cast<std::size_t>(classes * classes), 0);
}

void ConfusionMatrix::add(const Tensor& logits, const Tensor& labels) {
  const Rows rows("ConfusionMatrix", logits, labels);
  LAMELLA_CHECK(ShapeError, rows.classes == classes_, "ConfusionMatrix: logits ", logits.describe(), " have ",
                rows.classes, " classes, must be ", classes_);
  std::vector<std::int64_t> predicted;
  for (std::int64_t i = 0; i < rows.count; ++i) {
    predicted.push_back(rows.largest(rows.row(i)));
    LAMELLA_CHECK(Error, predicted.back() >= 0 && rows.label(i) >= 0, "ConfusionMatrix: row ", i,
                  " holds a NaN");
  }
  for (std::int64_t i = 0; i < rows.count; ++i)
    ++counts_[static_cast<std::size_t>(rows.label(i) * classes_ + predicted[static_cast<std::size_t>(i)])];
}

std::int64_t ConfusionMatrix::at(std::int64_t actual, std::int64_t predicted) const {
  LAMELLA_CHECK(Error, actual >= 0 && actual < classes_ && predicted >= 0 && predicted < classes_,
                "ConfusionMatrix: no entry (", actual, ", ", predicted, ") among ", classes_, " classes");
  return counts_[static_cast<std::size_t>(actual * classes_ + predicted)];
}

std::int64_t ConfusionMatrix::total() const {
  std::int64_t sum = 0;
  for (const std::int64_t count : counts_) sum += count;
  return sum;
}

double ConfusionMatrix::accuracy() const {
  std::int64_t right = 0;
  for (std::int64_t c = 0; c < classes_; ++c) right += at(c, c);
  return static_cast<double>(right) / static_cast<double>(total());
}

double ConfusionMatrix::recall(std::int64_t actual) const {
  std::int64_t sum = 0;
  for (std::int64_t c = 0; c < classes_; ++c) sum += at(actual, c);
  return static_cast<double>(at(actual, actual)) / static_cast<double>(sum);
}

double ConfusionMatrix::precision(std::int64_t predicted) const {
  std::int64_t sum = 0;
  for (std::int64_t c = 0; c < classes_; ++c) sum += at(c, predicted);
  return static_cast<double>(at(predicted, predicted)) / static_cast<double>(sum);
}

std::string ConfusionMatrix::to_string(const std::vector<std::string>& names) const {
  LAMELLA_CHECK(Error, names.empty() || names.size() == static_cast<std::size_t>(classes_),
                "ConfusionMatrix: ", names.size(), " names for ", classes_, " classes");
  std::vector<std::string> labels = names;
  for (std::int64_t c = 0; names.empty() && c < classes_; ++c) labels.push_back(std::to_string(c));
  std::size_t first = 6, width = 4;  // "actual"
  for (const std::string& label : labels) first = std::max(first, label.size());
  for (const std::int64_t count : counts_) width = std::max(width, std::to_string(count).size() + 1);
  constexpr std::size_t kLongest = 7;  // of a column's title
  for (const std::string& label : labels) width = std::max(width, std::min(label.size(), kLongest) + 1);

  std::string text = cell("actual", first);
  for (const std::string& label : labels) text += cell(label.substr(0, kLongest), width);
  text += "  recall\n";
  for (std::int64_t actual = 0; actual < classes_; ++actual) {
    text += cell(labels[static_cast<std::size_t>(actual)], first);
    for (std::int64_t c = 0; c < classes_; ++c)
      text += cell(at(actual, c) == 0 ? "." : std::to_string(at(actual, c)), width);
    text += cell(percent(recall(actual)), 8) + '\n';
  }
  return text;
}

}  // namespace lamella::train
