#include <cstdio>

#include "checkpoint.h"
#include "commands.h"
#include "network.h"

namespace lm = lamella;

int run_summary(const SummaryOptions& options) {
  InputFormat format;
  std::unique_ptr<lm::Module> network;
  if (!options.checkpoint.empty()) {
    const Checkpoint checkpoint = load_checkpoint(options.checkpoint);
    network = trained_network(checkpoint, lm::Device::cpu());
    format = checkpoint.format;
  } else {
    check(options.recipe);
    if (options.classes < 1 || options.classes > 1'000'000)
      throw lm::Error("classes is " + std::to_string(options.classes) + ", must be between 1 and 1000000");
    if (options.channels < 1 || options.channels > 4096)
      throw lm::Error("channels is " + std::to_string(options.channels) + ", must be between 1 and 4096");
    format.channels = options.channels;
    format.classes.resize(static_cast<std::size_t>(options.classes));
    format.size = 224;
  }
  if (options.batch < 1 || options.batch > 4096)
    throw lm::Error("batch is " + std::to_string(options.batch) + ", must be between 1 and 4096");
  if (options.recipe.image_size != 0) format.size = options.recipe.image_size;
  if (!network) network = make_network(options.recipe, format);
  const lm::Summary summary =
      lm::summarize(*network, lm::zeros({options.batch, format.channels, format.size, format.size}));
  std::printf("%s\n%s", network->type_name().c_str(), summary.to_string().c_str());
  return 0;
}
