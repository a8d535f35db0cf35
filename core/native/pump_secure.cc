// TLS of the pump's connections as JavaScript calls it; pump_tls.cc does the work.

#include "pump_addon.h"

namespace sluice {
namespace {

napi_value text(napi_env env, const std::string& value) {
  napi_value result = nullptr;
  napi_create_string_utf8(env, value.data(), value.size(), &result);
  return result;
}

napi_value wrapContext(napi_env env, SSL_CTX* context, const std::string& problem) {
  if (context == nullptr) return fail(env, "ERR_TLS", problem);
  napi_value result = nullptr;
  auto finalize = [](napi_env, void* data, void*) { SSL_CTX_free(static_cast<SSL_CTX*>(data)); };
  if (napi_create_external(env, context, finalize, nullptr, &result) != napi_ok) SSL_CTX_free(context);
  return result;
}

constexpr size_t kPemMax = 16 << 20;
constexpr size_t kCiphersMax = 64 << 10;

bool readBuffer(napi_env env, napi_value value, std::string* out) {
  void* data;
  size_t length;
  if (!readBytes(env, value, napi_uint8_array, 0, &data, &length)) return false;
  out->assign(static_cast<const char*>(data), length);
  return true;
}

}  // namespace

// tlsVersion() -> "3.5.8", or "" where secure() does not work
napi_value TlsVersion(napi_env env, napi_callback_info) {
  return text(env, addonOf(env)->tlsMethod == nullptr ? "" : tlsVersion());
}

// serverContext(cert, key, ciphers, suites) -> context
napi_value ServerContext(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  std::string cert, key, ciphers, suites, problem;
  if (addonOf(env)->tlsMethod == nullptr || !readArguments(env, info, 4, arguments) || !readString(env, arguments[0], kPemMax, &cert) ||
      !readString(env, arguments[1], kPemMax, &key) || !readString(env, arguments[2], kCiphersMax, &ciphers) ||
      !readString(env, arguments[3], kCiphersMax, &suites)) {
    return badArgument(env, "serverContext(cert, key, ciphers, suites: string)");
  }
  SSL_CTX* context = newServerContext(cert, key, ciphers, suites, &problem);
  OPENSSL_cleanse(&key[0], key.size());
  return wrapContext(env, context, problem);
}

// clientContext(roots, ciphers, suites) -> context
napi_value ClientContext(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  std::string roots, ciphers, suites, problem;
  if (addonOf(env)->tlsMethod == nullptr || !readArguments(env, info, 3, arguments) || !readString(env, arguments[0], kPemMax, &roots) ||
      !readString(env, arguments[1], kCiphersMax, &ciphers) || !readString(env, arguments[2], kCiphersMax, &suites)) {
    return badArgument(env, "clientContext(roots, ciphers, suites: string)");
  }
  return wrapContext(env, newClientContext(roots, ciphers, suites, &problem), problem);
}

// secure(pump, slot, context, isServer, name, verify, alpn, early); the outcome is an event
napi_value Secure(napi_env env, napi_callback_info info) {
  napi_value arguments[8];
  int32_t slot;
  void* context;
  napi_valuetype type;
  TlsSettings settings;
  std::string problem;
  if (!readArguments(env, info, 8, arguments)) return badArgument(env, "secure(pump, slot, context, isServer, name, verify, alpn, early)");
  Pump* pump = readPump(env, arguments[0]);
  Connection* connection = readConnection(env, pump, arguments[1], &slot);
  if (connection == nullptr || connection->tls != nullptr || connection->connecting || pump->out == nullptr || pump->cipher == nullptr ||
      napi_typeof(env, arguments[2], &type) != napi_ok || type != napi_external ||
      napi_get_value_external(env, arguments[2], &context) != napi_ok ||
      napi_get_value_bool(env, arguments[3], &settings.isServer) != napi_ok || !readString(env, arguments[4], 1024, &settings.name) ||
      napi_get_value_bool(env, arguments[5], &settings.verify) != napi_ok || !readBuffer(env, arguments[6], &settings.alpn) ||
      !readBuffer(env, arguments[7], &settings.early)) {
    return badArgument(env, "secure(pump, slot: number, context, isServer: boolean, name: string, verify: boolean, alpn, early: Uint8Array)");
  }
  if (!beginTls(pump, slot, static_cast<SSL_CTX*>(context), std::move(settings), &problem)) return fail(env, "ERR_TLS", problem);
  int error = updateInterest(pump, slot);
  return error == 0 ? nullptr : failErrno(env, "epoll_ctl", error);
}

// tlsState(pump, slot) -> { alpn, problem }: the protocol agreed on or "", why TLS failed or ""
napi_value TlsState(napi_env env, napi_callback_info info) {
  napi_value arguments[2], result;
  int32_t slot;
  Connection* connection =
      readArguments(env, info, 2, arguments) ? readConnection(env, readPump(env, arguments[0]), arguments[1], &slot) : nullptr;
  if (connection == nullptr || connection->tls == nullptr) return badArgument(env, "tlsState(pump, slot)");
  const unsigned char* alpn = nullptr;
  unsigned int length = 0;
  SSL_get0_alpn_selected(connection->tls->ssl, &alpn, &length);
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "alpn", text(env, std::string(reinterpret_cast<const char*>(alpn), length)));
  napi_set_named_property(env, result, "problem", text(env, connection->tls->problem));
  return result;
}

// certificate(pump, slot) -> DER of the peer's certificate, or undefined
napi_value Certificate(napi_env env, napi_callback_info info) {
  napi_value arguments[2], result = nullptr;
  int32_t slot;
  Connection* connection =
      readArguments(env, info, 2, arguments) ? readConnection(env, readPump(env, arguments[0]), arguments[1], &slot) : nullptr;
  if (connection == nullptr || connection->tls == nullptr) return badArgument(env, "certificate(pump, slot)");
  X509* certificate = SSL_get1_peer_certificate(connection->tls->ssl);
  unsigned char* der = nullptr;
  int length = certificate == nullptr ? -1 : i2d_X509(certificate, &der);
  if (length > 0) napi_create_buffer_copy(env, static_cast<size_t>(length), der, nullptr, &result);
  OPENSSL_free(der);
  X509_free(certificate);
  return result;
}

}  // namespace sluice
