// Named by the header of ProcessGroupGloo in inline functions that are never used; see gloo/README.md.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

} // namespace gloo
