#include "lamella/layers/freeze.h"

#include <fnmatch.h>

#include <algorithm>

#include "core/check.h"
#include "lamella/layers/modules/norm.h"

namespace lamella {

std::vector<std::string> freeze(Module& module, const std::vector<std::string>& patterns) {
  auto parameters = module.named_parameters();
  std::erase_if(parameters, [](const auto& named) { return !is_floating(named.second.dtype()); });
  const auto matches = [](const std::string& pattern, const std::string& name) {
    return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
  };
  for (const std::string& pattern : patterns) {
    const bool any = std::any_of(parameters.begin(), parameters.end(),
                                 [&](const auto& named) { return matches(pattern, named.first); });
    LAMELLA_CHECK(Error, any, "freeze: no parameter of ", module.type_name(), " matches \"", pattern, '"',
                  parameters.empty()
                      ? std::string("; it has none")
                      : "; they are " + parameters.front().first + " … " + parameters.back().first);
  }
  std::vector<std::string> frozen;
  for (auto& [name, parameter] : parameters) {
    const bool any = std::any_of(patterns.begin(), patterns.end(),
                                 [&, &name = name](const auto& pattern) { return matches(pattern, name); });
    if (!any) continue;
    parameter.set_requires_grad(false);
    parameter.set_grad(Tensor());  // an optimizer would go on using it
    frozen.push_back(name);
  }
  return frozen;
}

void hold_frozen_norms(Module& module) {
  module.apply([](const std::string&, Module& below) {
    const auto* norm = dynamic_cast<const BatchNorm2d*>(&below);
    if (norm == nullptr || !norm->weight().defined()) return;
    if (!norm->weight().requires_grad() && !norm->bias().requires_grad()) below.eval();
  });
}

}  // namespace lamella
