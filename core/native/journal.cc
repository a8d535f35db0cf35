// Journal: appends blocks to a file through a window of it that is mapped, and allocated before it is mapped. A block is 16 bytes
// of header (magic, CRC-32, length, sequence) and a payload; what the payload holds is not known here. Also what the recorded bytes'
// files need of the system and Node.js does not offer: direct() and misalignment().
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "crc32.h"
#include "napi_util.h"

namespace {

using namespace sluice;

constexpr uint32_t kMagic = 0x4b4c4253;
constexpr uint32_t kHeaderBytes = 16;
constexpr int64_t kWindowMaxBytes = 1 << 30;
// The layout's offsets have 32 bits.
constexpr int64_t kFileMaxBytes = 0xffffffff;
constexpr int64_t kNumberMax = (int64_t{1} << 53) - 1;

// Where allocating a range means that writing to it later needs no more room. Elsewhere (btrfs, zfs, overlays) it may not.
constexpr long kExt = 0xef53, kXfs = 0x58465342, kTmpfs = 0x01021994;

// What one call of append() is about, in memory that JavaScript fills.
enum Field { kStart, kTotal, kPosition, kSequence, kProblem, kFields };

struct Window {
  napi_env env;
  napi_ref pageRef = nullptr;
  uint32_t* page = nullptr;
  napi_ref bufferRef = nullptr;
  uint8_t* buffer = nullptr;
  uint32_t bufferBytes = 0;
  uint8_t* mapping = nullptr;
  uint32_t base = 0;
  uint32_t mapped = 0;
  // Of the mapping; it has one page more than can be written.
  uint32_t pageBytes = 0;
};

// The copy into a mapping that this thread is in the middle of. initial-exec: a signal handler must not allocate.
struct Copying {
  sigjmp_buf landing;
  uint8_t* low;
  uint8_t* high;
  volatile sig_atomic_t active;
};
__attribute__((tls_model("initial-exec"))) thread_local Copying copying;
struct sigaction before;

// A page of a mapping cannot be had: the file was cut by somebody else, or its file system failed. In the middle of a copy that is
// the end of the copy; anywhere else it is what it was without us.
void onBusError(int signal, siginfo_t* info, void* context) {
  uint8_t* at = static_cast<uint8_t*>(info->si_addr);
  if (copying.active && info->si_code > 0 && at >= copying.low && at < copying.high) siglongjmp(copying.landing, 1);
  if ((before.sa_flags & SA_SIGINFO) != 0) return before.sa_sigaction(signal, info, context);
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(signal);
  sigaction(SIGBUS, &before, nullptr);
  if (info->si_code <= 0) raise(signal);
}

// For the whole process, once; the addon is linked so that it is never unloaded.
bool installHandler() {
  struct sigaction action = {};
  action.sa_sigaction = onBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  return sigaction(SIGBUS, &action, &before) == 0;
}

void unmap(Window* window) {
  if (window->mapping != nullptr) munmap(window->mapping, window->mapped + window->pageBytes);
  window->mapping = nullptr;
  window->mapped = 0;
}

void put32(uint8_t* to, uint32_t value) { memcpy(to, &value, sizeof value); }

// Returns 0 or an errno. The header's first word goes last: who sees it sees the block.
int append(Window* window) {
  const uint32_t start = window->page[kStart], total = window->page[kTotal], position = window->page[kPosition];
  if (total < kHeaderBytes || start > window->bufferBytes || total > window->bufferBytes - start) return EINVAL;
  if (position < window->base || total > window->mapped || position - window->base > window->mapped - total) return EINVAL;
  uint8_t* block = window->buffer + start;
  uint8_t* to = window->mapping + (position - window->base);
  put32(block, kMagic);
  put32(block + 8, total - kHeaderBytes);
  put32(block + 12, window->page[kSequence]);
  put32(block + 4, blockCrc32(block + 8, total - 8));
  copying.low = to;
  // In the page in which a file ends, what is stored behind its end is lost, without a fault. If somebody cut the file there, a store
  // to the next page does fault, and otherwise it leaves the zero that is there.
  uint8_t* next = window->mapping + (position - window->base + total + window->pageBytes - 1) / window->pageBytes * window->pageBytes;
  copying.high = next + 1;
  if (sigsetjmp(copying.landing, 0) != 0) {
    copying.active = 0;
    return EIO;
  }
  copying.active = 1;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  memcpy(to + 4, block + 4, total - 4);
  *static_cast<volatile uint8_t*>(next) = 0;
  __atomic_thread_fence(__ATOMIC_RELEASE);
  memcpy(to, block, 4);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  copying.active = 0;
  return 0;
}

napi_value onAppend(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  if (napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data) != napi_ok) return nullptr;
  Window* window = static_cast<Window*>(data);
  window->page[kProblem] = static_cast<uint32_t>(append(window));
  return nullptr;
}

