#include "evaluate.h"

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
    for (const std::int64_t prediction : lm::argmax(logits, 1).to_vector<std::int64_t>())
      result.predictions.push_back(prediction);
    if (progress) progress->add(count);
    if (interrupted()) break;
  }
  if (progress) progress->finish();
  result.loss = loss.value();
  network.train(was_training);
  return result;
}
