#include "lamella/optim/sgd.h"

#include "optim/batch.h"
#include "optim/options.h"
#include "tensor/dispatch.h"

namespace lamella::optim {

SGD::SGD(const Tensors& params, const SGDOptions& options)
    : SGD(std::vector<ParamGroup>{{.params = params}}, options) {}

SGD::SGD(const std::vector<ParamGroup>& groups, const SGDOptions& options)
    : Optimizer("SGD", groups, options.lr, options.weight_decay), options_(options) {
  check_option(kind(), "lr", options.lr);
  check_option(kind(), "weight_decay", options.weight_decay);
  check_option(kind(), "momentum", options.momentum);
  LAMELLA_CHECK(Error, std::isfinite(options.dampening), kind(), ": dampening is ", options.dampening,
                "; it must be finite");
  LAMELLA_CHECK(Error, !options.nesterov || (options.momentum > 0 && options.dampening == 0), kind(),
                ": nesterov needs momentum above 0 and dampening 0, got momentum ", options.momentum,
                " and dampening ", options.dampening);
}

std::vector<std::string> SGD::state_names() const {
  if (options_.momentum == 0) return {};
  return {"momentum_buffer"};
}

void SGD::update(const UpdateBatch& batch) {
  const detail::SgdSettings settings{.momentum = options_.momentum,
                                     .dampening = options_.dampening,
                                     .weight_decay = batch.weight_decay,
                                     .nesterov = options_.nesterov};
  LAMELLA_KERNEL(batch.lr.device(), sgd_step(views(batch, kind()), lr_of(batch), skip_of(batch), settings));
}

}  // namespace lamella::optim
