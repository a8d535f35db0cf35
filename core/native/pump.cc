// The batched pump: one epoll set per transport. Whatever is ready is read into one slab, then JavaScript is called once for
// all of it (pump_turn.cc); it stages what is to be sent and hands that back in one call. Knows no protocol. See README.md for
// who owns what.

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

#include "pump_addon.h"

namespace sluice {

Addon* addonOf(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<Addon*>(data);
}

bool readArguments(napi_env env, napi_callback_info info, size_t wanted, napi_value* out) {
  size_t count = wanted;
  return napi_get_cb_info(env, info, &count, out, nullptr, nullptr) == napi_ok && count >= wanted;
}

Pump* readPump(napi_env env, napi_value value) {
  int32_t index;
  Addon* addon = addonOf(env);
  if (napi_get_value_int32(env, value, &index) != napi_ok || index < 0 || index >= static_cast<int>(addon->pumps.size())) return nullptr;
  return addon->pumps[index];
}

Connection* readConnection(napi_env env, Pump* pump, napi_value value, int32_t* slot) {
  if (pump == nullptr || napi_get_value_int32(env, value, slot) != napi_ok) return nullptr;
  return connectionAt(pump, *slot);
}

napi_value failErrno(napi_env env, const char* what, int error) {
  return fail(env, uv_err_name(uv_translate_sys_error(error)), std::string(what) + ": " + strerror(error));
}

bool readBytes(napi_env env, napi_value value, napi_typedarray_type wanted, size_t least, void** data, size_t* length) {
  napi_typedarray_type type;
  napi_value buffer;
  size_t offset;
  bool is = false;
  return napi_is_typedarray(env, value, &is) == napi_ok && is &&
         napi_get_typedarray_info(env, value, &type, length, data, &buffer, &offset) == napi_ok && type == wanted && *length >= least;
}

namespace {

// Runs of one connection handed to the kernel in one call.
constexpr int kPartsMax = 64;
// As net.Socket#setKeepAlive(true, 60_000) does it.
constexpr int kKeepAliveSeconds = 60, kKeepAliveEvery = 1, kKeepAliveProbes = 10;

// A thread with a short slice is to run sooner after it was woken than those with longer ones, for as long in all as they (Linux 6.12 and later, sched(7),
// "EEVDF"; before that the slice is ignored). The pump's rounds are short, and everybody waits for them. A thread with another
// scheduling policy, or a shorter slice already, keeps what it has.
constexpr uint64_t kSliceNanos = 100'000;

void preferShortSlices() {
  // struct sched_attr of sched_setattr(2); C libraries have had it under other names, or not at all.
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes = {};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0 || attributes.policy != SCHED_OTHER) return;
  if (attributes.runtime != 0 && attributes.runtime <= kSliceNanos) return;
  attributes.size = sizeof attributes;
  attributes.runtime = kSliceNanos;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

// open(slab, page, events, runs, slots, lowBytes, callback(eventCount)) -> pump
napi_value Open(napi_env env, napi_callback_info info) {
  napi_value arguments[7];
  void *slab, *page, *events, *runs, *slots;
  size_t slabBytes, pageBytes, eventWords, runWords, slotWords;
  int64_t lowBytes;
  napi_valuetype type;
  if (!readArguments(env, info, 7, arguments) || !readBytes(env, arguments[0], napi_uint8_array, kReadMax, &slab, &slabBytes) ||
      !readBytes(env, arguments[1], napi_uint8_array, 1, &page, &pageBytes) ||
      !readBytes(env, arguments[2], napi_int32_array, kEventsMax * kEventWords, &events, &eventWords) ||
      !readBytes(env, arguments[3], napi_int32_array, kRunWords, &runs, &runWords) ||
      !readBytes(env, arguments[4], napi_int32_array, kSlotWords, &slots, &slotWords) || slabBytes > INT32_MAX ||
      !readInt(env, arguments[5], 0, INT32_MAX, &lowBytes) || napi_typeof(env, arguments[6], &type) != napi_ok || type != napi_function) {
    return badArgument(env, "open(slab, page: Uint8Array, events, runs, slots: Int32Array, lowBytes: number, callback: function)");
  }
  // pump_turn.cc reads a list of libuv's that is not in its interface, but in its ABI.
  if (uv_version() >> 16 != UV_VERSION_MAJOR) return fail(env, "ENOTSUP", "open: built for another major version of libuv");
  Addon* addon = addonOf(env);
  int epollFd = epoll_create1(EPOLL_CLOEXEC);
  if (epollFd < 0) return failErrno(env, "epoll_create1", errno);
  Pump* pump = new Pump{};
  pump->env = env;
  pump->addon = addon;
  pump->epollFd = epollFd;
  int error = openTurns(addon, pump);
  if (error != 0) {
    close(epollFd);
    delete pump;
    return failErrno(env, "epoll_ctl", error);
  }
  pump->slab = static_cast<uint8_t*>(slab);
  pump->slabBytes = slabBytes;
  pump->page = static_cast<uint8_t*>(page);
  pump->pageBytes = pageBytes;
  pump->events = static_cast<int32_t*>(events);
  pump->runs = static_cast<int32_t*>(runs);
  pump->runsMax = runWords / kRunWords;
  pump->slots = static_cast<int32_t*>(slots);
  pump->slotsMax = static_cast<int>(slotWords / kSlotWords < INT32_MAX ? slotWords / kSlotWords : INT32_MAX);
  pump->lowBytes = static_cast<size_t>(lowBytes);
  // Without it each connection is sent to by a call of its own.
  pump->batch.open();
  pump->tlsMethod = addon->tlsMethod;
  if (pump->tlsMethod != nullptr) {
    pump->cipher = static_cast<uint8_t*>(malloc(kCipherMax));
    pump->out = static_cast<uint8_t*>(malloc(kOutBytes));
  }
  napi_value memory;
  napi_create_array_with_length(env, 5, &memory);
  for (uint32_t i = 0; i < 5; i++) napi_set_element(env, memory, i, arguments[i]);
  napi_create_reference(env, memory, 1, &pump->memory);
  napi_create_reference(env, arguments[6], 1, &pump->callback);
  addon->pumps.push_back(pump);
  preferShortSlices();
  return number(env, static_cast<int64_t>(addon->pumps.size()) - 1);
}

bool isLoopback(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) return ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr) >> 24 == 127;
  const in6_addr& six = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  return address.ss_family == AF_INET6 && (IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127));
}

