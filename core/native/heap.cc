// V8's heap in one place and in large pages. No addon: `sluice serve` has the dynamic linker load it before anything else (LD_PRELOAD), so that V8's
// calls of mmap and munmap come by here. Why, and what it saves: docs/decisions/0010-heap-in-large-pages.md.
//
// V8 takes its heap from the system in chunks of 256 KiB, each at an address of its own choice, anywhere in 64 TiB. So every page of it needs an entry
// of its own in the processor's address cache, and every chunk page tables of its own. Here the chunks come from one reserved span, eight to a block of
// 2 MiB, which the kernel can back with one large page. Whatever does not look like the request for a chunk goes to the kernel as it is.
//
// A block is dense (all that was taken from it is in use; it may have a large page) or sparse (a chunk was given back: its memory went to the system at
// once, the rest keeps small pages, so that khugepaged does not fill the hole again). The lowest free chunk is taken first, which makes sparse blocks dense.
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64  // mmap is mmap64 then, which is what node calls.
#endif
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD 20  // Linux 5.4
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; an older kernel says EINVAL, and khugepaged does it in its own time.
#endif

namespace {

constexpr size_t kSystemPage = 4096;
constexpr size_t kChunk = size_t{256} << 10;  // V8's kRegularPageSize
// V8 asks for so much and gives back what lies outside an aligned chunk (OS::Allocate in platform-posix.cc).
constexpr size_t kRequest = 2 * kChunk - kSystemPage;
constexpr size_t kBlock = size_t{2} << 20;
constexpr unsigned kChunksOfBlock = kBlock / kChunk;
constexpr uint8_t kFull = (1u << kChunksOfBlock) - 1;
// Addresses, not memory. More heap than that, of all threads together, is taken from the kernel as without this.
constexpr size_t kBlocks = 8192;
constexpr size_t kSpan = kBlocks * kBlock;
// V8's code range (kMaximalCodeRangeSize).
constexpr size_t kCodeRange = size_t{512} << 20;

struct Block {
  uint8_t used;  // a bit for each chunk
  bool writable;
  bool sparse;
};

char* span;  // set once, before there is a second thread; null: everything goes to the kernel
Block blocks[kBlocks];
size_t firstFree;  // no block before it has a free chunk
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// What this thread was given behind its last chunk and has not given back: V8 unmaps it next.
thread_local char* surplus;

void* kernelMap(void* at, size_t length, int protection, int flags, int fd, off_t offset) {
  return reinterpret_cast<void*>(syscall(SYS_mmap, at, length, protection, flags, fd, offset));
}

char* addressOf(size_t block) { return span + block * kBlock; }

void becomeDense(size_t index) {
  blocks[index].sparse = false;
  madvise(addressOf(index), kBlock, MADV_HUGEPAGE);
}

/** The lowest free chunk, zeroed, or null. */
char* takeChunk() {
  char* chunk = nullptr;
  char* whole = nullptr;
  pthread_mutex_lock(&lock);
  while (firstFree < kBlocks && blocks[firstFree].used == kFull) firstFree++;
  if (firstFree < kBlocks) {
    Block& block = blocks[firstFree];
    if (!block.writable) block.writable = mprotect(addressOf(firstFree), kBlock, PROT_READ | PROT_WRITE) == 0;
    if (block.writable) {
      const unsigned place = static_cast<unsigned>(__builtin_ctz(static_cast<unsigned>(~block.used)));
      block.used = static_cast<uint8_t>(block.used | 1u << place);
      chunk = addressOf(firstFree) + place * kChunk;
      if (block.sparse && block.used == kFull) {
        becomeDense(firstFree);
        whole = addressOf(firstFree);
      }
    }
  }
  pthread_mutex_unlock(&lock);
  // Takes milliseconds, so the other threads do not wait for it. A chunk that is given back meanwhile is given back, of a large page or of small ones.
  if (whole != nullptr) madvise(whole, kBlock, MADV_COLLAPSE);
  return chunk;
}

/** `at` is a chunk's beginning. Its memory goes back to the system; the addresses wait for the next request. */
void giveChunk(char* at) {
  const size_t index = static_cast<size_t>(at - span) / kBlock;
  const uint8_t bit = static_cast<uint8_t>(1u << (static_cast<size_t>(at - addressOf(index)) / kChunk));
  pthread_mutex_lock(&lock);
  Block& block = blocks[index];
  if ((block.used & bit) != 0) {
    if (!block.sparse) {
      block.sparse = true;
      madvise(addressOf(index), kBlock, MADV_NOHUGEPAGE);
      // Splits the large page. The kernel keeps one of which a part is unmapped whole, and nobody else gets that memory before it runs short.
      madvise(at, kChunk, MADV_COLD);
    }
    // V8 makes the pages of its read-only space read-only. A chunk that stays so (RLIMIT_DATA) is not given to anybody again.
    const bool writable = mprotect(at, kChunk, PROT_READ | PROT_WRITE) == 0;
    // Locked memory cannot be given back. What is taken again has to be zeros all the same.
    if (madvise(at, kChunk, MADV_DONTNEED) != 0 && writable) memset(at, 0, kChunk);
    if (writable) {
      block.used = static_cast<uint8_t>(block.used & ~bit);
      if (block.used == 0) becomeDense(index);
      if (index < firstFree) firstFree = index;
    }
  }
  pthread_mutex_unlock(&lock);
}

/** Programs that this one starts are none of ours: what `sluice` put at the end of the list goes. */
void leaveEnvironment() {
  const char* list = getenv("LD_PRELOAD");
  Dl_info self;
  if (list == nullptr || dladdr(reinterpret_cast<void*>(&leaveEnvironment), &self) == 0) return;
  const size_t whole = strlen(list), own = strlen(self.dli_fname);
  if (whole < own || strcmp(list + whole - own, self.dli_fname) != 0) return;
  if (whole == own) {
    unsetenv("LD_PRELOAD");
  } else if (list[whole - own - 1] == ':') {
    char* others = strndup(list, whole - own - 1);
    if (others != nullptr) setenv("LD_PRELOAD", others, 1);
    free(others);
  }
}

__attribute__((constructor)) void reserve() {
  leaveEnvironment();
  if (sysconf(_SC_PAGESIZE) != static_cast<long>(kSystemPage)) return;
  // Where addresses are rationed (ulimit -v), V8 and WebAssembly need them more.
  rlimit addresses;
  if (getrlimit(RLIMIT_AS, &addresses) != 0 || addresses.rlim_cur != RLIM_INFINITY) return;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  // A block more to align it, and one behind: V8's advice about the surplus of the last chunk then meets addresses that are ours.
  void* all = kernelMap(nullptr, kSpan + 2 * kBlock, PROT_NONE, flags, -1, 0);
  if (all == MAP_FAILED) return;
  // V8 says so of each chunk with its surplus. Said of all of it at once it does not cut the span into pieces.
  madvise(all, kSpan + 2 * kBlock, MADV_DONTFORK);
  char* aligned = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(all) + kBlock - 1) & ~(kBlock - 1));
  madvise(aligned, kSpan, MADV_HUGEPAGE);
  span = aligned;
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

