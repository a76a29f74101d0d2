#include "optim/cpu/walk.h"
#include "optim/kernels.h"

namespace lamella::cpu {

using detail::EmaPair;

void ema_step(const std::vector<EmaPair>& pairs, std::int64_t* updates, double decay, bool warm_up) {
  const double n = static_cast<double>((*updates)++);
  const double keep = warm_up ? std::min(decay, (1 + n) / (10 + n)) : decay;
  WalkList list(pairs.size());
  for (const EmaPair& pair : pairs) list.add({pair.average, unwritten(pair.value)}, 1);
  walk(list,
       [&]<class T>(std::size_t, const std::array<T*, kOperands>& at, std::int64_t count, std::int64_t) {
         const T kept = static_cast<T>(keep), taken = static_cast<T>(1 - keep);
         T* __restrict const average = at[0];
         const T* __restrict const value = at[1];
         for (std::int64_t i = 0; i < count; ++i) average[i] = kept * average[i] + taken * value[i];
       });
}

}  // namespace lamella::cpu
