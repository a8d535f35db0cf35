// See pump_tls.h.

#include "pump_tls.h"

#include <dlfcn.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

namespace sluice {
namespace {

constexpr int kWaitingParts = 16;
// Records without data in one step: session tickets, key updates. Each key update costs tens of microseconds and is 27 bytes, so
// one peer that sends nothing else would hold up all others.
constexpr int kBareRecordsMax = 8;

Tls* tlsOf(BIO* bio) { return static_cast<Tls*>(BIO_get_data(bio)); }

int bioRead(BIO* bio, char* out, size_t wanted, size_t* got) {
  Tls* tls = tlsOf(bio);
  BIO_clear_retry_flags(bio);
  if (tls->inBytes == 0) {
    BIO_set_retry_read(bio);
    return 0;
  }
  *got = wanted < tls->inBytes ? wanted : tls->inBytes;
  memcpy(out, tls->in, *got);
  tls->in += *got;
  tls->inBytes -= *got;
  return 1;
}

void sendOut(Tls* tls) {
  Pump* pump = tls->pump;
  iovec part = {pump->out + pump->outSent, pump->outUsed - pump->outSent};
  if (part.iov_len > 0 && tls->sendError == 0) tls->sendError = sendRaw(pump, tls->slot, &part, 1);
  // An entry of the batch refers to the records until it has gone.
  if (pump->connections[tls->slot].batched) pump->outSent = pump->outUsed;
  else pump->outUsed = pump->outSent = pump->batch.size() == 0 ? 0 : pump->outSent;
}

// Takes everything: the backlog behind it grows as a plain connection's does.
int bioWrite(BIO* bio, const char* data, size_t count, size_t* written) {
  Tls* tls = tlsOf(bio);
  Pump* pump = tls->pump;
  BIO_clear_retry_flags(bio);
  *written = count;
  while (count > 0) {
    if (pump->outUsed == kOutBytes) {
      sendOut(tls);
      if (pump->outUsed == kOutBytes) {
        flushBatch(pump);
        pump->outUsed = pump->outSent = 0;
      }
    }
    size_t part = kOutBytes - pump->outUsed < count ? kOutBytes - pump->outUsed : count;
    memcpy(pump->out + pump->outUsed, data, part);
    pump->outUsed += part;
    data += part;
    count -= part;
  }
  return 1;
}

long bioControl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

// RFC 7301: the server's choice among what the client offers, by the server's order.
int chooseAlpn(SSL* ssl, const unsigned char** out, unsigned char* outLength, const unsigned char* in, unsigned int inLength, void*) {
  const Tls* tls = static_cast<const Tls*>(SSL_get_app_data(ssl));
  if (tls->alpn.empty()) return SSL_TLSEXT_ERR_NOACK;
  unsigned char* chosen;
  int result = SSL_select_next_proto(&chosen, outLength, reinterpret_cast<const unsigned char*>(tls->alpn.data()),
                                     static_cast<unsigned int>(tls->alpn.size()), in, inLength);
  *out = chosen;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

// No passphrase is known, and none may be asked for at a terminal.
int noPassphrase(char*, int, int, void*) { return 0; }

std::string opensslReason(const char* otherwise) {
  unsigned long code = ERR_peek_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return reason == nullptr ? otherwise : reason;
}

BIO* bioOf(const std::string& text) { return BIO_new_mem_buf(text.data(), static_cast<int>(text.size())); }

bool prepare(SSL_CTX* context, const std::string& ciphers, const std::string& suites) {
  // Renegotiation is a way to make a server work, and nobody needs it; TLS 1.3 has none.
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  // OpenSSL comes back after every record without data, so that tlsStep() can count them.
  SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
  // Sessions are resumed by tickets, which cost this side no memory.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 1);
  SSL_CTX_set_alpn_select_cb(context, chooseAlpn, nullptr);
  return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 && SSL_CTX_set_cipher_list(context, ciphers.c_str()) == 1 &&
         SSL_CTX_set_ciphersuites(context, suites.c_str()) == 1;
}

// The certificate and its chain, as in one PEM file: the server's own comes first.
bool useChain(SSL_CTX* context, const std::string& pem) {
  BIO* bio = bioOf(pem);
  if (bio == nullptr) return false;
  bool done = false;
  for (X509* next; (next = PEM_read_bio_X509(bio, nullptr, noPassphrase, nullptr)) != nullptr; X509_free(next)) {
    bool added = done ? SSL_CTX_add1_chain_cert(context, next) == 1 : SSL_CTX_use_certificate(context, next) == 1;
    if (!added) {
      X509_free(next);
      BIO_free(bio);
      return false;
    }
    done = true;
  }
  BIO_free(bio);
  if (done) ERR_clear_error();  // the end of the text is an error, too
  return done;
}

bool useKey(SSL_CTX* context, const std::string& pem) {
  BIO* bio = bioOf(pem);
  if (bio == nullptr) return false;
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, noPassphrase, nullptr);
  BIO_free(bio);
  if (key == nullptr) return false;
  bool done = SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
  EVP_PKEY_free(key);
  return done;
}

bool useRoots(SSL_CTX* context, const std::string& pem) {
  BIO* bio = bioOf(pem);
  if (bio == nullptr) return false;
  int count = 0;
  for (X509* next; (next = PEM_read_bio_X509(bio, nullptr, noPassphrase, nullptr)) != nullptr; X509_free(next)) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), next) == 1) count++;
  }
  BIO_free(bio);
  if (count > 0) ERR_clear_error();
  return count > 0;
}

