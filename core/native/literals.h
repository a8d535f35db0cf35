// Finds many short literals at once: 16 to 64 positions at a time are compared with the nibbles of six bytes of each
// literal in eight buckets (the idea of Hyperscan's Teddy); what passes is compared byte by byte. Exact, no look-around.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <string>
#include <vector>

#include "digits.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace sluice {

struct Literal {
  std::string text;  // folded to lower case if caseless
  bool caseless;
  // What must follow; all zero: anything.
  int token;   // so many letters, digits, - or _ directly after it
  int digits;  // so many digits within the next `window` bytes
  int window;
  bool joined;    // with nothing but separators (digits.h) among them
  uint32_t kinds;
  // Set by prepare(): the offset in text of the window that is looked for, and its first bytes, the fingerprint, as one
  // little-endian word, which a word of the text is when ((that | folded) & care) == word.
  size_t anchor;
  uint32_t word, folded, care;
};

constexpr size_t kWindow = 6;
// Of the window's bytes these are known by both nibbles, the others by the low one. Six low nibbles tell words of a language
// apart at less cost than four whole bytes.
constexpr size_t kWhole = 4;
constexpr size_t kFingerprint = 4;
constexpr size_t kBuckets = 8;

// Fingerprints of eight literals side by side; those left over match nothing.
typedef uint32_t Words __attribute__((vector_size(32)));
struct Fingerprints {
  Words word, folded, care;
};

struct LiteralSet {
  // Bit b of low[k][n]: no literal of bucket b has, as byte k of its window, one whose low nibble is n. A byte passes where no
  // bit is set: so a shuffle, which gives 0 for a byte of 0x80 and more, lets through what the high nibble decides.
  alignas(16) uint8_t low[kWindow][16];
  alignas(16) uint8_t high[kWhole][16];
  std::vector<Literal> buckets[kBuckets];
  // literals [8 i, 8 i + 8) of the bucket
  std::vector<Fingerprints> fingerprints[kBuckets];
  bool any = false;
};

inline uint8_t fold(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte; }

// Rough frequency of a byte in rows of text and numbers.
inline double frequency(uint8_t byte) {
  constexpr char kLetters[] = "etaoinsrhldcumfpgwybvkxjqz";
  constexpr double kOften[] = {54, 39, 36, 33, 30, 30, 27, 27, 24, 18, 18, 12, 12, 12, 10, 8, 8, 8, 8, 6, 5, 4, 1, 1, 1, 1};
  if (byte == 0) return 0.1;  // framing
  if (byte >= 'a' && byte <= 'z') return kOften[strchr(kLetters, byte) - kLetters] / 1000;
  if (byte == ' ') return 0.08;
  if (byte >= '0' && byte <= '9') return 0.03;
  if (byte < 0x80 && strchr("-.:/,\"\t\n", byte) != nullptr) return 0.01;
  return byte >= 'A' && byte <= 'Z' ? 0.003 : byte < 0x80 ? 0.002 : 0.001;
}

// The nibbles that a group of literals admits at each byte of the window, and how often that passes without reason.
struct Nibbles {
  uint16_t low[kWindow] = {}, high[kWindow] = {};

  // The window of one literal at text[at].
  void add(const Literal& literal, size_t at) {
    const size_t size = literal.text.size();
    for (size_t k = 0; k < kWindow; k++) {
      if (at + k >= size) {
        // Behind the literal anything may stand; where a token must, none of rows 0x, 1x and those from 8x on.
        low[k] = 0xffff;
        high[k] |= at + k < size + static_cast<size_t>(literal.token) ? 0x00fc : 0xffff;
        continue;
      }
      const uint8_t byte = static_cast<uint8_t>(literal.text[at + k]);
      low[k] |= static_cast<uint16_t>(1 << (byte & 15));
      high[k] |= static_cast<uint16_t>(1 << (byte >> 4) | (literal.caseless && byte >= 'a' && byte <= 'z' ? 1 << ((byte ^ 0x20) >> 4) : 0));
    }
  }

  void add(const Nibbles& other) {
    for (size_t k = 0; k < kWindow; k++) low[k] |= other.low[k], high[k] |= other.high[k];
  }

