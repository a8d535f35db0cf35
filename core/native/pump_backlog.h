// Bytes that the kernel has not taken yet: a chain of chunks, appended at the end and sent from the front.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

namespace sluice {

class Backlog {
 public:
  // One connection's most; senders stop far below it (LIMITS.backlogHighBytes), this is the last resort.
  static constexpr size_t kBytesMax = size_t{512} << 20;

  size_t bytes() const { return bytes_; }
  bool empty() const { return bytes_ == 0; }

  // False when memory or kBytesMax is exhausted; what was appended so far stays.
  bool append(const uint8_t* data, size_t count) {
    if (count > kBytesMax - bytes_) return false;
    while (count > 0) {
      if (last_ == nullptr || last_->end == last_->capacity) {
        if (!grow(count)) return false;
      }
      size_t part = last_->capacity - last_->end < count ? last_->capacity - last_->end : count;
      memcpy(last_->data + last_->end, data, part);
      last_->end += part;
      bytes_ += part;
      data += part;
      count -= part;
    }
    return true;
  }

  // The oldest bytes. Returns how many entries of `out` were filled.
  int front(iovec* out, int most) const {
    int count = 0;
    for (Chunk* chunk = first_; chunk != nullptr && count < most; chunk = chunk->next) {
      out[count].iov_base = chunk->data + chunk->start;
      out[count++].iov_len = chunk->end - chunk->start;
    }
    return count;
  }

  void consume(size_t count) {
    bytes_ -= count;
    while (first_ != nullptr && count >= first_->end - first_->start) {
      count -= first_->end - first_->start;
      Chunk* spent = first_;
      first_ = spent->next;
      free(spent);
    }
    if (first_ == nullptr) last_ = nullptr;
    else first_->start += count;
  }

  void clear() {
    while (first_ != nullptr) {
      Chunk* spent = first_;
      first_ = spent->next;
      free(spent);
    }
    last_ = nullptr;
    bytes_ = 0;
  }

 private:
  struct Chunk {
    Chunk* next;
    size_t start, end, capacity;
    uint8_t data[];
  };
  static constexpr size_t kChunkLeast = 4 << 10;
  static constexpr size_t kChunkMost = 64 << 10;

  bool grow(size_t wanted) {
    size_t capacity = wanted < kChunkLeast ? kChunkLeast : wanted > kChunkMost ? kChunkMost : wanted;
    Chunk* chunk = static_cast<Chunk*>(malloc(sizeof(Chunk) + capacity));
    if (chunk == nullptr) return false;
    chunk->next = nullptr;
    chunk->start = chunk->end = 0;
    chunk->capacity = capacity;
    if (last_ == nullptr) first_ = chunk;
    else last_->next = chunk;
    last_ = chunk;
    return true;
  }

  Chunk* first_ = nullptr;
  Chunk* last_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace sluice
