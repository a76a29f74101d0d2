#pragma once

// Before any Highway header: the vector targets worth compiling. On x86 these are AVX2 (the library's
// baseline is x86-64-v3) and AVX-512, bits 9 and 8 of Highway's numbering; not the variants in between, whose
// names differ between Highway's versions. The crypto instructions that Highway counts into AVX2 are not
// used.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLE_PCLMUL_AES
#define HWY_DISABLED_TARGETS 0x7cffLL
#endif
