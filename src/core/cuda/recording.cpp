#include "core/cuda/recording.h"

#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <set>

#include "core/allocator.h"
#include "core/check.h"
#include "core/cuda/check.h"
#include "core/cuda/stream.h"
#include "core/cuda_backend.h"
#include "core/shared_stream.h"
#include "lamella/core/stream.h"

namespace lamella::detail::cuda {
namespace {

thread_local bool recording = false;

class RecordingFlag {
 public:
  RecordingFlag() { recording = true; }
  ~RecordingFlag() { recording = false; }
  RecordingFlag(const RecordingFlag&) = delete;
  RecordingFlag& operator=(const RecordingFlag&) = delete;
};

/// One thread at a time records, on whichever GPU.
std::mutex& recording_mutex() {
  static std::mutex mutex;
  return mutex;
}

/// The stream that a GPU's recordings are made on, by one thread at a time. Launches keep the priority of the
/// stream they were recorded on, so where blocks of a branch wait for places, too, these go first.
Stream recording_stream(Device device) {
  static std::map<int, cudaStream_t>& streams = *new std::map<int, cudaStream_t>;
  cudaStream_t& stream = streams[device.index];
  if (stream == nullptr) {
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "record_launches");
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), "record_launches");
  }
  return {device, stream};
}

/// A CUDA graph and the pool of memory that its kernels write to.
class Graph final : public Recording {
 public:
  explicit Graph(Device device)
      : device_(device),
        allocator_(cuda::allocator(device, "record_launches")),
        pool_(allocator_.new_pool()) {}
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() override {
    // A replay may be under way.
    if (ready_ != nullptr) {
      for (const cudaStream_t stream : replayed_on_) cudaStreamSynchronize(stream);
      cudaGraphExecDestroy(ready_);
    }
    allocator_.release_pool(pool_, cuda::current_stream(device_));
  }

  void record(const std::function<void()>& work) {
    const DeviceGuard device(device_);
    allocator_.empty_cache();  // what the same work took before it was recorded would lie idle from now on
    const PoolGuard pool(allocator_, pool_);
    const std::lock_guard alone(recording_mutex());
    // What other threads launch meanwhile, on streams of theirs, does not end up in the recording.
    const StreamGuard on(recording_stream(device_));
    shared_stream(device_, StreamFor::Beside);  // made now, not in the midst of the recording
    const auto stream = stream_of(device_);
    cudaGraph_t graph = nullptr;
    // Other threads go on launching, on other streams, and allocating.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "record_launches");
    try {
      const RecordingFlag flag;
      work();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "record_launches");
    const cudaError_t status = cudaGraphInstantiate(&ready_, graph, cudaGraphInstantiateFlagUseNodePriority);
    cudaGraphDestroy(graph);
    check(status, "record_launches");
  }

  void replay() override {
    const DeviceGuard device(device_);
    const cudaStream_t stream = stream_of(device_);
    replayed_on_.insert(stream);
    check(cudaGraphLaunch(ready_, stream), "replay");
  }

 private:
  const Device device_;
  Allocator& allocator_;
  const std::uint64_t pool_;
  cudaGraphExec_t ready_ = nullptr;
  std::set<cudaStream_t> replayed_on_;
};

}  // namespace

bool is_recording() { return recording; }

std::unique_ptr<Recording> record_launches(Device device, const std::function<void()>& work) {
  LAMELLA_CHECK(DeviceError, !is_recording(),
                "record_launches: this thread records already, and recordings do not nest");
  auto graph = std::make_unique<Graph>(device);
  graph->record(work);
  return graph;
}

}  // namespace lamella::detail::cuda