void setOptions(int fd, const sockaddr_storage& peer) {
  if (peer.ss_family != AF_INET && peer.ss_family != AF_INET6) return;
  // There is no path whose capacity has to be found, and BBR, the default of many systems, takes a tenth of a send to look for it. Every
  // system has reno.
  if (isLoopback(peer)) setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", sizeof "reno" - 1);
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &kKeepAliveSeconds, sizeof kKeepAliveSeconds);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &kKeepAliveEvery, sizeof kKeepAliveEvery);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &kKeepAliveProbes, sizeof kKeepAliveProbes);
}

// A slot for the descriptor, watched; closes it and throws when that cannot be.
napi_value watch(napi_env env, Pump* pump, int fd, bool connecting) {
  int slot = takeSlot(pump, fd);
  if (slot < 0) {
    close(fd);
    return fail(env, "EMFILE", "adopt: all slots of this transport are in use");
  }
  pump->connections[slot].connecting = connecting;
  int error = updateInterest(pump, slot);
  if (error != 0) {
    releaseSlot(pump, slot, false);
    return failErrno(env, "epoll_ctl", error);
  }
  return number(env, slot);
}

// adopt(pump, fd) -> slot
napi_value Adopt(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int64_t fd;
  Pump* pump;
  if (!readArguments(env, info, 2, arguments) || (pump = readPump(env, arguments[0])) == nullptr ||
      !readInt(env, arguments[1], 3, INT32_MAX, &fd)) {
    return badArgument(env, "adopt(pump: number, fd: 3..)");
  }
  sockaddr_storage peer = {};
  socklen_t length = sizeof peer;
  // A peer that has gone already has no address; which kind it was no longer matters.
  if (getpeername(static_cast<int>(fd), reinterpret_cast<sockaddr*>(&peer), &length) != 0 && errno != ENOTCONN)
    return failErrno(env, "adopt", errno);
  // What waits in the kernel would hold up everybody; of sends in a batch no flag says that they must not.
  int on = 1;
  if (ioctl(static_cast<int>(fd), FIONBIO, &on) != 0) {
    int error = errno;
    close(static_cast<int>(fd));
    return failErrno(env, "adopt", error);
  }
  setOptions(static_cast<int>(fd), peer);
  return watch(env, pump, static_cast<int>(fd), false);
}

