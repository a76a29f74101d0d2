#include "evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "interrupt.h"
#include "text.h"

namespace lm = lamella;

std::string Evaluation::summary() const {
  std::int64_t right = 0;
  for (std::int64_t c = 0; c < confusion.classes(); ++c) right += confusion.at(c, c);
  char text[128];
  std::snprintf(text, sizeof text, "accuracy %.2f %% (%lld of %lld), loss %.4f", 100 * confusion.accuracy(),
                static_cast<long long>(right), static_cast<long long>(confusion.total()), loss);
  return text;
}

std::string Evaluation::top_summary() const {
  char text[128];
  std::snprintf(text, sizeof text, "top-%d accuracy %.2f %% (%lld of %lld)", top,
                100 * static_cast<double>(in_top) / static_cast<double>(confusion.total()),
                static_cast<long long>(in_top), static_cast<long long>(confusion.total()));
  return text;
}

std::string Evaluation::per_class(const std::vector<std::string>& classes) const {
  std::size_t longest = 5;  // "class"
  for (const std::string& name : classes) longest = std::max(longest, columns(name));
  const auto percent = [](double share) {
    char text[32] = "-";
    if (!std::isnan(share)) std::snprintf(text, sizeof text, "%.2f %%", 100 * share);
    return std::string(text);
  };
  std::string table = padded("class", longest) + "  images    recall  precision\n";
  for (std::int64_t c = 0; c < confusion.classes(); ++c) {
    std::int64_t images = 0;
    for (std::int64_t other = 0; other < confusion.classes(); ++other) images += confusion.at(c, other);
    char figures[96];
    std::snprintf(figures, sizeof figures, "  %6lld  %8s  %9s\n", static_cast<long long>(images),
                  percent(confusion.recall(c)).c_str(), percent(confusion.precision(c)).c_str());
    table += padded(classes[static_cast<std::size_t>(c)], longest) + figures;
  }
  return table;
}

std::string Evaluation::confusion_table(const std::vector<std::string>& classes) const {
  constexpr std::size_t kLongest = 7;  // of a column's title
  std::size_t first = 6, width = 4;    // "actual"
  const auto right = [](std::string_view text, std::size_t size) {
    return std::string(size - std::min(size, columns(text)), ' ').append(text);
  };
  const auto count = [&](std::int64_t actual, std::int64_t predicted) {
    const std::int64_t images = confusion.at(actual, predicted);
    return images == 0 ? "." : std::to_string(images);
  };
  for (const std::string& name : classes) {
    first = std::max(first, columns(name));
    width = std::max(width, std::min(columns(name), kLongest) + 1);
  }
  for (std::int64_t a = 0; a < confusion.classes(); ++a)
    for (std::int64_t p = 0; p < confusion.classes(); ++p) width = std::max(width, count(a, p).size() + 1);

  std::string table = right("actual", first);
  for (const std::string& name : classes) table += right(first_columns(name, kLongest), width);
  table += "  recall\n";
  for (std::int64_t a = 0; a < confusion.classes(); ++a) {
    table += right(classes[static_cast<std::size_t>(a)], first);
    for (std::int64_t p = 0; p < confusion.classes(); ++p) table += right(count(a, p), width);
    char share[32] = "-";
    if (const double recall = confusion.recall(a); !std::isnan(recall))
      std::snprintf(share, sizeof share, "%.1f%%", 100 * recall);
    table += right(share, 8) + '\n';
  }
  return table;
}

namespace {

void add_images(Evaluation& result, const lm::Tensor& logits, const lm::Tensor& labels) {
  const std::vector<double> logs = lm::log_softmax(logits, 1).to_vector<double>();
  const std::vector<std::int64_t> actual = labels.to_vector<std::int64_t>();
  const auto predicted = lm::argmax(logits, 1).to_vector<std::int64_t>();
  const auto classes = static_cast<std::size_t>(logits.size(1));
  for (std::size_t i = 0; i < predicted.size(); ++i) {
    const double* const row = &logs[i * classes];
    result.predictions.push_back(predicted[i]);
    result.probabilities.push_back(std::exp(row[predicted[i]]));
    result.losses.push_back(-row[actual[i]]);
  }
}

}  // namespace

Evaluation evaluate(lm::Module& network, lm::data::DataLoader& loader, const std::string& label) {
  const lm::NoGrad no_grad;
  const bool was_training = network.is_training();
  network.eval();
  Evaluation result{
      .confusion = lm::train::ConfusionMatrix(static_cast<std::int64_t>(loader.dataset().classes().size()))};
  std::optional<lm::train::Progress> progress;
  if (!label.empty())
    progress.emplace(lm::train::Progress::Options{.label = label, .total = loader.dataset().size()});
  result.top = static_cast<int>(std::clamp<std::int64_t>(result.confusion.classes() - 1, 1, 5));
  lm::train::Average loss;
  for (const auto& [images, labels] : loader) {
    const lm::Tensor logits = network(images);
    const auto count = images.size(0);
    loss.add(lm::cross_entropy(logits, labels), static_cast<double>(count));
    result.confusion.add(logits, labels);
    result.in_top += lm::train::count_correct(logits, labels, result.top);
    add_images(result, logits, labels);
    if (progress) progress->add(count);
    if (interrupted()) break;
  }
  if (progress) progress->finish();
  result.loss = loss.value();
  network.train(was_training);
  return result;
}