  double chance() const {
    static const std::vector<double> often = [] {
      std::vector<double> all;
      for (int byte = 0; byte < 256; byte++) all.push_back(frequency(static_cast<uint8_t>(byte)));
      return all;
    }();
    double all = 1;
    for (size_t k = 0; k < kWindow; k++) {
      double one = 0;
      for (unsigned row = 0; row < 16; row++) {
        if (k < kWhole && (high[k] >> row & 1) == 0) continue;
        for (unsigned n = 0; n < 16; n++) one += (low[k] >> n & 1) != 0 ? often[row * 16 + n] : 0;
      }
      all *= one;
    }
    return all;
  }
};

// Chooses the window that appears least without reason.
inline Nibbles prepare(Literal* literal) {
  const size_t length = literal->text.size();
  Nibbles best;
  double least = 1e300;
  for (size_t at = 0; at == 0 || at + kWindow <= length; at++) {
    Nibbles nibbles;
    nibbles.add(*literal, at);
    const double chance = nibbles.chance();
    if (chance < least) least = chance, best = nibbles, literal->anchor = at;
  }
  literal->word = literal->folded = literal->care = 0;
  for (size_t k = 0; k < kFingerprint && literal->anchor + k < length; k++) {
    const uint8_t byte = static_cast<uint8_t>(literal->text[literal->anchor + k]);
    const bool folds = literal->caseless && byte >= 'a' && byte <= 'z';
    literal->word |= static_cast<uint32_t>(byte) << (8 * k);
    literal->care |= static_cast<uint32_t>(0xff) << (8 * k);
    if (folds) literal->folded |= static_cast<uint32_t>(0x20) << (8 * k);
  }
  return best;
}

// Literals that share a bucket.
struct Group {
  Nibbles nibbles;
  double chance;
  std::vector<size_t> members;
};

// Literals one by one to where they cost less, while that helps.
inline void improve(const std::vector<Literal>& literals, std::vector<Group>* groups) {
  const auto with = [&literals](const Group& group, size_t without, size_t also) {
    Nibbles nibbles;
    for (size_t member : group.members) {
      if (member != without) nibbles.add(literals[member], literals[member].anchor);
    }
    if (also < literals.size()) nibbles.add(literals[also], literals[also].anchor);
    return Group{nibbles, nibbles.chance(), {}};
  };
  constexpr size_t kNone = SIZE_MAX;
  constexpr int kRounds = 8;
  bool moved = true;
  for (int round = 0; round < kRounds && moved; round++) {
    moved = false;
    for (size_t literal = 0; literal < literals.size(); literal++) {
      const auto holds = [literal](const Group& group) { return std::find(group.members.begin(), group.members.end(), literal) != group.members.end(); };
      Group& from = *std::find_if(groups->begin(), groups->end(), holds);
      if (from.members.size() == 1) continue;
      const Group left = with(from, literal, kNone);
      double least = from.chance - left.chance;
      Group* into = nullptr;
      Group grown;
      for (Group& other : *groups) {
        if (&other == &from) continue;
        const Group larger = with(other, kNone, literal);
        // Rounding must not move it to and fro.
        if (larger.chance - other.chance < least * 0.999) least = larger.chance - other.chance, into = &other, grown = larger;
      }
      if (into == nullptr) continue;
      from.members.erase(std::find(from.members.begin(), from.members.end(), literal));
      into->members.push_back(literal);
      from.nibbles = left.nibbles, from.chance = left.chance;
      into->nibbles = grown.nibbles, into->chance = grown.chance;
      moved = true;
    }
  }
}

