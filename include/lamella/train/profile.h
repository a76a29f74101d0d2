#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "lamella/core/device.h"
#include "lamella/core/export.h"
#include "lamella/layers/module.h"
#include "lamella/tensor/tensor.h"

/// @file
/// Where the time and the memory of a training go. While no profile runs, an operator pays for this with one
/// load of a number. Ranges for NVIDIA's tools (NVTX), named after operators and kernels, are made while a
/// profile runs and, with LAMELLA_NVTX=1 in the environment, always.
namespace lamella::train {

/// What a kernel was called for.
enum class ProfiledPass : std::uint8_t {
  Forward,   ///< an operator's result
  Gradient,  ///< backward()
  Update     ///< optimizers, gradient clipping and scaling, averages of weights
};
/// "forward", "gradient" or "update".
LAMELLA_API const char* name(ProfiledPass pass);

/// All calls of one kernel for one operator, summed over the profiled steps.
struct ProfiledKernel {
  std::string op;                             ///< the operator, as "batch_norm"
  std::string kernel;                         ///< what it called, as "batch_norm_statistics"
  ProfiledPass pass = ProfiledPass::Forward;  ///< for what
  std::int64_t calls = 0;                     ///< how often
  double cpu_seconds = 0;                     ///< of the calling thread, without kernels called on the way
  /// Of a GPU, between events before and behind the launches, likewise; 0 on the CPU.
  double gpu_seconds = 0;
  /// Sizes of the tensors that were read and written by these calls, each once a call. What a kernel keeps
  /// for itself between two passes over them is not known; 0: of these calls nothing is.
  std::int64_t bytes = 0;
  /// `bytes` a second as a part of what copying a large tensor on the device reaches, above 0 and at most 1:
  /// near 1, only moving fewer bytes helps. Low for kernels that compute much (dense convolutions, matrix
  /// products) or are short. NaN: unknown, between devices, or more than copying reaches, because numbers
  /// came from a cache or are only read; table() then says "above".
  double share_of_bandwidth = std::numeric_limits<double>::quiet_NaN();
};

/// What memory is for.
enum class MemoryPurpose : std::uint8_t {
  Parameters,   ///< and buffers, of what was given to Profile::watch()
  Gradients,    ///< what backward() makes
  Activations,  ///< results of operators and what they keep for their gradients
  Optimizer,    ///< what updates make: momenta, averages
  Workspace,    ///< of kernels, for the length of a call, and of matrix products
  Other         ///< all else: batches that a loader made, tensors from before the profile
};
/// "parameters", "gradients", …
LAMELLA_API const char* name(MemoryPurpose purpose);

/// Memory in use at one moment.
struct MemoryMoment {
  double seconds = 0;                  ///< since Profile::start()
  std::vector<std::int64_t> in_use{};  ///< bytes by MemoryPurpose, as numbered there
  std::int64_t total = 0;              ///< their sum, which is memory_stats().in_use
};

/// Blocks of one kind, at the moment of most memory.
struct MemoryShare {
  MemoryPurpose purpose = MemoryPurpose::Other;  ///< what for
  std::string op;                                ///< who made them: an operator, or "" where nobody knows
  std::int64_t bytes = 0;                        ///< of all of them
  std::int64_t blocks = 0;                       ///< how many
  std::string largest;                           ///< the largest, as "[128,32,112,112] float32"
};

/// How a Profile measures.
struct ProfileOptions {
  /// Measure the device's bandwidth when the profile stops: takes memory and some milliseconds.
  bool bandwidth = true;
  /// Of a GPU: let it wait at the start of each step as long as the CPU took for the shortest one so far (at
  /// most 50 ms), so that launches are queued ahead. Kernels then follow each other as in a recorded step,
  /// and their times do not include that of launching.
  bool head_start = true;
};

/// Watches what one thread does on one device:
///
///     train::Profile profile(device);  // before the network is made, to know what all memory is for
///     …                                // network, optimizer, some steps to warm up
///     profile.watch(net);
///     profile.start();
///     for (int i = 0; i < 10; ++i) step(images, labels), profile.step();
///     profile.stop();
///     std::cout << profile.table() << profile.memory_table();
///     profile.save_trace("trace.json");  // for ui.perfetto.dev or chrome://tracing
///
/// One at a time in a process. Launches that train::Step records or replays are not seen: profile a step
/// without `capture`, which launches the same kernels. What the CPU reads or writes itself (data(), files,
/// batches) is no kernel's and not counted.
///
/// An exception within a step does no harm: the calls made so far count, and the program may go on with the
/// step, end it, or drop the profile.
class LAMELLA_API Profile {
 public:
  /// Watches memory of `device` from now on. Throws Error if there is a profile already, DeviceError for a
  /// device that is not there.
  explicit Profile(Device device, const ProfileOptions& options = {});
  /// Stops, in any thread.
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// Names the memory of a network's parameters, buffers and, where there are any, gradients. To be called
  /// again when they have moved.
  void watch(const Module& network);
  /// Names the memory of a tensor. What is not on the profile's device is ignored.
  void watch(const Tensor& tensor, MemoryPurpose purpose, const std::string& name);

  /// Begins the first step; this thread's operators are watched from now on. Waits for a GPU. Throws Error if
  /// it was called before, or after stop().
  void start();
  /// Ends a step and begins the next one. Throws Error unless the profile is between start() and stop(), and
  /// in another thread than that which called start().
  void step();
  /// Ends it all; what comes after the last step() does not count. Waits for a GPU. Once stopped, it does
  /// nothing. Throws Error in another thread than that which called start(), and goes on.
  void stop();

  // ---- What was seen, after stop() ----

  /// Steps that were profiled.
  std::int64_t steps() const;
  /// Seconds from start() to the last step(), as a clock on the wall shows. Profiling is in it, and on a GPU
  /// what head_start makes it wait.
  double seconds() const;
  /// Bytes a second that copying reads and writes; 0: unknown.
  double bandwidth() const;
  /// Kernels, that which took the device's time most first.
  std::vector<ProfiledKernel> kernels() const;
  /// The same as a table of figures for one step, with totals below.
  std::string table() const;

  /// Memory after each change from start() to the last step().
  std::vector<MemoryMoment> memory() const;
  /// What holds memory at the moment of most, the largest share first.
  std::vector<MemoryShare> peak() const;
  /// The same as a table, with the moment and the sums for each purpose.
  std::string memory_table() const;

  /// Chrome's trace format, JSON: kernels as the CPU called them and as the GPU ran them, steps, and memory
  /// by purpose.
  std::string trace() const;
  /// trace() in a file. Throws IoError naming the path.
  void save_trace(const std::filesystem::path& path) const;

 private:
  struct Record;
  std::unique_ptr<Record> record_;
};

}  // namespace lamella::train