// connect(pump, host, port) or connect(pump, path, -1) -> slot; the outcome is an event
napi_value Connect(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  std::string host;
  int64_t port;
  Pump* pump;
  if (!readArguments(env, info, 3, arguments) || (pump = readPump(env, arguments[0])) == nullptr ||
      !readString(env, arguments[1], 4096, &host) || !readInt(env, arguments[2], -1, 65535, &port)) {
    return badArgument(env, "connect(pump: number, host: string, port: 0..65535 or -1)");
  }
  sockaddr_storage address = {};
  socklen_t length;
  sockaddr_un* local = reinterpret_cast<sockaddr_un*>(&address);
  if (port < 0) {
    if (host.empty() || host.size() >= sizeof local->sun_path) return failErrno(env, "connect", EINVAL);
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, host.c_str(), host.size() + 1);
    length = sizeof(sockaddr_un);
  } else if (uv_ip4_addr(host.c_str(), static_cast<int>(port), reinterpret_cast<sockaddr_in*>(&address)) == 0) {
    length = sizeof(sockaddr_in);
  } else if (uv_ip6_addr(host.c_str(), static_cast<int>(port), reinterpret_cast<sockaddr_in6*>(&address)) == 0) {
    length = sizeof(sockaddr_in6);
  } else {
    return fail(env, "EINVAL", "connect: not an IPv4 or IPv6 address");
  }
  int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return failErrno(env, "socket", errno);
  setOptions(fd, address);
  int result;
  do result = connect(fd, reinterpret_cast<sockaddr*>(&address), length);
  while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EINPROGRESS) {
    int error = errno;
    close(fd);
    return failErrno(env, "connect", error);
  }
  return watch(env, pump, fd, true);
}

