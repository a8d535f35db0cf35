// Scanners for what pattern engines are slow at: digits in groups, and codes of two letters, two digits and more.
// They look at bytes only and over-approximate; portable C++, a few bytes a nanosecond.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
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
  uint32_t kinds;
};

// Numbers of kNumberDigitsMin..kNumberDigitsMax digits with tight separators, in groups of three and more but the last,
// whose last digit is a Luhn check digit and whose first two digits are admitted for the length.
constexpr int kNumberDigitsMin = 13, kNumberDigitsMax = 19;
struct NumberRules {
  bool admits[kNumberDigitsMax + 1][100] = {};
  uint32_t kinds = 0;  // 0: none
};

struct DigitRules {
  NumberRules numbers;
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

// The digits since the last break, and for each number of them the Luhn sum over those before: at every digit, any number
// that ends there can be checked without reading it again.
class NumberReader {
 public:
  void reset() { count_ = 0; }

  // True: a number ends with this digit.
  bool add(uint8_t digit, const NumberRules& rules) {
    const uint8_t value = static_cast<uint8_t>(digit - '0'), twice = static_cast<uint8_t>(value > 4 ? 2 * value - 9 : 2 * value);
    const size_t here = count_ % kRing, next = (count_ + 1) % kRing;
    const size_t parity = count_ % 2;
    values_[here] = value;
    // sums_[p]: digits whose index has parity p count once, the others twice.
    sums_[parity][next] = static_cast<uint8_t>((sums_[parity][here] + value) % 10);
    sums_[1 - parity][next] = static_cast<uint8_t>((sums_[1 - parity][here] + twice) % 10);
    count_++;
    for (size_t length = kNumberDigitsMin; length <= kNumberDigitsMax && length <= count_; length++) {
      const size_t first = (count_ - length) % kRing;
      if (sums_[parity][first] != sums_[parity][next]) continue;
      if (rules.admits[length][values_[first] * 10 + values_[(first + 1) % kRing]]) return true;
    }
    return false;
  }

