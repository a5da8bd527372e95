// Autocast in bfloat16: tch turns autocast on, but leaves it at half precision.

#include <ATen/autocast_mode.h>

extern "C" void lathe_autocast_bfloat16() { at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16); }
