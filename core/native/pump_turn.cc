// A turn of the pump: wait, read whatever is ready, call JavaScript once for all of it.
//
// The pump waits in the place of libuv. An epoll set that libuv polls costs a query two waits (libuv's, then the pump's own), a
// wake-up that passes through both sets, and a whole turn of Node's event loop. So the wait is in a prepare handle, which runs
// before libuv polls, and libuv's own set is one of the descriptors waited for: as soon as it, a timer, or anything else there
// has something to do, the event loop gets its turn, in which it does not wait.

#include <errno.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "pump_addon.h"

namespace sluice {
namespace {

// What epoll keeps for descriptors that are no connection's; no slot's, as generations have 31 bits.
constexpr uint64_t kTimerMark = UINT64_MAX;
constexpr uint64_t kLoopMark = UINT64_MAX - 1;
// Rounds before the event loop has a turn although it seems to have nothing to do: what it does without being woken (unreferenced
// immediates, finalizers) waits for that.
constexpr int kRoundsMax = 64;

// Returns false when JavaScript cannot be called any more.
bool tellBatch(Pump* pump) {
  napi_env env = pump->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return false;
  napi_value callback, global, argument;
  napi_status status = napi_get_reference_value(env, pump->callback, &callback);
  if (status == napi_ok) status = napi_get_global(env, &global);
  if (status == napi_ok) status = napi_create_int32(env, pump->eventCount, &argument);
  // No async context: a batch belongs to no earlier asynchronous operation.
  if (status == napi_ok) status = napi_make_callback(env, nullptr, global, callback, 1, &argument, nullptr);
  // The callback catches for each connection. What is left over must not surface from the next, unrelated call.
  bool pending = false;
  napi_value error;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending && napi_get_and_clear_last_exception(env, &error) == napi_ok) {
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
  return status == napi_ok && !pump->closing;
}

// Set the clock of the bulk connections, or stop it; either takes back that it has run out.
void setTimer(Pump* pump, bool runs) {
  itimerspec due = {};
  if (runs) due.it_value.tv_nsec = kBulkWaitNanos;
  timerfd_settime(pump->timerFd, 0, &due, nullptr);
  pump->timerRuns = runs;
  pump->timerFired = false;
}

bool knowsMore(const Pump* pump) { return pump->readyNext < pump->readyCount || pump->readyCount == kReadyMax || pump->bulkDue > 0; }

enum class Round { served, nothing, ended };

// Wait up to so many milliseconds (-1: for ever), unless more is known to be ready, and serve what is. `loopReady` becomes true
// when libuv has something to do.
Round runRound(Pump* pump, int waitMillis, bool* loopReady) {
  if (pump->readyNext >= pump->readyCount) {
    pump->readyNext = 0;
    pump->readyCount = epoll_wait(pump->epollFd, pump->ready, kReadyMax, knowsMore(pump) ? 0 : waitMillis);
    if (pump->readyCount < 0) pump->readyCount = 0;
    if (pump->readyCount == 0 && pump->bulkDue == 0) return Round::nothing;
  }
  pump->servedCount = 0;
  pump->eventCount = 0;
  pump->slabUsed = 0;
  serveBulk(pump);
  // What does not fit into the slab is served first in the next round, so that nobody waits for ever.
  while (pump->readyNext < pump->readyCount && roundHasRoom(pump)) {
    const epoll_event& ready = pump->ready[pump->readyNext++];
    if (ready.data.u64 == kLoopMark) {
      *loopReady = true;
      continue;
    }
    if (ready.data.u64 == kTimerMark) {
      pump->bulkDue = pump->bulk.size();
      pump->timerFired = true;
      serveBulk(pump);
      continue;
    }
    pump->servedCount++;
    int slot = static_cast<int>(ready.data.u64 & UINT32_MAX);
    int32_t generation = static_cast<int32_t>(ready.data.u64 >> 32);
    if (connectionAt(pump, slot) == nullptr || pump->slot(slot)[kSlotGeneration] != generation) continue;
    serveReady(pump, slot, ready.events);
  }
  bool waits = !pump->bulk.empty();
  if (pump->timerFired || (waits && !pump->timerRuns)) setTimer(pump, waits);
  return pump->eventCount == 0 || tellBatch(pump) ? Round::served : Round::ended;
}

// One round of all pumps of this thread. More than one at a time is rare: they are waited for with one more call.
Round runAll(Addon* addon, int waitMillis, bool* loopReady) {
  if (addon->pumps.size() == 1) {
    addon->pumps[0]->handshakesLeft = kHandshakesMax;
    return runRound(addon->pumps[0], waitMillis, loopReady);
  }
  std::vector<pollfd> sets;
  for (Pump* pump : addon->pumps) {
    if (knowsMore(pump)) waitMillis = 0;
    sets.push_back({pump->epollFd, POLLIN, 0});
  }
  if (poll(sets.data(), sets.size(), waitMillis) < 0) return Round::nothing;
  Round result = Round::nothing;
  // A handler may open another one.
  for (size_t i = 0; i < sets.size(); i++) {
    Pump* pump = addon->pumps[i];
    pump->handshakesLeft = kHandshakesMax;
    Round round = runRound(pump, 0, loopReady);
    if (round == Round::ended) return round;
    if (round == Round::served) result = round;
  }
  return result;
}

// How long libuv would wait: 0 when it has something to do, -1 for ever.
int loopWaits(uv_loop_t* loop) {
  // Descriptors that it is to watch from now on are put into its set when it polls; libuv's ABI fixes where that list is.
  if (loop->watcher_queue.next != &loop->watcher_queue) return 0;
  uv_update_time(loop);
  return uv_backend_timeout(loop);
}

void onTurn(uv_prepare_t* handle) {
  Pump* first = static_cast<Pump*>(handle->data);
  Addon* addon = static_cast<Addon*>(first->addon);
  if (addon->pumps.empty() || addon->pumps[0] != first) return;
  // While it is active libuv does not wait, and says so.
  uv_idle_stop(&first->noWait);
  for (int round = 0; round < kRoundsMax && !first->closing; round++) {
    int waitMillis = loopWaits(addon->loop);
    bool loopReady = waitMillis == 0;
    Round result = runAll(addon, waitMillis, &loopReady);
    // Nothing: a timer is due, or a signal came.
    if (loopReady || result != Round::served) break;
  }
  if (!first->closing) uv_idle_start(&first->noWait, [](uv_idle_t*) {});
}

int watch(Pump* pump, int fd, uint64_t mark) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = mark;
  return epoll_ctl(pump->epollFd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

void onClosed(uv_handle_t* handle) {
  Addon* addon = static_cast<Addon*>(static_cast<Pump*>(handle->data)->addon);
  addon->handlesOpen--;
  releaseIfDone(addon);
}

}  // namespace

// Give the pump, which has its epoll set, its turns. The first one of a thread waits for all. Returns 0 or errno.
int openTurns(Addon* addon, Pump* pump) {
  if (addon->pumps.empty()) {
    int error = watch(pump, uv_backend_fd(addon->loop), kLoopMark);
    if (error != 0) return error;
  }
  // Without a timer every connection is read when it is ready.
  pump->timerFd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (pump->timerFd >= 0 && watch(pump, pump->timerFd, kTimerMark) != 0) {
    close(pump->timerFd);
    pump->timerFd = -1;
  }
  pump->turn.data = pump;
  pump->noWait.data = pump;
  uv_prepare_init(addon->loop, &pump->turn);
  uv_idle_init(addon->loop, &pump->noWait);
  uv_prepare_start(&pump->turn, onTurn);
  // An idle transport keeps no process alive; connections do.
  uv_unref(reinterpret_cast<uv_handle_t*>(&pump->turn));
  uv_unref(reinterpret_cast<uv_handle_t*>(&pump->noWait));
  addon->handlesOpen += 2;
  pump->handlesOpen = true;
  return 0;
}

void closeTurns(Pump* pump) {
  pump->handlesOpen = false;
  uv_close(reinterpret_cast<uv_handle_t*>(&pump->turn), onClosed);
  uv_close(reinterpret_cast<uv_handle_t*>(&pump->noWait), onClosed);
  if (pump->timerFd >= 0) close(pump->timerFd);
}

}  // namespace sluice