 private:
  static constexpr size_t kRing = 32;  // a power of two over kNumberDigitsMax
  size_t count_ = 0;
  uint8_t values_[kRing] = {};
  uint8_t sums_[2][kRing] = {};
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

// One run of digits and separators, bytes[start, end). emit(offset, kinds) returns false to stop, and so does emit.spend(units), which
// is told what is read closely.
template <class Emit>
bool readRun(const uint8_t* bytes, size_t start, size_t end, const DigitRules& rules, size_t digitsInRun, Emit emit) {
  struct {
    size_t start;
    int length;
  } groups[kGroupsMax];
  int known = 0;  // groups without a break between them, the latest at [known - 1]
  const bool readsNumbers = rules.numbers.kinds != 0 && digitsInRun >= static_cast<size_t>(kNumberDigitsMin);
  NumberReader number;
  size_t at = start;
  while (at < end) {
    size_t gapStart = at;
    bool loose = false;
    while (at < end && kClasses.of[bytes[at]] != kDigit) loose |= kClasses.of[bytes[at++]] == kLoose;
    if (at == end) break;
    if (at - gapStart > kGapMax) known = 0;
    if (at - gapStart > kGapMax || loose) number.reset();
    size_t groupStart = at;
    for (; at < end && kClasses.of[bytes[at]] == kDigit; at++) {
      if (readsNumbers && number.add(bytes[at], rules.numbers) && !emit(at, rules.numbers.kinds)) return false;
    }
    if (known == kGroupsMax) {
      memmove(&groups[0], &groups[1], sizeof groups[0] * (kGroupsMax - 1));
      known--;
    }
    groups[known].start = groupStart;
    groups[known++].length = static_cast<int>(at - groupStart < 1000000 ? at - groupStart : 1000000);
    for (const DigitShape& shape : rules.shapes) {
      const int wanted = shape.count;
      if (groups[known - 1].length < shape.groups[wanted - 1].least || known < wanted || digitsInRun < static_cast<size_t>(shape.digits)) continue;
      bool fits = groups[known - wanted].length >= shape.groups[0].least;
      for (int i = 1; fits && i < wanted - 1; i++) {
        int length = groups[known - wanted + i].length;
        fits = length >= shape.groups[i].least && length <= shape.groups[i].most;
      }
      if (!fits) continue;
      const auto& first = groups[known - wanted];
      if (shape.zeros > 0 && !startsWithZeros(bytes + first.start + first.length, first.length, shape)) continue;
      if (!emit(groupStart + static_cast<size_t>(shape.groups[wanted - 1].least) - 1, shape.kinds)) return false;
    }
  }
  return true;
}

// Total form of a code by its two letters (either case): the part after two letters and two check digits, a class a
// character. The number that the rest and then these four make, letters as 10..35, leaves 1 when divided by 97.
constexpr int kCodeRestMax = 60;
struct CodeTable {
  struct Form {
    int length;  // 0: no such code
    uint8_t classes[kCodeRestMax];
  };
  std::vector<Form> forms;
  uint8_t formOf[26 * 26] = {};  // index into forms + 1; 0: no such code
  uint32_t kinds = 0;            // 0: none
};

inline int codeValue(uint8_t byte) { return kClasses.of[byte] == kDigit ? byte - '0' : (byte | 0x20) - 'a' + 10; }
inline int appended(int rest, int value) { return (rest * (value < 10 ? 10 : 100) + value) % 97; }

// bytes[at, at + 4) are two letters and two digits.
template <class Emit>
bool tryCode(const uint8_t* bytes, size_t length, size_t at, const CodeTable& table, Emit emit) {
  const int index = table.formOf[((bytes[at] | 0x20) - 'a') * 26 + (bytes[at + 1] | 0x20) - 'a'];
  if (index == 0) return true;
  const CodeTable::Form& form = table.forms[static_cast<size_t>(index - 1)];
  int read = 0, gap = 0, rest = 0;
  size_t next = at + 4;
  for (; next < length && read < form.length; next++) {
    const uint8_t kind = kClasses.of[bytes[next]];
    if ((kind & (kDigit | kLetter)) != 0) {
      if ((kind & form.classes[read]) == 0) break;
      rest = appended(rest, codeValue(bytes[next]));
      read++;
      gap = 0;
    } else if (kind != kTight || ++gap > kGapMax) {
      break;
    }
  }
  if (!emit.spend(next - at)) return false;
  if (read < form.length) return true;
  for (size_t i = at; i < at + 4; i++) rest = appended(rest, codeValue(bytes[i]));
  return rest != 1 || emit(next - 1, table.kinds);
}

// One bit a byte, of 64 bytes.
struct ByteBits {
  uint64_t digit = 0, zero = 0, separator = 0, letter = 0;
};

inline ByteBits bitsOf64Portable(const uint8_t* bytes) {
  ByteBits bits;
  for (int i = 0; i < 64; i++) {
    const uint8_t kind = kClasses.of[bytes[i]];
    bits.digit |= static_cast<uint64_t>(kind == kDigit) << i;
    bits.zero |= static_cast<uint64_t>(bytes[i] == '0') << i;
    bits.separator |= static_cast<uint64_t>((kind & (kTight | kLoose)) != 0) << i;
    bits.letter |= static_cast<uint64_t>(kind == kLetter) << i;
  }
  return bits;
}

#if defined(__x86_64__)
// A byte's low nibble and its high nibble each admit classes; what both admit it is. Bit 0 digit, 1 zero, 2 ASCII separator,
// 3 letter of an odd row (4x, 6x), 4 letter of an even row (5x, 7x).
alignas(16) inline constexpr uint8_t kLowClasses[16] = {0b10111, 0b11001, 0b11001, 0b11001, 0b11001, 0b11001, 0b11001, 0b11001,
                                                        0b11101, 0b11101, 0b11000, 0b01000, 0b01000, 0b01100, 0b01100, 0b01100};
alignas(16) inline constexpr uint8_t kHighClasses[16] = {0, 0, 0b00100, 0b00011, 0b01000, 0b10000, 0b01000, 0b10000};

__attribute__((target("avx2"))) inline ByteBits bitsOf64Avx2(const uint8_t* bytes) {
  const __m256i low = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kLowClasses)));
  const __m256i high = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kHighClasses)));
  const __m256i nibble = _mm256_set1_epi8(15);
  ByteBits bits;
  for (int i = 0; i < 64; i += 32) {
    const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i));
    const __m256i classes = _mm256_and_si256(_mm256_shuffle_epi8(low, _mm256_and_si256(lanes, nibble)),
                                             _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(lanes, 4), nibble)));
    // A shift within 16 bits brings the wanted bit of each byte to its top.
    const auto top = [](__m256i shifted) __attribute__((target("avx2"))) { return static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(shifted))); };
    bits.digit |= top(_mm256_slli_epi16(classes, 7)) << i;
    bits.zero |= top(_mm256_slli_epi16(classes, 6)) << i;
    // The top bit of the byte itself: it belongs to a multi-byte character.
    bits.separator |= top(_mm256_or_si256(_mm256_slli_epi16(classes, 5), lanes)) << i;
    bits.letter |= top(_mm256_or_si256(_mm256_slli_epi16(classes, 4), _mm256_slli_epi16(classes, 3))) << i;
  }
  return bits;
}

