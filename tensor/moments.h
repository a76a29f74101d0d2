#pragma once

#include "lamella/tensor/tensor.h"
#include "tensor/left_parts.h"

/// Statistics that an operator leaves with its result for the norm behind it: see docs/architecture.md,
/// "Training: what is folded where".
namespace lamella::detail {

/// While it lives, the next convolution of this thread that can is asked to leave moments. Of one operator:
/// who takes the request ends it.
class MomentsRequest {
 public:
  explicit MomentsRequest(bool wanted);
  ~MomentsRequest();
  MomentsRequest(const MomentsRequest&) = delete;
  MomentsRequest& operator=(const MomentsRequest&) = delete;

 private:
  bool before_;
};
/// Whether moments are asked for; false from then on.
bool take_moments_request();

/// See LeftParts.
struct Moments {
  Tensor parts;  ///< undefined: none
  std::int64_t of_part = 0;
};

/// Leaves each channel's moments, by parts, with a tensor of which nobody has another handle yet.
void leave_moments(const Tensor& tensor, const LeftParts& moments);
/// What was left, if the tensor has not been written to since.
Moments moments_of(const Tensor& tensor);

}  // namespace lamella::detail
