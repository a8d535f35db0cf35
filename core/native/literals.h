// Finds many short literals at once: 16 or 32 positions at a time are compared with the nibbles of four bytes of each
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
  // Set by prepare(): the fingerprint's offset in text, and its bytes as one little-endian word, which a word of the text
  // is when ((that | folded) & care) == word.
  size_t anchor;
  uint32_t word, folded, care;
};

constexpr size_t kFingerprint = 4;
constexpr size_t kBuckets = 8;

// Fingerprints of eight literals side by side; those left over match nothing.
typedef uint32_t Words __attribute__((vector_size(32)));
struct Fingerprints {
  Words word, folded, care;
};

struct LiteralSet {
  // Bit b of low[k][n]: a literal of bucket b has, as byte k of its fingerprint, one whose low nibble is n.
  alignas(16) uint8_t low[kFingerprint][16] = {};
  alignas(16) uint8_t high[kFingerprint][16] = {};
  std::vector<Literal> buckets[kBuckets];
  // literals [8 i, 8 i + 8) of the bucket
  std::vector<Fingerprints> fingerprints[kBuckets];
  bool any = false;
};

inline uint8_t fold(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte; }

// Rough frequency of a byte in text and numbers. The rarest bytes of a literal are its fingerprint.
inline double frequency(uint8_t byte) {
  if (byte == 0) return 0.1;  // framing
  if (byte == ' ' || (byte >= '0' && byte <= '9')) return 0.04;
  if (byte >= 'a' && byte <= 'z') return strchr("etaoinsrhldcu", byte) != nullptr ? 0.03 : 0.008;
  return byte < 0x80 && strchr("-.:/", byte) != nullptr ? 0.01 : 0.001;
}

inline void prepare(Literal* literal) {
  const size_t length = literal->text.size();
  double best = 2;
  literal->anchor = 0;
  for (size_t at = 0; at == 0 || at + kFingerprint <= length; at++) {
    double chance = 1;
    for (size_t k = at; k < at + kFingerprint && k < length; k++) chance *= frequency(static_cast<uint8_t>(literal->text[k]));
    if (chance < best) {
      best = chance;
      literal->anchor = at;
    }
  }
  literal->word = literal->folded = literal->care = 0;
  for (size_t k = 0; k < kFingerprint && literal->anchor + k < length; k++) {
    const uint8_t byte = static_cast<uint8_t>(literal->text[literal->anchor + k]);
    const bool folds = literal->caseless && byte >= 'a' && byte <= 'z';
    literal->word |= static_cast<uint32_t>(byte) << (8 * k);
    literal->care |= static_cast<uint32_t>(0xff) << (8 * k);
    if (folds) literal->folded |= static_cast<uint32_t>(0x20) << (8 * k);
  }
}

// The nibbles that a group of literals admits at each byte of the fingerprint, and how often that passes without reason.
struct Nibbles {
  uint16_t low[kFingerprint] = {}, high[kFingerprint] = {};

  void add(const Literal& literal) {
    for (size_t k = 0; k < kFingerprint; k++) {
      const uint8_t care = static_cast<uint8_t>(literal.care >> (8 * k)), byte = static_cast<uint8_t>(literal.word >> (8 * k));
      const bool folds = ((literal.folded >> (8 * k)) & 0xff) != 0;
      low[k] |= care == 0 ? 0xffff : static_cast<uint16_t>(1 << (byte & 15));
      high[k] |= care == 0 ? 0xffff : static_cast<uint16_t>(1 << (byte >> 4) | (folds ? 1 << ((byte ^ 0x20) >> 4) : 0));
    }
  }

  double chance() const {
    double all = 1;
    for (size_t k = 0; k < kFingerprint; k++) {
      double one = 0;
      for (int byte = 0; byte < 256; byte++) {
        if ((low[k] >> (byte & 15) & 1) != 0 && (high[k] >> (byte >> 4) & 1) != 0) one += frequency(static_cast<uint8_t>(byte));
      }
      all *= one;
    }
    return all;
  }
};