// Groups of one literal each are joined, always the two that this costs least, until there are as many as buckets.
inline std::vector<Group> groupLiterals(std::vector<Literal>* literals) {
  std::vector<Group> groups;
  for (size_t i = 0; i < literals->size(); i++) {
    const Nibbles nibbles = prepare(&(*literals)[i]);
    groups.push_back({nibbles, nibbles.chance(), {i}});
  }
  const auto joined = [&groups](size_t a, size_t b) {
    Nibbles both = groups[a].nibbles;
    both.add(groups[b].nibbles);
    return both.chance() - groups[a].chance - groups[b].chance;
  };
  // costs[a][b], b < a
  std::vector<std::vector<double>> costs(groups.size());
  for (size_t a = 0; a < groups.size(); a++) {
    for (size_t b = 0; b < a; b++) costs[a].push_back(joined(a, b));
  }
  while (groups.size() > kBuckets) {
    size_t into = 0, from = 1;
    for (size_t a = 1; a < groups.size(); a++) {
      for (size_t b = 0; b < a; b++) {
        if (costs[a][b] < costs[from][into]) from = a, into = b;
      }
    }
    groups[into].nibbles.add(groups[from].nibbles);
    groups[into].chance = groups[into].nibbles.chance();
    groups[into].members.insert(groups[into].members.end(), groups[from].members.begin(), groups[from].members.end());
    groups.erase(groups.begin() + static_cast<ptrdiff_t>(from));
    costs.erase(costs.begin() + static_cast<ptrdiff_t>(from));
    for (size_t a = from; a < costs.size(); a++) costs[a].erase(costs[a].begin() + static_cast<ptrdiff_t>(from));
    for (size_t other = 0; other < groups.size(); other++) {
      if (other < into) costs[into][other] = joined(into, other);
      if (other > into) costs[other][into] = joined(other, into);
    }
  }
  improve(*literals, &groups);
  return groups;
}

inline void buildLiterals(std::vector<Literal> literals, LiteralSet* set) {
  memset(set->low, 0xff, sizeof set->low);
  memset(set->high, 0xff, sizeof set->high);
  set->any = !literals.empty();
  if (!set->any) return;
  const std::vector<Group> groups = groupLiterals(&literals);
  for (size_t bucket = 0; bucket < groups.size(); bucket++) {
    const Group& group = groups[bucket];
    set->fingerprints[bucket].assign((group.members.size() + 7) / 8, Fingerprints{Words{} + 1, Words{}, Words{}});
    for (size_t place = 0; place < group.members.size(); place++) {
      const Literal& literal = literals[group.members[place]];
      Fingerprints& eight = set->fingerprints[bucket][place / 8];
      eight.word[place % 8] = literal.word;
      eight.folded[place % 8] = literal.folded;
      eight.care[place % 8] = literal.care;
      set->buckets[bucket].push_back(literal);
    }
    const uint8_t bit = static_cast<uint8_t>(1 << bucket);
    for (size_t k = 0; k < kWindow; k++) {
      for (int n = 0; n < 16; n++) {
        if ((group.nibbles.low[k] >> n & 1) != 0) set->low[k][n] &= static_cast<uint8_t>(~bit);
        if (k < kWhole && (group.nibbles.high[k] >> n & 1) != 0) set->high[k][n] &= static_cast<uint8_t>(~bit);
      }
    }
  }
}

inline bool follows(const Literal& literal, const uint8_t* bytes, size_t at, size_t length) {
  if (literal.token > 0) {
    if (length - at < static_cast<size_t>(literal.token)) return false;
    for (size_t i = at; i < at + static_cast<size_t>(literal.token); i++) {
      if ((kClasses.of[bytes[i]] & (kDigit | kLetter)) == 0 && bytes[i] != '-' && bytes[i] != '_') return false;
    }
  }
  return digitsFollow(bytes, at, length, literal.digits, literal.window, literal.joined);
}

// One literal whose fingerprint stands at `at`, where its window would.
template <class Emit>
bool verifyOne(const uint8_t* bytes, size_t length, size_t at, const Literal& literal, Emit emit) {
  const size_t size = literal.text.size();
  if (at < literal.anchor || length - (at - literal.anchor) < size) return true;
  const uint8_t* start = bytes + at - literal.anchor;
  for (size_t k = 0; k < size; k++) {
    if ((literal.caseless ? fold(start[k]) : start[k]) != static_cast<uint8_t>(literal.text[k])) return true;
  }
  const size_t end = at - literal.anchor + size;
  if (!emit.spend(static_cast<size_t>(literal.token + literal.window) / 4)) return false;
  return !follows(literal, bytes, end, length) || emit(end - 1, literal.kinds);
}

// What a look at the fingerprints of one position costs, in units of emit.spend().
constexpr size_t kCandidateUnits = 2;

