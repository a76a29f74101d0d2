#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>

#include "checkpoint.h"
#include "commands.h"
#include "draw.h"
#include "interrupt.h"

namespace lm = lamella;

int run_predict(const PredictOptions& options) {
  const lm::Device device(options.run.device);
  const Checkpoint checkpoint = load_checkpoint(options.checkpoint);
  const auto network = trained_network(checkpoint, device);
  InputFormat format = checkpoint.format;
  format.normalize.scale = 255;  // whatever the training images' largest value: image files have 255

  // Images are of one size: on a GPU the launches for the second are recorded, and replayed from then on.
  lm::fold_batch_norms(*network);
  lm::train::Inference logits_of(*network, {.capture = device.is_cuda()});
  const lm::NoGrad no_grad;
  bool failed = false;
  for (const std::filesystem::path& path : options.images) {
    if (interrupted()) return 130;
    lm::data::Image image;
    lm::Tensor input;
    try {
      image = lm::data::read_image(path);
      input = to_input(image, format);
    } catch (const lm::Error& error) {
      const std::string text = error.what();
      const bool named = text.find(path.string()) != std::string::npos;
      std::fprintf(stderr, "error: %s%s\n", named ? "" : (path.string() + ": ").c_str(), text.c_str());
      failed = true;
      continue;
    }
    const lm::Tensor logits = logits_of(input);
    const std::vector<double> shares = lm::softmax(logits, 1).to_vector<double>();
    std::vector<std::size_t> order(shares.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return shares[a] > shares[b]; });

    std::printf("%s:", path.c_str());
    for (std::size_t i = 0; i < std::min(order.size(), static_cast<std::size_t>(options.top)); ++i)
      std::printf("%s %s %.1f %%", i == 0 ? "" : ",", format.classes[order[i]].c_str(),
                  100 * shares[order[i]]);
    std::printf("\n");
    if (options.draw) std::printf("%s", draw({{image, format.classes[order[0]]}}).c_str());
  }
  return failed ? 1 : 0;
}