void onCollected(napi_env env, void* data, void*) {
  Window* window = static_cast<Window*>(data);
  unmap(window);
  if (window->pageRef != nullptr) napi_delete_reference(env, window->pageRef);
  if (window->bufferRef != nullptr) napi_delete_reference(env, window->bufferRef);
  delete window;
}

bool readBytes(napi_env env, napi_value value, napi_typedarray_type wanted, size_t least, void** bytes, size_t* length) {
  bool is = false;
  napi_typedarray_type type;
  return napi_is_typedarray(env, value, &is) == napi_ok && is &&
         napi_get_typedarray_info(env, value, &type, length, bytes, nullptr, nullptr) == napi_ok && type == wanted && *length >= least &&
         *length <= kFileMaxBytes;
}

// open(page: Uint32Array): a function that appends what the page says, and is the window for the other calls; undefined where there can be none.
napi_value open(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  void* page = nullptr;
  size_t fields = 0;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok) return nullptr;
  if (count < 1 || !readBytes(env, argument, napi_uint32_array, kFields, &page, &fields)) return badArgument(env, "open takes a page");
  static const bool handled = installHandler();
  const unsigned char* check = reinterpret_cast<const unsigned char*>("123456789");
  if (!handled || crc32 == nullptr || crc32(0, check, 9) != 0xcbf43926) return nullptr;
  Window* window = new Window{env};
  window->page = static_cast<uint32_t*>(page);
  napi_value function;
  if (napi_create_reference(env, argument, 1, &window->pageRef) != napi_ok ||
      napi_create_function(env, "append", NAPI_AUTO_LENGTH, onAppend, window, &function) != napi_ok ||
      napi_wrap(env, function, window, onCollected, nullptr, nullptr) != napi_ok) {
    onCollected(env, window, nullptr);
    return nullptr;
  }
  return function;
}

// The window and up to four more.
Window* arguments(napi_env env, napi_callback_info info, napi_value* values, size_t wanted) {
  size_t count = wanted;
  void* window = nullptr;
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || count < wanted ||
      napi_unwrap(env, values[0], &window) != napi_ok) {
    badArgument(env, "not a window");
    return nullptr;
  }
  return static_cast<Window*>(window);
}

// attach(window, buffer): where blocks are copied from.
napi_value attach(napi_env env, napi_callback_info info) {
  napi_value values[2];
  Window* window = arguments(env, info, values, 2);
  if (window == nullptr) return nullptr;
  void* bytes = nullptr;
  size_t length = 0;
  if (!readBytes(env, values[1], napi_uint8_array, 0, &bytes, &length)) return badArgument(env, "attach takes a window and bytes");
  napi_ref reference = nullptr;
  if (napi_create_reference(env, values[1], 1, &reference) != napi_ok) return badArgument(env, "attach could not keep the bytes");
  if (window->bufferRef != nullptr) napi_delete_reference(env, window->bufferRef);
  window->bufferRef = reference;
  window->buffer = static_cast<uint8_t*>(bytes);
  window->bufferBytes = static_cast<uint32_t>(length);
  return nullptr;
}

int moveTo(Window* window, int fd, int64_t position, int64_t bytes, int64_t spare) {
  if (position > kFileMaxBytes || bytes > kWindowMaxBytes) return EFBIG;
  const int64_t pageBytes = sysconf(_SC_PAGESIZE);
  const int64_t base = position - position % pageBytes;
  const int64_t length = (position - base + bytes + pageBytes - 1) / pageBytes * pageBytes;
  const int64_t whole = length + pageBytes;
  if (base + whole > kFileMaxBytes) return EFBIG;
  struct statfs system;
  if (fstatfs(fd, &system) != 0) return errno;
  if (system.f_type != kExt && system.f_type != kXfs && system.f_type != kTmpfs) return EOPNOTSUPP;
  // Also because fallocate may take what there is before it finds that it is not enough.
  if (static_cast<double>(system.f_bavail) * static_cast<double>(system.f_bsize) < static_cast<double>(whole + spare)) return ENOSPC;
  // fallocate(2), not posix_fallocate: where the file system cannot allocate, that would write zeros over what is there.
  while (fallocate(fd, 0, base, whole) != 0) {
    if (errno != EINTR) return errno;
  }
  void* mapping = mmap(nullptr, static_cast<size_t>(whole), PROT_READ | PROT_WRITE, MAP_SHARED, fd, base);
  if (mapping == MAP_FAILED) return errno;
  unmap(window);
  window->mapping = static_cast<uint8_t*>(mapping);
  window->base = static_cast<uint32_t>(base);
  window->mapped = static_cast<uint32_t>(length);
  window->pageBytes = static_cast<uint32_t>(pageBytes);
  return 0;
}

