// What Lathe needs of libtorch's c10d, as plain C functions.
//
// Every function returns null when it worked and otherwise a text that the caller gives back to
// lathe_text_free. No exception leaves this file.

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace {

using std::chrono::milliseconds;

char* copy(const std::string& text) {
  return strdup(text.c_str());
}

// Runs `body`; what it throws becomes a text, without the trace of C++ functions.
template <typename Body>
char* caught(Body&& body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return copy(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return copy(error.what());
  } catch (...) {
    return copy("an exception of an unknown kind");
  }
}

} // namespace

// The processes of a training: where they meet, and the connections between them.
struct LatheGroup {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  // Longest wait for an exchange. Gloo has its own limit, shorter by a moment, with better words.
  milliseconds patience;
};

namespace {

c10d::ProcessGroupGloo& connected(LatheGroup* group) {
  if (!group->gloo) {
    throw std::runtime_error("the connections are closed");
  }
  return *group->gloo;
}

// A collective works on memory of its own: should it be given up, a thread may still write to it.
template <typename Start>
char* exchange(LatheGroup* group, void* values, int64_t count, bool double_precision, Start&& start) {
  return caught([&] {
    auto& gloo = connected(group);
    auto tensor = at::empty({count}, double_precision ? at::kDouble : at::kFloat);
    std::memcpy(tensor.data_ptr(), values, tensor.nbytes());
    std::vector<at::Tensor> tensors{tensor};
    start(gloo, tensors)->wait(group->patience);
    std::memcpy(values, tensor.data_ptr(), tensor.nbytes());
  });
}

} // namespace

extern "C" {

void lathe_text_free(char* text) {
  std::free(text);
}

// Meets the other processes at `host`:`port` and connects to all of them. The process with `serve`
// listens there. `address` is the own address on the network of the others; null for libtorch's own
// choice (GLOO_SOCKET_IFNAME, else the address of the host's name).
char* lathe_group_create(
    const char* host,
    uint16_t port,
    int32_t rank,
    int32_t size,
    int64_t timeout_ms,
    bool serve,
    const char* prefix,
    const char* address,
    LatheGroup** out) {
  return caught([&] {
    // What it would log, with its stack, is what the texts of this file say without.
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
      FLAGS_caffe2_log_level = 3;
    }
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.numWorkers = static_cast<size_t>(size);
    options.timeout = milliseconds(timeout_ms);
    auto tcp = c10::make_intrusive<c10d::TCPStore>(std::string(host), options);
    c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::PrefixStore>(prefix, tcp);
    store->setTimeout(milliseconds(timeout_ms));
    using Gloo = c10d::ProcessGroupGloo;
    auto gloo_options = address == nullptr ? Gloo::Options::create_default(milliseconds(timeout_ms))
                                           : Gloo::Options::create(milliseconds(timeout_ms));
    if (address != nullptr) {
      gloo_options->devices.push_back(Gloo::createDeviceForHostname(address));
    }
    auto gloo = c10::make_intrusive<Gloo>(store, rank, size, gloo_options);
    *out = new LatheGroup{std::move(store), std::move(gloo), milliseconds(timeout_ms + 2000)};
  });
}

// Replaces the values by their sums over all processes.
char* lathe_group_sum(LatheGroup* group, void* values, int64_t count, bool double_precision) {
  return exchange(group, values, count, double_precision, [](auto& gloo, auto& tensors) {
    return gloo.allreduce(tensors);
  });
}

// Replaces the values by those of rank 0.
char* lathe_group_broadcast(LatheGroup* group, void* values, int64_t count, bool double_precision) {
  return exchange(group, values, count, double_precision, [](auto& gloo, auto& tensors) {
    return gloo.broadcast(tensors);
  });
}

// Waits until all processes are here.
char* lathe_group_barrier(LatheGroup* group) {
  return caught([&] { connected(group).barrier()->wait(group->patience); });
}

// Ends the connections, but not the store: those who wait for this process then fail too.
char* lathe_group_disconnect(LatheGroup* group) {
  return caught([&] { group->gloo.reset(); });
}

// Leaves a word for the others.
char* lathe_group_note(LatheGroup* group, const char* key) {
  return caught([&] { group->store->set(key, std::vector<uint8_t>{1}); });
}

// Whether somebody left this word.
char* lathe_group_noted(LatheGroup* group, const char* key, bool* noted) {
  return caught([&] { *noted = group->store->check({key}); });
}

void lathe_group_destroy(LatheGroup* group) {
  char* error = caught([&] { delete group; });
  lathe_text_free(error);
}

} // extern "C"
