#include <cstdio>
#include <optional>

#include "checkpoint.h"
#include "commands.h"
#include "interrupt.h"

namespace lm = lamella;

int run_eval(const EvalOptions& options) {
  const lm::Device device(options.run.device);
  check(options.profile);
  const Checkpoint checkpoint = load_checkpoint(options.checkpoint);
  std::optional<lm::train::Profile> profile;
  if (!options.profile.folder.empty()) profile.emplace(device);
  const auto network = trained_network(checkpoint, device);
  const TestImages test = open_test_images(source_of_images(options.data, checkpoint), checkpoint.format);
  ImageData data{.train = nullptr, .test = test.images, .format = checkpoint.format};
  // How bright its pixels are is a matter of the set, such as 16 in the digits and 255 in MNIST.
  data.format.normalize.scale = test.brightest;

  lm::data::DataLoader loader = test_loader(data, checkpoint.recipe, options.run.workers, device);
  if (profile) {
    const lm::NoGrad no_grad;
    const auto forward = [&](const lm::Tensor& images, const lm::Tensor&) { (*network)(images); };
    return profile_steps(*profile, *network, loader, forward, options.profile) ? 0 : 130;
  }
  const Evaluation result = evaluate(*network, loader, "test");
  if (interrupted()) return 130;
  const std::vector<std::string>& classes = data.format.classes;
  if (options.confusion) std::printf("%s\n", result.confusion_table(classes).c_str());
  std::printf("%s\n", result.per_class(classes).c_str());
  if (result.top > 1) std::printf("%s\n", result.top_summary().c_str());
  std::printf("%s\n", result.summary().c_str());
  return 0;
}
