// Counts and times libtorch's operations while a profile is on: what the fused kernels are compared with.
//
// Only the innermost operations count: those that call no other operation.

#include <ATen/record_function.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace {

using Clock = std::chrono::steady_clock;

struct Total {
    uint64_t calls = 0, nanoseconds = 0;
};

struct Span : at::ObserverContext {
    Clock::time_point begin = Clock::now();
    Span* parent = nullptr;
    bool inner = false; // whether it called another operation
};

std::mutex guard;
std::map<std::string, Total> totals;
thread_local Span* current = nullptr;

// Allocations and views are no kernels.
bool bookkeeping(const char* name) {
    static const char* const PREFIXES[] = {"aten::empty",   "aten::as_strided", "aten::view",   "aten::resize",
                                           "aten::detach",  "detach",           "aten::narrow", "aten::slice",
                                           "aten::reshape", "aten::transpose",  "aten::t",      "aten::expand",
                                           "aten::select",  "aten::unbind",     "aten::set_",   "aten::_unsafe_view",
                                           "aten::unsqueeze",
                                           "aten::resolve_conj", "aten::resolve_neg"};
    for (const char* prefix : PREFIXES) {
        const size_t length = std::strlen(prefix);
        if (std::strncmp(name, prefix, length) == 0 && !(name[length] >= 'a' && name[length] <= 'z')) return true;
    }
    return false;
}

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction& function) {
    if (bookkeeping(function.name())) return nullptr;
    auto span = std::make_unique<Span>();
    span->parent = current;
    if (current) current->inner = true;
    current = span.get();
    return span;
}

void leave(const at::RecordFunction& function, at::ObserverContext* context) {
    auto* span = static_cast<Span*>(context);
    if (!span) return;
    current = span->parent;
    if (span->inner) return;
    const auto spent = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - span->begin);
    const std::lock_guard<std::mutex> lock(guard);
    auto& total = totals[function.name()];
    total.calls += 1;
    total.nanoseconds += static_cast<uint64_t>(spent.count());
}

} // namespace

extern "C" uint64_t lathe_profile_begin() {
    const std::lock_guard<std::mutex> lock(guard);
    totals.clear();
    return at::addGlobalCallback(
        at::RecordFunctionCallback(enter, leave).scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
}

// Calls `each` with every operation's name, calls and nanoseconds.
extern "C" void lathe_profile_end(uint64_t handle, void (*each)(void*, const char*, size_t, uint64_t, uint64_t),
                                  void* to) {
    at::removeCallback(handle);
    const std::lock_guard<std::mutex> lock(guard);
    for (const auto& [name, total] : totals) each(to, name.data(), name.size(), total.calls, total.nanoseconds);
}
