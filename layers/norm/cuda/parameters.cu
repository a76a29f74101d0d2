#include "layers/norm/kernels.h"
#include "tensor/cuda/map.cuh"

namespace lamella::cuda {

namespace {

struct Itself {
  template <class C>
  __device__ C operator()(C x) const {
    return x;
  }
};

}  // namespace

void write_parameter_gradient(const detail::ConstTensorView& sums, const detail::TensorView& target,
                              detail::GradientWrite write) {
  const detail::ConstTensorView from{sums.data, target.shape, dense_strides(target.shape), DType::Float64,
                                     sums.device};
  map_each<double>(target, write, Itself(), from);
}

}  // namespace lamella::cuda
