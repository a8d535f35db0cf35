// Acceptor: listening sockets on the event loop of the environment that loads this addon. It hands accepted
// descriptors to JavaScript in batches and knows nothing of what they carry. See README.md for who owns what.

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <string>
#include <unordered_map>

#include "napi_util.h"
#include "sources.h"

namespace sluice {
namespace {

// Connections taken from one listener before the loop turns to other work.
constexpr int kRoundMax = 64;
// How long a listener rests when the kernel has no descriptor or memory to give.
constexpr uint64_t kPauseMillis = 50;

struct Acceptor;

struct Listener {
  Acceptor* owner;
  int fd;
  bool polling;        // accept() was called: both handles are open
  bool closing;        // stop() was called: freed by the last close callback
  int handlesOpen;
  napi_ref callback;
  uv_poll_t poll;
  uv_timer_t rest;
};

// The addon's instance data: one per environment (main thread or worker).
struct Acceptor {
  napi_env env;
  uv_loop_t* loop;
  // Kept open so that at the descriptor limit one connection can still be taken, and closed, instead of hanging.
  int reserveFd;
  std::unordered_map<int, Listener*> listeners;
  int handlesOpen;
  napi_async_cleanup_hook_handle cleanup;
  bool tearingDown;
  bool finalized;
  Sources sources;
};

int openReserve() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

void releaseIfDone(Acceptor* acceptor) {
  if (acceptor->handlesOpen > 0) return;
  if (acceptor->tearingDown && acceptor->cleanup != nullptr) {
    napi_async_cleanup_hook_handle handle = acceptor->cleanup;
    acceptor->cleanup = nullptr;
    napi_remove_async_cleanup_hook(handle);
  }
  if (acceptor->finalized) delete acceptor;
}

void onHandleClosed(Listener* listener) {
  Acceptor* acceptor = listener->owner;
  acceptor->handlesOpen--;
  if (--listener->handlesOpen == 0) delete listener;
  releaseIfDone(acceptor);
}

// Ends one listener: the descriptor is closed at once, the handles on the loop's next turn.
void closeListener(Listener* listener) {
  Acceptor* acceptor = listener->owner;
  acceptor->listeners.erase(listener->fd);
  if (listener->callback != nullptr) napi_delete_reference(acceptor->env, listener->callback);
  listener->callback = nullptr;
  listener->closing = true;
  if (!listener->polling) {
    close(listener->fd);
    delete listener;
    return;
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&listener->poll),
           [](uv_handle_t* handle) { onHandleClosed(static_cast<Listener*>(handle->data)); });
  uv_close(reinterpret_cast<uv_handle_t*>(&listener->rest),
           [](uv_handle_t* handle) { onHandleClosed(static_cast<Listener*>(handle->data)); });
  close(listener->fd);  // after uv_close took it out of the loop's set
}

void onReadable(uv_poll_t* poll, int status, int events);

void pauseListener(Listener* listener) {
  uv_poll_stop(&listener->poll);
  uv_timer_start(
      &listener->rest,
      [](uv_timer_t* timer) {
        Listener* self = static_cast<Listener*>(timer->data);
        if (self->owner->reserveFd < 0) self->owner->reserveFd = openReserve();
        uv_poll_start(&self->poll, UV_READABLE, onReadable);
      },
      kPauseMillis, 0);
}

// At the descriptor limit: give up the reserve, take one connection with it, close that, and reserve again.
// Returns 1: a connection was turned away; 0: none was waiting; -1: it did not work.
int turnOneAway(Acceptor* acceptor, int listenFd) {
  if (acceptor->reserveFd < 0) return -1;
  close(acceptor->reserveFd);
  int fd = accept4(listenFd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  int error = errno;
  if (fd >= 0) close(fd);
  acceptor->reserveFd = openReserve();
  if (fd >= 0) return acceptor->reserveFd < 0 ? -1 : 1;
  return error == EMFILE || error == ENFILE || acceptor->reserveFd < 0 ? -1 : 0;
}

void handOver(Listener* listener, const int* fds, int count, int exhausted) {
  napi_env env = listener->owner->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value array, callback, global, arguments[2];
  bool ready = napi_create_array_with_length(env, count, &array) == napi_ok &&
               napi_get_reference_value(env, listener->callback, &callback) == napi_ok && napi_get_global(env, &global) == napi_ok;
  for (int i = 0; ready && i < count; i++) ready = napi_set_element(env, array, i, number(env, fds[i])) == napi_ok;
  if (!ready) {
    for (int i = 0; i < count; i++) close(fds[i]);  // JavaScript never learned of them
  } else {
    arguments[0] = array;
    arguments[1] = number(env, exhausted);
    // No async context: an accepted connection belongs to no earlier asynchronous operation.
    napi_make_callback(env, nullptr, global, callback, 2, arguments, nullptr);
  }
  // Left pending, an exception would surface from the next, unrelated call. The callback owned the descriptors by
  // then, so they are not closed here: some may already be in use under the same number.
  bool pending = false;
  napi_value error;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending && napi_get_and_clear_last_exception(env, &error) == napi_ok) {
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

void onReadable(uv_poll_t* poll, int status, int) {
  Listener* listener = static_cast<Listener*>(poll->data);
  if (listener->closing) return;
  int fds[kRoundMax];
  int count = 0;
  int exhausted = 0;
  bool rest = status < 0;
  for (int round = 0; !rest && round < kRoundMax; round++) {
    int fd = accept4(listener->fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
      fds[count++] = fd;
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
    if (errno == EMFILE || errno == ENFILE) {
      int turned = turnOneAway(listener->owner, listener->fd);
      if (turned == 0) break;
      if (turned > 0) exhausted++;
      rest = turned < 0;
      continue;
    }
    if (errno == ENOBUFS || errno == ENOMEM || errno == EBADF || errno == EINVAL || errno == ENOTSOCK) rest = true;
    // Everything else (ECONNABORTED, EINTR, EPROTO, EPERM, ENETDOWN, … accept(2)) concerns one connection only.
  }
  if (rest) pauseListener(listener);
  // Last, because the callback may stop this listener.
  if (count > 0 || exhausted > 0) handOver(listener, fds, count, exhausted);
}

Acceptor* stateOf(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<Acceptor*>(data);
}

bool readArguments(napi_env env, napi_callback_info info, size_t wanted, napi_value* out) {
  size_t count = wanted;
  if (napi_get_cb_info(env, info, &count, out, nullptr, nullptr) != napi_ok) return false;
  return count >= wanted;
}

Listener* readListener(napi_env env, napi_value value) {
  int64_t fd;
  if (!readInt(env, value, 0, INT32_MAX, &fd)) return nullptr;
  Acceptor* acceptor = stateOf(env);
  auto found = acceptor->listeners.find(static_cast<int>(fd));
  return found == acceptor->listeners.end() ? nullptr : found->second;
}

napi_value failErrno(napi_env env, const char* what, int error) {
  return fail(env, uv_err_name(uv_translate_sys_error(error)), std::string(what) + ": " + strerror(error));
}

// listen(host, port, backlog) -> { fd, port }
napi_value Listen(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  std::string host;
  int64_t port, backlog;
  if (!readArguments(env, info, 3, arguments) || !readString(env, arguments[0], 64, &host) || !readInt(env, arguments[1], 0, 65535, &port) ||
      !readInt(env, arguments[2], 1, INT32_MAX, &backlog)) {
    return badArgument(env, "listen(host: string, port: 0..65535, backlog: 1..)");
  }
  sockaddr_storage address;
  memset(&address, 0, sizeof address);
  socklen_t length;
  bool six = false;
  if (uv_ip4_addr(host.c_str(), static_cast<int>(port), reinterpret_cast<sockaddr_in*>(&address)) == 0) {
    length = sizeof(sockaddr_in);
  } else if (uv_ip6_addr(host.c_str(), static_cast<int>(port), reinterpret_cast<sockaddr_in6*>(&address)) == 0) {
    length = sizeof(sockaddr_in6);
    six = true;
  } else {
    return fail(env, "EINVAL", "not an IPv4 or IPv6 address");
  }
  int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return failErrno(env, "socket", errno);
  int on = 1, off = 0;
  const char* step = "setsockopt";
  bool done = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              (!six || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0);
  if (done) {
    step = "bind";
    done = bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0;
  }
  if (done) {
    step = "listen";
    done = listen(fd, static_cast<int>(backlog)) == 0;
  }
  length = sizeof address;
  if (done) {
    step = "getsockname";
    done = getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  }
  if (!done) {
    int error = errno;
    close(fd);
    return failErrno(env, step, error);
  }
  Acceptor* acceptor = stateOf(env);
  acceptor->listeners[fd] = new Listener{acceptor, fd, false, false, 0, nullptr, {}, {}};
  int bound = ntohs(six ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
  napi_value result;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "fd", number(env, fd));
  napi_set_named_property(env, result, "port", number(env, bound));
  return result;
}

// accept(fd, callback(fds, exhausted))
napi_value Accept(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  napi_valuetype type;
  if (!readArguments(env, info, 2, arguments) || napi_typeof(env, arguments[1], &type) != napi_ok || type != napi_function) {
    return badArgument(env, "accept(fd: number, callback: function)");
  }
  Listener* listener = readListener(env, arguments[0]);
  if (listener == nullptr || listener->polling) return fail(env, "EBADF", "accept: no idle listener has this descriptor");
  Acceptor* acceptor = listener->owner;
  int error = uv_poll_init(acceptor->loop, &listener->poll, listener->fd);
  if (error != 0) return fail(env, uv_err_name(error), std::string("poll: ") + uv_strerror(error));
  uv_timer_init(acceptor->loop, &listener->rest);
  listener->poll.data = listener->rest.data = listener;
  listener->polling = true;
  listener->handlesOpen = 2;
  acceptor->handlesOpen += 2;
  napi_create_reference(env, arguments[1], 1, &listener->callback);
  uv_poll_start(&listener->poll, UV_READABLE, onReadable);
  return nullptr;
}

// stop(fd)
napi_value Stop(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  Listener* listener = readArguments(env, info, 1, arguments) ? readListener(env, arguments[0]) : nullptr;
  if (listener == nullptr) return fail(env, "EBADF", "stop: no listener has this descriptor");
  closeListener(listener);
  return nullptr;
}

// closeFd(fd)
napi_value CloseFd(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int64_t fd;
  if (!readArguments(env, info, 1, arguments) || !readInt(env, arguments[0], 3, INT32_MAX, &fd)) {
    return badArgument(env, "closeFd(fd: 3..)");
  }
  Acceptor* acceptor = stateOf(env);
  if (fd == acceptor->reserveFd || acceptor->listeners.count(static_cast<int>(fd)) > 0) {
    return fail(env, "EBADF", "closeFd: the acceptor itself owns this descriptor");
  }
  if (close(static_cast<int>(fd)) != 0 && errno == EBADF) return failErrno(env, "close", EBADF);
  return nullptr;
}

// peerAddress(fd) -> "1.2.3.4:5" | "[::1]:5" | ""
napi_value PeerAddress(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int64_t fd;
  if (!readArguments(env, info, 1, arguments) || !readInt(env, arguments[0], 0, INT32_MAX, &fd)) {
    return badArgument(env, "peerAddress(fd: number)");
  }
  sockaddr_storage address;
  memset(&address, 0, sizeof address);
  socklen_t length = sizeof address;
  std::string text;
  char buffer[INET6_ADDRSTRLEN] = {};
  if (getpeername(static_cast<int>(fd), reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    const sockaddr_in* four = reinterpret_cast<sockaddr_in*>(&address);
    const sockaddr_in6* six = reinterpret_cast<sockaddr_in6*>(&address);
    if (address.ss_family == AF_INET) {
      inet_ntop(AF_INET, &four->sin_addr, buffer, sizeof buffer);
      text = std::string(buffer) + ":" + std::to_string(ntohs(four->sin_port));
    } else if (address.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
      inet_ntop(AF_INET, six->sin6_addr.s6_addr + 12, buffer, sizeof buffer);
      text = std::string(buffer) + ":" + std::to_string(ntohs(six->sin6_port));
    } else if (address.ss_family == AF_INET6) {
      inet_ntop(AF_INET6, &six->sin6_addr, buffer, sizeof buffer);
      text.append("[").append(buffer).append("]:").append(std::to_string(ntohs(six->sin6_port)));
    }
  }
  napi_value result;
  napi_create_string_utf8(env, text.c_str(), text.size(), &result);
  return result;
}

// Answers of holdPeer and holdAddress that are no place; acceptor.ts has the same numbers.
constexpr int64_t kNoAddress = -2;

// holdPeer(fd, most) -> place | -1: the peer's address has `most` already | -2: it has no address (it is gone)
napi_value HoldPeer(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int64_t fd, most;
  if (!readArguments(env, info, 2, arguments) || !readInt(env, arguments[0], 0, INT32_MAX, &fd) ||
      !readInt(env, arguments[1], 0, INT32_MAX, &most)) {
    return badArgument(env, "holdPeer(fd: number, most: 0..)");
  }
  sockaddr_storage address;
  memset(&address, 0, sizeof address);
  socklen_t length = sizeof address;
  Source source;
  if (getpeername(static_cast<int>(fd), reinterpret_cast<sockaddr*>(&address), &length) != 0 || !readSource(address, &source)) {
    return number(env, kNoAddress);
  }
  return number(env, stateOf(env)->sources.hold(source, most));
}

// holdAddress(address, most) -> place | -1: it has `most` already | -2: not an address
napi_value HoldAddress(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  std::string text;
  int64_t most;
  if (!readArguments(env, info, 2, arguments) || !readString(env, arguments[0], 64, &text) ||
      !readInt(env, arguments[1], 0, INT32_MAX, &most)) {
    return badArgument(env, "holdAddress(address: string, most: 0..)");
  }
  sockaddr_storage address;
  memset(&address, 0, sizeof address);
  Source source;
  if ((uv_ip4_addr(text.c_str(), 0, reinterpret_cast<sockaddr_in*>(&address)) != 0 &&
       uv_ip6_addr(text.c_str(), 0, reinterpret_cast<sockaddr_in6*>(&address)) != 0) ||
      !readSource(address, &source)) {
    return number(env, kNoAddress);
  }
  return number(env, stateOf(env)->sources.hold(source, most));
}

// releaseHold(place)
napi_value ReleaseHold(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int64_t place;
  if (!readArguments(env, info, 1, arguments) || !readInt(env, arguments[0], 0, INT32_MAX, &place)) {
    return badArgument(env, "releaseHold(place: 0..)");
  }
  if (!stateOf(env)->sources.release(place)) return fail(env, "EBADF", "releaseHold: nothing is held there");
  return nullptr;
}

// fdLimit() -> { soft, hard }
napi_value FdLimit(napi_env env, napi_callback_info) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return failErrno(env, "getrlimit", errno);
  napi_value result, soft, hard;
  napi_create_object(env, &result);
  napi_create_double(env, static_cast<double>(limit.rlim_cur), &soft);
  napi_create_double(env, static_cast<double>(limit.rlim_max), &hard);
  napi_set_named_property(env, result, "soft", soft);
  napi_set_named_property(env, result, "hard", hard);
  return result;
}

// The environment ends (worker terminated, process exit): everything this instance opened goes with it.
void onCleanup(napi_async_cleanup_hook_handle, void* data) {
  Acceptor* acceptor = static_cast<Acceptor*>(data);
  acceptor->tearingDown = true;
  while (!acceptor->listeners.empty()) closeListener(acceptor->listeners.begin()->second);
  if (acceptor->reserveFd >= 0) close(acceptor->reserveFd);
  acceptor->reserveFd = -1;
  releaseIfDone(acceptor);
}

void onFinalize(napi_env, void* data, void*) {
  Acceptor* acceptor = static_cast<Acceptor*>(data);
  acceptor->finalized = true;
  releaseIfDone(acceptor);
}

napi_value Init(napi_env env, napi_value exports) {
  Acceptor* acceptor = new Acceptor{env, nullptr, openReserve(), {}, 0, nullptr, false, false, {}};
  bool done = napi_get_uv_event_loop(env, &acceptor->loop) == napi_ok &&
              napi_set_instance_data(env, acceptor, onFinalize, nullptr) == napi_ok &&
              napi_add_async_cleanup_hook(env, onCleanup, acceptor, &acceptor->cleanup) == napi_ok &&
              addFunction(env, exports, "listen", Listen) && addFunction(env, exports, "accept", Accept) &&
              addFunction(env, exports, "stop", Stop) && addFunction(env, exports, "closeFd", CloseFd) &&
              addFunction(env, exports, "peerAddress", PeerAddress) && addFunction(env, exports, "fdLimit", FdLimit) &&
              addFunction(env, exports, "holdPeer", HoldPeer) && addFunction(env, exports, "holdAddress", HoldAddress) &&
              addFunction(env, exports, "releaseHold", ReleaseHold);
  return done ? exports : fail(env, "ERR_INIT", "the acceptor addon could not be initialised");
}

}  // namespace
}  // namespace sluice

NAPI_MODULE_INIT() { return sluice::Init(env, exports); }
