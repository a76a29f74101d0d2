#include "core/cuda/mapping.h"

#include <cuda.h>
#include <cudaTypedefs.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/cuda/driver.h"

namespace lamella::detail::cuda {
namespace {

constexpr std::size_t kSmallest = std::size_t{2} << 20;

struct Driver {
  PFN_cuDeviceGetAttribute_v2000 attribute = nullptr;
  PFN_cuMemGetAllocationGranularity_v10020 granularity = nullptr;
  PFN_cuMemAddressReserve_v10020 reserve = nullptr;
  PFN_cuMemAddressFree_v10020 unreserve = nullptr;
  PFN_cuMemCreate_v10020 create = nullptr;
  PFN_cuMemRelease_v10020 release = nullptr;
  PFN_cuMemMap_v10020 map = nullptr;
  PFN_cuMemUnmap_v10020 unmap = nullptr;
  PFN_cuMemSetAccess_v10020 set_access = nullptr;
  bool has_all = true;
};

const Driver& driver() {
  static const Driver found = [] {
    Driver driver;
    const auto find = [&](auto& function, const char* name, unsigned since) {
      void* const address = driver_function(name, since);
      driver.has_all = driver.has_all && address != nullptr;
      function = reinterpret_cast<std::decay_t<decltype(function)>>(address);
    };
    find(driver.attribute, "cuDeviceGetAttribute", 2000);
    find(driver.granularity, "cuMemGetAllocationGranularity", 10020);
    find(driver.reserve, "cuMemAddressReserve", 10020);
    find(driver.unreserve, "cuMemAddressFree", 10020);
    find(driver.create, "cuMemCreate", 10020);
    find(driver.release, "cuMemRelease", 10020);
    find(driver.map, "cuMemMap", 10020);
    find(driver.unmap, "cuMemUnmap", 10020);
    find(driver.set_access, "cuMemSetAccess", 10020);
    return driver;
  }();
  return found;
}

CUdeviceptr address_of(void* data) {
  return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(data));
}

CUmemAllocationProp properties(int device, bool is_exportable, bool is_for_rdma) {
  CUmemAllocationProp wanted{};
  wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  wanted.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  wanted.location.id = device;
  if (is_exportable) wanted.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  wanted.allocFlags.gpuDirectRDMACapable = is_for_rdma ? 1 : 0;
  return wanted;
}

bool has(CUdevice_attribute attribute, int device) {
  int value = 0;
  return driver().attribute(&value, attribute, device) == CUDA_SUCCESS && value != 0;
}

}  // namespace

std::optional<Mapping> Mapping::of(Device device) {
  if (!driver().has_all || !has(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device.index))
    return std::nullopt;
  Mapping mapping;
  mapping.device_ = device.index;
  // As cudaMalloc's memory can be: for libraries that send tensors to other processes and machines.
  mapping.is_exportable_ = has(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, device.index);
  mapping.is_for_rdma_ = has(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, device.index);
  const auto works = [&] {
    const CUmemAllocationProp wanted =
        properties(mapping.device_, mapping.is_exportable_, mapping.is_for_rdma_);
    std::size_t step = 0;
    if (driver().granularity(&step, &wanted, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) != CUDA_SUCCESS ||
        step == 0)
      return false;
    mapping.chunk_ = (std::max(kSmallest, step) + step - 1) / step * step;
    void* const data = mapping.reserve(mapping.chunk_);
    if (data == nullptr) return false;
    const bool is_mapped = mapping.map(data, mapping.chunk_);
    if (is_mapped) mapping.unmap(data, mapping.chunk_);
    mapping.unreserve(data, mapping.chunk_);
    return is_mapped;
  };
  if (works()) return mapping;
  mapping.is_exportable_ = mapping.is_for_rdma_ = false;  // some containers allow neither
  if (works()) return mapping;
  return std::nullopt;
}

void* Mapping::reserve(std::size_t bytes) const noexcept {
  CUdeviceptr data = 0;
  if (driver().reserve(&data, bytes, 0, 0, 0) != CUDA_SUCCESS) return nullptr;
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(data));
}

void Mapping::unreserve(void* data, std::size_t bytes) const noexcept {
  driver().unreserve(address_of(data), bytes);
}

bool Mapping::map(void* data, std::size_t bytes) const noexcept {
  const CUmemAllocationProp wanted = properties(device_, is_exportable_, is_for_rdma_);
  CUmemGenericAllocationHandle memory{};
  if (driver().create(&memory, bytes, &wanted, 0) != CUDA_SUCCESS) return false;
  const bool is_mapped = driver().map(address_of(data), bytes, 0, memory, 0) == CUDA_SUCCESS;
  driver().release(memory);  // it lives as long as it is mapped
  if (!is_mapped) return false;
  CUmemAccessDesc access{};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = device_;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  if (driver().set_access(address_of(data), bytes, &access, 1) == CUDA_SUCCESS) return true;
  driver().unmap(address_of(data), bytes);
  return false;
}

void Mapping::unmap(void* data, std::size_t bytes) const noexcept { driver().unmap(address_of(data), bytes); }

}  // namespace lamella::detail::cuda