// peer(pump, slot) -> "1.2.3.4:5" | "[::1]:5" | ""
napi_value Peer(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t slot;
  Connection* connection =
      readArguments(env, info, 2, arguments) ? readConnection(env, readPump(env, arguments[0]), arguments[1], &slot) : nullptr;
  if (connection == nullptr) return badArgument(env, "peer(pump: number, slot: number)");
  sockaddr_storage address = {};
  socklen_t length = sizeof address;
  char text[INET6_ADDRSTRLEN] = {};
  std::string name;
  if (getpeername(connection->fd, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    const sockaddr_in* four = reinterpret_cast<sockaddr_in*>(&address);
    const sockaddr_in6* six = reinterpret_cast<sockaddr_in6*>(&address);
    if (address.ss_family == AF_INET) {
      inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
      name = std::string(text) + ":" + std::to_string(ntohs(four->sin_port));
    } else if (address.ss_family == AF_INET6) {
      inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
      name.append("[").append(text).append("]:").append(std::to_string(ntohs(six->sin6_port)));
    }
  }
  napi_value result;
  napi_create_string_utf8(env, name.c_str(), name.size(), &result);
  return result;
}

// send(pump, runCount) -> number of connections that failed; their errno is in the slot table
napi_value Send(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t runCount;
  Pump* pump;
  if (!readArguments(env, info, 2, arguments) || (pump = readPump(env, arguments[0])) == nullptr ||
      napi_get_value_int32(env, arguments[1], &runCount) != napi_ok || runCount < 0 || static_cast<size_t>(runCount) > pump->runsMax) {
    return badArgument(env, "send(pump: number, runCount: number)");
  }
  iovec parts[kPartsMax];
  int failed = 0;
  const char* problem = nullptr;
  beginBatch(pump);
  for (int32_t i = 0; i < runCount && problem == nullptr;) {
    int32_t slot = pump->runs[i * kRunWords];
    int count = 0;
    for (; i < runCount && count < kPartsMax && pump->runs[i * kRunWords] == slot; i++) {
      int64_t start = pump->runs[i * kRunWords + 1], end = pump->runs[i * kRunWords + 2];
      if (start < 0 || start > end || end > static_cast<int64_t>(pump->pageBytes)) {
        problem = "send: a run outside the page";
        break;
      }
      parts[count].iov_base = const_cast<uint8_t*>(pump->page) + start;
      parts[count++].iov_len = static_cast<size_t>(end - start);
    }
    if (connectionAt(pump, slot) == nullptr) problem = "send: no such connection";
    if (problem == nullptr && pump->slot(slot)[kSlotError] == 0 && sendParts(pump, slot, parts, count) != 0) failed++;
  }
  failed += endBatch(pump);
  return problem == nullptr ? number(env, failed) : badArgument(env, problem);
}

// sendNow(pump, slot, bytes) -> errno; behind what is in the backlog
napi_value SendNow(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  int32_t slot;
  void* data;
  size_t length;
  if (!readArguments(env, info, 3, arguments)) return badArgument(env, "sendNow(pump, slot, bytes)");
  Pump* pump = readPump(env, arguments[0]);
  if (readConnection(env, pump, arguments[1], &slot) == nullptr || !readBytes(env, arguments[2], napi_uint8_array, 0, &data, &length)) {
    return badArgument(env, "sendNow(pump: number, slot: number, bytes: Uint8Array)");
  }
  iovec part = {data, length};
  return number(env, length == 0 ? 0 : sendParts(pump, slot, &part, 1));
}

// finish(pump, slot) -> true when FIN has gone out; otherwise an event tells
napi_value Finish(napi_env env, napi_callback_info info) {
  napi_value arguments[2], result;
  int32_t slot;
  if (!readArguments(env, info, 2, arguments)) return badArgument(env, "finish(pump, slot)");
  Pump* pump = readPump(env, arguments[0]);
  if (readConnection(env, pump, arguments[1], &slot) == nullptr) return badArgument(env, "finish(pump: number, slot: number)");
  napi_get_boolean(env, orderFin(pump, slot), &result);
  return result;
}

// rearm(pump, slot) -> errno; read again after a pause that reached the kernel
napi_value Rearm(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t slot;
  if (!readArguments(env, info, 2, arguments)) return badArgument(env, "rearm(pump, slot)");
  Pump* pump = readPump(env, arguments[0]);
  if (readConnection(env, pump, arguments[1], &slot) == nullptr) return badArgument(env, "rearm(pump: number, slot: number)");
  return number(env, updateInterest(pump, slot));
}

// close(pump, slot)
napi_value Close(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t slot;
  if (!readArguments(env, info, 2, arguments)) return badArgument(env, "close(pump, slot)");
  Pump* pump = readPump(env, arguments[0]);
  if (readConnection(env, pump, arguments[1], &slot) == nullptr) return badArgument(env, "close(pump: number, slot: number)");
  releaseSlot(pump, slot, false);
  return nullptr;
}

// release(pump, slot) -> { fd, unsent }: the descriptor is the caller's from then on, and so is its backlog
napi_value Release(napi_env env, napi_callback_info info) {
  napi_value arguments[2], result, bytes;
  int32_t slot;
  if (!readArguments(env, info, 2, arguments)) return badArgument(env, "release(pump, slot)");
  Pump* pump = readPump(env, arguments[0]);
  Connection* connection = readConnection(env, pump, arguments[1], &slot);
  if (connection == nullptr) return badArgument(env, "release(pump: number, slot: number)");
  void* data;
  size_t at = 0, total = connection->backlog.bytes();
  if (napi_create_object(env, &result) != napi_ok || napi_create_buffer(env, total, &data, &bytes) != napi_ok) return nullptr;
  iovec part;
  while (connection->backlog.front(&part, 1) == 1) {
    memcpy(static_cast<uint8_t*>(data) + at, part.iov_base, part.iov_len);
    at += part.iov_len;
    connection->backlog.consume(part.iov_len);
  }
  napi_set_named_property(env, result, "unsent", bytes);
  napi_set_named_property(env, result, "fd", number(env, releaseSlot(pump, slot, true)));
  return result;
}

}  // namespace

