// The depthwise kernels as another program calls them: on its stream, also while it captures.
#include "tests/layers/raw_pointers.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "devices.h"
#include "lamella/core/stream.h"
#include "lamella/testing/matchers.h"

namespace lamella::test {
namespace {

using testing::HasSameBits;

/// A stream that Lamella does not know.
class ForeignStream {
 public:
  ForeignStream() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~ForeignStream() { cudaStreamDestroy(stream_); }
  ForeignStream(const ForeignStream&) = delete;
  ForeignStream& operator=(const ForeignStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

void expect_results(const RawProblem& p, const Tensors& wanted) {
  EXPECT_THAT(p.y, HasSameBits(wanted[0]));
  EXPECT_THAT(p.gx, HasSameBits(wanted[1]));
  EXPECT_THAT(p.gw, HasSameBits(wanted[2]));
  EXPECT_THAT(p.gb, HasSameBits(wanted[3]));
}

TEST(GpuRawPointersTest, work_goes_to_the_given_stream) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    RawProblem p({4, 24, 19, 20}, {24, 1, 3, 3}, {.padding = 1}, format, bfloat16, bfloat16);
    const Tensors wanted = p.expected();
    const Stream before = current_stream(Device::cuda());
    synchronize(Device::cuda());
    const ForeignStream stream;
    p.call.stream = stream.get();
    p.forward();
    p.backward();
    EXPECT_EQ(current_stream(Device::cuda()), before);
    ASSERT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
    expect_results(p, wanted);
  }
}

// In the strictest mode, and with kernels that nobody has compiled yet.
TEST(GpuRawPointersTest, the_caller_captures_them) {
  LAMELLA_NEEDS_GPU();
  for (const DType dtype : {float32, bfloat16, float64}) {
    RawProblem p({3, 10, 21, 18}, {10, 1, 3, 5}, {.padding = {1, 2}}, MemoryFormat::Contiguous, dtype, dtype);
    p.call.output = result(p.y);
    p.call.grad_input = result(p.gx);
    p.call.grad_weight = result(p.gw);
    p.call.grad_bias = result(p.gb);
    const Tensor memory = empty({1 << 24}, {.dtype = uint8, .device = Device::cuda()});
    p.call.workspace = result(memory).data;
    p.call.workspace_bytes = memory.numel();
    synchronize(Device::cuda());
    const ForeignStream stream;
    p.call.stream = stream.get();

    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal), cudaSuccess);
    depthwise_conv2d_forward(p.call);
    EXPECT_LE(depthwise_conv2d_workspace_bytes(p.call), p.call.workspace_bytes);
    depthwise_conv2d_backward(p.call);
    ASSERT_EQ(cudaStreamEndCapture(stream.get(), &graph), cudaSuccess);
    cudaGraphExec_t ready = nullptr;
    ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
    for (int i = 0; i < 2; ++i) ASSERT_EQ(cudaGraphLaunch(ready, stream.get()), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
    cudaGraphExecDestroy(ready);
    cudaGraphDestroy(graph);
    expect_results(p, p.expected());
  }
}

}  // namespace
}  // namespace lamella::test
