// Runs a MobileNet on weights and images from files and writes what comes out: the half of
// tests/golden/parity_torch.py that is Lamella's.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "lamella/autograd/autograd.h"
#include "lamella/io/safetensors.h"
#include "lamella/layers/loss.h"
#include "lamella/tensor/create.h"
#include "tests/models/networks.h"
#include "tests/models/plain_sgd.h"

namespace lm = lamella;

namespace {

void run(const std::string& network, const std::string& weights, const std::string& batch,
         const std::string& output, lm::DType dtype, lm::MemoryFormat format, int steps, lm::Device device,
         const std::string& saved) {
  const lm::StateDict state = lm::io::load_safetensors(weights);
  const lm::StateDict in = lm::io::load_safetensors(batch);
  const char* const bias = network == "mobilenet_v1"   ? "classifier.bias"
                           : network == "mobilenet_v2" ? "classifier.1.bias"
                                                       : "classifier.3.bias";
  const auto net = lm::make_network(network, {.classes = state.at(bias).size(0)});
  net->to(dtype);
  net->to(format);
  net->load_state_dict(state);
  if (!saved.empty()) lm::io::save_safetensors(saved, net->state_dict());
  net->to(device);
  const lm::Tensor images = in.at("images").to(dtype).contiguous(format).to(device);
  const lm::Tensor labels = in.at("labels").to(device);

  lm::StateDict out;
  {
    const lm::NoGrad no_grad;
    net->eval();
    out.set("logits_eval", (*net)(images).to(lm::float64));
    net->train();
  }
  lm::PlainSgd sgd(net->parameters());
  std::vector<double> losses;
  for (int step = 0; step < steps; ++step) {
    net->zero_grad();
    const lm::Tensor logits = (*net)(images);
    const lm::Tensor loss = lm::cross_entropy(logits, labels);
    loss.backward();
    losses.push_back(loss.item());
    if (step == 0) {
      out.set("logits_train", logits.detach().to(lm::float64));
      for (const auto& [name, parameter] : net->named_parameters())
        out.set("gradient." + name, parameter.grad().detach().to(lm::float64).clone());
    }
    if (steps > 1) sgd.step();
  }
  out.set("losses", lm::from_vector(losses, {steps}));
  lm::io::save_safetensors(output, out);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 9 && count != 10) {
    std::fprintf(
        stderr,
        "usage: %s NETWORK WEIGHTS BATCH OUTPUT DTYPE contiguous|channels_last STEPS DEVICE [SAVED]\n",
        arguments[0]);
    return 2;
  }
  try {
    const std::string format = arguments[6];
    run(arguments[1], arguments[2], arguments[3], arguments[4], lm::parse_dtype(arguments[5]),
        format == "channels_last" ? lm::MemoryFormat::ChannelsLast : lm::MemoryFormat::Contiguous,
        std::stoi(arguments[7]), lm::Device(arguments[8]), count == 10 ? arguments[9] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
