#include "lamella/train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lamella/core/error.h"
#include "lamella/tensor/create.h"

namespace lamella::train {
namespace {

const double kNan = std::nan("");

Tensor labels(const std::vector<std::int64_t>& values) {
  return from_vector(values, {static_cast<std::int64_t>(values.size())});
}

TEST(CountCorrectTest, ranks_the_label_among_the_k_largest) {
  const Tensor logits = from_vector<float>({3, 2, 1, 1, 2, 3, 1, 3, 2}, {3, 3});
  EXPECT_EQ(count_correct(logits, labels({0, 0, 0})), 1);
  EXPECT_EQ(count_correct(logits, labels({1, 1, 2}), 2), 3);
  EXPECT_EQ(count_correct(logits, labels({2, 0, 0}), 2), 0);
  EXPECT_EQ(count_correct(logits, labels({2, 0, 0}), 3), 3);
  EXPECT_EQ(count_correct(logits, labels({2, 0, 0}), 99), 3);
}

TEST(CountCorrectTest, gives_equal_logits_to_the_lower_class_and_nothing_to_nan) {
  const Tensor equal = from_vector<float>({5, 5, 5, 5}, {2, 2});
  EXPECT_EQ(count_correct(equal, labels({0, 1})), 1);
  const Tensor nan = from_vector<double>({kNan, 1, 1, kNan}, {2, 2});
  EXPECT_EQ(count_correct(nan, labels({0, 0}), 2), 0);
}

TEST(AccuracyTest, is_a_number_on_the_device_of_the_logits) {
  const Tensor logits = from_vector<float>({3, 2, 1, 1, 2, 3, 1, 3, 2, 5, 5, 5}, {4, 3});
  const Tensor share = accuracy(logits, labels({0, 2, 0, 0}));
  EXPECT_EQ(share.shape(), Shape({}));
  EXPECT_EQ(share.dtype(), float64);
  EXPECT_EQ(share.item(), 0.75);
  EXPECT_EQ(accuracy(logits.slice(0, {0, 1}), from_vector<float>({0.2f, 0.7f, 0.1f}, {1, 3})).item(), 0);
  EXPECT_THROW(accuracy(logits, labels({0, 1})), ShapeError);
  EXPECT_THROW(accuracy(labels({0, 1}), labels({0, 1})), DTypeError);
  EXPECT_THROW(accuracy(Tensor(), labels({0, 1})), Error);
}

TEST(AverageTest, takes_numbers_and_tensors) {
  Average average;
  EXPECT_TRUE(std::isnan(average.value()));
  average.add(1, 3);
  average.add(full({}, 5), 1);
  EXPECT_EQ(average.value(), 2);
  EXPECT_THROW(average.add(zeros({2})), ShapeError);
  EXPECT_EQ(average.value(), 2);
  average.reset();
  EXPECT_TRUE(std::isnan(average.value()));
}

TEST(CountCorrectTest, takes_probabilities_and_an_empty_batch) {
  const Tensor logits = from_vector<float>({0, 9, 9, 0}, {2, 2});
  EXPECT_EQ(count_correct(logits, from_vector<float>({0.4f, 0.6f, 0.3f, 0.7f}, {2, 2})), 1);
  EXPECT_EQ(count_correct(empty({0, 4}), labels({})), 0);
}

template <class E>
std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  return "no such error";
}

TEST(CountCorrectTest, refuses_what_does_not_fit) {
  const Tensor logits = zeros({2, 3});
  EXPECT_EQ(message<Error>([&] {
              count_correct(logits, labels({0, 3}));
            }),
            "count_correct: label 3 at 1 is outside [0, 3)");
  EXPECT_EQ(message<Error>([&] {
              count_correct(logits, labels({-1, 0}));
            }),
            "count_correct: label -1 at 0 is outside [0, 3)");
  EXPECT_EQ(
      message<ShapeError>([&] { count_correct(logits, labels({0})); }),
      "count_correct: labels [1] int64 cpu do not fit logits [2,3] float32 cpu, must be integers [N] or "
      "probabilities [N,C]");
  EXPECT_THROW(count_correct(zeros({3}), labels({0})), ShapeError);
  EXPECT_THROW(count_correct(labels({0, 1}), labels({0, 1})), DTypeError);
  EXPECT_THROW(count_correct(logits, labels({0, 1}), 0), Error);
  EXPECT_THROW(count_correct(Tensor(), labels({0})), Error);
}

TEST(AverageTest, weighs) {
  Average average;
  EXPECT_TRUE(std::isnan(average.value()));
  average.add(1, 3);
  average.add(5);
  EXPECT_DOUBLE_EQ(average.value(), 2);
  average.reset();
  EXPECT_TRUE(std::isnan(average.value()));
}

TEST(ConfusionMatrixTest, counts_and_rates) {
  ConfusionMatrix matrix(3);
  EXPECT_TRUE(std::isnan(matrix.accuracy()));
  matrix.add(from_vector<float>({1, 0, 0, 0, 1, 0, 0, 1, 0}, {3, 3}), labels({0, 1, 0}));
  matrix.add(from_vector<float>({1, 0, 0}, {1, 3}), labels({0}));
  EXPECT_EQ(matrix.at(0, 0), 2);
  EXPECT_EQ(matrix.at(0, 1), 1);
  EXPECT_EQ(matrix.at(1, 1), 1);
  EXPECT_EQ(matrix.at(1, 0), 0);
  EXPECT_EQ(matrix.total(), 4);
  EXPECT_DOUBLE_EQ(matrix.accuracy(), 0.75);
  EXPECT_DOUBLE_EQ(matrix.recall(0), 2.0 / 3);
  EXPECT_DOUBLE_EQ(matrix.precision(1), 0.5);
  EXPECT_TRUE(std::isnan(matrix.recall(2)));
  EXPECT_TRUE(std::isnan(matrix.precision(2)));
  EXPECT_EQ(matrix.to_string({"cat", "dog", "aeroplane"}),
            "   actual     cat     dog aeropla  recall\n"
            "      cat       2       1       .   66.7%\n"
            "      dog       .       1       .  100.0%\n"
            "aeroplane       .       .       .       -\n");
}

TEST(ConfusionMatrixTest, adds_nothing_where_it_throws) {
  ConfusionMatrix matrix(2);
  EXPECT_THROW(matrix.add(from_vector<float>({0, 1, 0, 1}, {2, 2}), labels({1, 2})), Error);
  EXPECT_THROW(matrix.add(from_vector<double>({0, 1, kNan, 1}, {2, 2}), labels({1, 1})), Error);
  EXPECT_THROW(matrix.add(zeros({1, 3}), labels({1})), ShapeError);
  EXPECT_EQ(matrix.total(), 0);
  EXPECT_THROW(matrix.at(2, 0), Error);
  EXPECT_THROW(matrix.to_string({"one"}), Error);
  EXPECT_THROW(ConfusionMatrix(0), Error);
}

}  // namespace
}  // namespace lamella::train
