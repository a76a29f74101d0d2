#include "lamella/optim/rmsprop.h"

#include "optim/batch.h"
#include "optim/options.h"
#include "tensor/dispatch.h"

namespace lamella::optim {

RMSprop::RMSprop(const Tensors& params, const RMSpropOptions& options)
    : RMSprop(std::vector<ParamGroup>{{.params = params}}, options) {}

RMSprop::RMSprop(const std::vector<ParamGroup>& groups, const RMSpropOptions& options)
    : Optimizer("RMSprop", groups, options.lr, options.weight_decay), options_(options) {
  check_option(kind(), "lr", options.lr);
  check_option(kind(), "weight_decay", options.weight_decay);
  check_option_closed(kind(), "alpha", options.alpha, 0, 1);
  check_option(kind(), "eps", options.eps);
  check_option(kind(), "momentum", options.momentum);
}

std::vector<std::string> RMSprop::state_names() const {
  std::vector<std::string> names{"square_avg"};
  if (options_.momentum > 0) names.emplace_back("momentum_buffer");
  if (options_.centered) names.emplace_back("grad_avg");
  return names;
}

void RMSprop::update(const UpdateBatch& batch) {
  const detail::RmspropSettings settings{.alpha = options_.alpha,
                                         .eps = options_.eps,
                                         .weight_decay = batch.weight_decay,
                                         .momentum = options_.momentum,
                                         .centered = options_.centered,
                                         .eps_inside_sqrt = options_.eps_inside_sqrt};
  LAMELLA_KERNEL(batch.lr.device(),
                 rmsprop_step(views(batch, kind()), lr_of(batch), skip_of(batch), settings));
}

}  // namespace lamella::optim
