// Included once per vector target.
#if defined(LAMELLA_REGISTERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMELLA_REGISTERS_INL_H_
#undef LAMELLA_REGISTERS_INL_H_
#else
#define LAMELLA_REGISTERS_INL_H_
#endif

#include "hwy/highway.h"

// Before a loop of a few constant iterations over register arrays: it must be unrolled fully, or the arrays
// end up in memory.
#undef LAMELLA_UNROLL
#undef LAMELLA_UNROLL_TAPS
#ifdef __clang__
#define LAMELLA_UNROLL _Pragma("unroll")
#define LAMELLA_UNROLL_TAPS _Pragma("unroll 3")
#else
#define LAMELLA_UNROLL _Pragma("GCC unroll 64")
#define LAMELLA_UNROLL_TAPS _Pragma("GCC unroll 3")
#endif

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A loaded vector that several multiply-adds use. GCC would fold the load into each of them, and then the
// loads are what binds.
template <class V>
HWY_INLINE void hold_in_register([[maybe_unused]] V& value) {
#if HWY_ARCH_X86 && defined(__GNUC__) && !defined(__clang__)
  asm volatile("" : "+v"(value.raw));
#endif
}

}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
