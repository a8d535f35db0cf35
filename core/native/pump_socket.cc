// Operations on one connection: read once into the slab, send now or later, close. Nothing here calls JavaScript.

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "pump.h"

namespace sluice {
namespace {

// Chunks of a backlog handed to the kernel in one call.
constexpr int kBacklogParts = 16;

void setPending(Pump* pump, int slot) {
  Connection* connection = &pump->connections[slot];
  size_t bytes = connection->backlog.bytes() + (connection->tls == nullptr ? 0 : tlsWaiting(connection->tls));
  pump->slot(slot)[kSlotPending] = static_cast<int32_t>(bytes < INT32_MAX ? bytes : INT32_MAX);
}

ssize_t sendOnce(int fd, iovec* parts, int count) {
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<size_t>(count);
  for (;;) {
    ssize_t sent = count == 1 ? send(fd, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                              : sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0 || errno != EINTR) return sent;
  }
}

int failSend(Pump* pump, int slot, int error);

// Whether the connection's state lets it be read now, however one learns that there is something.
bool mayRead(Pump* pump, int slot) {
  const Connection* connection = &pump->connections[slot];
  bool isFull = connection->tls != nullptr && connection->backlog.bytes() > kTlsBacklogMax;
  return !connection->connecting && !connection->ended && !isFull && (pump->slot(slot)[kSlotControl] & kControlPaused) == 0;
}

// The kernel took `taken` bytes of the parts (negative: errno, of which EAGAIN is no error): the rest waits.
int keepRest(Pump* pump, int slot, const iovec* parts, int count, ssize_t taken) {
  Connection* connection = &pump->connections[slot];
  // Nothing was taken either where a signal came first, of which a batch tells.
  if (taken < 0 && taken != -EAGAIN && taken != -EWOULDBLOCK && taken != -EINTR) return failSend(pump, slot, static_cast<int>(-taken));
  size_t sent = taken < 0 ? 0 : static_cast<size_t>(taken);
  bool wasEmpty = connection->backlog.empty();
  for (int i = 0; i < count; i++) {
    size_t length = parts[i].iov_len;
    if (sent >= length) {
      sent -= length;
      continue;
    }
    if (!connection->backlog.append(static_cast<const uint8_t*>(parts[i].iov_base) + sent, length - sent)) return failSend(pump, slot, ENOBUFS);
    sent = 0;
  }
  if (connection->backlog.empty()) return 0;
  setPending(pump, slot);
  int error = wasEmpty ? updateInterest(pump, slot) : 0;
  return error == 0 ? 0 : failSend(pump, slot, error);
}

int failSend(Pump* pump, int slot, int error) {
  pump->connections[slot].backlog.clear();
  setPending(pump, slot);
  pump->slot(slot)[kSlotError] = error;
  return error;
}

void sendFin(Connection* connection) {
  // A peer that is gone already shows when it is read from.
  shutdown(connection->fd, SHUT_WR);
  connection->finSent = true;
}

void finishConnecting(Pump* pump, int slot, uint32_t ready) {
  Connection* connection = &pump->connections[slot];
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error == 0 && (ready & EPOLLOUT) == 0) return;
  if (error == 0) {
    connection->connecting = false;
    error = updateInterest(pump, slot);
  }
  if (error == 0) addEvent(pump, slot, kConnected, 0, 0);
  else addEvent(pump, slot, kError, error, 0);
}

void sendBacklog(Pump* pump, int slot) {
  Connection* connection = &pump->connections[slot];
  size_t before = connection->backlog.bytes();
  iovec parts[kBacklogParts];
  int count = connection->backlog.front(parts, kBacklogParts);
  ssize_t sent = sendOnce(connection->fd, parts, count);
  if (sent < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK) addEvent(pump, slot, kError, failSend(pump, slot, errno), 0);
    return;
  }
  connection->backlog.consume(static_cast<size_t>(sent));
  setPending(pump, slot);
  int32_t flags = 0;
  if (before >= pump->lowBytes && connection->backlog.bytes() < pump->lowBytes) flags |= kDrained;
  if (connection->backlog.empty()) {
    if (connection->finOrdered && !connection->finSent) {
      sendFin(connection);
      flags |= kFinished;
    }
    int error = updateInterest(pump, slot);
    if (error != 0) return addEvent(pump, slot, kError, error, 0);
  }
  if (flags != 0) addEvent(pump, slot, flags, 0, 0);
}

