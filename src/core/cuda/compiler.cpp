#include "core/cuda/compiler.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nvrtc.h>

#include <array>
#include <string>
#include <vector>

#include "core/check.h"

namespace lamella::detail::cuda {
namespace {

/// NVRTC's functions, of a library that is loaded when it is first asked for: nothing else needs it.
struct Nvrtc {
  decltype(&nvrtcVersion) version = nullptr;
  decltype(&nvrtcCreateProgram) create = nullptr;
  decltype(&nvrtcDestroyProgram) destroy = nullptr;
  decltype(&nvrtcAddNameExpression) add_name = nullptr;
  decltype(&nvrtcCompileProgram) compile = nullptr;
  decltype(&nvrtcGetProgramLogSize) log_size = nullptr;
  decltype(&nvrtcGetProgramLog) log = nullptr;
  decltype(&nvrtcGetLoweredName) lowered_name = nullptr;
  decltype(&nvrtcGetCUBINSize) cubin_size = nullptr;
  decltype(&nvrtcGetCUBIN) cubin = nullptr;
  std::string error;  ///< why it cannot be used; empty: it can

  Nvrtc() {
    void* library = nullptr;
    for (const std::string& name :
         {"libnvrtc.so." + std::to_string(CUDART_VERSION / 1000), std::string("libnvrtc.so")})
      if (library == nullptr) library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      error = dlerror();
      return;
    }
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr) error = std::string("it has no ") + name;
    };
    get(version, "nvrtcVersion");
    get(create, "nvrtcCreateProgram");
    get(destroy, "nvrtcDestroyProgram");
    get(add_name, "nvrtcAddNameExpression");
    get(compile, "nvrtcCompileProgram");
    get(log_size, "nvrtcGetProgramLogSize");
    get(log, "nvrtcGetProgramLog");
    get(lowered_name, "nvrtcGetLoweredName");
    get(cubin_size, "nvrtcGetCUBINSize");
    get(cubin, "nvrtcGetCUBIN");
  }
};

const Nvrtc& nvrtc() {
  static const Nvrtc library;
  LAMELLA_CHECK(Error, library.error.empty(),
                "NVRTC, CUDA's compiler at run time, cannot be used: ", library.error);
  return library;
}

struct Program {
  nvrtcProgram handle = nullptr;
  ~Program() {
    if (handle != nullptr) nvrtc().destroy(&handle);
  }
};

}  // namespace

std::string compiler_version() {
  int major = 0, minor = 0;
  nvrtc().version(&major, &minor);
  return std::to_string(major) + "." + std::to_string(minor);
}

CompiledKernel compile(const Sources& sources, const std::string& expression, int architecture) {
  const Nvrtc& library = nvrtc();
  const std::string what = std::string(sources.name) + ": compiling " + expression;
  const auto check = [&](nvrtcResult result, const char* step) {
    LAMELLA_CHECK(Error, result == NVRTC_SUCCESS, what, ": ", step, " failed with ",
                  static_cast<int>(result));
  };
  std::vector<const char*> names, texts;
  for (const SourceFile& file : sources.files.subspan(1)) {
    names.push_back(file.name);
    texts.push_back(file.text);
  }
  Program program;
  check(library.create(&program.handle, sources.files[0].text, sources.files[0].name,
                       static_cast<int>(names.size()), texts.data(), names.data()),
        "nvrtcCreateProgram");
  check(library.add_name(program.handle, expression.c_str()), "nvrtcAddNameExpression");
  const std::string target = "--gpu-architecture=sm_" + std::to_string(architecture);
  const std::array<const char*, 2> options{target.c_str(), "--std=c++17"};
  if (library.compile(program.handle, static_cast<int>(options.size()), options.data()) != NVRTC_SUCCESS) {
    std::size_t size = 0;
    library.log_size(program.handle, &size);
    std::string log(size, '\0');
    if (size > 0) library.log(program.handle, log.data());
    throw Error(what + " failed:\n" + log.c_str());
  }
  CompiledKernel kernel;
  const char* symbol = nullptr;
  check(library.lowered_name(program.handle, expression.c_str(), &symbol), "nvrtcGetLoweredName");
  kernel.symbol = symbol;
  std::size_t size = 0;
  check(library.cubin_size(program.handle, &size), "nvrtcGetCUBINSize");
  kernel.cubin.resize(size);
  check(library.cubin(program.handle, kernel.cubin.data()), "nvrtcGetCUBIN");
  return kernel;
}

}  // namespace lamella::detail::cuda