// Whom the certificate has to name. An address is looked for among its addresses (RFC 9525 §6).
bool expectName(SSL* ssl, const std::string& name) {
  // OpenSSL takes an empty name for "anybody", and one that begins with a dot for every name that ends so.
  if (name.empty() || name[0] == '.') return false;
  X509_VERIFY_PARAM* parameters = SSL_get0_param(ssl);
  X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (X509_VERIFY_PARAM_set1_ip_asc(parameters, name.c_str()) == 1) return true;
  ERR_clear_error();
  return X509_VERIFY_PARAM_set1_host(parameters, name.data(), name.size()) == 1;
}

std::string whyFailed(Tls* tls) {
  long result = tls->isServer ? X509_V_OK : SSL_get_verify_result(tls->ssl);
  if (!tls->established && result != X509_V_OK && SSL_get_verify_mode(tls->ssl) != SSL_VERIFY_NONE) {
    ERR_clear_error();
    // As node:tls words it.
    if (result == X509_V_ERR_IP_ADDRESS_MISMATCH) return "IP: " + tls->name + " is not in the cert's list";
    if (result == X509_V_ERR_HOSTNAME_MISMATCH) return "Host: " + tls->name + ". is not in the cert's altnames";
    return X509_verify_cert_error_string(result);
  }
  return opensslReason("the peer broke off");
}

// Plaintext that was written during the handshake. Returns false when OpenSSL failed.
bool sendWaiting(Tls* tls) {
  iovec parts[kWaitingParts];
  for (int count; (count = tls->waiting.front(parts, kWaitingParts)) > 0;) {
    size_t total = 0;
    for (int i = 0; i < count; i++) {
      size_t written = 0;
      if (SSL_write_ex(tls->ssl, parts[i].iov_base, parts[i].iov_len, &written) != 1) return false;
      total += parts[i].iov_len;
    }
    tls->waiting.consume(total);
  }
  return true;
}

bool handshake(Tls* tls) {
  int result = SSL_do_handshake(tls->ssl);
  if (result != 1) return SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_READ;
  tls->established = true;
  addEvent(tls->pump, tls->slot, kSecured, 0, 0);
  if (!sendWaiting(tls)) return false;
  Connection* connection = &tls->pump->connections[tls->slot];
  if (connection->finOrdered && orderFin(tls->pump, tls->slot)) addEvent(tls->pump, tls->slot, kFinished, 0, 0);
  return true;
}

}  // namespace

std::string tlsVersion() {
  // Absent where Node.js was built without OpenSSL, or links it in another way.
  auto number = reinterpret_cast<unsigned long (*)()>(dlsym(RTLD_DEFAULT, "OpenSSL_version_num"));
  if (number == nullptr || number() >> 28 != OPENSSL_VERSION_MAJOR || dlsym(RTLD_DEFAULT, "SSL_CTX_new") == nullptr) return "";
  return OpenSSL_version(OPENSSL_VERSION_STRING);
}

BIO_METHOD* newTlsMethod() {
  BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice pump");
  if (method == nullptr) return nullptr;
  BIO_meth_set_read_ex(method, bioRead);
  BIO_meth_set_write_ex(method, bioWrite);
  BIO_meth_set_ctrl(method, bioControl);
  return method;
}

SSL_CTX* newServerContext(const std::string& cert, const std::string& key, const std::string& ciphers, const std::string& suites,
                          std::string* problem) {
  ERR_clear_error();
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  if (context != nullptr && prepare(context, ciphers, suites) && useChain(context, cert) && useKey(context, key)) return context;
  *problem = opensslReason("certificate or key is unusable");
  SSL_CTX_free(context);
  return nullptr;
}

SSL_CTX* newClientContext(const std::string& roots, const std::string& ciphers, const std::string& suites, std::string* problem) {
  ERR_clear_error();
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  if (context != nullptr && prepare(context, ciphers, suites) && useRoots(context, roots)) return context;
  *problem = opensslReason("no trusted root is usable");
  SSL_CTX_free(context);
  return nullptr;
}

