#include "tensor/door.h"

#include <atomic>
#include <optional>
#include <utility>

#include "core/check.h"
#include "core/cuda/recording.h"
#include "core/environment.h"
#include "core/profiling_bytes.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/stream.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/pending.h"

namespace lamella::detail {

namespace {

std::atomic<std::uint64_t> folded_count{0};
std::atomic<std::uint64_t> applied_count{0};
bool fusion_wanted() {
  static const bool wanted = !environment_says("LAMELLA_FUSION", "0");
  return wanted;
}
thread_local bool fusion_on = fusion_wanted();

/// `of` is a TensorImpl or a Debt.
template <class Geometry>
ConstTensorView stored_view(const Geometry& of, const Storage& storage) {
  return {static_cast<const std::byte*>(storage.block.data) +
              of.offset * static_cast<std::int64_t>(size_of(of.dtype)),
          of.shape, of.strides, of.dtype, storage.device};
}

// What has not come through read() and write(), for a profile.
const PendingView& reading(const PendingView& view) {
  if (profiling::on()) profiling::count_bytes(bytes_shown(view.stored), 0);
  return view;
}
const TensorView& writing(const TensorView& view) {
  if (profiling::on()) profiling::count_bytes(0, bytes_shown(view));
  return view;
}

const void* vector_data(const Tensor& tensor) { return tensor.defined() ? read(tensor).data : nullptr; }

template <class Geometry>
PendingView view_of(const Pending& pending, const Geometry& of, const Storage& storage) {
  const std::uint64_t now = storage.version.load(std::memory_order_relaxed);
  LAMELLA_CHECK(Error, now == pending.stored_version, "pending tensor ", of.shape.to_string(), ' ',
                name(of.dtype), ": the values it is computed from were changed in place by ",
                storage.last_change.load());
  return {stored_view(of, storage), vector_data(pending.scale), vector_data(pending.shift),
          pending.activation, vector_data(pending.center)};
}

/// Whether work on what is stored is ordered by the stream it was allocated for. What a recording made is
/// ordered by the streams that replay it.
bool has_home(const Storage& stored) {
  return stored.device.is_cuda() && stored.block.pool == 0 && !cuda::is_recording();
}

/// The storage that holds the values themselves. A pending tensor covers its storage densely (make_pending
/// checks), so the result takes the same geometry.
///
/// It is computed on the stream of what it is computed from: to the caller the tensor exists already, and a
/// stream that only reads it must not be one that others have to wait for.
template <class Geometry>
const Storage& settle(Pending& pending, const Geometry& of, const Storage& stored) {
  const std::lock_guard lock(pending.mutex);
  if (!pending.applied) {
    const profiling::BytesApart not_of_whoever_reads_it;
    std::optional<StreamGuard> home;
    if (has_home(stored)) home.emplace(stored.stream);
    const PendingView view = view_of(pending, of, stored);
    // Not as much as is stored: that may be the first part of something larger.
    auto result = std::make_shared<Storage>(static_cast<std::size_t>(of.shape.product()) * size_of(of.dtype),
                                            stored.device);
    ConstTensorView target = stored_view(of, *result);
    const TensorView out{const_cast<void*>(target.data), target.shape, target.strides, target.dtype,
                         target.device};
    if (profiling::on())
      profiling::block_is_tensor(result->block.data, of.shape.begin(), of.shape.size(), of.dtype);
    LAMELLA_KERNEL(out.device, apply_pending(reading(view), writing(out)));
    pending.applied = std::move(result);
    applied_count.fetch_add(1, std::memory_order_relaxed);
  }
  if (has_home(stored))
    if (const Stream reader = current_stream(stored.device); !(reader == stored.stream)) {
      wait_stream(reader, stored.stream);
      pending.applied->allocator.record_stream(pending.applied->block, reader);
    }
  return *pending.applied;
}

const Storage& settle(const TensorImpl& impl) {
  return impl.pending ? settle(*impl.pending, impl, *impl.storage) : *impl.storage;
}

/// Notes that `impl` owes something, for whoever changes what it is computed from.
void remember_debt(const TensorImpl& impl) {
  Storage& storage = *impl.storage;
  const std::lock_guard lock(storage.debts_mutex);
  std::erase_if(storage.debts, [](const Debt& debt) { return debt.pending.expired(); });
  storage.debts.push_back({impl.pending, impl.shape, impl.strides, impl.offset, impl.dtype});
}

/// Computes every tensor that is still owed from what `storage` holds, before that changes.
void settle_debts(Storage& storage) {
  const std::lock_guard lock(storage.debts_mutex);
  for (const Debt& debt : storage.debts)
    if (const std::shared_ptr<Pending> pending = debt.pending.lock()) settle(*pending, debt, storage);
  storage.debts.clear();
}

}  // namespace

ConstTensorView read(const Tensor& tensor) {
  const TensorImpl& impl = TensorDoor::impl(tensor);
  const ConstTensorView view = stored_view(impl, settle(impl));
  if (profiling::on()) profiling::count_bytes(bytes_shown(view), 0);
  return view;
}

TensorView write(const Tensor& tensor, const char* op) {
  TensorImpl& impl = TensorDoor::impl(tensor);
  if (impl.pending) {
    // The stored values belong to whoever made them; the change goes to the applied ones, from now on this
    // tensor's own.
    settle(impl);
    const std::shared_ptr<Pending> pending = impl.pending;
    impl.storage = pending->applied;
    impl.pending = nullptr;
  }
  Storage& storage = *impl.storage;
  settle_debts(storage);
  storage.version.fetch_add(1, std::memory_order_relaxed);
  storage.last_change.store(op, std::memory_order_relaxed);
  const ConstTensorView view = stored_view(impl, storage);
  if (profiling::on()) {
    profiling::count_bytes(0, bytes_shown(view));
    profiling::name_in_place(op);
  }
  return {const_cast<void*>(view.data), view.shape, view.strides, view.dtype, view.device};
}

bool is_pending(const Tensor& tensor) {
  const TensorImpl& impl = TensorDoor::impl(tensor);
  if (!impl.pending) return false;
  const std::lock_guard lock(impl.pending->mutex);
  return impl.pending->applied == nullptr;
}

PendingView read_pending(const Tensor& tensor) {
  const TensorImpl& impl = TensorDoor::impl(tensor);
  if (!is_pending(tensor)) return {read(tensor), nullptr, nullptr, PendingActivation::None};
  return reading(view_of(*impl.pending, impl, *impl.storage));
}

Tensor make_pending(const Tensor& stored, const Tensor& scale, const Tensor& shift,
                    PendingActivation activation, const Tensor& center) {
  Tensor result = alias(stored);
  TensorImpl& impl = TensorDoor::impl(result);
  LAMELLA_CHECK(Error, !impl.pending, "make_pending: ", stored.describe(), " is pending already");
  LAMELLA_CHECK(Error,
                impl.offset == 0 && (stored.is_contiguous() ||
                                     (stored.dim() == 4 && stored.is_contiguous(MemoryFormat::ChannelsLast))),
                "make_pending: ", stored.describe(), " is not dense");
  impl.pending = std::make_shared<Pending>();
  impl.pending->scale = scale;
  impl.pending->shift = shift;
  impl.pending->activation = activation;
  impl.pending->center = center;
  impl.pending->stored_version = impl.storage->version.load(std::memory_order_relaxed);
  remember_debt(impl);
  return result;
}

Tensor with_activation(const Tensor& tensor, PendingActivation activation) {
  const TensorImpl& from = TensorDoor::impl(tensor);
  if (!is_pending(tensor)) {
    Tensor settled = alias(tensor);
    TensorImpl& impl = TensorDoor::impl(settled);
    if (impl.pending) {
      impl.storage = impl.pending->applied;
      impl.pending = nullptr;
    }
    return make_pending(settled, {}, {}, activation);
  }
  LAMELLA_CHECK(Error, from.pending->activation == PendingActivation::None,
                "with_activation: ", tensor.describe(), " owes an activation already");
  Tensor result = alias(tensor);
  TensorImpl& impl = TensorDoor::impl(result);
  impl.pending = std::make_shared<Pending>();
  impl.pending->scale = from.pending->scale;
  impl.pending->shift = from.pending->shift;
  impl.pending->activation = activation;
  impl.pending->stored_version = from.pending->stored_version;
  remember_debt(impl);
  return result;
}

Tensor alias(const Tensor& tensor, const Shape& shape, const Strides& strides, std::int64_t extra_offset) {
  Tensor result = alias(tensor);
  TensorImpl& impl = TensorDoor::impl(result);
  if (impl.pending) {
    settle(impl);
    impl.storage = impl.pending->applied;
    impl.pending = nullptr;
  }
  impl.shape = shape;
  impl.strides = strides;
  impl.offset += extra_offset;
  return result;
}

void replace_values(const Tensor& leaf, const Tensor& values) {
  TensorImpl& to = TensorDoor::impl(leaf);
  const TensorImpl& from = TensorDoor::impl(values);
  LAMELLA_CHECK(Error, !to.node && to.shape == from.shape, "replace_values: ", leaf.describe(), " by ",
                values.describe());
  to.storage = from.storage;
  to.pending = from.pending;
  to.strides = from.strides;
  to.offset = from.offset;
  to.dtype = from.dtype;
}

PendingCounters pending_counters() {
  return {folded_count.load(std::memory_order_relaxed), applied_count.load(std::memory_order_relaxed)};
}
void count_folded() { folded_count.fetch_add(1, std::memory_order_relaxed); }

FusionGuard::FusionGuard(bool on) : before_(std::exchange(fusion_on, on)) {}
FusionGuard::~FusionGuard() { fusion_on = before_; }
bool fusion_enabled() { return fusion_on; }

}  // namespace lamella::detail