// The literals of some buckets whose fingerprint may stand at `at`.
template <class Emit>
bool verify(const uint8_t* bytes, size_t length, size_t at, uint8_t buckets, const LiteralSet& set, Emit emit) {
  uint32_t word = 0;
  if (!emit.spend(kCandidateUnits)) return false;
  if (at + kFingerprint <= length) {
    for (size_t k = 0; k < kFingerprint; k++) word |= static_cast<uint32_t>(bytes[at + k]) << (8 * k);
  } else {
    for (size_t k = 0; at + k < length; k++) word |= static_cast<uint32_t>(bytes[at + k]) << (8 * k);
  }
  for (; buckets != 0; buckets &= static_cast<uint8_t>(buckets - 1)) {
    const size_t bucket = static_cast<size_t>(__builtin_ctz(buckets));
    const std::vector<Fingerprints>& fingerprints = set.fingerprints[bucket];
    for (size_t i = 0; i < fingerprints.size(); i++) {
      const Fingerprints& eight = fingerprints[i];
      const Words same = (Words)(((word | eight.folded) & eight.care) == eight.word);
      uint64_t parts[4];
      memcpy(parts, &same, sizeof parts);
      if ((parts[0] | parts[1] | parts[2] | parts[3]) == 0) continue;
      for (size_t lane = 0; lane < 8; lane++) {
        if (same[lane] != 0 && !verifyOne(bytes, length, at, set.buckets[bucket][8 * i + lane], emit)) return false;
      }
    }
  }
  return true;
}

// One position; bytes after the end count as zeros, verify() looks at the length.
inline uint8_t bucketsAt(const uint8_t* bytes, size_t length, size_t at, const LiteralSet& set) {
  uint8_t none = 0;
  for (size_t k = 0; k < kWindow; k++) {
    const uint8_t byte = at + k < length ? bytes[at + k] : 0;
    none |= set.low[k][byte & 15];
    if (k < kWhole) none |= set.high[k][byte >> 4];
  }
  return static_cast<uint8_t>(~none);
}

// Skipping: goes on from `at` in steps of 16 until a step has candidates, whose buckets it writes to `out`, or until fewer
// bytes than a step needs are left. `at` is then the step's first position. False: no candidates.
#if defined(__x86_64__)
__attribute__((target("ssse3"))) inline bool skip16(const uint8_t* bytes, size_t length, const LiteralSet& set, size_t* at, uint8_t* out) {
  const __m128i nibble = _mm_set1_epi8(15), all = _mm_set1_epi8(-1);
  for (; *at + 16 + kWindow - 1 <= length; *at += 16) {
    __m128i none = _mm_setzero_si128();
    for (size_t k = 0; k < kWindow; k++) {
      const __m128i lanes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + *at + k));
      none = _mm_or_si128(none, _mm_shuffle_epi8(_mm_load_si128(reinterpret_cast<const __m128i*>(set.low[k])), lanes));
      if (k >= kWhole) continue;
      const __m128i high = _mm_load_si128(reinterpret_cast<const __m128i*>(set.high[k]));
      none = _mm_or_si128(none, _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi16(lanes, 4), nibble)));
    }
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(none, all)) != 0xffff) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_xor_si128(none, all));
      return true;
    }
  }
  return false;
}

inline size_t lanesHere() { return __builtin_cpu_supports("avx2") ? 32 : __builtin_cpu_supports("ssse3") ? 16 : 0; }
#elif defined(__aarch64__)
inline size_t lanesHere() { return 16; }
inline bool skip16(const uint8_t* bytes, size_t length, const LiteralSet& set, size_t* at, uint8_t* out) {
  for (; *at + 16 + kWindow - 1 <= length; *at += 16) {
    uint8x16_t none = vdupq_n_u8(0);
    for (size_t k = 0; k < kWindow; k++) {
      const uint8x16_t lanes = vld1q_u8(bytes + *at + k);
      none = vorrq_u8(none, vqtbl1q_u8(vld1q_u8(set.low[k]), vandq_u8(lanes, vdupq_n_u8(15))));
      if (k < kWhole) none = vorrq_u8(none, vqtbl1q_u8(vld1q_u8(set.high[k]), vshrq_n_u8(lanes, 4)));
    }
    if (vminvq_u8(none) != 0xff) {
      vst1q_u8(out, vmvnq_u8(none));
      return true;
    }
  }
  return false;
}
#else
inline size_t lanesHere() { return 0; }
inline bool skip16(const uint8_t*, size_t, const LiteralSet&, size_t*, uint8_t*) { return false; }
#endif

