// Sends of many connections in one system call, by Linux's asynchronous I/O (io_submit(2)): on a socket that does not block it is carried
// out before the call returns. With a call for each, whoever a send wakes may take the processor from this thread after every one of them.
#pragma once

#include <linux/aio_abi.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

namespace sluice {

// Entries are carried out in the order in which they were added.
class SendBatch {
 public:
  static constexpr int kEntriesMax = 64;
  static constexpr int kPartsMax = 4;  // of one entry

  // What is looked at for every one is short, so that several share a cache line; the rest has to be in the block that the kernel reads anyway.
  struct Entry {
    int slot;
    int count;
    long result;  // bytes taken, or the negative errno; set by submit()
  };

  // False where the system has none of it, and then add() is never to be called.
  bool open();
  void close();

  bool works() const { return works_; }
  int size() const { return size_; }
  bool full() const { return size_ == kEntriesMax; }
  const Entry& at(int index) const { return entries_[index]; }
  int fd(int index) const { return static_cast<int>(blocks_[index].aio_fildes); }
  // An entry's parts; `one` is where a single part is put.
  iovec* parts(int index, iovec& one) {
    if (entries_[index].count > 1) return parts_[index];
    one = {reinterpret_cast<void*>(blocks_[index].aio_buf), static_cast<size_t>(blocks_[index].aio_nbytes)};
    return &one;
  }

  // The parts' bytes stay where they are until submit() has returned. At most kPartsMax.
  void add(int fd, int slot, const iovec* parts, int count);
  // Every entry has its result afterwards.
  void submit();
  void clear() {
    size_ = 0;
    serial_ = (serial_ + 1) & UINT32_MAX;
  }

 private:
  aio_context_t context_ = 0;
  bool works_ = false;
  int size_ = 0;
  uint64_t serial_ = 0;  // of the batch: no completion of an earlier one, should it ever come late, is taken for one of this
  Entry entries_[kEntriesMax];
  iocb* pointers_[kEntriesMax];
  alignas(64) iocb blocks_[kEntriesMax];
  iovec parts_[kEntriesMax][kPartsMax];  // of entries with more than one
};

}  // namespace sluice
