// What the consumer projects compile: a user's first program, a few training steps on random images.
#include <lamella/lamella.h>

#include <cstdio>

namespace lm = lamella;

int main() {
  lm::manual_seed(1);
  lm::Sequential net(lm::DepthwiseConv2d(3, 3, {.padding = 1}), lm::Conv2d(3, 8, 1), lm::BatchNorm2d(8),
                     lm::ReLU(), lm::Flatten(), lm::Linear(8 * 6 * 6, 4));
  const lm::Tensor images = lm::randn({16, 3, 6, 6});
  const lm::Tensor labels = lm::randint(0, 4, {16});

  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    const lm::Tensor loss = lm::cross_entropy(net(images), labels);
    net.zero_grad();
    loss.backward();
    const lm::NoGrad no_grad;
    for (lm::Tensor parameter : net.parameters()) parameter.copy_(parameter - parameter.grad() * 0.1);
    last = loss.item();
    if (step == 0) first = last;
  }
  std::printf("Lamella %s: loss from %.3f to %.3f\n", lm::version(), first, last);

  bool refused = false;  // errors cross the library's border as what they are
  try {
    net(lm::randn({16, 5, 6, 6}));
  } catch (const lm::ShapeError&) {
    refused = true;
  }
  return last < 0.5 * first && refused ? 0 : 1;
}
