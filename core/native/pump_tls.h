// TLS inside the pump, by the OpenSSL that Node.js exports. OpenSSL never touches a socket here: what was read is lent to it,
// what it writes is collected and sent with the connection's backlog. So nothing is left over in it when a call ends but the
// beginning of a record, and readiness is what epoll says, as without TLS.
#pragma once

#include <openssl/ssl.h>

#include <string>

#include "pump.h"

namespace sluice {

// One connection's session. Made by beginTls, freed with its slot. The calls that pump_socket.cc needs are in pump.h.
struct Tls {
  Pump* pump;
  int slot;
  SSL* ssl;
  bool isServer;
  bool established;
  bool begins;            // the first step is due
  bool closeSent;
  const uint8_t* in;      // lent for the time of one step
  size_t inBytes;
  int sendError;          // errno of what could not be sent during a step
  std::string early;      // read before TLS began
  Backlog waiting;        // plaintext for after the handshake
  std::string alpn;       // server: protocols offered, as in the ALPN extension
  std::string name;       // client: whom to expect
  std::string problem;    // why it failed
};

struct TlsSettings {
  bool isServer;
  bool verify;
  std::string name;
  std::string alpn;   // RFC 7301 form: each preceded by its length
  std::string early;
};

// Empty when this process has no OpenSSL that this addon was built for; otherwise its version.
std::string tlsVersion();

BIO_METHOD* newTlsMethod();

// Contexts; nullptr with a reason in `problem`.
SSL_CTX* newServerContext(const std::string& cert, const std::string& key, const std::string& ciphers, const std::string& suites, std::string* problem);
SSL_CTX* newClientContext(const std::string& roots, const std::string& ciphers, const std::string& suites, std::string* problem);

// False with a reason in `problem`; the first step is taken by the event loop.
bool beginTls(Pump* pump, int slot, SSL_CTX* context, TlsSettings settings, std::string* problem);

}  // namespace sluice
