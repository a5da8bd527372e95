// Opens libtorch's CUDA half in a program that is linked against its CPU half only.

#include <cstring>

#include <dlfcn.h>

extern "C" {

// Folder of the libtorch_cpu.so that this program runs with, followed by a null; false if there is none
// or the path is longer than `capacity`.
bool lathe_libtorch_folder(char* folder, size_t capacity) {
  // The function that the CUDA half is found through (c10/util/Registry.h); asked by name, as its
  // address in the program itself may be that of a stub.
  void* function = dlsym(RTLD_DEFAULT, "_ZN2at6detail12getCUDAHooksEv");
  Dl_info info;
  if (function == nullptr || dladdr(function, &info) == 0 || info.dli_fname == nullptr) {
    return false;
  }
  const char* slash = std::strrchr(info.dli_fname, '/');
  const size_t length = slash == nullptr ? 0 : static_cast<size_t>(slash - info.dli_fname);
  if (length == 0 || length >= capacity) {
    return false;
  }
  std::memcpy(folder, info.dli_fname, length);
  folder[length] = '\0';
  return true;
}

// Loads a library for the rest of the process, its symbols visible to all. Null when it worked,
// otherwise the loader's words (a copy to give to lathe_text_free).
char* lathe_open_library(const char* path) {
  if (dlopen(path, RTLD_NOW | RTLD_GLOBAL) != nullptr) {
    return nullptr;
  }
  const char* reason = dlerror();
  return strdup(reason == nullptr ? "no reason given" : reason);
}

} // extern "C"
