#pragma once

#include <Eigen/Core>

#include "lamella/core/error.h"
#include "lamella/tensor/tensor.h"

/// @file
/// Optional: Eigen maps over CPU tensors. The only public header that needs Eigen.
namespace lamella {

/// A row-major matrix of T.
template <class T>
using RowMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// A contiguous CPU tensor as an Eigen matrix over the same memory: the last axis gives the columns, all
/// others the rows (one row for a vector or a scalar). The tensor must outlive the map. Throws DeviceError
/// off the CPU, ShapeError if not contiguous, DTypeError if the elements are not T.
template <class T>
Eigen::Map<const RowMatrix<T>> eigen_map(const Tensor& tensor) {
  if (!tensor.device().is_cpu()) throw DeviceError("eigen_map: " + tensor.describe() + " is not on the CPU");
  if (!tensor.is_contiguous()) throw ShapeError("eigen_map: " + tensor.describe() + " is not contiguous");
  const std::int64_t columns = tensor.dim() == 0 ? 1 : tensor.size(-1);
  return {tensor.data<T>(), columns == 0 ? 0 : tensor.numel() / columns, columns};
}

/// The same for writing; counts as an in-place change.
template <class T>
Eigen::Map<RowMatrix<T>> mutable_eigen_map(Tensor& tensor) {
  const auto checked = eigen_map<T>(tensor);
  return {tensor.mutable_data<T>(), checked.rows(), checked.cols()};
}

}  // namespace lamella
