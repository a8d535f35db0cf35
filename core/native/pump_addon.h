// What the files of the pump's Node-API side share: the addon's state, and reading of arguments.
#pragma once

#include <string>
#include <vector>

#include "napi_util.h"
#include "pump_tls.h"

namespace sluice {

// The addon's instance data: one per environment (main thread or worker).
struct Addon {
  napi_env env;
  uv_loop_t* loop;
  std::vector<Pump*> pumps;
  BIO_METHOD* tlsMethod;  // nullptr: this process has no OpenSSL that fits
  int handlesOpen;
  napi_async_cleanup_hook_handle cleanup;
  bool tearingDown;
  bool finalized;
};

Addon* addonOf(napi_env env);
bool readArguments(napi_env env, napi_callback_info info, size_t wanted, napi_value* out);
Pump* readPump(napi_env env, napi_value value);
Connection* readConnection(napi_env env, Pump* pump, napi_value value, int32_t* slot);
napi_value failErrno(napi_env env, const char* what, int error);
bool readBytes(napi_env env, napi_value value, napi_typedarray_type wanted, size_t least, void** data, size_t* length);

// The environment is over and the last handle closed: let go of everything.
void releaseIfDone(Addon* addon);

// pump_turn.cc
int openTurns(Addon* addon, Pump* pump);
void closeTurns(Pump* pump);

// pump_secure.cc
napi_value TlsVersion(napi_env env, napi_callback_info info);
napi_value ServerContext(napi_env env, napi_callback_info info);
napi_value ClientContext(napi_env env, napi_callback_info info);
napi_value Secure(napi_env env, napi_callback_info info);
napi_value TlsState(napi_env env, napi_callback_info info);
napi_value Certificate(napi_env env, napi_callback_info info);

}  // namespace sluice
