// Scanners for what pattern engines are slow at: digits in groups, and codes of two letters, two digits and more.
// They look at bytes only and over-approximate; portable C++, a few bytes a nanosecond.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace sluice {

// Byte classes. A separator is tight (space, dash, any byte of a multi-byte character such as a no-break space) or
// loose (parentheses, dot, slash). Up to kGapMax separators may stand between two groups.
enum : uint8_t { kDigit = 1, kTight = 2, kLoose = 4, kLetter = 8 };
constexpr int kGapMax = 3;
constexpr int kGroupsMax = 6;

struct ByteClasses {
  uint8_t of[256];
  constexpr ByteClasses() : of() {
    for (int i = 0x80; i < 0x100; i++) of[i] = kTight;
    for (int i = '0'; i <= '9'; i++) of[i] = kDigit;
    for (int i = 'a'; i <= 'z'; i++) of[i] = of[i - 32] = kLetter;
    of[static_cast<int>(' ')] = of[static_cast<int>('-')] = kTight;
    of[static_cast<int>('(')] = of[static_cast<int>(')')] = of[static_cast<int>('.')] = of[static_cast<int>('/')] = kLoose;
  }
};
inline constexpr ByteClasses kClasses;

inline bool inRun(uint8_t byte) { return (kClasses.of[byte] & (kDigit | kTight | kLoose)) != 0; }

// Groups of digits with separators between: the first group is a suffix of a longer one at will, the last one a prefix
// (bytes before and after the text may look like digits), those between have exactly least..most digits.
struct DigitShape {
  struct Group {
    int least;
    int most;
  };
  Group groups[kGroupsMax];
  int count;   // of groups, 2..kGroupsMax
  int zeros;   // the first group starts with this many zeros (0..2), and after two with another digit
  int digits;  // fewest digits of the run around it
};

struct DigitRules {
  int run = 0;  // a run of this many digits with tight separators, in groups of three and more but the last; 0: none
  std::vector<DigitShape> shapes;
  int least = 0;  // fewest digits of anything above; 0: nothing to look for
  // What a run must contain to be read, see suspects().
  bool afterGap = false;
  bool pairs = false;
  bool zeros = false;

  // False: no run with this shape need contain any of it.
  bool add(const DigitShape& shape) {
    bool allPairs = shape.count >= 5;
    for (int i = 0; i < shape.count; i++) allPairs = allPairs && shape.groups[i].least == 2 && shape.groups[i].most == 2;
    if (shape.zeros == 2) zeros = true;
    else if (allPairs) pairs = true;
    else if (shape.groups[shape.count - 1].least >= 3 && shape.groups[shape.count - 2].least >= 2 && shape.groups[0].least >= 3) afterGap = true;
    else return false;
    if (least == 0 || shape.digits < least) least = shape.digits;
    shapes.push_back(shape);
    return true;
  }
};

inline bool startsWithZeros(const uint8_t* end, int length, const DigitShape& shape) {
  const DigitShape::Group& first = shape.groups[0];
  for (int take = first.least; take <= first.most && take <= length; take++) {
    const uint8_t* start = end - take;
    if (start[0] != '0') continue;
    if (shape.zeros == 1 || (start[1] == '0' && start[2] != '0')) return true;
  }
  return false;
}