void releaseIfDone(Addon* addon) {
  if (addon->handlesOpen > 0) return;
  if (addon->tearingDown && addon->cleanup != nullptr) {
    napi_async_cleanup_hook_handle handle = addon->cleanup;
    addon->cleanup = nullptr;
    napi_remove_async_cleanup_hook(handle);
  }
  if (addon->finalized) {
    for (Pump* pump : addon->pumps) {
      free(pump->cipher);
      free(pump->out);
      delete pump;
    }
    if (addon->tlsMethod != nullptr) BIO_meth_free(addon->tlsMethod);
    delete addon;
  }
}

namespace {

// The environment ends (worker terminated, process exit): every descriptor goes with it.
void onCleanup(napi_async_cleanup_hook_handle, void* data) {
  Addon* addon = static_cast<Addon*>(data);
  addon->tearingDown = true;
  for (Pump* pump : addon->pumps) {
    pump->closing = true;
    for (size_t slot = 0; slot < pump->connections.size(); slot++) {
      if (pump->connections[slot].fd >= 0) releaseSlot(pump, static_cast<int>(slot), false);
    }
    closeTurns(pump);
    pump->batch.close();
    close(pump->epollFd);
    napi_delete_reference(addon->env, pump->callback);
    napi_delete_reference(addon->env, pump->memory);
  }
  releaseIfDone(addon);
}

void onFinalize(napi_env, void* data, void*) {
  Addon* addon = static_cast<Addon*>(data);
  addon->finalized = true;
  releaseIfDone(addon);
}

napi_value Init(napi_env env, napi_value exports) {
  Addon* addon = new Addon{env, nullptr, {}, tlsVersion().empty() ? nullptr : newTlsMethod(), 0, nullptr, false, false};
  bool done = napi_get_uv_event_loop(env, &addon->loop) == napi_ok && napi_set_instance_data(env, addon, onFinalize, nullptr) == napi_ok &&
              napi_add_async_cleanup_hook(env, onCleanup, addon, &addon->cleanup) == napi_ok && addFunction(env, exports, "open", Open) &&
              addFunction(env, exports, "adopt", Adopt) && addFunction(env, exports, "connect", Connect) &&
              addFunction(env, exports, "peer", Peer) && addFunction(env, exports, "send", Send) &&
              addFunction(env, exports, "sendNow", SendNow) && addFunction(env, exports, "finish", Finish) &&
              addFunction(env, exports, "rearm", Rearm) && addFunction(env, exports, "close", Close) &&
              addFunction(env, exports, "release", Release) && addFunction(env, exports, "tlsVersion", TlsVersion) &&
              addFunction(env, exports, "serverContext", ServerContext) && addFunction(env, exports, "clientContext", ClientContext) &&
              addFunction(env, exports, "secure", Secure) && addFunction(env, exports, "tlsState", TlsState) &&
              addFunction(env, exports, "certificate", Certificate);
  return done ? exports : fail(env, "ERR_INIT", "the pump addon could not be initialised");
}

}  // namespace
}  // namespace sluice

NAPI_MODULE_INIT() { return sluice::Init(env, exports); }