// Splits the literals, ordered by fingerprint, into at most eight runs with the least work for chance hits.
inline void buildLiterals(std::vector<Literal> literals, LiteralSet* set) {
  const size_t count = literals.size();
  set->any = count > 0;
  if (!set->any) return;
  for (Literal& literal : literals) prepare(&literal);
  std::sort(literals.begin(), literals.end(), [](const Literal& a, const Literal& b) {
    return a.care != b.care ? a.care < b.care : a.folded != b.folded ? a.folded < b.folded : a.word < b.word;
  });
  // cost[from * (count + 1) + to]: one bucket for literals[from, to).
  std::vector<double> cost(count * (count + 1), 0);
  for (size_t from = 0; from < count; from++) {
    Nibbles nibbles;
    for (size_t to = from + 1; to <= count; to++) {
      nibbles.add(literals[to - 1]);
      cost[from * (count + 1) + to] = nibbles.chance() * static_cast<double>(4 + to - from);
    }
  }
  std::vector<double> best[kBuckets + 1];
  std::vector<size_t> split[kBuckets + 1];
  for (size_t used = 0; used <= kBuckets; used++) {
    best[used].assign(count + 1, 1e300);
    split[used].assign(count + 1, 0);
  }
  best[0][0] = 0;
  for (size_t used = 1; used <= kBuckets; used++) {
    for (size_t to = 0; to <= count; to++) {
      best[used][to] = best[used - 1][to];
      split[used][to] = to;
      for (size_t from = 0; from < to; from++) {
        const double sum = best[used - 1][from] + cost[from * (count + 1) + to];
        if (sum < best[used][to]) best[used][to] = sum, split[used][to] = from;
      }
    }
  }
  for (size_t used = kBuckets, to = count; used > 0; to = split[used][to], used--) {
    Nibbles nibbles;
    set->fingerprints[used - 1].assign((to - split[used][to] + 7) / 8, Fingerprints{Words{} + 1, Words{}, Words{}});
    for (size_t i = split[used][to]; i < to; i++) {
      nibbles.add(literals[i]);
      const size_t place = set->buckets[used - 1].size();
      Fingerprints& eight = set->fingerprints[used - 1][place / 8];
      eight.word[place % 8] = literals[i].word;
      eight.folded[place % 8] = literals[i].folded;
      eight.care[place % 8] = literals[i].care;
      set->buckets[used - 1].push_back(literals[i]);
    }
    for (size_t k = 0; k < kFingerprint; k++) {
      for (int n = 0; n < 16; n++) {
        if ((nibbles.low[k] >> n & 1) != 0) set->low[k][n] |= static_cast<uint8_t>(1 << (used - 1));
        if ((nibbles.high[k] >> n & 1) != 0) set->high[k][n] |= static_cast<uint8_t>(1 << (used - 1));
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
  int missing = literal.digits;
  for (size_t i = at; missing > 0 && i < length && i < at + static_cast<size_t>(literal.window); i++) {
    if (kClasses.of[bytes[i]] == kDigit) missing--;
    else if (literal.joined && !inRun(bytes[i])) break;
  }
  return missing <= 0;
}

// One literal whose fingerprint stands at `at`.
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

// One position; bytes after the end count as matching, verify() looks at the length.
inline uint8_t bucketsAt(const uint8_t* bytes, size_t length, size_t at, const LiteralSet& set) {
  uint8_t found = 0xff;
  for (size_t k = 0; k < kFingerprint && at + k < length; k++) found &= set.low[k][bytes[at + k] & 15] & set.high[k][bytes[at + k] >> 4];
  return found;
}

// Skipping: goes on from `at` in steps of 16 until a step has candidates, whose buckets it writes to `out`, or until fewer
// bytes than a step needs are left. `at` is then the step's first position. False: no candidates.
#if defined(__x86_64__)
__attribute__((target("ssse3"))) inline bool skip16(const uint8_t* bytes, size_t length, const LiteralSet& set, size_t* at, uint8_t* out) {
  const __m128i nibble = _mm_set1_epi8(15);
  for (; *at + 16 + kFingerprint - 1 <= length; *at += 16) {
    __m128i found = _mm_set1_epi8(-1);
    for (size_t k = 0; k < kFingerprint; k++) {
      const __m128i lanes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + *at + k));
      const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(set.low[k]));
      const __m128i high = _mm_load_si128(reinterpret_cast<const __m128i*>(set.high[k]));
      found = _mm_and_si128(found, _mm_shuffle_epi8(low, _mm_and_si128(lanes, nibble)));
      found = _mm_and_si128(found, _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi16(lanes, 4), nibble)));
    }
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(found, _mm_setzero_si128())) != 0xffff) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), found);
      return true;
    }
  }
  return false;
}