// A sender that is slower than this side wakes it for every few kilobytes, each time at the price of a query. In a long transfer
// the bytes of kBulkWaitNanos are read together. A full read shows that there is more: then readiness is the better guide.
void noteBulk(Pump* pump, int slot, size_t count, size_t most) {
  Connection* connection = &pump->connections[slot];
  connection->bulkBytes = count < kBulkLeast ? 0 : connection->bulkBytes + count;
  bool isBulk = connection->bulkBytes >= kBulkAfter && count < most && pump->timerFd >= 0;
  if (isBulk) pump->bulk.push_back(markOf(pump, slot));
  if (isBulk == connection->bulk) return;
  connection->bulk = isBulk;
  int error = updateInterest(pump, slot);
  if (error != 0) addEvent(pump, slot, kError, error, 0);
}

void readOnce(Pump* pump, int slot) {
  Connection* connection = &pump->connections[slot];
  Tls* tls = connection->tls;
  uint8_t* at = tls == nullptr ? pump->slab + pump->slabUsed : pump->cipher;
  size_t most = tls == nullptr ? kReadMax : kCipherMax;
  ssize_t count;
  // Not recv(): with threads that may be cancelled two locked instructions go with it.
  do count = syscall(SYS_recvfrom, connection->fd, at, most, MSG_DONTWAIT, nullptr, nullptr);
  while (count < 0 && errno == EINTR);
  int error = count < 0 ? errno : 0;
  if (count > 0 || connection->bulk) noteBulk(pump, slot, count > 0 ? static_cast<size_t>(count) : 0, most);
  if (count > 0 && tls != nullptr) {
    tlsStep(tls, at, static_cast<size_t>(count));
    setPending(pump, slot);
    error = connection->backlog.bytes() > kTlsBacklogMax ? updateInterest(pump, slot) : 0;
    if (error != 0) addEvent(pump, slot, kError, error, 0);
    return;
  }
  if (count > 0) {
    int32_t start = static_cast<int32_t>(pump->slabUsed);
    pump->slabUsed += static_cast<size_t>(count);
    return addEvent(pump, slot, kData, start, static_cast<int32_t>(pump->slabUsed));
  }
  if (count < 0) {
    if (error != EAGAIN && error != EWOULDBLOCK) addEvent(pump, slot, kError, error, 0);
    return;
  }
  if (tls != nullptr) return tlsEnd(tls);
  connection->ended = true;
  error = updateInterest(pump, slot);
  addEvent(pump, slot, kEnd, 0, 0);
  if (error != 0) addEvent(pump, slot, kError, error, 0);
}

}  // namespace

void addEvent(Pump* pump, int slot, int32_t flags, int32_t start, int32_t end) {
  int32_t* event = pump->events + pump->eventCount * kEventWords;
  event[0] = slot;
  event[1] = pump->slot(slot)[kSlotGeneration];
  event[2] = flags;
  event[3] = start;
  event[4] = end;
  pump->eventCount++;
}

uint64_t markOf(Pump* pump, int slot) {
  return static_cast<uint64_t>(static_cast<uint32_t>(pump->slot(slot)[kSlotGeneration])) << 32 | static_cast<uint32_t>(slot);
}

