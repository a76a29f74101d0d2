// What check_waits.cmake must find.
__global__ void begins_at_once(int* to) { *to = 1; }

__global__ void waits(int* to) {
  wait_for_stream();
  to[0] = 1;
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads) only_says_so(int* to) {
  // wait_for_stream();
  to[1] = 2;
}

__device__ void first_waits(int* to) {
  wait_for_stream();
  to[2] = 3;
}
__global__ void calls_what_waits(int* to) { first_waits(to); }

__device__ void begins(int* to) { to[3] = 4; }
__global__ void calls_what_does_not(int* to) { begins(to); }
