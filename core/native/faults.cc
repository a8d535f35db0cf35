// Faults on purpose: a run with sanitizers first has to see them. Only builds with a sanitizer have this addon.

#include <stdlib.h>

#include "napi_util.h"

namespace sluice {
namespace {

// overflow(size): reads the byte behind a block of `size` bytes
napi_value Overflow(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int64_t size;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok || !readInt(env, argument, 1, 1 << 20, &size)) {
    return badArgument(env, "overflow(size: 1..)");
  }
  volatile uint8_t* block = static_cast<uint8_t*>(calloc(static_cast<size_t>(size), 1));
  uint8_t behind = block[size];
  free(const_cast<uint8_t*>(block));
  return number(env, behind);
}

// shift(by): an int shifted by as many bits or more than it has
napi_value Shift(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int64_t by;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok || !readInt(env, argument, 0, 1 << 20, &by)) {
    return badArgument(env, "shift(by: 0..)");
  }
  volatile int one = 1;
  return number(env, one << by);
}

napi_value Init(napi_env env, napi_value exports) {
  bool done = addFunction(env, exports, "overflow", Overflow) && addFunction(env, exports, "shift", Shift);
  return done ? exports : fail(env, "ERR_INIT", "the addon of faults could not be initialised");
}

}  // namespace
}  // namespace sluice

NAPI_MODULE_INIT() { return sluice::Init(env, exports); }