// One run of digits and separators, bytes[start, end). emit(offset) returns false to stop.
template <class Emit>
bool readRun(const uint8_t* bytes, size_t start, size_t end, const DigitRules& rules, int digitsInRun, Emit emit) {
  struct {
    size_t start;
    int length;
  } groups[kGroupsMax];
  int known = 0;     // groups without a break between them, the latest at [known - 1]
  int tightRun = 0;  // digits since the last loose separator
  size_t at = start;
  while (at < end) {
    size_t gapStart = at;
    bool loose = false;
    while (at < end && kClasses.of[bytes[at]] != kDigit) loose |= kClasses.of[bytes[at++]] == kLoose;
    if (at == end) break;
    if (at - gapStart > kGapMax) known = 0;
    if (at - gapStart > kGapMax || loose) tightRun = 0;
    size_t groupStart = at;
    for (; at < end && kClasses.of[bytes[at]] == kDigit; at++) {
      if (rules.run > 0 && ++tightRun == rules.run) {
        // Every window of `run` digits holds one that is flagged, so one flag per `run` digits is enough.
        tightRun = 0;
        if (!emit(at)) return false;
      }
    }
    if (known == kGroupsMax) {
      memmove(&groups[0], &groups[1], sizeof groups[0] * (kGroupsMax - 1));
      known--;
    }
    groups[known].start = groupStart;
    groups[known++].length = static_cast<int>(at - groupStart < 1000000 ? at - groupStart : 1000000);
    for (const DigitShape& shape : rules.shapes) {
      const int wanted = shape.count;
      if (groups[known - 1].length < shape.groups[wanted - 1].least || known < wanted || digitsInRun < shape.digits) continue;
      bool fits = groups[known - wanted].length >= shape.groups[0].least;
      for (int i = 1; fits && i < wanted - 1; i++) {
        int length = groups[known - wanted + i].length;
        fits = length >= shape.groups[i].least && length <= shape.groups[i].most;
      }
      if (!fits) continue;
      const auto& first = groups[known - wanted];
      if (shape.zeros > 0 && !startsWithZeros(bytes + first.start + first.length, first.length, shape)) continue;
      if (!emit(groupStart + shape.groups[wanted - 1].least - 1)) return false;
    }
  }
  return true;
}

// One bit a byte, of 64 bytes.
struct ByteBits {
  uint64_t digit = 0, zero = 0, separator = 0;
};

#if defined(__SSE2__)
inline ByteBits bitsOf64(const uint8_t* bytes) {
  ByteBits bits;
  for (int i = 0; i < 64; i += 16) {
    const __m128i lanes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + i));
    // value - first <= last - first, unsigned
    auto within = [lanes](char first, char last) {
      const __m128i shifted = _mm_sub_epi8(lanes, _mm_set1_epi8(first));
      return _mm_cmpeq_epi8(_mm_min_epu8(shifted, _mm_set1_epi8(static_cast<char>(last - first))), shifted);
    };
    const __m128i separators = _mm_or_si128(_mm_or_si128(within('(', ')'), within('-', '/')), within(' ', ' '));
    auto store = [i](uint64_t* out, __m128i found) { *out |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(found))) << i; };
    store(&bits.digit, within('0', '9'));
    store(&bits.zero, within('0', '0'));
    store(&bits.separator, _mm_or_si128(separators, lanes));  // bit 7 of a lane: a byte of a multi-byte character
  }
  return bits;
}
#else
inline ByteBits bitsOf64(const uint8_t* bytes) {
  ByteBits bits;
  for (int i = 0; i < 64; i++) {
    const uint8_t kind = kClasses.of[bytes[i]];
    bits.digit |= static_cast<uint64_t>(kind == kDigit) << i;
    bits.zero |= static_cast<uint64_t>(bytes[i] == '0') << i;
    bits.separator |= static_cast<uint64_t>((kind & (kTight | kLoose)) != 0) << i;
  }
  return bits;
}
#endif

// Places inside runs that may hold what the rules look for. Dates, times and prices have none of it:
//  - a separator with three digits after it, and before it two digits and more of a run, or another separator;
//  - almost as many digits side by side as a run needs;
//  - four gaps with pairs of digits between and after; - two zeros, a digit, and a gap within three bytes.
inline uint64_t suspects(const ByteBits& bits, const DigitRules& rules) {
  const uint64_t d = bits.digit, s = bits.separator, any = d | s;
  uint64_t found = 0;
  if (rules.afterGap || rules.run > 0) found |= s & d >> 1 & d >> 2 & d >> 3 & (s << 1 | (d << 1 & d << 2 & any << 3));
  if (rules.run > 0) {
    uint64_t row = d;
    const int wanted = rules.run > 12 ? 11 : rules.run > 3 ? rules.run - 2 : 1;
    for (int have = 1; have < wanted;) {
      const int step = have < wanted - have ? have : wanted - have;
      row &= row >> step;
      have += step;
    }
    found |= row;
  }
  if (rules.pairs) {
    const uint64_t pair = s & d >> 1 & d >> 2;
    found |= pair & pair >> 3 & pair >> 6 & pair >> 9;
  }
  if (rules.zeros) {
    const uint64_t z = bits.zero;
    found |= z & z >> 1 & (d & ~z) >> 2 & (s >> 3 | (d >> 3 & (s >> 4 | (d >> 4 & s >> 5))));
  }
  return found;
}