inline size_t lanesHere() { return __builtin_cpu_supports("avx2") ? 32 : __builtin_cpu_supports("ssse3") ? 16 : 0; }
#elif defined(__aarch64__)
inline size_t lanesHere() { return 16; }
inline bool skip16(const uint8_t* bytes, size_t length, const LiteralSet& set, size_t* at, uint8_t* out) {
  for (; *at + 16 + kFingerprint - 1 <= length; *at += 16) {
    uint8x16_t found = vdupq_n_u8(0xff);
    for (size_t k = 0; k < kFingerprint; k++) {
      const uint8x16_t lanes = vld1q_u8(bytes + *at + k);
      found = vandq_u8(found, vqtbl1q_u8(vld1q_u8(set.low[k]), vandq_u8(lanes, vdupq_n_u8(15))));
      found = vandq_u8(found, vqtbl1q_u8(vld1q_u8(set.high[k]), vshrq_n_u8(lanes, 4)));
    }
    if (vmaxvq_u8(found) != 0) {
      vst1q_u8(out, found);
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
// Everything in one function: candidates are frequent, and each return to code for other processors would cost.
template <class Emit>
__attribute__((target("avx2"), flatten)) bool scanLiteralsAvx2(const uint8_t* bytes, size_t length, const LiteralSet& set, Emit emit) {
  constexpr size_t kLanes = 32, kNeeded = kLanes + kFingerprint - 1;
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i low[kFingerprint], high[kFingerprint];
  for (size_t k = 0; k < kFingerprint; k++) {
    low[k] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(set.low[k])));
    high[k] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(set.high[k])));
  }
  for (size_t at = 0; at < length; at += kLanes) {
    const size_t left = length - at;
    const uint8_t* block = bytes + at;
    // Zeros behind the end admit what is shorter than a fingerprint, as they should.
    uint8_t padded[kNeeded] = {};
    if (left < kNeeded) {
      memcpy(padded, block, left);
      block = padded;
    }
    __m256i found = _mm256_set1_epi8(-1);
    for (size_t k = 0; k < kFingerprint; k++) {
      const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + k));
      found = _mm256_and_si256(found, _mm256_shuffle_epi8(low[k], _mm256_and_si256(lanes, nibble)));
      found = _mm256_and_si256(found, _mm256_shuffle_epi8(high[k], _mm256_and_si256(_mm256_srli_epi16(lanes, 4), nibble)));
    }
    uint32_t candidates = ~static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(found, _mm256_setzero_si256())));
    if (left < kLanes) candidates &= (uint32_t{1} << left) - 1;
    if (candidates == 0) continue;
    alignas(32) uint8_t buckets[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(buckets), found);
    for (; candidates != 0; candidates &= candidates - 1) {
      const size_t lane = static_cast<size_t>(__builtin_ctz(candidates));
      if (!verify(bytes, length, at + lane, buckets[lane], set, emit)) return false;
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