// move(window, fd, position, bytes, spare): have [position, position + bytes) of the file and a page after it allocated and mapped, and
// nothing that ends before it, if `spare` more bytes are free in the file system. Returns 0 or an errno, after which the window is where it was.
napi_value move(napi_env env, napi_callback_info info) {
  napi_value values[5];
  Window* window = arguments(env, info, values, 5);
  if (window == nullptr) return nullptr;
  int64_t fd = 0, position = 0, bytes = 0, spare = 0;
  if (!readInt(env, values[1], 0, INT32_MAX, &fd) || !readInt(env, values[2], 0, kNumberMax, &position) ||
      !readInt(env, values[3], 1, kNumberMax, &bytes) || !readInt(env, values[4], 0, kNumberMax, &spare)) {
    return badArgument(env, "move takes a window, a descriptor, a position, a length and what must be free");
  }
  return number(env, moveTo(window, static_cast<int>(fd), position, bytes, spare));
}

// release(window): unmap; the file keeps its length.
napi_value release(napi_env env, napi_callback_info info) {
  napi_value values[1];
  Window* window = arguments(env, info, values, 1);
  if (window != nullptr) unmap(window);
  return nullptr;
}

// checksum(bytes, start, end): CRC-32 of bytes[start, end); undefined where zlib's is not to be had.
napi_value checksum(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value values[3];
  void* bytes = nullptr;
  size_t length = 0;
  int64_t start = 0, end = 0;
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || count < 3 ||
      !readBytes(env, values[0], napi_uint8_array, 0, &bytes, &length) || !readInt(env, values[1], 0, kNumberMax, &start) ||
      !readInt(env, values[2], 0, kNumberMax, &end) || start > end || static_cast<uint64_t>(end) > length) {
    return badArgument(env, "checksum takes bytes and a range of them");
  }
  if (crc32 == nullptr) return nullptr;
  return number(env, blockCrc32(static_cast<const uint8_t*>(bytes) + start, static_cast<size_t>(end - start)));
}

// direct(fd, wanted): whether what is written goes past the page cache. Returns 0 or an errno: then nothing has changed.
napi_value direct(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value values[2];
  int64_t fd = 0;
  bool wanted = false;
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || count < 2 || !readInt(env, values[0], 0, INT32_MAX, &fd) ||
      napi_get_value_bool(env, values[1], &wanted) != napi_ok) {
    return badArgument(env, "direct takes a descriptor and whether");
  }
  const int flags = fcntl(static_cast<int>(fd), F_GETFL);
  if (flags < 0) return number(env, errno);
  return number(env, fcntl(static_cast<int>(fd), F_SETFL, wanted ? flags | O_DIRECT : flags & ~O_DIRECT) == 0 ? 0 : errno);
}

// misalignment(bytes, unit): how many bytes behind a multiple of `unit` they begin in memory.
napi_value misalignment(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value values[2];
  void* bytes = nullptr;
  size_t length = 0;
  int64_t unit = 0;
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || count < 2 ||
      !readBytes(env, values[0], napi_uint8_array, 0, &bytes, &length) || !readInt(env, values[1], 1, UINT32_MAX, &unit)) {
    return badArgument(env, "misalignment takes bytes and a unit");
  }
  return number(env, static_cast<int64_t>(reinterpret_cast<uintptr_t>(bytes) % static_cast<uintptr_t>(unit)));
}

napi_value init(napi_env env, napi_value exports) {
  const bool added = addFunction(env, exports, "open", open) && addFunction(env, exports, "attach", attach) &&
                     addFunction(env, exports, "move", move) && addFunction(env, exports, "release", release) &&
                     addFunction(env, exports, "checksum", checksum) && addFunction(env, exports, "direct", direct) &&
                     addFunction(env, exports, "misalignment", misalignment);
  return added ? exports : nullptr;
}

}  // namespace

NAPI_MODULE_INIT() { return init(env, exports); }
