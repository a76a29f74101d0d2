#include "autograd/walk.h"
#include "core/check.h"
#include "core/profiling.h"
#include "lamella/autograd/autograd.h"

namespace lamella {
namespace detail {

Tensors backward_of_block(const Tensor& result, const Tensor& gradient, const Tensors& leaves) {
  Walk walk{Walk::Nested{}};
  for (const Tensor& leaf : leaves) walk.collect(leaf);
  walk.seed(result, gradient);
  walk.run();
  Tensors gradients;
  for (const Tensor& leaf : leaves) gradients.push_back(walk.collected(leaf));
  return gradients;
}

}  // namespace detail

void backward(const Tensors& roots, const Tensors& gradients, bool retain_graph) {
  LAMELLA_CHECK(ShapeError, gradients.empty() || gradients.size() == roots.size(), "backward: ", roots.size(),
                " roots but ", gradients.size(), " gradients");
  const NoGrad no_grad;
  const detail::profiling::PassScope pass(detail::profiling::Pass::Gradient, "backward");
  detail::Walk walk(retain_graph, false);
  for (std::size_t i = 0; i < roots.size(); ++i)
    walk.seed(roots[i], gradients.empty() ? Tensor() : gradients[i]);
  walk.run();
}

Tensors gradients_of(const Tensors& roots, const Tensors& inputs, const Tensors& gradients,
                     bool retain_graph) {
  LAMELLA_CHECK(ShapeError, gradients.empty() || gradients.size() == roots.size(),
                "gradients_of: ", roots.size(), " roots but ", gradients.size(), " gradients");
  const NoGrad no_grad;
  const detail::profiling::PassScope pass(detail::profiling::Pass::Gradient, "gradients_of");
  detail::Walk walk(retain_graph, true);
  for (const Tensor& input : inputs) walk.collect(input);
  walk.find_paths(roots);
  for (std::size_t i = 0; i < roots.size(); ++i)
    walk.seed(roots[i], gradients.empty() ? Tensor() : gradients[i]);
  walk.run();
  Tensors result;
  for (const Tensor& input : inputs) result.push_back(walk.collected(input));
  return result;
}

void Tensor::backward(const Tensor& gradient, bool retain_graph) const {
  lamella::backward({*this}, {gradient}, retain_graph);
}

}  // namespace lamella
