// The pump's state and the operations on one connection. pump.cc drives them from the event loop and JavaScript.
#pragma once

#include <node_api.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <uv.h>

#include <vector>

struct bio_method_st;

#include "pump_backlog.h"
#include "pump_batch.h"

namespace sluice {

constexpr int kReadyMax = 128;              // connections of one round
constexpr int kEventsMax = 5 * kReadyMax;
constexpr int kEventsOfOne = 10;            // one connection has fewer a round, whatever fails
constexpr int kEventWords = 5;              // slot, generation, flags, start (or errno), end
constexpr size_t kReadMax = 64 << 10;       // bytes read from one connection a round
constexpr size_t kRecordMax = 17 << 10;     // a TLS record (RFC 8446 §5.2), of which OpenSSL may hold the beginning
constexpr size_t kCipherMax = kReadMax - kRecordMax;  // so what is read of a TLS connection fits decrypted, too
constexpr size_t kOutBytes = 8 * kRecordMax;          // TLS records collected for one system call
constexpr size_t kTlsBacklogMax = 4 << 20;  // above it a TLS peer is not read: what it sends can make OpenSSL answer (key updates)
constexpr size_t kBulkLeast = 4 << 10;      // a shorter read ends a bulk transfer
constexpr size_t kBulkAfter = 128 << 10;    // bytes in a row, nothing sent meanwhile, that make one
constexpr int kBulkWaitNanos = 400'000;     // before a bulk connection is read again
constexpr int kHandshakesMax = 8;           // steps of TLS handshakes a round: one can take a millisecond
constexpr int kRunWords = 3;                // slot, start, end
constexpr int kSlotWords = 4;               // words of one slot in the table shared with JavaScript:
constexpr int kSlotPending = 0;             //   bytes not yet taken by the kernel
constexpr int kSlotControl = 1;             //   bits below
constexpr int kSlotGeneration = 2;          //   tells an event of a slot's earlier owner
constexpr int kSlotError = 3;               //   errno of the last failed send
constexpr int32_t kControlPaused = 1;       // set by JavaScript: do not read
constexpr int32_t kControlDisarmed = 2;     // set here: reading has stopped in the kernel too; rearm() starts it again

enum EventFlag : int32_t {
  kData = 1,        // slab[start, end)
  kEnd = 2,         // the peer's FIN
  kError = 4,       // errno in start
  kDrained = 8,     // the backlog fell under the low mark
  kFinished = 16,   // our FIN has gone out
  kConnected = 32,
  kSecured = 64,    // the TLS handshake is complete
};

struct Tls;

// A cache line each.
struct alignas(64) Connection {
  int fd = -1;
  uint32_t interest = 0;  // what epoll was told; 0: not in its set
  bool connecting = false;
  bool ended = false;     // the peer's FIN was read
  bool finOrdered = false;
  bool finSent = false;
  bool batched = false;   // it has an entry in the batch of sends
  bool bulk = false;      // read by the clock, not by readiness
  size_t bulkBytes = 0;   // read in a row
  Tls* tls = nullptr;
  Backlog backlog;
};
static_assert(sizeof(Connection) == 64, "a connection is one cache line");

// One transport. Everything is used by the thread of its environment only.
struct Pump {
  napi_env env;
  void* addon;
  int epollFd;
  // Both belong to the event loop: pump_turn.cc.
  uv_prepare_t turn;
  uv_idle_t noWait;
  bool handlesOpen;
  bool closing;
  napi_ref callback;
  napi_ref memory;  // keeps the arrays below alive
  uint8_t* slab;
  size_t slabBytes;
  const uint8_t* page;
  size_t pageBytes;
  int32_t* events;
  const int32_t* runs;
  size_t runsMax;
  int32_t* slots;
  int slotsMax;
  size_t lowBytes;

  std::vector<Connection> connections;
  std::vector<int> freeSlots;
  int live;

  epoll_event ready[kReadyMax];
  int readyCount;
  int readyNext;
  int servedCount;
  int eventCount;
  size_t slabUsed;

  // Connections in the middle of a bulk transfer, as slot and generation; those below bulkDue are to be read now.
  std::vector<uint64_t> bulk;
  size_t bulkDue;
  int timerFd;
  bool timerRuns;
  bool timerFired;

  bio_method_st* tlsMethod;  // nullptr: no TLS here
  uint8_t* cipher;           // kCipherMax bytes read from a TLS connection, during one step
  uint8_t* out;              // kOutBytes of records; those before outSent are in the batch or gone
  size_t outUsed, outSent;

  SendBatch batch;
  bool batching;  // sends are collected
  int batchFailed;
  int handshakesLeft;

  int32_t* slot(int index) { return slots + index * kSlotWords; }
};

inline Connection* connectionAt(Pump* pump, int64_t slot) {
  if (slot < 0 || slot >= static_cast<int64_t>(pump->connections.size()) || pump->connections[slot].fd < 0) return nullptr;
  return &pump->connections[slot];
}

void addEvent(Pump* pump, int slot, int32_t flags, int32_t start, int32_t end);

// A slot for `fd`, which it owns from then on; -1 when all are in use (the descriptor is then the caller's again).
int takeSlot(Pump* pump, int fd);
// Close the descriptor, or give it back when `keep`; the slot is free and its generation over.
int releaseSlot(Pump* pump, int slot, bool keep);
// Tell epoll what the connection's state asks for. Returns 0 or errno.
int updateInterest(Pump* pump, int slot);
// The mark that epoll keeps for a slot's present owner.
uint64_t markOf(Pump* pump, int slot);
// Its bulk connections' time has come: read each once, as far as the slab has room. Those that go on are due again later.
void serveBulk(Pump* pump);
// Send the parts or put them in the backlog, encrypted if need be. Returns 0 or errno; what fails is dropped.
int sendParts(Pump* pump, int slot, iovec* parts, int count);
int sendRaw(Pump* pump, int slot, iovec* parts, int count);
// Between the two, what is sent is collected, and its bytes stay where they are. endBatch() returns how many connections failed.
void beginBatch(Pump* pump);
void flushBatch(Pump* pump);
int endBatch(Pump* pump);
// FIN after the backlog. Returns true when it has gone out.
bool orderFin(Pump* pump, int slot);
// Room for one more connection in this round.
inline bool roundHasRoom(const Pump* pump) {
  return pump->servedCount < kReadyMax && pump->eventCount <= kEventsMax - kEventsOfOne && pump->slabBytes - pump->slabUsed >= kReadMax;
}
// What epoll reported: finish connecting, send the backlog, read once.
void serveReady(Pump* pump, int slot, uint32_t ready);

// pump_tls.cc: one connection's TLS. Errors become events, or errno.
void freeTls(Tls* tls);
bool tlsEstablished(const Tls* tls);
bool tlsBegins(const Tls* tls);
size_t tlsWaiting(const Tls* tls);
void beginStep(Tls* tls);
void tlsStep(Tls* tls, const uint8_t* bytes, size_t count);
void tlsEnd(Tls* tls);
int tlsSend(Tls* tls, iovec* parts, int count);
void tlsClose(Tls* tls);
void tlsFailed(Tls* tls, int error);

}  // namespace sluice
