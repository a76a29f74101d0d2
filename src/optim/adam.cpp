#include "lamella/optim/adam.h"

#include "optim/batch.h"
#include "optim/options.h"
#include "tensor/dispatch.h"

namespace lamella::optim {

namespace {

AdamOptions plain(const AdamWOptions& options) {
  return {.lr = options.lr,
          .betas = options.betas,
          .eps = options.eps,
          .weight_decay = options.weight_decay,
          .amsgrad = options.amsgrad};
}

std::vector<ParamGroup> one_group(const Tensors& params) { return {{.params = params}}; }

}  // namespace

Adam::Adam(const char* kind, const std::vector<ParamGroup>& groups, const AdamOptions& options,
           bool decoupled)
    : Optimizer(kind, groups, options.lr, options.weight_decay), options_(options), decoupled_(decoupled) {
  check_option(kind, "lr", options.lr);
  check_option(kind, "weight_decay", options.weight_decay);
  check_option(kind, "betas.first", options.betas.first, 0, 1);
  check_option(kind, "betas.second", options.betas.second, 0, 1);
  check_option(kind, "eps", options.eps);
}

Adam::Adam(const Tensors& params, const AdamOptions& options) : Adam(one_group(params), options) {}
Adam::Adam(const std::vector<ParamGroup>& groups, const AdamOptions& options)
    : Adam("Adam", groups, options, false) {}

AdamW::AdamW(const Tensors& params, const AdamWOptions& options) : AdamW(one_group(params), options) {}
AdamW::AdamW(const std::vector<ParamGroup>& groups, const AdamWOptions& options)
    : Adam("AdamW", groups, plain(options), true) {}

std::vector<std::string> Adam::state_names() const {
  std::vector<std::string> names{"exp_avg", "exp_avg_sq"};
  if (options_.amsgrad) names.emplace_back("max_exp_avg_sq");
  return names;
}

void Adam::update(const UpdateBatch& batch) {
  const detail::AdamSettings settings{.beta1 = options_.betas.first,
                                      .beta2 = options_.betas.second,
                                      .eps = options_.eps,
                                      .weight_decay = batch.weight_decay,
                                      .decoupled = decoupled_,
                                      .amsgrad = options_.amsgrad};
  LAMELLA_KERNEL(batch.lr.device(), adam_step(views(batch, kind()), lr_of(batch), skip_of(batch), settings));
}

}  // namespace lamella::optim
