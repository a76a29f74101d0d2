#include "evaluate.h"

#include <cmath>
#include <cstdio>
#include <optional>

#include "interrupt.h"

namespace lm = lamella;

std::string Evaluation::summary() const {
  std::int64_t right = 0;
  for (std::int64_t c = 0; c < confusion.classes(); ++c) right += confusion.at(c, c);
  char text[128];
  std::snprintf(text, sizeof text, "accuracy %.2f %% (%lld of %lld), loss %.4f", 100 * confusion.accuracy(),
                static_cast<long long>(right), static_cast<long long>(confusion.total()), loss);
  return text;
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
  lm::train::Average loss;
  for (const auto& [images, labels] : loader) {
    const lm::Tensor logits = network(images);
    const auto count = images.size(0);
    loss.add(lm::cross_entropy(logits, labels), static_cast<double>(count));
    result.confusion.add(logits, labels);
    add_images(result, logits, labels);
    if (progress) progress->add(count);
    if (interrupted()) break;
  }
  if (progress) progress->finish();
  result.loss = loss.value();
  network.train(was_training);
  return result;
}
