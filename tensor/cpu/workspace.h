#pragma once

#include "core/workspace.h"

namespace lamella::cpu {

class Workspace : public detail::Workspace {
 public:
  explicit Workspace(std::int64_t bytes) : detail::Workspace(Device::cpu(), bytes) {}
};

}  // namespace lamella::cpu
