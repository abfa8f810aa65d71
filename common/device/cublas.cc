#include "common/device/cublas.h"

#include <dlfcn.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace basin {
namespace {

// The functions used here are the same in both.
constexpr const char* kNames[] = {"libcublas.so.13", "libcublas.so.12"};
// Where NVIDIA's installer puts it, which the loader is not always told.
constexpr const char* kFolders[] = {"", "/usr/local/cuda/lib64/"};

absl::StatusOr<const Cublas*> Load() {
  std::vector<std::string> tried;
  for (const char* folder : kFolders) {
    for (const char* name : kNames) {
      const std::string path = absl::StrCat(folder, name);
      void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library == nullptr) {
        tried.push_back(path);
        continue;
      }
      static Cublas functions;
      bool all = true;
      const auto find = [&](auto* function, const char* symbol) {
        *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, symbol));
        all = all && *function != nullptr;
      };
      find(&functions.create, "cublasCreate_v2");
      find(&functions.destroy, "cublasDestroy_v2");
      find(&functions.set_stream, "cublasSetStream_v2");
      find(&functions.sgemm, "cublasSgemm_v2");
      find(&functions.status_string, "cublasGetStatusString");
      if (all) return &functions;
      dlclose(library);
      tried.push_back(absl::StrCat(path, " (lacks a function)"));
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cuBLAS is not found (", absl::StrJoin(tried, ", "),
                   "); install CUDA's libcublas 12 or 13, or add its folder to LD_LIBRARY_PATH"));
}

}  // namespace

absl::StatusOr<const Cublas*> LoadCublas() {
  static const absl::StatusOr<const Cublas*> loaded = Load();
  return loaded;
}

}  // namespace basin
