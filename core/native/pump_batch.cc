// See pump_batch.h.

#include "pump_batch.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace sluice {
namespace {

constexpr unsigned kRingMagic = 0xa10a10a1;

// The completion ring as the kernel maps it at the context's address (AIO_RING_MAGIC in fs/aio.c): reading it there saves a call.
struct Ring {
  unsigned id, nr, head, tail, magic, compatible, incompatible, headerBytes;
  io_event events[];
};

// What submit() promises for an entry whose fate is not known: it counts as broken, because a part of it may have left.
constexpr long kUnknown = -EIO;

}  // namespace

bool SendBatch::open() {
  // A write to a connection that is gone raises SIGPIPE here, where no flag can keep it away. Node.js ignores that signal.
  struct sigaction pipe = {};
  if (sigaction(SIGPIPE, nullptr, &pipe) != 0 || pipe.sa_handler != SIG_IGN) return false;
  if (syscall(SYS_io_setup, kEntriesMax, &context_) != 0) return false;
  const Ring* ring = reinterpret_cast<const Ring*>(context_);
  works_ = ring->magic == kRingMagic && ring->incompatible == 0;
  if (!works_) close();
  return works_;
}

void SendBatch::close() {
  if (context_ != 0) syscall(SYS_io_destroy, context_);
  context_ = 0;
  works_ = false;
}

void SendBatch::add(int fd, int slot, const iovec* parts, int count) {
  Entry& entry = entries_[size_];
  entry.slot = slot;
  entry.count = count;
  entry.result = kUnknown;
  iocb& block = blocks_[size_];
  memset(&block, 0, sizeof block);
  block.aio_data = serial_ << 32 | static_cast<uint64_t>(size_);
  block.aio_fildes = static_cast<uint32_t>(fd);
  if (count == 1) {
    block.aio_lio_opcode = IOCB_CMD_PWRITE;
    block.aio_buf = reinterpret_cast<uint64_t>(parts->iov_base);
    block.aio_nbytes = parts->iov_len;
  } else {
    memcpy(parts_[size_], parts, sizeof *parts * static_cast<size_t>(count));
    block.aio_lio_opcode = IOCB_CMD_PWRITEV;
    block.aio_buf = reinterpret_cast<uint64_t>(parts_[size_]);
    block.aio_nbytes = static_cast<uint64_t>(count);
  }
  pointers_[size_] = &block;
  size_++;
}

void SendBatch::submit() {
  int next = 0;
  while (next < size_) {
    long taken = syscall(SYS_io_submit, context_, size_ - next, pointers_ + next);
    if (taken > 0) {
      next += static_cast<int>(taken);
      continue;
    }
    if (taken < 0 && errno == EINTR) continue;
    // The first of the rest was not taken, so nothing of it was sent.
    Entry& entry = entries_[next];
    iovec one;
    msghdr message = {};
    message.msg_iov = parts(next, one);
    message.msg_iovlen = static_cast<size_t>(entry.count);
    ssize_t sent;
    do sent = sendmsg(fd(next), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    entry.result = sent >= 0 ? static_cast<long>(sent) : -errno;
    next++;
  }
  Ring* ring = reinterpret_cast<Ring*>(context_);
  unsigned head = ring->head;
  const unsigned tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
  while (head != tail) {
    const io_event& event = ring->events[head];
    const uint64_t index = event.data & UINT32_MAX;
    if (event.data >> 32 == serial_ && index < static_cast<uint64_t>(size_)) entries_[index].result = static_cast<long>(event.res);
    head = head + 1 == ring->nr ? 0 : head + 1;
  }
  __atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
}

}  // namespace sluice