// Blocks of 64 bytes that overlap, since suspects() looks up to three bytes back and eleven ahead.
template <class Emit>
bool scanDigits(const uint8_t* bytes, size_t length, const DigitRules& rules, Emit emit) {
  if (rules.least == 0) return true;
  constexpr size_t kBack = 4, kStride = 48;
  size_t read = 0;  // runs before this were read
  for (size_t base = 0; base < length; base += kStride) {
    uint8_t padded[64];
    const uint8_t* block = bytes + base;
    if (length - base < 64) {
      memset(padded, 0, sizeof padded);
      memcpy(padded, block, length - base);
      block = padded;
    }
    uint64_t found = suspects(bitsOf64(block), rules) & ((uint64_t{1} << (kBack + kStride)) - 1);
    for (; found != 0; found &= found - 1) {
      const size_t at = base + static_cast<size_t>(__builtin_ctzll(found));
      if (at < read) continue;
      size_t start = at, end = at;
      int digits = 0;
      while (start > read && inRun(bytes[start - 1])) digits += kClasses.of[bytes[--start]] & kDigit;
      while (end < length && inRun(bytes[end])) digits += kClasses.of[bytes[end++]] & kDigit;
      if (digits >= rules.least && !readRun(bytes, start, end, rules, digits, emit)) return false;
      read = end;
    }
  }
  return true;
}

// Total length of a code by its two letters (either case); 0: no such code.
struct CodeTable {
  uint8_t lengths[26 * 26] = {};
  bool any = false;
};

template <class Emit>
bool tryCode(const uint8_t* bytes, size_t length, size_t at, const CodeTable& table, Emit emit) {
  int first = (bytes[at] | 0x20) - 'a', second = (bytes[at + 1] | 0x20) - 'a';
  int missing = table.lengths[first * 26 + second] - 4;
  if (missing < 0) return true;
  int gap = 0;
  size_t next = at + 4;
  for (; next < length && missing > 0; next++) {
    if ((kClasses.of[bytes[next]] & (kDigit | kLetter)) != 0) {
      missing--;
      gap = 0;
    } else if (kClasses.of[bytes[next]] == 0 || ++gap > kGapMax) {
      return true;
    }
  }
  return missing > 0 || emit(next - 1);
}

// Sixteen positions at a time, in the compiler's portable vectors (SSE2, NEON): all bits of a lane say yes or no.
typedef uint8_t Lanes __attribute__((vector_size(16)));

inline Lanes loadLanes(const uint8_t* bytes) {
  Lanes lanes;
  memcpy(&lanes, bytes, sizeof lanes);
  return lanes;
}

inline Lanes digitLanes(Lanes lanes) { return (Lanes)((lanes - '0') < 10); }
inline Lanes letterLanes(Lanes lanes) { return (Lanes)(((lanes | 0x20) - 'a') < 26); }

inline bool anyLane(Lanes lanes) {
  uint64_t halves[2];
  memcpy(halves, &lanes, sizeof halves);
  return (halves[0] | halves[1]) != 0;
}

template <class Emit>
bool scanCodes(const uint8_t* bytes, size_t length, const CodeTable& table, Emit emit) {
  if (!table.any) return true;
  size_t at = 0;
  for (; at + 19 <= length; at += 16) {
    Lanes found = letterLanes(loadLanes(bytes + at)) & letterLanes(loadLanes(bytes + at + 1)) & digitLanes(loadLanes(bytes + at + 2)) &
                  digitLanes(loadLanes(bytes + at + 3));
    if (!anyLane(found)) continue;
    for (size_t lane = 0; lane < 16; lane++) {
      if (found[lane] != 0 && !tryCode(bytes, length, at + lane, table, emit)) return false;
    }
  }
  for (; at + 4 <= length; at++) {
    bool fits = kClasses.of[bytes[at]] == kLetter && kClasses.of[bytes[at + 1]] == kLetter && kClasses.of[bytes[at + 2]] == kDigit &&
                kClasses.of[bytes[at + 3]] == kDigit;
    if (fits && !tryCode(bytes, length, at, table, emit)) return false;
  }
  return true;
}

}  // namespace sluice