inline ByteBits bitsOf64Sse2(const uint8_t* bytes) {
  ByteBits bits;
  for (int i = 0; i < 64; i += 16) {
    const __m128i lanes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + i));
    // value - first <= last - first, unsigned
    auto within = [](__m128i values, char first, char last) {
      const __m128i shifted = _mm_sub_epi8(values, _mm_set1_epi8(first));
      return _mm_cmpeq_epi8(_mm_min_epu8(shifted, _mm_set1_epi8(static_cast<char>(last - first))), shifted);
    };
    const __m128i separators = _mm_or_si128(_mm_or_si128(within(lanes, '(', ')'), within(lanes, '-', '/')), within(lanes, ' ', ' '));
    auto store = [i](uint64_t* out, __m128i found) { *out |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(found))) << i; };
    store(&bits.digit, within(lanes, '0', '9'));
    store(&bits.zero, within(lanes, '0', '0'));
    store(&bits.separator, _mm_or_si128(separators, lanes));
    store(&bits.letter, within(_mm_or_si128(lanes, _mm_set1_epi8(0x20)), 'a', 'z'));
  }
  return bits;
}
#endif

// The bits of a block with those of the blocks beside it: bit i of ahead<k>() is bit i + k, of back<k>() bit i - k.
struct Bits {
  uint64_t before, here, after;
  template <int k>
  uint64_t ahead() const { return here >> k | after << (64 - k); }
  template <int k>
  uint64_t back() const { return here << k | before >> (64 - k); }
};

// Places inside runs that may hold what the rules look for. Dates, times and prices have none of it:
//  - a separator with three digits after it, and before it two digits and more of a run, or another separator;
//  - eleven digits side by side, with two more or a separator behind them;
//  - four gaps with pairs of digits between and after; - two zeros, a digit, and a gap within three bytes.
inline uint64_t suspects(const Bits& digit, const Bits& separator, const Bits& zero, const DigitRules& rules) {
  const uint64_t d = digit.here, s = separator.here;
  const uint64_t d1 = digit.ahead<1>(), d2 = digit.ahead<2>();
  uint64_t found = 0;
  if (rules.afterGap || rules.numbers.kinds != 0) {
    const uint64_t any3 = digit.back<3>() | separator.back<3>();
    found |= s & d1 & d2 & digit.ahead<3>() & (separator.back<1>() | (digit.back<1>() & digit.back<2>() & any3));
  }
  if (rules.numbers.kinds != 0) {
    // row2: this digit and the next, and so on; of this block and of the next.
    const uint64_t row2 = d & d1;
    if (row2 != 0) {
      const uint64_t a2 = digit.after & digit.after >> 1, row4 = row2 & (row2 >> 2 | a2 << 62), a4 = a2 & a2 >> 2;
      const uint64_t row8 = row4 & (row4 >> 4 | a4 << 60);
      const uint64_t row11 = row8 & digit.ahead<8>() & digit.ahead<9>() & digit.ahead<10>();
      if (row11 != 0) {
        found |= row11 & (separator.ahead<11>() | (digit.ahead<11>() & digit.ahead<12>()));
      }
    }
  }
  if (rules.pairs) {
    const uint64_t pair = s & d1 & d2;
    if (pair != 0) {
      const uint64_t after = separator.after & digit.after >> 1 & digit.after >> 2;
      const Bits pairs = {0, pair, after};
      // What the next block's own end cannot tell lies further ahead than is looked.
      found |= pair & pairs.ahead<3>() & pairs.ahead<6>() & pairs.ahead<9>();
    }
  }
  if (rules.zeros) {
    const uint64_t twice = zero.here & zero.ahead<1>();
    if (twice != 0) {
      const uint64_t gap = separator.ahead<3>() | (digit.ahead<3>() & (separator.ahead<4>() | (digit.ahead<4>() & separator.ahead<5>())));
      found |= twice & d2 & ~zero.ahead<2>() & gap;
    }
  }
  return found;
}