int takeSlot(Pump* pump, int fd) {
  int slot;
  if (!pump->freeSlots.empty()) {
    slot = pump->freeSlots.back();
    pump->freeSlots.pop_back();
  } else {
    slot = static_cast<int>(pump->connections.size());
    if (slot >= pump->slotsMax) return -1;
    pump->connections.emplace_back();
  }
  pump->connections[slot] = Connection();
  pump->connections[slot].fd = fd;
  int32_t* shared = pump->slot(slot);
  shared[kSlotPending] = shared[kSlotControl] = shared[kSlotError] = 0;
  if (pump->live++ == 0) uv_ref(reinterpret_cast<uv_handle_t*>(&pump->turn));
  return slot;
}

int releaseSlot(Pump* pump, int slot, bool keep) {
  Connection* connection = &pump->connections[slot];
  int fd = connection->fd;
  // Not left to close(): a copy of the descriptor in another process would keep it in the set, ready for ever.
  if (connection->interest != 0) epoll_ctl(pump->epollFd, EPOLL_CTL_DEL, fd, nullptr);
  if (!keep) close(fd);
  if (connection->tls != nullptr) freeTls(connection->tls);
  connection->tls = nullptr;
  connection->backlog.clear();
  connection->fd = -1;
  int32_t* shared = pump->slot(slot);
  shared[kSlotGeneration] = static_cast<int32_t>((static_cast<uint32_t>(shared[kSlotGeneration]) + 1) & INT32_MAX);
  pump->freeSlots.push_back(slot);
  if (--pump->live == 0 && pump->handlesOpen) uv_unref(reinterpret_cast<uv_handle_t*>(&pump->turn));
  return fd;
}

int updateInterest(Pump* pump, int slot) {
  Connection* connection = &pump->connections[slot];
  int32_t* control = pump->slot(slot) + kSlotControl;
  bool reads = mayRead(pump, slot);
  uint32_t wanted = 0;
  if (reads && !connection->bulk) wanted |= EPOLLIN;
  if (connection->connecting || !connection->backlog.empty() || (connection->tls != nullptr && tlsBegins(connection->tls))) wanted |= EPOLLOUT;
  *control = reads ? *control & ~kControlDisarmed : *control | kControlDisarmed;
  if (wanted == connection->interest) return 0;
  // Nothing wanted takes it out altogether: epoll would go on reporting errors and hang-ups otherwise.
  int operation = connection->interest == 0 ? EPOLL_CTL_ADD : wanted == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  epoll_event event = {};
  event.events = wanted;
  event.data.u64 = markOf(pump, slot);
  if (epoll_ctl(pump->epollFd, operation, connection->fd, &event) != 0) return errno;
  connection->interest = wanted;
  return 0;
}

int sendParts(Pump* pump, int slot, iovec* parts, int count) {
  // Who is spoken to does not only send.
  pump->connections[slot].bulkBytes = 0;
  Tls* tls = pump->connections[slot].tls;
  if (tls == nullptr) return sendRaw(pump, slot, parts, count);
  int error = tlsSend(tls, parts, count);
  setPending(pump, slot);
  return error == 0 ? 0 : failSend(pump, slot, error);
}

int sendRaw(Pump* pump, int slot, iovec* parts, int count) {
  Connection* connection = &pump->connections[slot];
  // A second entry could overtake what the kernel leaves of the first.
  if (connection->batched) flushBatch(pump);
  if (pump->slot(slot)[kSlotError] != 0) return pump->slot(slot)[kSlotError];
  ssize_t taken = 0;
  if (connection->backlog.empty()) {
    if (pump->batching && count <= SendBatch::kPartsMax) {
      if (pump->batch.full()) flushBatch(pump);
      connection->batched = true;
      pump->batch.add(connection->fd, slot, parts, count);
      return 0;
    }
    taken = sendOnce(connection->fd, parts, count);
    if (taken < 0) taken = -errno;
  }
  return keepRest(pump, slot, parts, count, taken);
}

void beginBatch(Pump* pump) {
  pump->batching = pump->batch.works();
  pump->batchFailed = 0;
}