bool beginTls(Pump* pump, int slot, SSL_CTX* context, TlsSettings settings, std::string* problem) {
  ERR_clear_error();
  SSL* ssl = SSL_new(context);
  BIO* bio = ssl == nullptr ? nullptr : BIO_new(pump->tlsMethod);
  if (bio == nullptr) {
    SSL_free(ssl);
    *problem = opensslReason("out of memory");
    return false;
  }
  Tls* tls = new Tls{pump, slot, ssl, settings.isServer, false, true, false, nullptr, 0, 0, std::move(settings.early), {}, std::move(settings.alpn),
                     std::move(settings.name), {}};
  BIO_set_data(bio, tls);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_app_data(ssl, tls);
  bool done = true;
  if (tls->isServer) {
    SSL_set_accept_state(ssl);
  } else {
    SSL_set_connect_state(ssl);
    SSL_set_verify(ssl, settings.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
    if (settings.verify) done = expectName(ssl, tls->name);
    // RFC 6066 §3: server_name never carries an address.
    ASN1_OCTET_STRING* address = a2i_IPADDRESS(tls->name.c_str());
    if (done && address == nullptr && !tls->name.empty()) done = SSL_set_tlsext_host_name(ssl, tls->name.c_str()) == 1;
    ASN1_OCTET_STRING_free(address);
    // Returns 0 for success.
    if (done && !tls->alpn.empty())
      done = SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(tls->alpn.data()), static_cast<unsigned int>(tls->alpn.size())) == 0;
  }
  if (!done) {
    *problem = opensslReason("the server name is unusable");
    freeTls(tls);
    return false;
  }
  ERR_clear_error();
  pump->connections[slot].tls = tls;
  return true;
}

void freeTls(Tls* tls) {
  SSL_free(tls->ssl);  // and the BIO
  tls->waiting.clear();
  delete tls;
}

bool tlsEstablished(const Tls* tls) { return tls->established; }

bool tlsBegins(const Tls* tls) { return tls->begins; }

size_t tlsWaiting(const Tls* tls) { return tls->waiting.bytes(); }

void beginStep(Tls* tls) {
  tls->begins = false;
  std::string early = std::move(tls->early);
  tlsStep(tls, reinterpret_cast<const uint8_t*>(early.data()), early.size());
}

void tlsStep(Tls* tls, const uint8_t* bytes, size_t count) {
  Pump* pump = tls->pump;
  int slot = tls->slot;
  size_t start = pump->slabUsed;
  tls->in = bytes;
  tls->inBytes = count;
  ERR_clear_error();
  bool works = tls->established || handshake(tls);
  bool closed = false;
  int bareRecords = 0;
  while (works && tls->established) {
    size_t got = 0;
    if (SSL_read_ex(tls->ssl, pump->slab + pump->slabUsed, pump->slabBytes - pump->slabUsed, &got) == 1) {
      pump->slabUsed += got;
      continue;
    }
    int why = SSL_get_error(tls->ssl, 0);
    if (why == SSL_ERROR_WANT_READ && tls->inBytes > 0 && ++bareRecords <= kBareRecordsMax) continue;
    if (bareRecords > kBareRecordsMax) {
      works = false;
      tls->problem = "too many records without data";
      break;
    }
    closed = why == SSL_ERROR_ZERO_RETURN;
    works = closed || why == SSL_ERROR_WANT_READ;
    break;
  }
  // Not to be touched again: the bytes were only lent. Behind a close_notify they count for nothing.
  tls->in = nullptr;
  tls->inBytes = 0;
  if (!works && tls->problem.empty()) tls->problem = whyFailed(tls);
  sendOut(tls);
  if (pump->slabUsed > start) addEvent(pump, slot, kData, static_cast<int32_t>(start), static_cast<int32_t>(pump->slabUsed));
  if (!works) return addEvent(pump, slot, kError, EPROTO, 0);
  if (tls->sendError != 0) return addEvent(pump, slot, kError, tls->sendError, 0);
  if (closed) tlsEnd(tls);
}

void tlsEnd(Tls* tls) {
  Connection* connection = &tls->pump->connections[tls->slot];
  if (connection->ended) return;
  connection->ended = true;
  if (!tls->established) {
    tls->problem = "the peer closed the connection";
    return addEvent(tls->pump, tls->slot, kError, EPROTO, 0);
  }
  // An end without close_notify is taken for an end, as node:tls does: the protocols inside have their own.
  int error = updateInterest(tls->pump, tls->slot);
  addEvent(tls->pump, tls->slot, error == 0 ? kEnd : kError, error, 0);
}

int tlsSend(Tls* tls, iovec* parts, int count) {
  if (!tls->established) {
    for (int i = 0; i < count; i++) {
      if (!tls->waiting.append(static_cast<uint8_t*>(parts[i].iov_base), parts[i].iov_len)) return ENOBUFS;
    }
    return 0;
  }
  ERR_clear_error();
  for (int i = 0; i < count && tls->sendError == 0; i++) {
    size_t written = 0;
    if (parts[i].iov_len > 0 && SSL_write_ex(tls->ssl, parts[i].iov_base, parts[i].iov_len, &written) != 1) {
      tls->problem = whyFailed(tls);
      tls->sendError = EPROTO;
    }
  }
  sendOut(tls);
  return tls->sendError;
}

void tlsFailed(Tls* tls, int error) { tls->sendError = error; }

void tlsClose(Tls* tls) {
  if (tls->closeSent) return;
  tls->closeSent = true;
  ERR_clear_error();
  SSL_shutdown(tls->ssl);
  ERR_clear_error();
  sendOut(tls);
}

}  // namespace sluice
