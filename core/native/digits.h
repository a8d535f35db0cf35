// Scanners for what pattern engines are slow at: digits in groups, and codes of two letters, two digits and more.
// They look at bytes only and over-approximate; portable C++, a few bytes a nanosecond.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vector>

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
  int run = 0;  // a run of this many digits with tight separators; 0: none
  std::vector<DigitShape> shapes;
  int least = 0;  // fewest digits of anything above; 0: nothing to look for
  int bytes = 0;  // fewest bytes of anything above, separators included
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

// Finds runs by sampling every `bytes` bytes: a run that long covers a sample, and the byte half as far before it or
// the one half as far after it.
template <class Emit>
bool scanDigits(const uint8_t* bytes, size_t length, const DigitRules& rules, Emit emit) {
  if (rules.least == 0) return true;
  const size_t step = static_cast<size_t>(rules.bytes);
  const size_t before = step / 2, after = step - before;
  size_t floor = 0;
  for (size_t sample = step - 1; sample < length;) {
    if (!inRun(bytes[sample]) || (!inRun(bytes[sample - before]) && sample + after < length && !inRun(bytes[sample + after]))) {
      sample += step;
      continue;
    }
    size_t start = sample, end = sample;
    int digits = 0;
    while (start > floor && inRun(bytes[start - 1])) digits += kClasses.of[bytes[--start]] & kDigit;
    while (end < length && inRun(bytes[end])) digits += kClasses.of[bytes[end++]] & kDigit;
    if (digits >= rules.least && !readRun(bytes, start, end, rules, digits, emit)) return false;
    floor = end;
    sample = end + step;
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