void flushBatch(Pump* pump) {
  SendBatch& batch = pump->batch;
  // One alone is cheaper the plain way.
  if (batch.size() > 1) batch.submit();
  for (int i = 0; i < batch.size(); i++) {
    const SendBatch::Entry& entry = batch.at(i);
    iovec one;
    iovec* parts = batch.parts(i, one);
    Connection* connection = &pump->connections[entry.slot];
    connection->batched = false;
    ssize_t taken = entry.result;
    if (batch.size() == 1) {
      taken = sendOnce(batch.fd(i), parts, entry.count);
      if (taken < 0) taken = -errno;
    }
    int error = keepRest(pump, entry.slot, parts, entry.count, taken);
    if (error == 0) continue;
    pump->batchFailed++;
    if (connection->tls != nullptr) tlsFailed(connection->tls, error);
  }
  batch.clear();
}

int endBatch(Pump* pump) {
  if (pump->batching) flushBatch(pump);
  pump->batching = false;
  pump->outUsed = pump->outSent = 0;
  return pump->batchFailed;
}

bool orderFin(Pump* pump, int slot) {
  Connection* connection = &pump->connections[slot];
  connection->finOrdered = true;
  if (connection->tls != nullptr) {
    // During the handshake it waits with the bytes that wait.
    if (!tlsEstablished(connection->tls)) return false;
    tlsClose(connection->tls);
  }
  if (!connection->finSent && connection->backlog.empty()) sendFin(connection);
  return connection->finSent;
}

void serveBulk(Pump* pump) {
  size_t next = 0;
  for (; next < pump->bulkDue && roundHasRoom(pump); next++) {
    uint64_t mark = pump->bulk[next];
    int slot = static_cast<int>(mark & UINT32_MAX);
    if (connectionAt(pump, slot) == nullptr || markOf(pump, slot) != mark || !pump->connections[slot].bulk) continue;
    pump->servedCount++;
    // A handshake is stepped by readiness, which bounds the steps of a turn and feeds it what was read before it began.
    Tls* tls = pump->connections[slot].tls;
    if (mayRead(pump, slot) && (tls == nullptr || tlsEstablished(tls))) {
      readOnce(pump, slot);
      continue;
    }
    pump->connections[slot].bulk = false;
    pump->connections[slot].bulkBytes = 0;
    int error = updateInterest(pump, slot);
    if (error != 0) addEvent(pump, slot, kError, error, 0);
  }
  pump->bulk.erase(pump->bulk.begin(), pump->bulk.begin() + static_cast<ptrdiff_t>(next));
  pump->bulkDue -= next;
}

void serveReady(Pump* pump, int slot, uint32_t ready) {
  Connection* connection = &pump->connections[slot];
  if (connection->connecting) return finishConnecting(pump, slot, ready);
  if (connection->tls != nullptr && !tlsEstablished(connection->tls)) {
    if (pump->handshakesLeft == 0) return;  // epoll tells again in the next turn
    pump->handshakesLeft--;
  }
  int before = pump->eventCount;
  if (connection->tls != nullptr && tlsBegins(connection->tls)) {
    beginStep(connection->tls);
    int error = updateInterest(pump, slot);
    if (error != 0) addEvent(pump, slot, kError, error, 0);
    return;
  }
  if (!connection->backlog.empty() && (ready & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
    sendBacklog(pump, slot);
    // After an error nothing else is told.
    if (pump->eventCount > before && (pump->events[before * kEventWords + 2] & kError) != 0) return;
  }
  if (connection->ended || connection->bulk || (ready & (EPOLLIN | EPOLLERR | EPOLLHUP)) == 0) return;
  if ((pump->slot(slot)[kSlotControl] & kControlPaused) == 0) return readOnce(pump, slot);
  int error = updateInterest(pump, slot);
  if (error != 0) addEvent(pump, slot, kError, error, 0);
}

}  // namespace sluice