/** mmap(2). A request that looks like V8's for a chunk is answered from the span, if that has one left. */
EXPORTED void* mmap(void* at, size_t length, int protection, int flags, int fd, off_t offset) {
  const bool own = (flags & (MAP_ANONYMOUS | MAP_PRIVATE | MAP_FIXED | MAP_FIXED_NOREPLACE)) == (MAP_ANONYMOUS | MAP_PRIVATE);
  if (own && at != nullptr && span != nullptr) {
    // V8 aligns its hint as it wants the chunk. A request of this length that is not for a chunk would be used beyond the chunk, in another one.
    const bool aligned = reinterpret_cast<uintptr_t>(at) % kChunk == 0;
    if (aligned && length == kRequest && protection == (PROT_READ | PROT_WRITE)) {
      char* chunk = takeChunk();
      if (chunk != nullptr) {
        surplus = chunk + kChunk;
        return chunk;
      }
    }
    if (length == kCodeRange && protection == PROT_NONE) {
      void* range = kernelMap(at, length, protection, flags, fd, offset);
      if (range != MAP_FAILED) madvise(range, length, MADV_HUGEPAGE);
      return range;
    }
  }
  return kernelMap(at, length, protection, flags, fd, offset);
}

/**
 * munmap(2). Of the span, what begins a chunk gives back the chunk: V8 unmaps nothing else from its beginning, though it may have cut off its end before.
 * The surplus of a chunk was never anybody's, and an end that is cut off stays with its chunk.
 */
EXPORTED int munmap(void* at, size_t length) {
  char* from = static_cast<char*>(at);
  // The surplus of the last chunk lies behind the span: it stays reserved too, or the next time it would be somebody else's.
  if (from != nullptr && from == surplus && length == kRequest - kChunk) {
    surplus = nullptr;
    return 0;
  }
  if (span == nullptr || from < span || from >= span + kSpan) return static_cast<int>(syscall(SYS_munmap, at, length));
  if (length == 0 || (static_cast<size_t>(from - span) % kSystemPage) != 0) {
    errno = EINVAL;
    return -1;
  }
  if (static_cast<size_t>(from - span) % kChunk == 0) giveChunk(from);
  return 0;
}