// The run around bytes[at], which lies in one. `read`: runs before it were read, moved on.
template <class Emit>
bool readRunAround(const uint8_t* bytes, size_t length, size_t at, const DigitRules& rules, size_t* read, Emit emit) {
  size_t start = at, end = at, digits = 0;
  while (start > *read && inRun(bytes[start - 1])) digits += kClasses.of[bytes[--start]] & kDigit;
  while (end < length && inRun(bytes[end])) digits += kClasses.of[bytes[end++]] & kDigit;
  *read = end;
  if (!emit.spend(end - start)) return false;
  return digits < static_cast<size_t>(rules.least) || readRun(bytes, start, end, rules, digits, emit);
}

// @tparam bitsOf64 how the bytes of a block are classed
template <class BitsOf64, class Emit>
bool scanBlocks(const uint8_t* bytes, size_t length, const DigitRules& rules, const CodeTable& table, BitsOf64 bitsOf64, Emit emit) {
  const auto block = [&](size_t base) {
    if (base >= length) return ByteBits{};
    if (length - base >= 64) return bitsOf64(bytes + base);
    uint8_t padded[64] = {};
    memcpy(padded, bytes + base, length - base);
    return bitsOf64(padded);
  };
  size_t read = 0;
  ByteBits before, here = block(0);
  for (size_t base = 0; base < length; base += 64) {
    const ByteBits after = block(base + 64);
    if (rules.least != 0) {
      const Bits digit = {before.digit, here.digit, after.digit}, separator = {before.separator, here.separator, after.separator};
      for (uint64_t found = suspects(digit, separator, {before.zero, here.zero, after.zero}, rules); found != 0; found &= found - 1) {
        const size_t at = base + static_cast<size_t>(__builtin_ctzll(found));
        if (at >= read && !readRunAround(bytes, length, at, rules, &read, emit)) return false;
      }
    }
    if (table.kinds != 0) {
      const Bits digit = {0, here.digit, after.digit}, letter = {0, here.letter, after.letter};
      for (uint64_t found = letter.here & letter.ahead<1>() & digit.ahead<2>() & digit.ahead<3>(); found != 0; found &= found - 1) {
        if (!tryCode(bytes, length, base + static_cast<size_t>(__builtin_ctzll(found)), table, emit)) return false;
      }
    }
    before = here;
    here = after;
  }
  return true;
}

#if defined(__x86_64__)
template <class Emit>
__attribute__((target("avx2"), flatten)) bool scanBlocksAvx2(const uint8_t* bytes, size_t length, const DigitRules& rules, const CodeTable& table, Emit emit) {
  return scanBlocks(bytes, length, rules, table, [](const uint8_t* block) __attribute__((target("avx2"))) { return bitsOf64Avx2(block); }, emit);
}
#endif

// Digit groups and codes in one pass. `lanes` as lanesHere() in literals.h says, or less.
template <class Emit>
bool scanDigits(const uint8_t* bytes, size_t length, const DigitRules& rules, const CodeTable& table, size_t lanes, Emit emit) {
  if (rules.least == 0 && table.kinds == 0) return true;
#if defined(__x86_64__)
  if (lanes == 32) return scanBlocksAvx2(bytes, length, rules, table, emit);
  return scanBlocks(bytes, length, rules, table, bitsOf64Sse2, emit);
#else
  (void)lanes;
  return scanBlocks(bytes, length, rules, table, bitsOf64Portable, emit);
#endif
}

}  // namespace sluice