#if defined(__x86_64__)
// Everything in one function: returns to code for other processors would cost where candidates are frequent.
template <class Emit>
__attribute__((target("avx2"), flatten)) bool scanLiteralsAvx2(const uint8_t* bytes, size_t length, const LiteralSet& set, Emit emit) {
  constexpr size_t kStep = 64, kNeeded = kStep + kWindow - 1;
  const __m256i nibble = _mm256_set1_epi8(15), all = _mm256_set1_epi8(-1);
  __m256i low[kWindow], high[kWhole];
  for (size_t k = 0; k < kWindow; k++) low[k] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(set.low[k])));
  for (size_t k = 0; k < kWhole; k++) high[k] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(set.high[k])));
  const auto unlike = [&](const uint8_t* block) __attribute__((target("avx2"), always_inline)) {
    __m256i none = _mm256_setzero_si256();
    for (size_t k = 0; k < kWindow; k++) {
      const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + k));
      none = _mm256_or_si256(none, _mm256_shuffle_epi8(low[k], lanes));
      if (k < kWhole) none = _mm256_or_si256(none, _mm256_shuffle_epi8(high[k], _mm256_and_si256(_mm256_srli_epi16(lanes, 4), nibble)));
    }
    return none;
  };
  const auto full = [&](__m256i none) __attribute__((target("avx2"), always_inline)) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(none, all)));
  };
  for (size_t at = 0; at < length; at += kStep) {
    const size_t left = length - at;
    const uint8_t* block = bytes + at;
    // Zeros behind the end: what would begin there needs no byte of them.
    uint8_t padded[kNeeded];
    if (left < kNeeded) {
      memset(padded, 0, sizeof padded);
      memcpy(padded, block, left);
      block = padded;
    }
    const __m256i first = unlike(block), second = unlike(block + 32);
    if (full(_mm256_and_si256(first, second)) == 0xffffffff) continue;
    uint64_t candidates = ~(full(first) | static_cast<uint64_t>(full(second)) << 32);
    if (left < kStep) candidates &= (uint64_t{1} << left) - 1;
    alignas(32) uint8_t none[kStep];
    _mm256_store_si256(reinterpret_cast<__m256i*>(none), first);
    _mm256_store_si256(reinterpret_cast<__m256i*>(none + 32), second);
    for (; candidates != 0; candidates &= candidates - 1) {
      const size_t lane = static_cast<size_t>(__builtin_ctzll(candidates));
      if (!verify(bytes, length, at + lane, static_cast<uint8_t>(~none[lane]), set, emit)) return false;
    }
  }
  return true;
}
#endif

// `lanes` as lanesHere() says, or less.
template <class Emit>
bool scanLiterals(const uint8_t* bytes, size_t length, const LiteralSet& set, size_t lanes, Emit emit) {
  if (!set.any) return true;
#if defined(__x86_64__)
  if (lanes == 32) return scanLiteralsAvx2(bytes, length, set, emit);
#endif
  size_t at = 0;
  uint8_t buckets[16];
  for (; lanes >= 16 && skip16(bytes, length, set, &at, buckets); at += 16) {
    for (size_t part = 0; part < 16; part += 8) {
      uint64_t eight;
      memcpy(&eight, buckets + part, 8);
      if (eight == 0) continue;
      for (size_t lane = part; lane < part + 8; lane++) {
        if (buckets[lane] != 0 && !verify(bytes, length, at + lane, buckets[lane], set, emit)) return false;
      }
    }
  }
  for (; at < length; at++) {
    uint8_t found = bucketsAt(bytes, length, at, set);
    if (found != 0 && !verify(bytes, length, at, found, set, emit)) return false;
  }
  return true;
}

}  // namespace sluice
